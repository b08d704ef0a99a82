"""Evaluation of a folder of predictions against voxel masks or sample labels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnood.errors import UserError, one_error
from nnood.evaluation.folders import MAP_ENDING, planned_threshold, read_sample_scores
from nnood.evaluation.histogram import ScoreHistogram
from nnood.evaluation.metrics import Counts
from nnood.evaluation.objects import detect, label_objects
from nnood.evaluation.results import NORMAL, Evaluation
from nnood.evaluation.summary import case_figures, summarise
from nnood.evaluation.tally import CaseTally, tally_voxels
from nnood.evaluation.truth import Truth, find_truth, read_mask, read_score_map
from nnood.geometry import Geometry

# Of the thresholds for the object level: how many are spread over all voxels, how many over the anomalous ones.
SPREAD, SPREAD_INSIDE = 32, 17
LARGEST_SHARE = 0.5


@dataclass(frozen=True)
class ScoredCase:
    """A case with its score map in memory.

    Attributes:
        score_map: Scores in [0, 1], 2D or 3D.
        truth: Same shape, bool.
        geometry: Of both.
        sample_score: Of the case.
    """

    score_map: np.ndarray
    truth: np.ndarray
    geometry: Geometry
    sample_score: float


def evaluate(
    predictions: Path | str,
    labels: Path | str,
    *,
    threshold: float | None = None,
    rounds: int = 1000,
    progress: bool = True,
) -> Evaluation:
    """Compare predictions with labels, one case in memory at a time.

    Args:
        predictions: Folder with `NAME.nii.gz` (score map in [0, 1]) and `NAME.nii.gz.txt` (sample score) per case.
        labels: One of two. A folder with one mask `NAME.<ending>` per anomalous case, 1 (in PNG, JPEG, BMP or TIFF
            also 255) where anomalous, else 0; a case without a mask, or with an empty one, is normal; if `imagesTs`
            lies beside it, the cases are the ones in there, and if `benchmark.csv` does, the kinds of anomaly. Or a
            file of sample labels with the header `case,label` and labels 0 and 1; score maps are then not opened. If
            there is no such folder, `<folder>.csv` is tried.
        threshold: Score from which a voxel is called anomalous, for the Dice at a threshold; that of the inference plan
            which the predictions followed, if left out.
        rounds: Bootstrap resamples for the intervals.
        progress: Whether to show a progress bar, where there is a terminal.

    Returns:
        Pooled figures, those of each kind and size, and those of each case.

    Raises:
        UserError: If names don't fit together, or files are broken, differ in geometry or hold values out of range.
            All faults are listed, those of contents once the names fit.
    """
    predictions, labels = Path(predictions), Path(labels)
    scores = read_sample_scores(predictions)
    truth = find_truth(labels, predictions, scores)
    evaluator = Evaluator(truth, planned_threshold(predictions) if threshold is None else threshold)
    if truth.sample_labels is not None:
        for name, score in sorted(scores.items()):
            evaluator.add_sample_score(name, score)
        return evaluator.result(rounds)

    def load(name: str) -> ScoredCase:
        return load_prediction(predictions / f"{name}{MAP_ENDING}", truth.masks.get(name), scores[name])

    run_evaluators(lambda name: [load(name)], [evaluator], sorted(scores), progress=progress)
    return evaluator.result(rounds)


def load_prediction(score_map: Path, mask: Path | None, sample_score: float) -> ScoredCase:
    """Read a score map and its mask; without a mask all voxels are normal.

    Raises:
        UserError: If a file is broken or they don't fit together.
    """
    scores, geometry = read_score_map(score_map)
    if not (scores.min() >= 0 and scores.max() <= 1):
        raise UserError(
            f"{score_map}: Expected finite scores in [0, 1], but got scores from {scores.min()} to {scores.max()}; "
            "predict the case again."
        )
    truth = np.zeros(scores.shape, dtype=bool) if mask is None else read_mask(mask, score_map, geometry)
    return ScoredCase(scores, truth, geometry, sample_score)


class Evaluator:
    """Gathers one method's scores case by case: first all voxels, which say where to look for objects, then objects."""

    def __init__(self, truth: Truth, threshold: float | None = None) -> None:
        """Begin.

        Args:
            truth: The labels.
            threshold: Score from which a voxel is called anomalous, for the Dice at a threshold.
        """
        self._truth, self._threshold = truth, threshold
        self._pooled = ScoreHistogram()
        self._tallies: dict[str, CaseTally] = {}
        self._figures: dict[str, dict[str, float | None]] = {}
        self._object_thresholds: np.ndarray | None = None

    def add_sample_score(self, name: str, sample_score: float) -> None:
        """Add a case of which there is a sample label only."""
        labels = self._truth.sample_labels or {}
        self._tallies[name] = CaseTally(labels[name], sample_score, None)

    def add(self, name: str, case: ScoredCase) -> None:
        """Add a case.

        Raises:
            UserError: If its mask and the table of a benchmark set contradict each other.
        """
        if self._truth.sample_labels is not None:
            self.add_sample_score(name, case.sample_score)
            return
        anomalous = bool(case.truth.any())
        listed = self._truth.rows.get(name)
        if listed is not None and anomalous != (listed.kind != NORMAL):
            mask, says = self._truth.masks[name], "an anomaly" if anomalous else "no anomaly"
            raise UserError(f"{mask} marks {says} but benchmark.csv calls the case {listed.kind}; correct either.")
        self._tallies[name] = CaseTally(anomalous, case.sample_score, None)
        if not self._truth.is_whole(name):
            tally, counted = tally_voxels(case.score_map, case.truth, math.prod(case.geometry.spacing))
            self._tallies[name].voxels = tally
            self._figures[name] = case_figures(counted.counts(), tally, self._threshold)
            self._pooled.add(counted)

    def has_objects(self, name: str) -> bool:
        """Whether a case, all of them being added, counts at the object level."""
        return self._tallies[name].voxels is not None and any(
            tally.voxels is not None and tally.voxels.object_sizes.size for tally in self._tallies.values()
        )

    def add_objects(self, name: str, case: ScoredCase) -> None:
        """Look for a case's objects, when all cases have been added."""
        if self._object_thresholds is None:
            self._object_thresholds = spread_thresholds(self._pooled.counts(), len(self._tallies))
        tally = self._tallies[name].voxels
        if tally is not None:
            objects, sizes = label_objects(case.truth)
            tally.detections = detect(case.score_map, objects, sizes, self._object_thresholds)

    def result(self, rounds: int) -> Evaluation:
        """Sum up.

        Args:
            rounds: Bootstrap resamples for the intervals.
        """
        tallies = dict(sorted(self._tallies.items()))
        counts = self._pooled.counts()
        return summarise(tallies, self._figures, self._truth, counts, threshold=self._threshold, rounds=rounds)


