from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnood.errors import UserError
from nnood.paths import Roots
from nnood.safety import read_json, write_json
from nnood.training.case_folds import case_folds
from nnood.training.cross_validation import cross_validate, describe_folds, fold_for_all, load_folds, write_folds
from nnood.training.recipes import DEFAULT_RECIPE, RECIPES, get_recipe
from nnood.training.schemes import Fold

RECIPE = get_recipe(DEFAULT_RECIPE)
PAIRED = get_recipe("many_tasks_2of5")
CASES = [f"case_{number:02d}" for number in range(11)]
PATIENTS = {case: f"p{number // 2}" for number, case in enumerate(CASES)}


def edited(folder: Path, **changes: Any) -> None:
    """Write the recipe's folds, then change the first one by hand."""
    load_folds(folder, RECIPE, CASES)
    file = folder / "cross_validation" / f"{RECIPE.name}.json"
    content = read_json(file)
    content[0].update(changes)
    write_json(file, content)


@pytest.mark.parametrize("number", [2, 3, 5, 11])
def test_folds_partition_the_cases(tmp_path: Path, number: int) -> None:
    cases = CASES[:number]
    folds = load_folds(tmp_path, RECIPE, cases)
    assert len(folds) == min(5, number)
    assert sorted(case for fold in folds for case in fold.val_cases) == cases
    for fold in folds:
        assert sorted((*fold.train_cases, *fold.val_cases)) == cases
        assert fold.train_tasks == fold.val_tasks == tuple(RECIPE.tasks)
    sizes = [len(fold.val_cases) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_folds_are_made_once_and_shared(tmp_path: Path) -> None:
    folds = load_folds(tmp_path, RECIPE, CASES)
    assert load_folds(tmp_path, RECIPE, CASES) == folds
    shared = case_folds(tmp_path, list(reversed(CASES)))
    assert [entry.val for entry in shared.folds] == [fold.val_cases for fold in folds]
    other = tmp_path / "elsewhere"
    assert load_folds(other, RECIPE, list(reversed(CASES))) == folds


def test_one_case_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 1 training case; cross-validation needs at least 2"):
        load_folds(tmp_path, RECIPE, CASES[:1])
    assert not list(tmp_path.iterdir())


def test_a_sensible_edit_is_respected(tmp_path: Path) -> None:
    edited(tmp_path, val_cases=CASES[:2], train_cases=CASES[5:], train_tasks=["fpi"])
    fold = load_folds(tmp_path, RECIPE, CASES)[0]
    assert (fold.val_cases, fold.train_cases, fold.train_tasks) == (tuple(CASES[:2]), tuple(CASES[5:]), ("fpi",))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"val_cases": ["case_77"]}, r"fold 0: unknown case case_77; correct"),
        ({"train_cases": CASES[:5], "val_cases": CASES[4:]}, r"fold 0: case case_04 is in both"),
        ({"val_tasks": ["fpi", "cutpast"]}, r"fold 0: unknown task 'cutpast'; known are fpi"),
        ({"val_cases": []}, r"fold 0: val_cases is empty"),
        ({"val_cases": "case_01"}, r"list of folds .*val_cases is 'case_01'"),
        ({"train_cases": [["case_01"], 3]}, r"list of folds .*train_cases is "),
    ],
)
def test_faults_of_a_hand_edited_file_are_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    edited(tmp_path, **changes)
    with pytest.raises(UserError, match=rf"{RECIPE.name}\.json.*{sentence}"):
        load_folds(tmp_path, RECIPE, CASES)


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    edited(tmp_path, train_cases=["case_77"], val_tasks=["cutpast"])
    with pytest.raises(UserError, match=r"(?s)2 faults.*case_77.*cutpast"):
        load_folds(tmp_path, RECIPE, CASES)


@pytest.mark.parametrize("content", [{"folds": []}, {}, 3, [["case_01"]], [3], [{"train_cases": CASES}]])
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "cross_validation" / f"{RECIPE.name}.json", content)
    with pytest.raises(UserError, match="must be a list of folds with train_cases"):
        load_folds(tmp_path, RECIPE, CASES)


def test_a_file_without_folds_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "cross_validation" / f"{RECIPE.name}.json", [])
    with pytest.raises(UserError, match=rf"{RECIPE.name}\.json holds no fold; delete it"):
        load_folds(tmp_path, RECIPE, CASES)


