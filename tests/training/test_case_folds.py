import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import KFold

from nnood.errors import UserError
from nnood.safety import read_json, write_json
from nnood.training.case_folds import (
    CASE_FOLDS_FILE,
    CaseFold,
    CaseFolds,
    case_folds,
    make_case_folds,
    write_case_folds,
)
from nnood.training.case_groups import find_groups

CASES = [f"p{number // 3}_{number:02d}" for number in range(18)]
PATIENTS = {case: case.split("_")[0] for case in CASES}


def written(folder: Path, **options: Any) -> CaseFolds:
    folds = case_folds(folder, CASES, **options)
    write_case_folds(folder, folds)
    return folds


def edited(folder: Path, edit: Any, **options: Any) -> None:
    """Write the file, then change its content by hand."""
    written(folder, **options)
    content = read_json(folder / CASE_FOLDS_FILE)
    write_json(folder / CASE_FOLDS_FILE, edit(content) or content)


@pytest.mark.parametrize("number", [2, 4, 5, 18])
def test_without_groups_the_split_is_that_of_nnunet(tmp_path: Path, number: int) -> None:
    made = written(tmp_path, number=number)
    names = np.array(sorted(CASES))
    expected = KFold(n_splits=number, shuffle=True, random_state=12345).split(names)
    assert [(set(fold.train), set(fold.val)) for fold in made.folds] == [
        (set(names[train]), set(names[val])) for train, val in expected
    ]
    assert made.groups == {}


def test_five_folds_or_fewer_if_there_are_fewer_cases_or_groups() -> None:
    assert len(make_case_folds("D", CASES, groups={}).folds) == 5
    assert len(make_case_folds("D", CASES[:3], groups={}).folds) == 3
    assert len(make_case_folds("D", CASES, groups=PATIENTS).folds) == 5
    assert len(make_case_folds("D", CASES, groups={case: case[-1] for case in CASES}, number=10).folds) == 10
    assert len(make_case_folds("D", CASES[:9], groups=PATIENTS).folds) == 3


@pytest.mark.parametrize("seed", range(20))
def test_groups_stay_together_in_balanced_folds(seed: int) -> None:
    draw = random.Random(seed)
    cases = [f"case_{number:03d}" for number in range(draw.randint(20, 80))]
    groups = {case: f"g{draw.randint(0, draw.randint(6, 40))}" for case in cases}
    made = make_case_folds("D", cases, groups=groups)
    assert sorted(case for fold in made.folds for case in fold.val) == cases
    for fold in made.folds:
        assert sorted(fold.train + fold.val) == cases
        assert not {groups[case] for case in fold.train} & {groups[case] for case in fold.val}
    largest = max(list(groups.values()).count(group) for group in groups.values())
    sizes = [len(fold.val) for fold in made.folds]
    assert max(sizes) - min(sizes) <= largest
    draw.shuffle(cases)
    assert make_case_folds("D", cases, groups=dict(reversed(groups.items()))) == made


def test_a_file_is_read_back_and_never_overwritten(tmp_path: Path) -> None:
    made = written(tmp_path, number=3, groups=PATIENTS)
    before = (tmp_path / CASE_FOLDS_FILE).read_bytes()
    assert case_folds(tmp_path, CASES) == made
    for same in ({"number": 3}, {"groups": PATIENTS}, {"number": 3, "groups": PATIENTS}):
        assert written(tmp_path, **same) == made
    for other in ({"number": 4}, {"groups": {}}, {"groups": {case: case[-1] for case in CASES}}):
        with pytest.raises(UserError, match=r"case_folds\.json holds other folds .*delete it .*cannot be compared"):
            written(tmp_path, **other)
    assert (tmp_path / CASE_FOLDS_FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("cases", "options", "sentence"),
    [
        (CASES[:1], {}, "D has 1 training case; cross-validation needs at least 2"),
        (CASES[:3], {"groups": PATIENTS}, "D has 1 group; cross-validation needs at least 2"),
        (CASES, {"number": 1}, "--folds is 1, but D has 18 training cases; expected a number from 2 to 18"),
        (CASES, {"number": 7, "groups": PATIENTS}, "--folds is 7, but D has 6 groups; expected a number from 2 to 6"),
    ],
)
def test_too_few_cases_or_groups(cases: list[str], options: dict[str, Any], sentence: str) -> None:
    chosen = {case: group for case, group in options.pop("groups", {}).items() if case in cases}
    with pytest.raises(UserError, match=sentence):
        make_case_folds("D", cases, groups=chosen, **options)


def stray_case(content: Any) -> None:
    content["folds"][0]["val"].append("case_77")


def leak(content: Any) -> None:
    content["folds"][1]["train"].append(content["folds"][1]["val"][0])


def empty(content: Any) -> None:
    content["folds"][2]["val"] = []


def twice(content: Any) -> None:
    content["folds"][0]["train"].append(content["folds"][0]["train"][0])


def held_out_twice(content: Any) -> None:
    case = content["folds"][0]["val"][0]
    content["folds"][1]["train"].remove(case)
    content["folds"][1]["val"].append(case)


