"""Which cases and tasks each fold trains and validates on: written once, then read by everything else."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnood.datasets import find_dataset_name
from nnood.errors import UserError, one_error
from nnood.paths import Roots
from nnood.plan import CASE_LIST_FILE
from nnood.safety import read_json, write_json
from nnood.tasks import TASKS
from nnood.training.case_folds import (
    CASE_FOLDS_FILE,
    case_folds,
    read_case_folds,
    split_faults,
    write_case_folds,
)
from nnood.training.case_groups import find_groups, recorded_groups
from nnood.training.choices import load_plans, with_tasks
from nnood.training.recipes import DEFAULT_RECIPE, Recipe, get_recipe
from nnood.training.schemes import Fold, make_folds, refuse_unknown_scheme

__all__ = [
    "CrossValidation",
    "Fold",
    "cross_validate",
    "describe_folds",
    "fold_for_all",
    "folds_file",
    "load_folds",
    "write_folds",
]


@dataclass(frozen=True)
class CrossValidation:
    """The folds of a recipe on a data set.

    Attributes:
        recipe: Name of the recipe; of its own if the user chose the tasks.
        folds: One network each.
        files: Where they are written.
    """

    recipe: str
    folds: list[Fold]
    files: list[Path]


def cross_validate(
    dataset: str,
    roots: Roots,
    *,
    recipe: str = DEFAULT_RECIPE,
    scheme: str | None = None,
    tasks: Sequence[str] = (),
    number: int | None = None,
    groups: str | None = None,
) -> CrossValidation:
    """Write a recipe's folds; check and return those that are there, edited by hand or not, if nothing is asked for.

    Args:
        dataset: Id or name of a planned data set.
        roots: The three root folders.
        recipe: Name of a recipe.
        scheme: In the place of the recipe's.
        tasks: In the place of the recipe's; the name of the file says so.
        number: Of folds over cases; None: as many as there are, or five.
        groups: Which cases stay together (`find_groups`); None: as it is, or as `groups.csv` of the raw data set says.

    Raises:
        UserError: If the data set has not been planned, a choice does not exist or fit, a file is faulty, or holds
            other folds than wanted.
    """
    name = find_dataset_name(dataset, roots)
    load_plans(roots, name)
    folder = roots.preprocessed / name
    chosen = with_tasks(get_recipe(recipe), tasks)
    if scheme is not None:
        refuse_unknown_scheme(scheme)
        try:
            chosen = dataclasses.replace(chosen, scheme=scheme)
        except ValueError as error:
            raise UserError(f"The scheme does not fit the recipe {chosen.name}: {error}.") from error
    cases = read_json(folder / CASE_LIST_FILE)
    found = None if groups is None else find_groups(groups, cases)
    if scheme is None and number is None and groups is None:
        folds = load_folds(folder, chosen, cases, raw=roots.raw / name)
    else:
        folds = write_folds(folder, chosen, cases, number=number, groups=found, raw=roots.raw / name)
    files = [folder / CASE_FOLDS_FILE, folds_file(folder, chosen.name)]
    return CrossValidation(chosen.name, folds, [file for file in files if file.exists()])


def folds_file(folder: Path, recipe: str) -> Path:
    """The file of a recipe's folds in a preprocessed data set."""
    return folder / "cross_validation" / f"{recipe}.json"


def load_folds(folder: Path, recipe: Recipe, cases: list[str], *, raw: Path | None = None) -> list[Fold]:
    """The folds of a recipe from `cross_validation/RECIPE.json`; written by the recipe's scheme when first needed.

    Args:
        folder: The preprocessed data set.
        recipe: The recipe.
        cases: All training cases of the data set.
        raw: The raw data set, as for `write_folds`.

    Raises:
        UserError: If the file, which a user may edit, names unknown cases or tasks, or trains on a case or group that
            it validates on; or if the folds over cases are faulty.
    """
    file = folds_file(folder, recipe.name)
    if not file.exists():
        return write_folds(folder, recipe, cases, raw=raw)
    shared = (folder / CASE_FOLDS_FILE).exists()
    return _read_folds(file, recipe, cases, read_case_folds(folder, cases).groups if shared else {})


