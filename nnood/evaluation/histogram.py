"""Counting scores in constant memory, however many voxels there are."""

from dataclasses import dataclass

import numpy as np

from nnood.evaluation.metrics import Counts, check_shapes

_DROPPED_BITS = 9
_CHUNK = 500_000
_MIDDLE_BIN = int(np.float32(0.5).view(np.uint32)) >> _DROPPED_BITS
# The float32 next to 1 is 1 - 2^-24; half that distance stands for 1 itself, so that 1 has a bin of its own.
_DISTANCE_OF_ONE = np.float32(2**-25)
_BINS = 2 * _MIDDLE_BIN - (int(_DISTANCE_OF_ONE.view(np.uint32)) >> _DROPPED_BITS) + 1
# Coarse bins: 1024 instead of 16384 to the factor of 2, and one for all that is below 2^-33.
_MERGED_BITS = 4
_COARSE_LOWEST = int(np.float32(2**-33).view(np.uint32)) >> _DROPPED_BITS
_FEW = 100_000


@dataclass(frozen=True)
class BinCounts:
    """Voxels per bin, of the bins that are not empty.

    A score's bin is the bit pattern of a float32 without its last 9 bits: of the score up to 0.5, and above that,
    mirrored, of its distance from 1. Bit patterns of non-negative floats are ordered as the values are, so the bins
    are ordered too, and their width is a fixed fraction (at most 2^-14) of the distance from the nearer end. Scores
    crowded near 0 or 1, as an uncalibrated sigmoid gives them, therefore keep their order, which they would not in
    bins of equal width.

    Attributes:
        bins: Numbers of the bins, rising.
        positives: Anomalous voxels per bin, int64.
        negatives: Normal voxels per bin, int64.
    """

    bins: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray

    def counts(self) -> Counts:
        """The counts, each bin under its lowest score."""
        return Counts(_lowest_scores(self.bins), self.positives, self.negatives)

    def coarse_bins(self) -> np.ndarray:
        """The number of the coarse bin that each bin is part of."""
        return _coarse_of(self.bins)


def count_bins(scores: np.ndarray, truth: np.ndarray) -> BinCounts:
    """Count the voxels of a case.

    Args:
        scores: Any shape, in [0, 1].
        truth: Same shape, bool; True where the voxel is anomalous.

    Raises:
        ValueError: If the shapes differ, or if a score is not finite or outside [0, 1].
    """
    check_shapes(scores, truth)
    if scores.size:
        lowest, highest = scores.min(), scores.max()
        # Written so that NaN, which fails every comparison, is refused.
        if not (lowest >= 0 and highest <= 1):
            raise ValueError(f"Expected finite scores in [0, 1], but got scores from {lowest} to {highest}")
    flat_scores, flat_truth = scores.reshape(-1), truth.reshape(-1)
    if scores.size < _FEW:  # sorting them takes less than passing over all bins there are
        bins, index = np.unique(_bins_of(flat_scores), return_inverse=True)
        positives = np.bincount(index[flat_truth], minlength=len(bins))
        return BinCounts(bins, positives, np.bincount(index, minlength=len(bins)) - positives)
    together, anomalous = np.zeros(_BINS, dtype=np.int64), np.zeros(_BINS, dtype=np.int64)
    for start in range(0, flat_scores.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        bins = _bins_of(flat_scores[part])
        for total, chosen in ((together, bins), (anomalous, bins[flat_truth[part]])):
            counted = np.bincount(chosen)
            total[: len(counted)] += counted
    used = np.flatnonzero(together)
    return BinCounts(used, anomalous[used], together[used] - anomalous[used])


class ScoreHistogram:
    """Counts of positives and negatives per score over any number of cases, in 39 MB."""

    def __init__(self) -> None:
        self._positives = np.zeros(_BINS, dtype=np.int64)
        self._negatives = np.zeros(_BINS, dtype=np.int64)

    def counts(self) -> Counts:
        """The counts of the bins that are not empty, each under its lowest score."""
        used = np.flatnonzero(self._positives + self._negatives)
        return BinCounts(used, self._positives[used], self._negatives[used]).counts()

    def add(self, counted: BinCounts) -> None:
        """Add the voxels of a case."""
        self._positives[counted.bins] += counted.positives
        self._negatives[counted.bins] += counted.negatives

    def merge(self, other: "ScoreHistogram") -> None:
        """Add the counts of another histogram to this one."""
        self._positives += other._positives
        self._negatives += other._negatives


def coarse_scores() -> np.ndarray:
    """The lowest score of each coarse bin, rising."""
    return _lowest_scores(_COARSE_STARTS)


def coarse_bins_of(scores: np.ndarray) -> np.ndarray:
    """The number of each score's coarse bin.

    Args:
        scores: In [0, 1].
    """
    return _coarse_of(_bins_of(scores))


def _coarse_of(bins: np.ndarray) -> np.ndarray:
    return np.searchsorted(_COARSE_STARTS, bins, side="right") - 1


def bin_start(threshold: float, *, coarse: bool = False) -> float:
    """The lowest score of the bin that a threshold lies in, so that scores equal to the threshold reach it.

    Args:
        threshold: Any number; outside [0, 1] it is returned as it is.
        coarse: Whether the bin is one of `coarse_scores`.
    """
    if not 0 <= threshold <= 1:
        return threshold
    bins = _bins_of(np.array([threshold]))
    if coarse:
        bins = _COARSE_STARTS[_coarse_of(bins)]
    return float(_lowest_scores(bins)[0])


def _bins_of(scores: np.ndarray) -> np.ndarray:
    # Adding 0 turns -0.0, whose sign bit would make it the largest pattern, into 0.0.
    values = scores.astype(np.float32) + np.float32(0)
    bins = (values.view(np.uint32) >> _DROPPED_BITS).astype(np.intp)
    upper = np.flatnonzero(values > 0.5)
    if upper.size:
        # The subtraction is exact from 0.5 to 1, so no two scores meet before the bits are dropped.
        distance = np.maximum(1 - values[upper], _DISTANCE_OF_ONE)
        bins[upper] = 2 * _MIDDLE_BIN - (distance.view(np.uint32) >> _DROPPED_BITS)
    return bins


def _lowest_scores(bins: np.ndarray) -> np.ndarray:
    """The lowest score of each bin, float32."""
    upper = bins > _MIDDLE_BIN
    # Mirrored, a bin's lowest score is the one farthest from 1: the end of the next pattern.
    pattern = np.where(upper, 2 * _MIDDLE_BIN - bins + 1, bins)
    edge = (pattern.astype(np.uint32) << np.uint32(_DROPPED_BITS)).view(np.float32).astype(np.float64)
    # The next float32 above 1 - edge, which float64 holds exactly.
    rounded = (1 - edge).astype(np.float32)
    mirrored = np.where(rounded <= 1 - edge, np.nextafter(rounded, np.float32(1)), rounded)
    return np.where(upper, mirrored, edge.astype(np.float32))


def _coarse_starts() -> np.ndarray:
    """The first fine bin of each coarse one."""
    bins = np.arange(_BINS)
    mirrored = np.where(bins > _MIDDLE_BIN, 2 * _MIDDLE_BIN - bins, np.maximum(bins, _COARSE_LOWEST))
    merged = np.where(bins > _MIDDLE_BIN, -(mirrored >> _MERGED_BITS) - 1, mirrored >> _MERGED_BITS)
    return np.flatnonzero(np.diff(merged, prepend=-(10**9)))


_COARSE_STARTS = _coarse_starts()
