from pathlib import Path
from typing import Any

import pytest

from nnood.errors import UserError
from nnood.safety import read_json, write_json
from nnood.training.cross_validation import case_folds, fold_for_all, load_folds
from nnood.training.recipes import DEFAULT_RECIPE, get_recipe

RECIPE = get_recipe(DEFAULT_RECIPE)
CASES = [f"case_{number:02d}" for number in range(11)]


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
    assert [tuple(entry["val"]) for entry in shared] == [fold.val_cases for fold in folds]
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


@pytest.mark.parametrize("content", [{"folds": []}, 3, [["case_01"]], [{"train_cases": CASES}]])
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "cross_validation" / f"{RECIPE.name}.json", content)
    with pytest.raises(UserError, match="must be a list of folds with train_cases"):
        load_folds(tmp_path, RECIPE, CASES)


def test_fold_all_holds_everything() -> None:
    fold = fold_for_all(RECIPE, CASES)
    assert fold.train_cases == fold.val_cases == tuple(CASES)
    assert fold.train_tasks == fold.val_tasks == tuple(RECIPE.tasks)
