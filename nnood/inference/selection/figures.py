"""Average precision over judged images from counts per image, and whether one candidate really beats another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from nnood.evaluation.metrics import Counts, average_precision
from nnood.inference.calibration import LOGIT_LIMIT, logits
from nnood.inference.selection.images import Image
from nnood.training.validation import NORMAL

BINS = 4096
RESAMPLES = 200
HALF_WIDTH = 1.96  # of a 95 % interval, in standard deviations
LEAST_GAIN = 1e-6  # less is rounding


def bins_of(scores: np.ndarray) -> np.ndarray:
    """The bin of each score in [0, 1]: bins of equal width on the logit scale, rising with the score."""
    position = (logits(scores) + LOGIT_LIMIT) * ((BINS - 1) / (2 * LOGIT_LIMIT))
    return np.rint(position).astype(np.int32)


def bin_scores() -> np.ndarray:
    """The score in the middle of each bin, float64, rising."""
    return expit(np.linspace(-LOGIT_LIMIT, LOGIT_LIMIT, BINS))


def normal_counts(bins: np.ndarray) -> Counts:
    """Counts of normal voxels only.

    Args:
        bins: Voxels per bin (BINS,).
    """
    used = bins > 0
    return Counts(bin_scores()[used], np.zeros(int(used.sum())), bins[used])


def count(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Anomalous and normal voxels per bin.

    Args:
        scores: In [0, 1], any shape.
        truth: Bool, same shape.
        weights: How many voxels each one stands for, same shape; one if left out.

    Returns:
        (2, BINS) float32: anomalous, normal.
    """
    index = bins_of(scores).ravel() + BINS * (~truth.ravel()).astype(np.int32)
    chosen = None if weights is None else weights.ravel()
    return np.bincount(index, weights=chosen, minlength=2 * BINS).reshape(2, BINS).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Tally:
    """What a candidate says of each image.

    Attributes:
        voxels: Anomalous and normal voxels per image and bin, (I, 2, BINS); 0 where not `defined`.
        defined: Whether any judge of the candidate may judge the image, (I,) bool.
    """

    voxels: np.ndarray
    defined: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """A candidate beside a plainer one, on the images that both may judge.

    Attributes:
        value: The candidate's average precision there.
        plainer: The plainer one's.
        error: Half the width of the difference's 95 % interval: 1.96 times its standard deviation over bootstrap
            resamples of the cases; infinite with less than two cases, which say nothing of others.
    """

    value: float
    plainer: float
    error: float

    @property
    def gain(self) -> float:
        """By how much the candidate is better."""
        return self.value - self.plainer

    @property
    def wins(self) -> bool:
        """Whether it is better by more than the error; never, where nothing can be compared."""
        return bool(self.gain > max(self.error, LEAST_GAIN))


class Judgement:
    """The images, and average precision over them, averaged over tasks."""

    def __init__(self, images: Sequence[Image]) -> None:
        """Draw the resamples: cases with replacement, all images of a case together.

        Args:
            images: The judged images.
        """
        cases = sorted({image.case for image in images})
        numbers = {case: number for number, case in enumerate(cases)}
        self._case_of = np.array([numbers[image.case] for image in images], dtype=int)
        self._task_of = np.array([image.task for image in images])
        self._tasks = sorted({image.task for image in images} - {NORMAL})
        chances = np.full(len(cases), 1 / len(cases))
        drawn = np.random.default_rng(0).multinomial(len(cases), chances, size=RESAMPLES)
        # The first row is the sample itself.
        self._weights = np.concatenate([np.ones((1, len(cases))), drawn])

    def voxel_ap(self, tally: Tally) -> float:
        """Voxel AP, the mean over tasks of each task's images pooled with the clean ones; NaN where undefined."""
        return float(self._voxel_aps(tally, tally.defined, resamples=1)[0])

    def compare(self, candidate: Tally, plainer: Tally) -> Comparison:
        """Compare by voxel AP."""
        both = candidate.defined & plainer.defined
        return self._compare(self._voxel_aps(candidate, both), self._voxel_aps(plainer, both), both)

    def gain(self, candidate: Tally, plainer: Tally) -> float:
        """The gain of `compare` without its error, which takes a hundred times longer."""
        both = candidate.defined & plainer.defined
        new, old = (self._voxel_aps(tally, both, resamples=1)[0] for tally in (candidate, plainer))
        return float(new - old)

    def sample_ap(self, scores: np.ndarray) -> float:
        """Sample AP, the mean over tasks, of one score per image (I,)."""
        return float(self._sample_aps(scores, np.isfinite(scores))[0])

    def compare_samples(self, candidate: np.ndarray, plainer: np.ndarray) -> Comparison:
        """Compare sample scores (I,) by their AP."""
        both = np.isfinite(candidate) & np.isfinite(plainer)
        return self._compare(self._sample_aps(candidate, both), self._sample_aps(plainer, both), both)

    def _compare(self, candidate: np.ndarray, plainer: np.ndarray, both: np.ndarray) -> Comparison:
        difference = (candidate - plainer)[1:]
        known = difference[np.isfinite(difference)]
        enough = len(known) > 1 and len(np.unique(self._case_of[both])) > 1
        error = HALF_WIDTH * float(np.std(known, ddof=1)) if enough else float("inf")
        return Comparison(float(candidate[0]), float(plainer[0]), error)

    def _voxel_aps(self, tally: Tally, allowed: np.ndarray, *, resamples: int = RESAMPLES + 1) -> np.ndarray:
        """For the sample itself and for resamples of it."""

        def counts(chosen: np.ndarray, weights: np.ndarray) -> Counts:
            return _counted(tally.voxels[chosen], weights)

        return self._mean_over_tasks(counts, allowed, resamples)

    def _sample_aps(self, scores: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        distinct, place = np.unique(scores, return_inverse=True)
        anomalous = self._task_of != NORMAL

        def counts(chosen: np.ndarray, weights: np.ndarray) -> Counts:
            table = np.zeros((len(chosen), 2, len(distinct)), dtype=np.float32)
            table[np.arange(len(chosen)), np.where(anomalous[chosen], 0, 1), place[chosen]] = 1
            return _counted(table, weights)

        return self._mean_over_tasks(counts, allowed, RESAMPLES + 1)

    def _mean_over_tasks(
        self, counts: Callable[[np.ndarray, np.ndarray], Counts], allowed: np.ndarray, resamples: int
    ) -> np.ndarray:
        figures = []
        for task in self._tasks:
            chosen = np.flatnonzero(allowed & ((self._task_of == task) | (self._task_of == NORMAL)))
            if (self._task_of[chosen] == task).any():
                figures.append(average_precision(counts(chosen, self._weights[:resamples, self._case_of[chosen]])))
        if not figures:
            return np.full(resamples, np.nan)
        table = np.stack(figures)
        # A resample may hold none of a task's anomalies; all of them lack a figure only where nothing is comparable.
        known = np.isfinite(table)
        total = np.where(known, table, 0).sum(axis=0)
        return np.divide(total, known.sum(axis=0), out=np.full(table.shape[1], np.nan), where=known.any(axis=0))


def _counted(table: np.ndarray, weights: np.ndarray) -> Counts:
    """Weighted sums over images: table (I, 2, N), weights (R, I) to counts (R, N)."""
    positives, negatives = (weights.astype(np.float32) @ table[:, side] for side in (0, 1))
    return Counts(np.arange(table.shape[2], dtype=np.float64), positives, negatives)