def run_evaluators(
    load: Callable[[str], Sequence[ScoredCase]],
    evaluators: Sequence[Evaluator],
    names: Sequence[str],
    *,
    progress: bool = True,
) -> None:
    """Feed evaluators with all cases, one case in memory at a time.

    Args:
        load: Gives a case's scores, one entry per evaluator; called twice for cases that count at the object level.
        evaluators: One per method.
        names: The cases.
        progress: Whether to show a progress bar, where there is a terminal.

    Raises:
        UserError: If cases are broken; all are listed.
    """
    disable = None if progress else True
    faults = []
    for name in tqdm(names, desc="Evaluating", unit="case", disable=disable):
        try:
            for evaluator, case in zip(evaluators, load(name), strict=True):
                evaluator.add(name, case)
        except UserError as error:
            faults.append(str(error))
    one_error(faults)
    with_objects = [name for name in names if evaluators[0].has_objects(name)]
    for name in tqdm(with_objects, desc="Finding objects", unit="case", disable=disable):
        for evaluator, case in zip(evaluators, load(name), strict=True):
            evaluator.add_objects(name, case)


def spread_thresholds(counts: Counts, cases: int) -> np.ndarray:
    """Thresholds for the object level, from the highest score down.

    They are spread over the scores of all voxels, from a tenth of a voxel per case to half of all, where false alarms
    are decided; and over those of the anomalous voxels, where finds are.

    Args:
        counts: Of all voxels.
        cases: Their number.
    """
    if not counts.scores.size:
        return np.zeros(0)
    called = np.cumsum((counts.positives + counts.negatives)[::-1])
    inside = np.cumsum(counts.positives[::-1])
    levels = np.geomspace(max(1.0, 0.1 * cases), max(1.0, LARGEST_SHARE * called[-1]), SPREAD)
    reached = [np.searchsorted(called, levels), np.searchsorted(inside, np.linspace(0, 1, SPREAD_INSIDE) * inside[-1])]
    places = np.unique(np.concatenate([[0], *reached]).clip(max=len(called) - 1))
    return counts.scores[::-1][places]
