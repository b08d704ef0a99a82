"""A monotone map of scores to [0, 1] that says how rare a score is on normal images, and thresholds on top of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nnood.evaluation.metrics import Counts

LOGIT_LIMIT = 20.0
# A share of 10^-8 of the normal voxels has the value 1.
DECADES = 8.0
SMALLEST_SHARE, FEWEST_VOXELS = 1e-7, 10
SHARES = tuple(first * 10.0**-decade for decade in range(1, 8) for first in (5, 2, 1))
RATES = (0.01, 0.05)
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)  # per cent
# With fewer cases, resampling them says little of what other cases would have given.
FEWEST_CASES = 10
_RESAMPLED_SCORES = 2000


@dataclass(frozen=True)
class Calibration:
    """A strictly rising map of scores in [0, 1] onto [0, 1], linear between its knots in the logit of the score.

    Logits are cut at +-20, and 0 and 1 stay what they are. With the two outer knots only it is the identity.

    Attributes:
        scores: Where the knots are; from 0 to 1, rising.
        values: What they become; from 0 to 1, rising.
    """

    scores: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.values):
            raise ValueError(f"Expected as many scores as values, but got {len(self.scores)} and {len(self.values)}.")
        for name, knots in (("scores", self.scores), ("values", self.values)):
            if len(knots) < 2 or knots[0] != 0 or knots[-1] != 1 or not all(a < b for a, b in pairwise(knots)):
                raise ValueError(f"Expected {name} that rise from 0 to 1, but got {list(knots)[:20]}.")

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Calibrate.

        Args:
            scores: Any shape, in [0, 1].

        Returns:
            Same shape, float32 in [0, 1].
        """
        if len(self.scores) == 2:
            return np.asarray(scores, dtype=np.float32).copy()
        return interpolate(scores, self.scores, self.values).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return {"scores": list(self.scores), "values": list(self.values)}


IDENTITY = Calibration((0.0, 1.0), (0.0, 1.0))