def test_a_group_on_both_sides_is_refused(tmp_path: Path) -> None:
    write_folds(tmp_path, RECIPE, CASES, groups=PATIENTS)
    assert len(load_folds(tmp_path, RECIPE, CASES)) == 5
    edited(tmp_path, train_cases=["case_00", "case_04"], val_cases=["case_01", "case_06"])
    with pytest.raises(UserError, match=rf"{RECIPE.name}\.json, fold 0: group p0 is in both training and validation"):
        load_folds(tmp_path, RECIPE, CASES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_scheme_splits_a_group(tmp_path: Path, recipe: str) -> None:
    for fold in write_folds(tmp_path, get_recipe(recipe), CASES, groups=PATIENTS):
        assert not {PATIENTS[case] for case in fold.train_cases} & {PATIENTS[case] for case in fold.val_cases}


def test_recipes_share_the_folds_over_cases(tmp_path: Path) -> None:
    write_folds(tmp_path, RECIPE, CASES, groups=PATIENTS)
    held_out = [fold.val_cases for fold in load_folds(tmp_path, RECIPE, CASES)]
    first = load_folds(tmp_path, get_recipe("many_tasks_1of5"), CASES)
    assert [fold.train_cases for fold in first] == held_out


def test_a_data_set_that_changed_is_noticed(tmp_path: Path) -> None:
    load_folds(tmp_path, RECIPE, CASES)
    with pytest.raises(UserError, match=r"case_folds\.json lacks the case new, so the data set changed"):
        load_folds(tmp_path, RECIPE, [*CASES, "new"])
    with pytest.raises(UserError, match=r"case_folds\.json names the unknown case case_10"):
        load_folds(tmp_path, RECIPE, CASES[:-1])


def test_a_recipes_file_stands_alone(tmp_path: Path) -> None:
    folds = load_folds(tmp_path, PAIRED, CASES)
    (tmp_path / "case_folds.json").unlink()
    assert load_folds(tmp_path, PAIRED, CASES) == folds
    assert not (tmp_path / "case_folds.json").exists()


def test_other_folds_are_not_overwritten(tmp_path: Path) -> None:
    folds = write_folds(tmp_path, RECIPE, CASES)
    assert write_folds(tmp_path, RECIPE, CASES, number=5) == folds
    file = tmp_path / "cross_validation" / f"{RECIPE.name}.json"
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"nnood\.json holds other folds than the scheme leave_task_out .* delete it"):
        write_folds(tmp_path, replace(RECIPE, scheme="leave_task_out"), CASES)
    with pytest.raises(UserError, match=r"case_folds\.json holds other folds"):
        write_folds(tmp_path, RECIPE, CASES, number=3)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "scheme"), [({"number": 3}, "paired(2)"), ({"number": 12}, "per_task"), ({}, "paired(5)")]
)
def test_what_does_not_fit_leaves_nothing_behind(tmp_path: Path, options: dict[str, int], scheme: str) -> None:
    with pytest.raises(UserError):
        write_folds(tmp_path, replace(PAIRED, scheme=scheme), CASES, **options)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def cross(tmp_path: Path) -> Callable[..., Any]:
    """Calls `cross_validate` for a data set of which only the plans and the list of cases are there."""
    roots = Roots.under(tmp_path)
    folder = roots.preprocessed / "Dataset001_Name"
    (roots.raw / folder.name).mkdir(parents=True)
    write_json(folder / "nnoodPlans.json", {})
    write_json(folder / "case_list.json", CASES)
    return lambda **options: cross_validate("1", roots, **options)


def test_the_command_writes_what_training_reads(cross: Callable[..., Any], tmp_path: Path) -> None:
    made = cross(recipe="many_tasks_3of5", groups="case_.", number=2, scheme="leave_task_out")
    folder = tmp_path / "preprocessed" / "Dataset001_Name"
    assert made.files == [folder / "case_folds.json", folder / "cross_validation" / "many_tasks_3of5.json"]
    assert load_folds(folder, get_recipe("many_tasks_3of5"), CASES) == made.folds
    assert sorted(len(fold.val_cases) for fold in made.folds) == [1, 10]
    assert [fold.val_tasks for fold in made.folds] == [("poisson_inter",), ("poisson_intra",)]
    other = cross(recipe="many_tasks_3of5", tasks=["fpi", "dag"], scheme="paired(1)")
    assert other.recipe == "many_tasks_3of5-fpi+dag"
    assert other.files[1].name == "many_tasks_3of5-fpi+dag.json"
    assert [fold.train_tasks for fold in other.folds] == [("fpi",), ("dag",)]


def test_the_command_shows_a_hand_edited_file(cross: Callable[..., Any]) -> None:
    file = cross().files[1]
    content = read_json(file)[:2]
    content[0]["train_tasks"] = ["fpi"]
    write_json(file, content)
    assert [fold.train_tasks for fold in cross().folds] == [("fpi",), tuple(RECIPE.tasks)]
    for options in ({"scheme": "per_task"}, {"number": 5}, {"number": 2}, {"groups": "case_.."}):
        with pytest.raises(UserError, match="holds other folds"):
            cross(**options)
    assert read_json(file) == content


def test_the_table_of_folds() -> None:
    folds = [Fold(("a", "b"), ("c",), ("fpi", "dag"), ("pii",)), Fold(("a",), ("b", "c"), ("fpi",), ("pii", "nsa"))]
    assert describe_folds(folds).splitlines() == [
        "fold  training cases  validation cases  training tasks  validation tasks",
        "0     2               1                 fpi, dag        pii",
        "1     1               2                 fpi             pii, nsa",
    ]


def test_fold_all_holds_everything() -> None:
    fold = fold_for_all(RECIPE, CASES)
    assert fold.train_cases == fold.val_cases == tuple(CASES)
    assert fold.train_tasks == fold.val_tasks == tuple(RECIPE.tasks)


@pytest.mark.parametrize("number", [None, 3])
def test_the_groups_of_a_raw_data_set_are_kept_together(cross: Callable[..., Any], tmp_path: Path, number: int) -> None:
    table = tmp_path / "raw" / "Dataset001_Name" / "groups.csv"
    table.write_text("\n".join(["case,group", *map(",".join, PATIENTS.items()), "came_later,p0"]))
    made = cross(number=number)
    assert read_json(made.files[0])["groups"] == PATIENTS
    assert len(made.folds) == (number or 5)
    for fold in made.folds:
        assert not {PATIENTS[case] for case in fold.train_cases} & {PATIENTS[case] for case in fold.val_cases}
    table.write_text("case,group\n")  # read only where folds are made
    assert cross() == made


def test_other_groups_that_the_user_gives_win(cross: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "raw" / "Dataset001_Name" / "groups.csv").write_text("no table")
    assert set(read_json(cross(groups="case_.").files[0])["groups"].values()) == {"case_0", "case_1"}


def test_a_faulty_table_of_groups_is_named(cross: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "raw" / "Dataset001_Name" / "groups.csv").write_text("case,group\ncase_00,a\n")
    with pytest.raises(UserError, match=r"groups\.csv does not list the case case_01"):
        cross()
