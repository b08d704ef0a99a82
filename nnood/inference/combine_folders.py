"""Combine the predictions in several folders into one, case by case."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnood.errors import UserError, one_error
from nnood.evaluation.folders import read_note, read_sample_scores
from nnood.evaluation.histogram import ScoreHistogram, count_bins
from nnood.geometry import Geometry
from nnood.images import read_image
from nnood.inference.ensembling import Combiner, reference_quantiles
from nnood.inference.export import prediction_files, write_prediction
from nnood.inference.notes import write_note
from nnood.safety import read_receipt, remove_leftovers, sha256, write_receipt
from nnood.scores import sample_score

logger = logging.getLogger(__name__)

RECEIPTS = ".receipts"


def ensemble(folders: Sequence[Path], output: Path, *, combination: str = "mean") -> dict[str, float]:
    """Combine predictions of the same cases; the sample score is taken of the combined map.

    Args:
        folders: As nnood_predict wrote them, or in the same layout.
        output: Gets the combined ones, in the same layout.
        combination: One of `nnood.inference.ensembling.COMBINATIONS`; for the mean of ranks, each folder is its own
            reference.

    Returns:
        Sample score by case.

    Raises:
        UserError: If there are fewer than two folders, they differ in cases or geometry, or a file is broken;
            in the latter case the other cases are finished.
    """
    _refuse_same_folders(folders, output)
    cases = _common_cases(folders)
    _warn_of_other_scales(folders, combination)
    references = [_own_quantiles(folder, cases) if combination == "rank_mean" else () for folder in folders]
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    remove_leftovers(output / RECEIPTS)
    write_note(output, _combined_note(folders, combination, cases))
    scores: dict[str, float] = {}
    faults: list[str] = []
    for name in tqdm(cases, desc="Combining", unit="case", disable=None):
        maps = [prediction_files(folder, name)[0] for folder in folders]
        receipt, outputs = output / RECEIPTS / f"{name}.json", prediction_files(output, name)
        # The score maps have the same name in all folders, so they are part of the settings.
        settings = {
            "combination": combination,
            "quantiles": references,
            "maps": [sha256(file) for file in maps],
        }
        known = read_receipt(receipt, settings=settings, inputs=[], outputs=outputs)
        if known is None:
            try:
                combined, geometry = _combine(maps, combination, references)
            except UserError as error:
                faults.append(str(error))
                continue
            known = {"sample_score": sample_score(combined)}
            write_prediction(combined, known["sample_score"], geometry, output, name)
            write_receipt(receipt, settings=settings, inputs=[], outputs=outputs, result=known)
        scores[name] = known["sample_score"]
    one_error(faults)
    return scores


def read_score_map(file: Path) -> tuple[np.ndarray, Geometry]:
    """Read a score map (Z, Y, X), checked.

    Raises:
        UserError: If it is broken, or no score map.
    """
    values, geometry = read_image(file)
    if len(values) != 1 or values.min() < 0 or values.max() > 1:
        raise UserError(f"{file} is no score map: expected one channel of scores in [0, 1]; predict the case again.")
    score_map = values[0].astype(np.float32, copy=False)
    return (score_map[None] if score_map.ndim == 2 else score_map), geometry


def _refuse_same_folders(folders: Sequence[Path], output: Path) -> None:
    """Check that there are several folders, all different, and another one to write to."""
    places = [folder.resolve() for folder in folders]
    if len(places) < 2:
        raise UserError(f"There is nothing to combine with {folders[0]}; name at least two folders (-i).")
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"{folders[number]} is named twice (-i); leave it out once.")
    if output.resolve() in places:
        raise UserError(f"{output} holds predictions to combine, which would be overwritten; choose another (-o).")


def _warn_of_other_scales(folders: Sequence[Path], combination: str) -> None:
    """Tell when scores are of different scales: a plan's calibrated ones are no network's; only ranks need no scale."""
    planned = [bool(read_note(folder).get("plan")) for folder in folders]
    if combination != "rank_mean" and len(set(planned)) > 1:
        logger.warning(
            "%s went through an inference plan but %s did not, so their scores differ in scale; better predict all "
            "plainly with nnood_predict -f, or combine with rank_mean.",
            folders[planned.index(True)],
            folders[planned.index(False)],
        )


def _common_cases(folders: Sequence[Path]) -> list[str]:
    """The cases, which must be the same in all folders."""
    found = [set(read_sample_scores(folder)) for folder in folders]
    for folder, names in zip(folders[1:], found[1:], strict=True):
        for lacking, there, others in ((folder, folders[0], found[0] - names), (folders[0], folder, names - found[0])):
            if others:
                missing = prediction_files(lacking, min(others))[0]
                raise UserError(f"{missing} is missing, but {there} has this case; predict it there too.")
    return sorted(found[0])


def _own_quantiles(folder: Path, cases: Sequence[str]) -> tuple[float, ...]:
    """The quantiles of all scores in a folder."""
    histogram = ScoreHistogram()
    for name in tqdm(cases, desc=f"Ranking {folder.name}", unit="case", disable=None):
        score_map, _ = read_score_map(prediction_files(folder, name)[0])
        histogram.add(count_bins(score_map, np.zeros(score_map.shape, dtype=bool)))
    return reference_quantiles(histogram.counts())


def _combine(
    files: Sequence[Path], combination: str, references: Sequence[Sequence[float]]
) -> tuple[np.ndarray, Geometry]:
    """The score maps of one case in one."""
    combiner = Combiner(combination, count=len(files))
    geometries: list[Geometry] = []
    for file, quantiles in zip(files, references, strict=True):
        score_map, geometry = read_score_map(file)
        geometries.append(geometry)
        if not geometry.matches(geometries[0]):
            raise UserError(
                f"{file} differs in geometry from {files[0]} ({geometry.describe()} and {geometries[0].describe()}); "
                "predict both from the same image."
            )
        combiner.add(score_map, quantiles)
    return combiner.result(), geometries[0]


def _combined_note(folders: Sequence[Path], combination: str, cases: Sequence[str]) -> dict[str, Any]:
    """What is known of all folders together."""
    notes = [read_note(folder) for folder in folders]

    def common(key: str) -> Any:
        values = [note.get(key) for note in notes]
        return values[0] if all(value == values[0] for value in values) else None

    tasks = [note.get("tasks") for note in notes]
    known = [task for names in tasks if names is not None for task in names]
    return {
        "dataset": common("dataset"),
        "images": common("images"),
        "members": [member for note in notes for member in note.get("members", ())],
        "tasks": None if None in tasks else sorted(set(known)),
        "cases": list(cases),
        "plan": next((note["plan"] for note in notes if note.get("plan")), None),
        "ensemble": {"combination": combination, "folders": [folder.absolute() for folder in folders]},
    }
