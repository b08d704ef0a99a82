"""Counts per case, from which any weighting of the cases gives all figures: pooled, per group, and resampled."""

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
from nnood.scores import sample_score

LOW_FALSE_POSITIVES = 0.3
# Resamples tell how far figures spread; for that, fewer bins do.
RESAMPLED_BINS = 2000
_CHUNK = 4_000_000

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
        detections: Which objects are found; added once the thresholds are known.
    """

    positives: csr_array
    negatives: csr_array
    overlap: csr_array
    object_sizes: np.ndarray
    slice_scores: np.ndarray
    slice_truth: np.ndarray
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
        positives=_row(coarse, counted.positives),
        negatives=_row(coarse, counted.negatives),
        overlap=_row(coarse_bins_of(scores[truth]), overlap_weights(objects, sizes)),
        object_sizes=sizes * voxel_size,
        slice_scores=np.array([sample_score(one) for one in slices]),
        slice_truth=np.array([one.any() for one in truth[: len(slices)]], dtype=bool),
    )
    return tally, counted


def _row(bins: np.ndarray, values: np.ndarray) -> csr_array:
    """Sums of values per coarse bin, (1, N); in numbers of 4 bytes, because there is a row per case."""
    used = np.flatnonzero(values)
    number = np.float32 if values.dtype.kind == "f" else np.int32
    places = (np.zeros(len(used), dtype=np.int32), bins[used].astype(np.int32))
    row = csr_array((values[used], places), shape=(1, len(coarse_scores())))
    row.sum_duplicates()
    row.data = row.data.astype(number)
    return row


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
        self._samples = _Ranked(
            np.array([case.sample_score for case in cases]),
            np.array([case.anomalous for case in cases], dtype=bool),
            np.arange(len(cases)),
        )
        self._local = np.array([i for i, case in enumerate(cases) if case.voxels], dtype=np.intp)
        voxels = [case.voxels for case in cases if case.voxels]
        self._voxels = voxels
        self._voxel_totals = np.array([(tally.positives.sum(), tally.negatives.sum()) for tally in voxels])
        self._slices = _Ranked(
            np.concatenate([np.zeros(0), *(tally.slice_scores for tally in voxels)]),
            np.concatenate([np.zeros(0, dtype=bool), *(tally.slice_truth for tally in voxels)]),
            np.repeat(self._local, [len(tally.slice_scores) for tally in voxels]),
        )
        self._object_case = np.repeat(np.arange(len(voxels)), [len(tally.object_sizes) for tally in voxels])
        self.are_volumes = self._slices.size > 0
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
            parts = _chunks(weights, self._slices.size)
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
        found = {"sample_ap": self._samples.prevalence(chosen), "sample_auroc": 0.5, "sample_sensitivity": 0.05}
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
        rows = (weights != 0).sum(axis=0) > 0
        stacks = [
            _stack([getattr(t, key) for t, used in zip(self._voxels, rows, strict=True) if used], len(coarse_scores()))
            for key in ("positives", "negatives", "overlap")
        ]
        starts = np.flatnonzero((stacks[0] + stacks[1]).sum(axis=0))
        if len(weights) > 1:
            even = _even_bins(stacks[0].sum(axis=0), stacks[1].sum(axis=0), starts)
            if self._threshold is not None:  # no bin may reach across it
                even = np.union1d(even, starts[coarse_scores()[starts] >= self._threshold][:1])
            starts = even
        scores, stacks = coarse_scores()[starts], [_merge_bins(stack, starts) for stack in stacks]
        parts = []
        for part in _chunks(weights[:, rows].astype(np.float64), max(1, len(starts))):
            positives, negatives, overlap = (part @ stack for stack in stacks)
            counts, weighted = Counts(scores, positives, negatives), Counts(scores, overlap, negatives)
            parts.append(voxel_figures(counts, weighted, self._threshold))
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


class _Ranked:
    """Scores with their truth, each belonging to a case, sorted once."""

    def __init__(self, scores: np.ndarray, truth: np.ndarray, case: np.ndarray) -> None:
        order = np.argsort(scores)
        self._scores, self._starts = np.unique(scores[order], return_index=True)
        self._truth, self._case = truth[order], case[order]
        self.size = scores.size

    def prevalence(self, chosen: np.ndarray) -> float:
        """Share of positives among those of the chosen cases."""
        return float(self._truth[chosen[self._case]].mean())

    def counts(self, weights: np.ndarray) -> Counts:
        """Counts for weights of the cases (R, cases)."""
        each = weights[:, self._case]
        positives, negatives = (
            np.add.reduceat(each * which, self._starts, axis=1) for which in (self._truth, ~self._truth)
        )
        return Counts(self._scores, positives, negatives)


def _even_bins(positives: np.ndarray, negatives: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Where to begin bins that hold about equal shares of positives and of negatives, so that a few are enough.

    Args:
        positives: Per coarse bin.
        negatives: Per coarse bin.
        starts: Where one may begin.
    """
    share = sum(np.cumsum(values)[starts] / max(1, values.sum()) for values in (positives, negatives))
    _, first = np.unique(np.floor(share * RESAMPLED_BINS / 2), return_index=True)
    return starts[first]


def _merge_bins(stack: csr_array, starts: np.ndarray) -> csr_array:
    """Sum the columns from each start to the next; before the first there is nothing."""
    merged = np.searchsorted(starts, stack.indices, side="right") - 1
    result = csr_array((stack.data, merged, stack.indptr), shape=(stack.shape[0], len(starts)))
    result.sum_duplicates()
    return result


def _stack(rows: list[csr_array], width: int) -> csr_array:
    """Sparse rows as one matrix."""
    if not rows:
        return csr_array((0, width))
    lengths = np.cumsum([0, *(row.nnz for row in rows)])
    data, indices = (np.concatenate([getattr(row, name) for row in rows]) for name in ("data", "indices"))
    return csr_array((data, indices, lengths), shape=(len(rows), width))


def _chunks(weights: np.ndarray, width: int) -> list[np.ndarray]:
    """Split rows so that (rows, width) arrays stay small."""
    return np.array_split(weights, -(-len(weights) * width // _CHUNK) or 1)


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
