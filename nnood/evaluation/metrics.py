"""Figures of merit from counts: how many positives and negatives share each distinct score.

Tied scores are one entry, so their order in memory never matters. `count_scores` groups a small array exactly;
`nnood.evaluation.histogram` counts any number of voxels in bins. Every figure takes `Counts` whose last axis is the
score; leading axes are independent (resamples, groups), and the figure comes back in their shape. NaN means that the
figure is undefined.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counts:
    """Positives and negatives per distinct score.

    Attributes:
        scores: Distinct scores, rising, (N,).
        positives: Number, or summed weight, of positives per score, (..., N).
        negatives: Likewise of negatives, (..., N).
    """

    scores: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


def count_scores(scores: np.ndarray, truth: np.ndarray) -> Counts:
    """Group an array by score, without binning.

    Args:
        scores: Any shape, any finite values.
        truth: Same shape, bool.

    Raises:
        ValueError: If the shapes differ, truth is not bool, or a score is not finite.
    """
    check_shapes(scores, truth)
    if not np.isfinite(scores).all():
        raise ValueError("Expected finite scores, but got NaN or infinity")
    distinct, group = np.unique(scores.reshape(-1), return_inverse=True)
    group, flat_truth = group.reshape(-1), truth.reshape(-1)
    positives = np.bincount(group[flat_truth], minlength=len(distinct))
    negatives = np.bincount(group[~flat_truth], minlength=len(distinct))
    return Counts(distinct, positives, negatives)


def check_shapes(scores: np.ndarray, truth: np.ndarray) -> None:
    """Refuse arrays that do not belong together.

    Raises:
        ValueError: If the shapes differ, or truth is not bool.
    """
    if scores.shape != truth.shape:
        raise ValueError(f"Expected scores and truth of one shape, but got {scores.shape} and {truth.shape}")
    if truth.dtype != np.bool_:
        raise ValueError(f"Expected truth of type bool, but got {truth.dtype}")


def average_precision(counts: Counts) -> np.ndarray:
    """Average precision.

    Returns:
        Sum over thresholds of (recall gained) x (precision), in [0, 1], as scikit-learn defines it; the chance level is
        the fraction of positives. NaN without positives.
    """
    gained = _falling(counts.positives)
    found, called = _called(counts)
    total = found[..., -1:] if gained.shape[-1] else np.zeros((*gained.shape[:-1], 1))
    return np.where(total[..., 0] > 0, _divide(gained * _divide(found, called), total).sum(axis=-1), np.nan)


def auroc(counts: Counts, *, limit: float = 1.0) -> np.ndarray:
    """Area under the ROC curve, whole or up to a false positive rate.

    With positives weighted by 1 / (voxels of their object), this is the AUPRO, the area under the curve of mean overlap
    per region. Source: Bergmann et al., MVTec AD, IJCV 2021, which uses the limit 0.3.

    Args:
        counts: Counts per score.
        limit: Largest false positive rate, in (0, 1]; the curve is linear between thresholds.

    Returns:
        The area divided by `limit`, in [0, 1]; the chance level is limit / 2. NaN without positives or negatives.
    """
    false, true = _rates(counts)
    left, right = np.minimum(false[..., :-1], limit), np.minimum(false[..., 1:], limit)
    rise = np.diff(true, axis=-1) * _divide(right - left, np.diff(false, axis=-1))
    area = ((right - left) * (true[..., :-1] + rise / 2)).sum(axis=-1) / limit
    return np.where(np.isnan(true[..., -1]), np.nan, area)


def best_dice(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """The highest Dice coefficient that any threshold reaches, and the threshold.

    Returns:
        Dice in [0, 1], and the lowest score that is called positive there. NaN without positives.
    """
    if not counts.positives.shape[-1]:
        nothing = np.full(counts.positives.shape[:-1], np.nan)
        return nothing, nothing
    dice = _dice_per_threshold(counts)
    best = dice.argmax(axis=-1)
    defined = counts.positives.sum(axis=-1) > 0
    return np.where(defined, dice.max(axis=-1), np.nan), np.where(defined, counts.scores[::-1][best], np.nan)


def dice_at(counts: Counts, threshold: float) -> np.ndarray:
    """Dice coefficient when what scores at least `threshold` is called positive; NaN without positives."""
    called = counts.scores >= threshold
    hits = counts.positives[..., called].sum(axis=-1)
    total = counts.positives.sum(axis=-1)
    dice = _divide(2 * hits, hits + counts.negatives[..., called].sum(axis=-1) + total)
    return np.where(total > 0, dice, np.nan)


def sensitivity(counts: Counts, *, specificity: float = 0.95) -> np.ndarray:
    """The highest sensitivity among thresholds of at least this specificity.

    Returns:
        Sensitivity in [0, 1], without interpolation between thresholds; NaN without positives or negatives.
    """
    false, true = _rates(counts)
    # A tolerance, because 1 - 0.95 is a little more than 0.05.
    return np.where(np.isnan(true), np.nan, np.where(false <= 1 - specificity + 1e-9, true, 0)).max(axis=-1)


def precision_recall_points(counts: Counts, points: int = 200) -> list[tuple[float, float]]:
    """At most `points` (recall, precision) for a plot, spread over the recall; none without positives."""
    found, called = _called(counts)
    if not found.size or found[-1] == 0:
        return []
    return _thin(found / found[-1], _divide(found, called), points)


def roc_points(counts: Counts, points: int = 200) -> list[tuple[float, float]]:
    """At most `points` (false, true positive rate) for a plot, from (0, 0) to (1, 1); none where undefined."""
    false, true = _rates(counts)
    return [] if np.isnan(true).any() else _thin(false, true, points)


def _falling(values: np.ndarray) -> np.ndarray:
    return np.asarray(values)[..., ::-1].astype(np.float64)


def _called(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Per threshold, from the highest score down: positives found, and all that is called positive."""
    found = np.cumsum(_falling(counts.positives), axis=-1)
    return found, found + np.cumsum(_falling(counts.negatives), axis=-1)


def _rates(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate per threshold, beginning with (0, 0); NaN where undefined."""
    rates = []
    for values in (counts.negatives, counts.positives):
        summed = np.cumsum(_falling(values), axis=-1)
        rates.append(np.concatenate([np.zeros((*summed.shape[:-1], 1)), summed], axis=-1))
    totals = [summed[..., -1:] for summed in rates]
    defined = (totals[0] > 0) & (totals[1] > 0)
    false, true = (
        np.where(defined, _divide(summed, total), np.nan) for summed, total in zip(rates, totals, strict=True)
    )
    return false, true


def _dice_per_threshold(counts: Counts) -> np.ndarray:
    found, called = _called(counts)
    return _divide(2 * found, called + found[..., -1:])


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, 0 where the denominator is 0."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    return np.divide(numerator, denominator, out=np.zeros(shape), where=np.asarray(denominator) != 0)


def _thin(x: np.ndarray, y: np.ndarray, points: int) -> list[tuple[float, float]]:
    """Leave the points that are evenly spread over the curve's length."""
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    chosen = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)).clip(max=len(x) - 1))
    return list(zip(x[chosen].tolist(), y[chosen].tolist(), strict=True))