def write_folds(
    folder: Path,
    recipe: Recipe,
    cases: list[str],
    *,
    number: int | None = None,
    groups: Mapping[str, str] | None = None,
    raw: Path | None = None,
) -> list[Fold]:
    """Write the folds over cases and those of a recipe, by its scheme; files that hold just these stay.

    Args:
        folder: The preprocessed data set.
        recipe: The recipe.
        cases: All training cases of the data set.
        number: Of folds over cases; None: as many as there are, or five.
        groups: Case to the group whose cases stay together; None: as it is, or as `raw` says, or every case alone.
        raw: The raw data set, whose `groups.csv` is read where folds over cases are made; None: there is none.

    Raises:
        UserError: If a file is faulty or holds other folds, or the scheme does not fit; then nothing is written.
    """
    file = folds_file(folder, recipe.name)
    if groups is None and raw is not None and not (folder / CASE_FOLDS_FILE).exists():
        groups = recorded_groups(raw, cases)
    shared = case_folds(folder, cases, number=number, groups=groups)
    folds = make_folds(recipe.scheme, shared.folds, tuple(recipe.tasks))
    if file.exists() and _read_folds(file, recipe, cases, shared.groups) != folds:
        raise UserError(
            f"{file} holds other folds than the scheme {recipe.scheme} would make; train with it as it is, or delete "
            "it to have it made anew."
        )
    write_case_folds(folder, shared)
    if not file.exists():
        write_json(file, [fold.to_dict() for fold in folds])
    return folds


def _read_folds(file: Path, recipe: Recipe, cases: list[str], groups: Mapping[str, str]) -> list[Fold]:
    """Read a recipe's folds and check them."""
    content = read_json(file)
    try:
        if not isinstance(content, list):
            raise TypeError(f"it is a {type(content).__name__}")
        folds = [Fold.from_dict(entry) for entry in content]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{file} must be a list of folds with train_cases, val_cases, train_tasks and val_tasks ({error}); correct "
            "it, or delete it to have it made anew."
        ) from error
    if not folds:
        raise UserError(f"{file} holds no fold; delete it to have it made anew.")
    faults = []
    for number, fold in enumerate(folds):
        faults += _faults(f"{file}, fold {number}", fold, cases, groups)
        faults += _task_faults(f"{file}, fold {number}", fold, recipe)
    one_error(faults)
    return folds


def _faults(where: str, fold: Fold, cases: list[str], groups: Mapping[str, str]) -> list[str]:
    """What is wrong with a fold, in sentences."""
    faults = split_faults(where, fold.train_cases, fold.val_cases, groups)
    unknown = sorted({*fold.train_cases, *fold.val_cases} - set(cases))
    if unknown:
        faults.append(f"{where}: unknown case {unknown[0]}; correct the name or delete the file to have it made anew.")
    tasks = sorted({*fold.train_tasks, *fold.val_tasks} - set(TASKS))
    if tasks:
        faults.append(f"{where}: unknown task {tasks[0]!r}; known are {', '.join(TASKS)}.")
    return faults


def _task_faults(where: str, fold: Fold, recipe: Recipe) -> list[str]:
    """Which entries are empty, or should be."""
    filled = [key for key in Fold.__dataclass_fields__ if recipe.reconstruction is None or key != "train_tasks"]
    advice = "fill it in or delete the file to have it made anew."
    faults = [f"{where}: {key} is empty; {advice}" for key in filled if not getattr(fold, key)]
    if recipe.reconstruction is not None and fold.train_tasks:
        faults.append(f"{where}: train_tasks must be empty, because {recipe.name} learns no task; empty it.")
    return faults


def fold_for_all(recipe: Recipe, cases: list[str]) -> Fold:
    """nnU-Net's fold `all`: one network on all cases and tasks; its validation is on training cases, so optimistic."""
    tasks = tuple(recipe.tasks)
    return Fold(tuple(cases), tuple(cases), () if recipe.reconstruction else tasks, tasks)


def describe_folds(folds: Sequence[Fold]) -> str:
    """A table of folds for the user to read: numbers of cases, and names of tasks."""
    rows = [("fold", "training cases", "validation cases", "training tasks", "validation tasks")]
    for number, fold in enumerate(folds):
        counts = str(len(fold.train_cases)), str(len(fold.val_cases))
        rows.append((str(number), *counts, ", ".join(fold.train_tasks), ", ".join(fold.val_tasks)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
