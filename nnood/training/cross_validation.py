"""Which cases and tasks each fold trains and validates on: written once, then read by everything else."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnood.errors import UserError, one_error
from nnood.safety import read_json, write_json
from nnood.tasks import TASKS
from nnood.training.recipes import Recipe

FOLDS = 5
SEED = 12345  # nnU-Net's


@dataclass(frozen=True)
class Fold:
    """One entry of the cross-validation.

    Attributes:
        train_cases: Cases to train on.
        val_cases: Held-out cases.
        train_tasks: Tasks to train on.
        val_tasks: Tasks to validate with.
    """

    train_cases: tuple[str, ...]
    val_cases: tuple[str, ...]
    train_tasks: tuple[str, ...]
    val_tasks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Fold":
        """Read an entry back.

        Raises:
            KeyError: If a key is missing.
            TypeError: If an entry is no list of names.
        """
        for key in cls.__dataclass_fields__:
            names = content[key]
            if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
                raise TypeError(f"{key} is {names!r}, expected a list of names")
        return cls(**{key: tuple(content[key]) for key in cls.__dataclass_fields__})


def case_folds(folder: Path, cases: list[str]) -> list[dict[str, list[str]]]:
    """The data set's folds over cases, shared by all recipes; written when first needed.

    Args:
        folder: The preprocessed data set.
        cases: All training cases.

    Returns:
        Per fold `train` and `val`: five folds, or as many as there are cases if fewer.

    Raises:
        UserError: If there are fewer than two cases.
    """
    file = folder / "case_folds.json"
    if not file.exists():
        if len(cases) < 2:
            raise UserError(f"{folder.name} has {len(cases)} training case; cross-validation needs at least 2.")
        splits = generate_crossval_split(sorted(cases), seed=SEED, n_splits=min(FOLDS, len(cases)))
        write_json(file, [{"train": list(map(str, s["train"])), "val": list(map(str, s["val"]))} for s in splits])
    return read_json(file)


def load_folds(folder: Path, recipe: Recipe, cases: list[str]) -> list[Fold]:
    """The folds of a recipe from `cross_validation/RECIPE.json`; written by the recipe's scheme when first needed.

    Raises:
        UserError: If the file, which a user may edit, names unknown cases or tasks, or trains on a validation case.
    """
    file = folder / "cross_validation" / f"{recipe.name}.json"
    if not file.exists():
        tasks = tuple(recipe.tasks)
        folds = [Fold(tuple(s["train"]), tuple(s["val"]), tasks, tasks) for s in case_folds(folder, cases)]
        write_json(file, [fold.to_dict() for fold in folds])
    content = read_json(file)
    try:
        folds = [Fold.from_dict(entry) for entry in content]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{file} must be a list of folds with train_cases, val_cases, train_tasks and val_tasks ({error})."
        ) from error
    one_error([fault for number, fold in enumerate(folds) for fault in _faults(f"{file}, fold {number}", fold, cases)])
    return folds


def _faults(where: str, fold: Fold, cases: list[str]) -> list[str]:
    """What is wrong with a fold, in sentences."""
    faults = []
    unknown = sorted({*fold.train_cases, *fold.val_cases} - set(cases))
    if unknown:
        faults.append(f"{where}: unknown case {unknown[0]}; correct the name or delete the file to have it made anew.")
    both = sorted(set(fold.train_cases) & set(fold.val_cases))
    if both:
        faults.append(f"{where}: case {both[0]} is in both training and validation; remove it from one.")
    tasks = sorted({*fold.train_tasks, *fold.val_tasks} - set(TASKS))
    if tasks:
        faults.append(f"{where}: unknown task {tasks[0]!r}; known are {', '.join(TASKS)}.")
    empty = [key for key in Fold.__dataclass_fields__ if not getattr(fold, key)]
    if empty:
        faults.append(f"{where}: {empty[0]} is empty.")
    return faults


def fold_for_all(recipe: Recipe, cases: list[str]) -> Fold:
    """nnU-Net's fold `all`: one network on all cases and tasks; its validation is on training cases, so optimistic."""
    tasks = tuple(recipe.tasks)
    return Fold(tuple(cases), tuple(cases), tasks, tasks)
