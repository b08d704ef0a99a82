"""Which cases a benchmark is made of: held-out normal ones, and those of another data set."""

import logging
from pathlib import Path
from typing import Any

from nnood.case_files import Cases, list_cases
from nnood.datasets import Dataset, find_dataset_name, load_dataset
from nnood.errors import UserError, one_error
from nnood.evaluation.folders import find_masks, read_sample_labels
from nnood.geometry import Geometry
from nnood.images import read_case, read_image
from nnood.parallel import map_cases
from nnood.paths import Roots
from nnood.plan import PLANS_FILE
from nnood.planning.foreground import BackgroundStatistics, background_statistics, choose_method
from nnood.safety import read_json

COMPUTED_METHODS = ("whole", "nonzero", "otsu")

logger = logging.getLogger(__name__)


def held_out_cases(raw: Dataset, roots: Roots, *, fold: int | None, recipe: str) -> Cases:
    """Find the normal cases that no network was trained on.

    Args:
        raw: The data set.
        roots: The three root folders.
        fold: The fold whose left-out cases to take; None for the normal ones among the test images.
        recipe: Name of the recipe that the fold is of.

    Raises:
        UserError: If there are none, no such fold, or labels are broken.
    """
    if fold is not None:
        return _left_out(raw, roots.preprocessed / raw.name / "cross_validation" / f"{recipe}.json", fold)
    advice = "give --fold N to take the cases that fold N leaves out, and train that fold only"
    folder = raw.folder / "imagesTs"
    if not folder.is_dir() or not any(folder.iterdir()):
        raise UserError(f"{raw.name} has no test images (imagesTs) to make a benchmark of; {advice}.")
    cases = list_cases(folder, raw.channels)
    anomalous = _anomalous_cases(raw.folder, cases)
    normal = {case: files for case, files in cases.items() if case not in anomalous}
    if not normal:
        raise UserError(f"{folder} holds no normal case, going by the labels beside it; {advice}.")
    return normal


def _anomalous_cases(folder: Path, cases: Cases) -> set[str]:
    """The test cases that are labelled anomalous, by a mask that is not empty or by the table.

    Raises:
        UserError: If labels are broken or their names fit no case: an anomalous case must not pass for a normal one.
    """
    masks, table = folder / "labelsTs", folder / "labelsTs.csv"
    found: set[str] = set()
    if not masks.is_dir() and not table.is_file():
        logger.info("%s has neither labelsTs nor labelsTs.csv; all of its test images are taken as normal.", folder)
    faults = []
    if table.is_file():
        listed = read_sample_labels(table)
        unlisted = sorted(cases.keys() - listed.keys()) if not masks.is_dir() else []
        faults += [f"{table} does not list the case {case}; add it." for case in unlisted]
        faults += [f"{table} lists {case}, which imagesTs lacks; correct it." for case in sorted(listed.keys() - cases)]
        found |= {case for case, anomalous in listed.items() if anomalous}
    for case, path in find_masks(masks).items() if masks.is_dir() else ():
        if case not in cases:
            faults.append(
                f"{path} is the mask of no case in imagesTs; name it as the image, without a channel's number."
            )
            continue
        try:
            if read_image(path)[0].any():
                found.add(case)
        except UserError as error:
            faults.append(str(error))
    one_error(faults)
    return found


def _left_out(raw: Dataset, file: Path, fold: int) -> Cases:
    """The cases that a fold of a recipe leaves out."""
    if not file.is_file():
        raise UserError(
            f"{file} does not exist, so there are no folds yet; make them with nnood_cross_validation -d {raw.name}, "
            "or name another recipe (-r)."
        )
    folds = read_json(file)
    if not isinstance(folds, list) or not folds or not all(_is_fold(entry) for entry in folds):
        raise UserError(
            f"{file} must be a list of folds with train_cases and val_cases; correct it, or delete it to have it made "
            "anew."
        )
    if not 0 <= fold < len(folds):
        raise UserError(f"{file} has no fold {fold}; expected one from 0 to {len(folds) - 1}.")
    names = sorted(set(folds[fold]["val_cases"]))
    both = sorted(set(names) & set(folds[fold]["train_cases"]))
    if both:
        raise UserError(f"{file}, fold {fold}: case {both[0]} is in both training and validation; remove it from one.")
    missing = [name for name in names if name not in raw.training]
    if missing or not names:
        what = f"names the case {missing[0]}, which imagesTr lacks" if missing else "leaves no case out"
        raise UserError(f"{file}: fold {fold} {what}; correct the file or the data set.")
    return {name: raw.training[name] for name in names}


def _is_fold(entry: Any) -> bool:
    """Whether an entry has lists of names of training cases and of held-out ones."""
    lists = [entry.get(key) for key in ("train_cases", "val_cases")] if isinstance(entry, dict) else [None]
    return all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists)


def foreign_cases(dataset: str, raw: Dataset, sample: list[Path], roots: Roots) -> tuple[str, Cases]:
    """Find the images of another data set, its test images or else its training images.

    Args:
        dataset: Id or name of the other one.
        raw: The data set that the benchmark is for.
        sample: The files of one of its cases, by which dimensions are compared.
        roots: The three root folders.

    Returns:
        The other data set's name, and its cases.

    Raises:
        UserError: If it is the same data set, or differs in channels or dimensions.
    """
    name = find_dataset_name(dataset, roots)
    if name == raw.name:
        raise UserError(f"The foreign data set is {name} itself; name another one (--foreign).")
    other = load_dataset(name, roots)
    if other.channels != raw.channels:
        raise UserError(
            f"The foreign data set {name} has {other.channels} channel(s) but {raw.name} has {raw.channels}; "
            "name one with as many (--foreign)."
        )
    tests = other.folder / "imagesTs"
    cases = list_cases(tests, other.channels) if tests.is_dir() and any(tests.iterdir()) else other.training
    mine, foreign = (_geometry(files).dimensions for files in (sample, next(iter(cases.values()))))
    if mine != foreign:
        raise UserError(
            f"The foreign data set {name} holds {foreign}D images but {raw.name} {mine}D ones; "
            "name one with as many dimensions (--foreign)."
        )
    return name, cases


def _geometry(files: list[Path]) -> Geometry:
    return read_image(files[0])[1]


def foreground_method(raw: Dataset, roots: Roots, cases: Cases, *, processes: int) -> str:
    """How to find the foreground: as planned, as the user set it, or decided by the held-out images themselves.

    Returns:
        `whole`, `nonzero` or `otsu`.
    """
    plans = roots.preprocessed / raw.name / PLANS_FILE
    planned = _planned_method(read_json(plans)) if plans.is_file() else raw.overrides.foreground
    if planned in COMPUTED_METHODS:
        return planned
    arguments = {case: (files, raw.channels) for case, files in cases.items()}
    # Broken cases are reported when their turn comes.
    found, _ = map_cases(_statistics, arguments, processes=processes, description="Looking for the background")
    method, reason = choose_method(list(found.values()))
    logger.info("Foreground: '%s', because %s.", method, reason)
    return method


def _planned_method(plans: Any) -> str | None:
    block = plans.get("nnood") if isinstance(plans, dict) else None
    return block.get("foreground_method") if isinstance(block, dict) else None


def _statistics(files: list[Path], channels: int) -> BackgroundStatistics:
    return background_statistics(read_case(files, channels)[0])
