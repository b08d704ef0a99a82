"""Counting scores in constant memory, however many voxels there are."""

import numpy as np

from nnood.evaluation.metrics import Counts, check_shapes

_DROPPED_BITS = 10
_CHUNK = 500_000
_MIDDLE_BIN = int(np.float32(0.5).view(np.uint32)) >> _DROPPED_BITS
# The float32 next to 1 is 1 - 2^-24; half that distance stands for 1 itself, so that 1 has a bin of its own.
_DISTANCE_OF_ONE = np.float32(2**-25)
_BINS = 2 * _MIDDLE_BIN - (int(_DISTANCE_OF_ONE.view(np.uint32)) >> _DROPPED_BITS) + 1
# Coarse bins: 128 instead of 8192 to the factor of 2, and one for all that is below 2^-33.
_MERGED_BITS = 6
_COARSE_LOWEST = int(np.float32(2**-33).view(np.uint32)) >> _DROPPED_BITS
_FEW = 100_000


class ScoreHistogram:
    """Counts of positives and negatives per score, in 20 MB.

    A score's bin is the bit pattern of a float32 without its last 10 bits: of the score up to 0.5, and above that,
    mirrored, of its distance from 1. Bit patterns of non-negative floats are ordered as the values are, so the bins
    are ordered too, and their width is a fixed fraction (at most 2^-13) of the distance from the nearer end. Scores
    crowded near 0 or 1, as an uncalibrated sigmoid gives them, therefore keep their order, which they would not in
    bins of equal width.
    """

    def __init__(self) -> None:
        self._positives = np.zeros(_BINS, dtype=np.int64)
        self._negatives = np.zeros(_BINS, dtype=np.int64)

    def counts(self) -> Counts:
        """The counts of the bins that are not empty, each under its lowest score."""
        used = np.flatnonzero(self._positives + self._negatives)
        return Counts(_lowest_scores(used), self._positives[used], self._negatives[used])

    def coarse(self) -> tuple[np.ndarray, np.ndarray]:
        """Positives and negatives in the few thousand bins of `coarse_scores`."""
        return np.add.reduceat(self._positives, _COARSE_STARTS), np.add.reduceat(self._negatives, _COARSE_STARTS)

    def add(self, scores: np.ndarray, truth: np.ndarray) -> None:
        """Count voxels.

        Args:
            scores: Any shape, in [0, 1].
            truth: Same shape, bool; True where the voxel is anomalous.

        Raises:
            ValueError: If the shapes differ, or if a score is not finite or outside [0, 1]; nothing is counted then.
        """
        check_shapes(scores, truth)
        if scores.size == 0:
            return
        lowest, highest = scores.min(), scores.max()
        # Written so that NaN, which fails every comparison, is refused.
        if not (lowest >= 0 and highest <= 1):
            raise ValueError(f"Expected finite scores in [0, 1], but got scores from {lowest} to {highest}")
        flat_scores, flat_truth = scores.reshape(-1), truth.reshape(-1)
        for start in range(0, flat_scores.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            self._count(flat_scores[part], flat_truth[part])

    def merge(self, other: "ScoreHistogram") -> None:
        """Add the counts of another histogram to this one."""
        self._positives += other._positives
        self._negatives += other._negatives

    def _count(self, scores: np.ndarray, truth: np.ndarray) -> None:
        bins = _bins_of(scores)
        if bins.size < _FEW:  # touching their bins takes less than passing over all there are
            np.add.at(self._positives, bins[truth], 1)
            np.add.at(self._negatives, bins[~truth], 1)
            return
        counted = np.bincount(bins)
        self._negatives[: len(counted)] += counted
        if truth.any():
            positives = np.bincount(bins[truth])
            self._positives[: len(positives)] += positives
            self._negatives[: len(positives)] -= positives


def coarse_scores() -> np.ndarray:
    """The lowest score of each coarse bin, rising."""
    return _lowest_scores(_COARSE_STARTS)


def coarse_weights(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of weights per coarse bin.

    Args:
        scores: Any shape, in [0, 1].
        weights: Same shape.
    """
    bins = np.searchsorted(_COARSE_STARTS, _bins_of(scores.reshape(-1)), side="right") - 1
    return np.bincount(bins, weights.reshape(-1), minlength=len(_COARSE_STARTS))


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
        bins = _COARSE_STARTS[np.searchsorted(_COARSE_STARTS, bins, side="right") - 1]
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
