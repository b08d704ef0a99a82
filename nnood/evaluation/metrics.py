"""Average precision and AUROC, exact for small arrays and streaming for any number of voxels.

Both are computed from groups: how many positives and how many negatives share each distinct score. Tied scores are one
group, so that their order in memory never matters. The exact functions group by the score itself, the streaming ones
by the bins of a ScoreHistogram.
"""

import numpy as np

_DROPPED_BITS = 10
_CHUNK = 4_000_000
_MIDDLE_BIN = int(np.float32(0.5).view(np.uint32)) >> _DROPPED_BITS
# The float32 next to 1 is 1 - 2^-24; half that distance stands for 1 itself, so that 1 has a bin of its own.
_DISTANCE_OF_ONE = np.float32(2**-25)
_BINS = 2 * _MIDDLE_BIN - (int(_DISTANCE_OF_ONE.view(np.uint32)) >> _DROPPED_BITS) + 1
_FEW = 100_000


class ScoreHistogram:
    """Counts of positives and negatives per score, in constant memory (20 MB) however many voxels are added.

    A score's bin is the bit pattern of a float32 without its last 10 bits: of the score up to 0.5, and above that,
    mirrored, of its distance from 1. Bit patterns of non-negative floats are ordered as the values are, so the bins
    are ordered too, and their width is a fixed fraction (at most 2^-13) of the distance from the nearer end. Scores
    crowded near 0 or 1, as an uncalibrated sigmoid gives them, therefore keep their order, which they would not in
    bins of equal width.
    """

    def __init__(self) -> None:
        self._positives = np.zeros(_BINS, dtype=np.int64)
        self._negatives = np.zeros(_BINS, dtype=np.int64)

    @property
    def positives(self) -> np.ndarray:
        """Number of anomalous voxels per bin, int64, by rising score."""
        return self._positives

    @property
    def negatives(self) -> np.ndarray:
        """Number of normal voxels per bin, int64, by rising score."""
        return self._negatives

    def add(self, scores: np.ndarray, truth: np.ndarray) -> None:
        """Count voxels.

        Args:
            scores: Any shape, in [0, 1].
            truth: Same shape, bool; True where the voxel is anomalous.

        Raises:
            ValueError: If the shapes differ, or if a score is not finite or outside [0, 1]; nothing is counted then.
        """
        _check_shapes(scores, truth)
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
        self._negatives += np.bincount(bins, minlength=_BINS)
        if truth.any():
            positives = np.bincount(bins[truth], minlength=_BINS)
            self._positives += positives
            self._negatives -= positives


def _bins_of(scores: np.ndarray) -> np.ndarray:
    # Adding 0 turns -0.0, whose sign bit would make it the largest pattern, into 0.0.
    values = scores.astype(np.float32) + np.float32(0)
    upper = values > 0.5
    # The subtraction is exact from 0.5 to 1, so no two scores meet before the bits are dropped.
    distance = np.where(upper, np.maximum(1 - values, _DISTANCE_OF_ONE), values)
    bins = (distance.view(np.uint32) >> _DROPPED_BITS).astype(np.intp)
    return np.where(upper, 2 * _MIDDLE_BIN - bins, bins)


def average_precision(histogram: ScoreHistogram) -> float:
    """Average precision of the binned scores.

    Args:
        histogram: Counts per score.

    Returns:
        Sum over thresholds of (recall gained) x (precision), in [0, 1], as scikit-learn defines it; the chance level is
        the fraction of positives. NaN, that is undefined, when there are no positives.
    """
    return _grouped_average_precision(histogram.positives, histogram.negatives)


def auroc(histogram: ScoreHistogram) -> float:
    """Area under the ROC curve of the binned scores.

    Args:
        histogram: Counts per score.

    Returns:
        Probability that a positive scores higher than a negative, ties counting half; the chance level is 0.5. NaN,
        that is undefined, when there are no positives or no negatives.
    """
    return _grouped_auroc(histogram.positives, histogram.negatives)


def exact_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision of a small array without binning, for example of sample scores.

    Args:
        scores: Any shape, any finite value.
        truth: Same shape, bool.

    Returns:
        As `average_precision`; NaN, that is undefined, when there are no positives.

    Raises:
        ValueError: If the shapes differ or a score is not finite.
    """
    return _grouped_average_precision(*_group_by_score(scores, truth))


def exact_auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve of a small array without binning, for example of sample scores.

    Args:
        scores: Any shape, any finite value.
        truth: Same shape, bool.

    Returns:
        As `auroc`; NaN, that is undefined, when there are no positives or no negatives.

    Raises:
        ValueError: If the shapes differ or a score is not finite.
    """
    return _grouped_auroc(*_group_by_score(scores, truth))


def _check_shapes(scores: np.ndarray, truth: np.ndarray) -> None:
    if scores.shape != truth.shape:
        raise ValueError(f"Expected scores and truth of one shape, but got {scores.shape} and {truth.shape}")
    if truth.dtype != np.bool_:
        raise ValueError(f"Expected truth of type bool, but got {truth.dtype}")


def _group_by_score(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count positives and negatives per distinct score, by rising score."""
    _check_shapes(scores, truth)
    if not np.isfinite(scores).all():
        raise ValueError("Expected finite scores, but got NaN or infinity")
    distinct, group = np.unique(scores.reshape(-1), return_inverse=True)
    group, flat_truth = group.reshape(-1), truth.reshape(-1)
    positives = np.bincount(group[flat_truth], minlength=len(distinct))
    negatives = np.bincount(group[~flat_truth], minlength=len(distinct))
    return positives, negatives


def _grouped_average_precision(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Average precision from counts per distinct score, by rising score."""
    # Groups without positives gain no recall and so add nothing, but their negatives lower the precision below them.
    found = np.cumsum(positives[::-1])
    called = found + np.cumsum(negatives[::-1])
    gains = np.flatnonzero(positives[::-1])
    if len(gains) == 0:
        return float("nan")
    precision = found[gains] / called[gains]
    return float(np.sum(positives[::-1][gains] * precision) / found[-1])


def _grouped_auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Area under the ROC curve from counts per distinct score, by rising score."""
    # Floats, because the product of two voxel counts may not fit into an int64.
    total_positives, total_negatives = float(positives.sum()), float(negatives.sum())
    if total_positives == 0 or total_negatives == 0:
        return float("nan")
    negatives_below = np.cumsum(negatives) - negatives
    recall_gained = positives / total_positives
    return float(np.sum(recall_gained * (negatives_below + negatives / 2)) / total_negatives)
