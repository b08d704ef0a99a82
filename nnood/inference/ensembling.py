"""How members' score maps become one: by mean, by median, or by the mean of their ranks."""

from collections.abc import Sequence

import numpy as np

from nnood.evaluation.metrics import Counts
from nnood.inference.calibration import interpolate, rarity, rising_knots

COMBINATIONS = ("mean", "median", "rank_mean")
# Cumulative probabilities: tenths, then ten steps for each factor of ten in rarity, up to one voxel in a million.
RANK_LEVELS = (*(n / 10 for n in range(1, 9)), *(1 - 10 ** (-n / 10) for n in range(10, 61)))


def reference_quantiles(counts: Counts) -> tuple[float, ...]:
    """A member's scores at `RANK_LEVELS`.

    Args:
        counts: `negatives` voxels per score in [0, 1].

    Returns:
        The lowest score that at least this part of the voxels does not exceed, per level; none without voxels.
    """
    reached = np.cumsum(np.asarray(counts.negatives, dtype=np.float64))
    if not reached.size or reached[-1] <= 0:
        return ()
    index = np.searchsorted(reached / reached[-1], RANK_LEVELS).clip(max=len(reached) - 1)
    return tuple(np.asarray(counts.scores, dtype=np.float64)[index].tolist())


def ranks(scores: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """What a score is worth among the scores of a reference, so that members with different habits compare.

    A rank is -log10(share of the reference that scores at least this) / 8: what is rarer than one voxel in a million,
    which is all that matters in an anomaly, still has a quarter of the range.

    Args:
        scores: Any shape, in [0, 1].
        quantiles: The reference's scores at `RANK_LEVELS`; none leave the scores as they are. Where several are equal,
            the lowest level counts.

    Returns:
        Same shape, float64 in [0, 1], strictly rising with the score: 0 at 0, 1 at 1.

    Raises:
        ValueError: If there are some but not as many quantiles as levels.
    """
    if not len(quantiles):
        return np.asarray(scores, dtype=np.float64)
    if len(quantiles) != len(RANK_LEVELS):
        raise ValueError(f"Expected {len(RANK_LEVELS)} quantiles, but got {len(quantiles)}.")
    knots = rising_knots(np.array(quantiles, dtype=np.float64), rarity(1 - np.array(RANK_LEVELS)))
    return interpolate(scores, knots.scores, knots.values)


class Combiner:
    """Takes score maps one after the other and combines them.

    The mean of scores or ranks needs the memory of one map, the median that of all maps.
    """

    def __init__(self, kind: str, *, count: int) -> None:
        """Begin.

        Args:
            kind: One of `COMBINATIONS`.
            count: How many maps there will be.

        Raises:
            ValueError: If the kind is unknown or there is no map.
        """
        if kind not in COMBINATIONS:
            raise ValueError(f"Expected one of {', '.join(COMBINATIONS)}, but got {kind!r}.")
        if count < 1:
            raise ValueError(f"Expected at least one score map, but got {count}.")
        self._kind = kind
        self._count = count
        self._added = 0
        self._sum: np.ndarray | None = None
        self._kept: list[np.ndarray] = []

    def add(self, score_map: np.ndarray, quantiles: Sequence[float] = ()) -> None:
        """Add a map.

        Args:
            score_map: Any shape, the same for all, in [0, 1].
            quantiles: Of the member that made it; used by `rank_mean`.
        """
        self._added += 1
        if self._kind == "median":
            self._kept.append(np.asarray(score_map, dtype=np.float32))
            return
        values = ranks(score_map, quantiles) if self._kind == "rank_mean" else np.asarray(score_map)
        if self._sum is None:
            self._sum = values.astype(np.float64)
        else:
            self._sum += values

    def result(self) -> np.ndarray:
        """The combined map, float32 in [0, 1].

        Raises:
            ValueError: If not all maps were added.
        """
        if self._added != self._count:
            raise ValueError(f"Expected {self._count} score maps, but got {self._added}.")
        if self._sum is None:
            return np.median(np.stack(self._kept), axis=0).astype(np.float32)
        return np.clip(self._sum / self._count, 0, 1).astype(np.float32)
