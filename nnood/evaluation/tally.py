"""Counts per case, from which any weighting of the cases gives all figures: pooled, per group, and resampled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from nnood.evaluation.histogram import BinCounts, bin_start, coarse_bins_of, coarse_scores, count_bins
from nnood.evaluation.metrics import Counts, auroc, average_precision, best_dice, dice_at, sensitivity
from nnood.evaluation.objects import (
    FALSE_ALARM_RATES,
    Detections,
    best_threshold,
    label_objects,
    overlap_weights,
    share_found,
)
from nnood.evaluation.rows import Ranked, chunks, even_bins, make_row, merge_rows, weighted_sum
from nnood.scores import sample_score

LOW_FALSE_POSITIVES = 0.3
# Resamples tell how far figures spread; for that, fewer bins do.
RESAMPLED_BINS = 2000

Figures = dict[str, np.ndarray]


@dataclass
class VoxelTally:
    """What is kept of the voxels of a case.

    Attributes:
        positives: Anomalous voxels per coarse bin, (1, N), sparse.
        negatives: Normal voxels per coarse bin.
        overlap: Sum over anomalous voxels of 1 / (voxels of their object), per coarse bin.
        object_sizes: Volume of each object in mm^3, in 2D its area in mm^2.
        slice_scores: Sample score of each slice of a volume; empty for a 2D image.
        slice_truth: Whether each slice has an anomalous voxel.
        dimensions: 2 or 3.
        detections: Which objects are found; added once the thresholds are known.
    """

    positives: csr_array
    negatives: csr_array
    overlap: csr_array
    object_sizes: np.ndarray
    slice_scores: np.ndarray
    slice_truth: np.ndarray
    dimensions: int
    detections: Detections | None = None


@dataclass
class CaseTally:
    """What is kept of a case.

    Attributes:
        anomalous: Whether it is.
        sample_score: Its sample score.
        voxels: None where there is no mask, or where the whole image is anomalous by its kind.
    """

    anomalous: bool
    sample_score: float
    voxels: VoxelTally | None


def tally_voxels(scores: np.ndarray, truth: np.ndarray, voxel_size: float) -> tuple[VoxelTally, BinCounts]:
    """Count the voxels of a case.

    Args:
        scores: Score map in [0, 1], 2D or 3D, slices along the first axis.
        truth: Same shape, bool.
        voxel_size: Volume of a voxel in mm^3, or area in mm^2.

    Returns:
        What is kept, and the fine counts, which are too many to be kept for each case.

    Raises:
        ValueError: If a score is not finite or outside [0, 1].
    """
    counted = count_bins(scores, truth)
    objects, sizes = label_objects(truth)
    slices = scores if scores.ndim == 3 and len(scores) > 1 else scores[:0]
    coarse = counted.coarse_bins()
    tally = VoxelTally(
        positives=make_row(coarse, counted.positives),
        negatives=make_row(coarse, counted.negatives),
        overlap=make_row(coarse_bins_of(scores[truth]), overlap_weights(objects, sizes)),
        object_sizes=sizes * voxel_size,
        slice_scores=np.array([sample_score(one) for one in slices]),
        slice_truth=np.array([one.any() for one in truth[: len(slices)]], dtype=bool),
        dimensions=scores.ndim,
    )
    return tally, counted


def voxel_figures(counts: Counts, overlap: Counts, threshold: float | None) -> Figures:
    """All figures of voxels.

    Args:
        counts: Voxels per score.
        overlap: The same with anomalous voxels weighted by 1 / (voxels of their object).
        threshold: For the Dice at a threshold.
    """
    return {
        "voxel_ap": average_precision(counts),
        "voxel_auroc": auroc(counts),
        "voxel_auroc30": auroc(counts, limit=LOW_FALSE_POSITIVES),
        "voxel_best_dice": best_dice(counts)[0],
        **({} if threshold is None else {"voxel_dice": dice_at(counts, threshold)}),
        "aupro": auroc(overlap, limit=LOW_FALSE_POSITIVES),
    }


class Tallies:
    """The cases of a test set, ready to be weighted."""

    def __init__(self, cases: Sequence[CaseTally], threshold: float | None) -> None:
        """Arrange the cases.

        Args:
            cases: In the order of the weights.
            threshold: Score from which a voxel is called anomalous, if there is one.
        """
        self._threshold = None if threshold is None else bin_start(threshold, coarse=True)
        self._samples = Ranked(
            np.array([case.sample_score for case in cases]),
            np.array([case.anomalous for case in cases], dtype=bool),
            np.arange(len(cases)),
        )
        self._local = np.array([i for i, case in enumerate(cases) if case.voxels], dtype=np.intp)
        voxels = [case.voxels for case in cases if case.voxels]
        self._voxels = voxels
        self._voxel_totals = np.array([(tally.positives.sum(), tally.negatives.sum()) for tally in voxels])
        self._slices = Ranked(
            np.concatenate([np.zeros(0), *(tally.slice_scores for tally in voxels)]),
            np.concatenate([np.zeros(0, dtype=bool), *(tally.slice_truth for tally in voxels)]),
            np.repeat(self._local, [len(tally.slice_scores) for tally in voxels]),
        )
        self._object_case = np.repeat(np.arange(len(voxels)), [len(tally.object_sizes) for tally in voxels])
        self.dimensions = max((tally.dimensions for tally in voxels), default=None)
        self.object_sizes = np.concatenate([np.zeros(0), *(tally.object_sizes for tally in voxels)])

    def figures(self, weights: np.ndarray) -> Figures:
        """All figures that are defined for the cases.

        Args:
            weights: How often each case counts, (R, cases).

        Returns:
            Key of `results.FIGURES` to (R,); NaN where undefined.
        """
        found = self._voxel_figures(weights[:, self._local]) if self._voxels else {}
        found |= self.object_figures(weights)
        counts = self._samples.counts(weights)
        found |= {
            "sample_ap": average_precision(counts),
            "sample_auroc": auroc(counts),
            "sample_sensitivity": sensitivity(counts),
        }
        if self._slices.size:
            parts = chunks(weights, self._slices.size)
            slices = [(average_precision(c), auroc(c)) for c in map(self._slices.counts, parts)]
            found |= {
                "slice_ap": np.concatenate([ap for ap, _ in slices]),
                "slice_auroc": np.concatenate([area for _, area in slices]),
            }
        return found

    def chance(self, chosen: np.ndarray) -> dict[str, float]:
        """What chance gives on some of the cases, where there is such a level.

        Args:
            chosen: The cases, bool, at least one.
        """
        found = {"sample_ap": self._samples.prevalence(chosen), "sample_auroc": 0.5}
        # At random, a normal case is as likely at every rank as an anomalous one; the allowed ones come first.
        normal = self._samples.negatives(chosen)
        found["sample_sensitivity"] = (math.floor(0.05 * normal + 1e-9) + 1) / (normal + 1)
        local = chosen[self._local]
        if local.any():
            positives, negatives = self._voxel_totals[local].sum(axis=0).tolist()
            share = positives / (positives + negatives)
            found |= {"voxel_ap": share, "voxel_auroc": 0.5, "voxel_auroc30": LOW_FALSE_POSITIVES / 2}
            found |= {"voxel_best_dice": 2 * share / (1 + share), "aupro": LOW_FALSE_POSITIVES / 2}
            if self._slices.size:
                found |= {"slice_ap": self._slices.prevalence(chosen), "slice_auroc": 0.5}
        return found

    def object_figures(self, weights: np.ndarray, objects: np.ndarray | None = None) -> Figures:
        """The figures of objects.

        Args:
            weights: As for `figures`.
            objects: Which objects they are of, bool; all if None. The thresholds follow from all of them.
        """
        if not self._voxels or any(tally.detections is None for tally in self._voxels):
            return {}
        found, false_alarms, number = self.detections(weights, None)
        of, _, out_of = (found, None, number) if objects is None else self.detections(weights, objects)
        shares = [share_found(of, out_of, best_threshold(found, false_alarms, rate)) for rate in FALSE_ALARM_RATES]
        return {"object_recall": shares[FALSE_ALARM_RATES.index(1)], "froc": np.mean(shares, axis=0)}

    def detections(self, weights: np.ndarray, objects: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Found objects (R, T), false alarms per case (R, T), and number of objects (R,)."""
        local = weights[:, self._local].astype(np.float64)
        parts = [tally.detections for tally in self._voxels if tally.detections]
        hits = np.concatenate([part.found.T for part in parts]).astype(np.float64)
        per_object = local[:, self._object_case] * (1 if objects is None else objects)
        cases = np.maximum(local.sum(axis=1, keepdims=True), 1e-9)
        false_alarms = local @ np.stack([part.false_alarms for part in parts]) / cases
        return per_object @ hits, false_alarms, per_object.sum(axis=1)

    def _voxel_figures(self, weights: np.ndarray) -> Figures:
        rows = np.flatnonzero((weights != 0).sum(axis=0))
        used = weights[:, rows].astype(np.float64)
        kinds = [[getattr(self._voxels[row], key) for row in rows] for key in ("positives", "negatives", "overlap")]
        if len(weights) == 1:
            positives, negatives, overlap = (weighted_sum(kind, used[0])[None] for kind in kinds)
            scores = coarse_scores()
            counts, weighted = Counts(scores, positives, negatives), Counts(scores, overlap, negatives)
            return voxel_figures(counts, weighted, self._threshold)
        if not rows.size:
            return {}
        positives, negatives = (weighted_sum(kind, np.ones(len(rows))) for kind in kinds[:2])
        starts = even_bins(positives, negatives, RESAMPLED_BINS)
        if self._threshold is not None:  # no bin may reach across it
            starts = np.union1d(starts, np.flatnonzero(coarse_scores() >= self._threshold)[:1])
        stacks = [merge_rows(kind, starts) for kind in kinds]
        parts = []
        for part in chunks(used, len(starts)):
            positives, negatives, overlap = (part @ stack for stack in stacks)
            counts = Counts(coarse_scores()[starts], positives, negatives)
            weighted = Counts(counts.scores, overlap, negatives)
            parts.append(voxel_figures(counts, weighted, self._threshold))
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def resample(units: Sequence[str], rounds: int) -> np.ndarray:
    """Bootstrap weights: how often each case is drawn, in every round.

    Args:
        units: Per case, what it was made of: cases of one subject are drawn together, as they are not independent.
        rounds: Number of resamples.

    Returns:
        (rounds, cases) int; the same for the same arguments.
    """
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    number = int(unit.max()) + 1
    return np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), size=rounds)[:, unit]