def logits(scores: np.ndarray) -> np.ndarray:
    """Logits of scores in [0, 1], cut at +-20, float64."""
    wide = np.asarray(scores, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.clip(np.log(wide) - np.log1p(-wide), -LOGIT_LIMIT, LOGIT_LIMIT)


def interpolate(scores: np.ndarray, knots: Sequence[float], values: Sequence[float]) -> np.ndarray:
    """Interpolate between knots, linearly in the logit.

    Args:
        scores: Any shape, in [0, 1].
        knots: Scores, rising.
        values: Of the knots, rising.

    Returns:
        Same shape, float64.
    """
    return np.interp(logits(scores), logits(np.array(knots)), values)


def rarity(share: np.ndarray) -> np.ndarray:
    """The value in [0, 1] of a score that this share (> 0) of the normal voxels reaches: -log10(share) / 8."""
    return np.clip(-np.log10(share) / DECADES, 0, 1)


def rising_knots(scores: np.ndarray, values: np.ndarray) -> Calibration:
    """A calibration through given points; those that would not rise, or lie at the ends, are left out."""
    kept_scores, kept_values = [0.0], [0.0]
    last = -LOGIT_LIMIT
    for score, value, logit in zip(scores.tolist(), values.tolist(), logits(scores).tolist(), strict=True):
        if last < logit < LOGIT_LIMIT and kept_values[-1] < value < 1:
            kept_scores.append(score)
            kept_values.append(value)
            last = logit
    return Calibration((*kept_scores, 1.0), (*kept_values, 1.0))


def fit_calibration(counts: Counts) -> Calibration:
    """Spread scores by how rare they are on normal images.

    A calibrated value u means: on normal images, the share 10^(-8 u) of the foreground's voxels scores at least this.
    Above the rarest score that can be told from the data, the value rises in a straight line (of logits) to 1.

    Args:
        counts: Of normal images: `negatives` voxels of the foreground per score in [0, 1].

    Returns:
        The map; the identity if there are too few voxels to say anything.
    """
    numbers = np.asarray(counts.negatives, dtype=np.float64)
    used = numbers > 0
    scores, numbers = np.asarray(counts.scores, dtype=np.float64)[used], numbers[used]
    if not scores.size:
        return IDENTITY
    reached = np.cumsum(numbers[::-1])[::-1]
    share = reached / reached[0]
    smallest = max(FEWEST_VOXELS / reached[0], SMALLEST_SHARE)
    wanted = np.array([one for one in SHARES if one >= smallest])
    # The lowest score that at most this share reaches; its own share, which ties make smaller, is what it stands for.
    index = np.searchsorted(-share, -wanted * (1 + 1e-9))
    index = np.unique(index[index < len(scores)])
    index = index[reached[index] >= FEWEST_VOXELS]
    return rising_knots(scores[index], rarity(share[index]))


@dataclass(frozen=True)
class Threshold:
    """From which score on something is called anomalous.

    Attributes:
        level: `voxel` or `sample`.
        rate: The share of normal voxels, or samples, that is called anomalous wrongly.
        value: What scores at least this is called anomalous.
        low: Lower end of the 95 % interval of `value`, from resampling the cases.
        high: Upper end.
        reliable: Whether there was enough data to find such a rare score.
    """

    level: str
    rate: float
    value: float
    low: float
    high: float
    reliable: bool

    def __post_init__(self) -> None:
        if self.level not in ("voxel", "sample"):
            raise ValueError(f"Expected the level voxel or sample, but got {self.level!r}.")
        if not 0 < self.rate < 1:
            raise ValueError(f"Expected a rate between 0 and 1, but got {self.rate}.")
        # A threshold just above 1 calls nothing anomalous.
        if not 0 <= self.low <= self.value <= self.high <= 1 + 1e-6:
            raise ValueError(f"Expected 0 <= low <= value <= high <= 1, but got {self.low}, {self.value}, {self.high}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return asdict(self)


def fit_thresholds(
    samples: Sequence[float], voxels: Sequence[Counts], *, rates: Sequence[float] = RATES, seed: int = 0
) -> tuple[Threshold, ...]:
    """Find the scores from which on at most a given share of what is normal is called anomalous.

    Args:
        samples: Calibrated sample score of each normal case.
        voxels: Per normal case, the voxels (`negatives`) of its foreground per calibrated score.
        rates: The shares.
        seed: Of the resampling.

    Returns:
        One threshold per level and rate; none of a level without cases.
    """
    found = []
    if len(samples):
        found += [_sample_threshold(np.sort(np.array(samples, dtype=np.float64)), rate, seed) for rate in rates]
    filled = [counts for counts in voxels if np.sum(counts.negatives) > 0]
    if filled:
        found += _voxel_thresholds(filled, rates, seed)
    return tuple(found)


def _sample_threshold(samples: np.ndarray, rate: float, seed: int) -> Threshold:
    """Samples are sorted, rising."""
    # Just above the highest score that may not be called: all that scores more may be.
    place = len(samples) - 1 - _allowed(rate, len(samples))
    drawn = np.random.default_rng(seed).integers(len(samples), size=(RESAMPLES, len(samples)))
    low, high = np.percentile(np.sort(samples[drawn], axis=1)[:, place], INTERVAL)
    value = _just_above(samples[place])
    enough = len(samples) * rate >= 1 - 1e-9
    return Threshold("sample", rate, value, min(_just_above(low), value), max(_just_above(high), value), enough)


def _voxel_thresholds(voxels: Sequence[Counts], rates: Sequence[float], seed: int) -> list[Threshold]:
    """Cases are pooled; their scores are thinned out where they are resampled."""
    scores = np.unique(np.concatenate([counts.scores for counts in voxels]).astype(np.float64))
    pooled = np.zeros(len(scores))
    for counts in voxels:
        pooled[np.searchsorted(scores, counts.scores)] += counts.negatives
    share = np.cumsum(pooled[::-1])[::-1] / pooled.sum()
    wanted = np.geomspace(1, max(share[-1], SMALLEST_SHARE), _RESAMPLED_SCORES)
    starts = np.unique(np.searchsorted(-share, -wanted).clip(max=len(scores) - 1))
    starts = np.union1d(starts, [0])
    rows = np.zeros((len(voxels), len(starts)))
    for row, counts in zip(rows, voxels, strict=True):
        places = np.searchsorted(starts, np.searchsorted(scores, counts.scores), side="right") - 1
        np.add.at(row, places, counts.negatives)
    chances = np.full(len(voxels), 1 / len(voxels))
    weights = np.random.default_rng(seed).multinomial(len(voxels), chances, size=RESAMPLES)
    above = np.cumsum((weights @ rows)[:, ::-1], axis=1)[:, ::-1]
    found = []
    for rate in rates:
        value = _lowest_reaching(scores, share, rate)
        drawn = [_lowest_reaching(scores[starts], reached / reached[0], rate) for reached in above]
        low, high = np.percentile(drawn, INTERVAL)
        enough = len(voxels) >= FEWEST_CASES and pooled.sum() * rate >= 1
        found.append(Threshold("voxel", rate, value, min(float(low), value), max(float(high), value), bool(enough)))
    return found


def _allowed(rate: float, count: int) -> int:
    """How many of so many may be called anomalous."""
    return int(np.floor(rate * count + 1e-9))


def _lowest_reaching(scores: np.ndarray, share: np.ndarray, rate: float) -> float:
    """The lowest of the rising scores that at most `rate` reach; just above the highest if more reach even that."""
    index = int(np.searchsorted(-share, -rate * (1 + 1e-9)))
    return float(scores[index]) if index < len(scores) else _just_above(scores[-1])


def _just_above(score: float) -> float:
    """The next float32, so that a score read from a file stays below."""
    return float(np.nextafter(np.float32(score), np.float32(2)))