def lost_case(content: Any) -> None:
    for fold in content["folds"]:
        for names in fold.values():
            if "p0_00" in names:
                names.remove("p0_00")


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (stray_case, r"names the unknown case case_77; correct .*data set changed"),
        (leak, r"fold 1: case p\d_\d\d is in both training and validation"),
        (empty, r"fold 2: val is empty"),
        (twice, r"fold 0: case p\d_\d\d is named twice"),
        (held_out_twice, r"case p\d_\d\d is held out by folds 0 and 1"),
        (lost_case, r"lacks the case p0_00, so the data set changed after the folds were made; delete it"),
        (lambda content: {**content, "folds": []}, "holds no fold"),
        (lambda content: content["folds"], r"must hold folds.* a list"),
        (lambda content: {"folds": content["folds"]}, r"must hold folds.*'groups'"),
        (lambda content: {**content, "groups": []}, r"must hold folds.*groups"),
        (lambda content: {**content, "folds": [{"train": "p0_00", "val": []}]}, r"must hold folds.*'p0_00'"),
        (lambda content: {**content, "folds": {"0": []}}, r"must hold folds.*no list"),
        (lambda content: {**content, "folds": [["p0_00"]]}, r"must hold folds.*a fold is"),
    ],
)
def test_faults_of_a_hand_edited_file_are_named(tmp_path: Path, edit: Any, sentence: str) -> None:
    edited(tmp_path, edit)
    with pytest.raises(UserError, match=rf"case_folds\.json.*{sentence}"):
        case_folds(tmp_path, CASES)


def move_one_of_a_group(content: Any) -> None:
    first = content["folds"][0]
    first["train"].append(first["val"].pop())


def test_a_group_on_both_sides_is_refused(tmp_path: Path) -> None:
    edited(tmp_path, move_one_of_a_group, groups=PATIENTS)
    with pytest.raises(UserError, match=r"fold 0: group p\d is in both training and validation"):
        case_folds(tmp_path, CASES)


def split_group(content: Any) -> None:
    """Hold one case of a group out elsewhere, and train on it nowhere."""
    first, second = content["folds"][:2]
    moved = first["val"].pop()
    second["train"] = [case for case in second["train"] if PATIENTS[case] != PATIENTS[moved]]
    second["val"].append(moved)


def test_a_group_that_two_folds_hold_out_is_refused(tmp_path: Path) -> None:
    edited(tmp_path, split_group, groups=PATIENTS)
    with pytest.raises(UserError, match=r"^\S+case_folds\.json: group p\d is held out by folds 0 and 1"):
        case_folds(tmp_path, CASES)


def test_groups_must_fit_the_cases(tmp_path: Path) -> None:
    edited(tmp_path, lambda content: content["groups"].pop("p0_01") and None, groups=PATIENTS)
    with pytest.raises(UserError, match=r"groups lacks the case p0_01; add it"):
        case_folds(tmp_path, CASES)
    edited(tmp_path / "b", lambda content: content["groups"].update(case_77="p0"), groups=PATIENTS)
    with pytest.raises(UserError, match=r"unknown case case_77"):
        case_folds(tmp_path / "b", CASES)


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    def edit(content: Any) -> None:
        for fault in (stray_case, leak, lost_case):
            fault(content)

    edited(tmp_path, edit)
    with pytest.raises(UserError, match=r"(?s)3 faults.*both.*unknown case.*lacks the case"):
        case_folds(tmp_path, CASES)


def test_a_sensible_edit_is_respected(tmp_path: Path) -> None:
    fold = CaseFold(tuple(CASES[3:]), tuple(CASES[:3]))
    write_json(tmp_path / CASE_FOLDS_FILE, CaseFolds((fold,), {}).to_dict())
    assert case_folds(tmp_path, CASES).folds == (fold,)


# ---- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["p[0-9]+", "(p[0-9]+)_", "^(?P<patient>[^_]+)", "(?:p)[0-9]"])
def test_groups_by_a_regular_expression(text: str) -> None:
    assert find_groups(text, CASES) == PATIENTS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("p[0-4]_", r"'p\[0-4\]_' finds no group in the name of 3 of 18 cases, such as p5_15; correct"),
        ("(q)?p", "finds no group in the name of 18 of 18 cases"),
        ("q*", "finds no group in the name of 18 of 18 cases"),
        ("(p[0-9]+", r"'\(p\[0-9\]\+' is no regular expression \(.*\); correct it"),
        ("a{99999999999999999999}", "is no regular expression"),
        ("nowhere.csv", "nowhere.csv does not exist; correct the name"),
    ],
)
def test_expressions_that_do_not_fit(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        find_groups(text, CASES)


def test_groups_by_a_table(tmp_path: Path) -> None:
    table = tmp_path / "patients.CSV"
    rows = [f"{case}, {group}" for case, group in reversed(PATIENTS.items())]
    table.write_text("\ufeffcase,group\n" + "\n".join(rows) + "\n\n")
    assert find_groups(str(table), CASES) == PATIENTS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "Expected the header case,group, but got nothing"),
        ("case,label\na,0\n", "Expected the header case,group, but got 'case,label'"),
        ("case,group\na,x\nb\n", r"(?s)row 3: Expected a case and a group, but got 'b'.*not list the case b"),
        ("case,group\na,x\nb,\n", "row 3: Expected a case and a group, but got 'b,'"),
        ("case,group\na,x\na,y\nb,x\n", "row 3: The case a was listed before"),
        ("case,group\na,x\nb,y\nc,z\n", "lists the unknown case c; correct it"),
        ("case,group\na,x\n", "does not list the case b; add it"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, text: str, sentence: str) -> None:
    table = tmp_path / "groups.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=sentence):
        find_groups(str(table), ["a", "b"])


def test_a_table_that_is_none(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_bytes(b"case,group\n\xff\xfe,x\n")
    with pytest.raises(UserError, match="is no CSV file in UTF-8"):
        find_groups(str(table), ["a", "b"])
