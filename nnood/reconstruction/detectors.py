"""Outlier detectors fitted on the latent codes of normal training patches."""

from dataclasses import dataclass, field

import numpy as np

from nnood.reconstruction.detector_kinds import DETECTORS, SEED, Decision, Kind, repeatable

FEWEST_CODES = 10  # different ones: the fewest that every detector can be fitted on
SMALLEST_SPREAD = 1e-30


def relative_score(scores: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Map scores of any scale to [0, 1]; rising without saturation, so that no ranking is lost.

    Args:
        scores: Shape (M,); the larger, the more outlying.
        normal: Shape (N,), the same score of normal training patches.

    Returns:
        Float64, shape (M,): 1/2 at the median of the normal scores, 3/4 at their 95th percentile.
    """
    median, high = np.percentile(normal, (50, 95))
    excess = (scores - median) / max(high - median, 1e-6 * abs(median), SMALLEST_SPREAD)
    return 0.5 * (1 + excess / (1 + np.abs(excess)))


def _checked(codes: np.ndarray, dimensions: int | None = None) -> np.ndarray:
    """Codes in single precision, as networks give them, stored in double precision."""
    shape = np.shape(codes)
    if len(shape) != 2 or not shape[1] or dimensions not in (None, shape[1]):
        raise ValueError(f"Expected codes of shape (number, {dimensions or 'dimensions'}), but got {shape}.")
    with np.errstate(over="ignore"):
        checked = np.asarray(codes, dtype=np.float32).astype(np.float64)
    if not np.isfinite(checked).all():
        raise ValueError("Expected finite codes in the range of float32, but got NaN, infinite or larger ones.")
    return checked


def _chosen(codes: np.ndarray, kind: Kind) -> tuple[np.ndarray, str]:
    """The codes that a detector is fitted on, in their order, and a note where they were thinned."""
    _, first = np.unique(codes, axis=0, return_index=True)
    if len(first) < FEWEST_CODES:
        raise ValueError(f"Expected at least {FEWEST_CODES} different codes, but got {len(first)} among {len(codes)}.")
    kept = np.sort(first) if kind.distinct else np.arange(len(codes))
    if kind.most is None or len(kept) <= kind.most:
        return codes[kept], ""
    drawn = np.sort(np.random.default_rng(SEED).choice(kept, kind.most, replace=False))
    return codes[drawn], f"fitted on {kind.most} of {len(kept)} codes"


@dataclass(frozen=True, eq=False)
class LatentDetector:
    """A detector fitted on the codes of normal patches.

    The score of a code is the detector's own decision; it never depends on the codes decided with it or before. The
    same codes give the same detector, so that it is refitted from stored codes and never pickled.

    Source: Zhao, Nasrullah, Li 2019, "PyOD: a Python toolbox for scalable outlier detection"; the elliptic envelope is
    scikit-learn's, and on equal codes its decision is that of PyOD's MCD.

    Attributes:
        name: One of `DETECTORS`.
        note: For the user: what the codes did not allow; empty if nothing.
        dimensions: D of the codes.
        normal_scores: The decision scores of the normal codes.
    """

    name: str
    note: str
    dimensions: int
    normal_scores: np.ndarray = field(repr=False)
    _decision: Decision = field(repr=False)

    @classmethod
    def fit(cls, name: str, codes: np.ndarray) -> "LatentDetector":
        """Fit a detector; numpy's global random state is left as it was.

        Args:
            name: One of `DETECTORS`.
            codes: Float, shape (N, D), of normal patches; read in single precision and taken as they are, neither
                centred nor scaled.

        Returns:
            The fitted detector.

        Raises:
            UserError: If PyOD is not installed.
            ValueError: If the name is unknown, or the codes are not finite, not of that shape, or fewer than
                `FEWEST_CODES` are different.
        """
        if name not in DETECTORS:
            raise ValueError(f"Expected one of {', '.join(DETECTORS)}, but got {name!r}.")
        kind = DETECTORS[name]
        every = _checked(codes)
        normal, thinned = _chosen(every, kind)
        columns, reduced = kind.columns(normal)
        with repeatable():
            decide, scores = kind.fit(columns(normal))
        return cls(
            name=name,
            note=". ".join(filter(None, (thinned, reduced))),
            dimensions=every.shape[1],
            normal_scores=scores,
            _decision=lambda new: decide(columns(new)),
        )

    def decide(self, codes: np.ndarray) -> np.ndarray:
        """The detector's own decision scores.

        Args:
            codes: Float, shape (M, D).

        Returns:
            Float64, shape (M,), finite; the larger, the more outlying.

        Raises:
            ValueError: If the codes are not finite or not of that shape.
        """
        new = _checked(codes, self.dimensions)
        if not len(new):
            return np.empty(0)
        with repeatable():
            return np.array(self._decision(new), dtype=np.float64)

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Scores in [0, 1], 0.5 at the median of the normal codes, strictly rising with `decide`.

        Args:
            codes: Float, shape (M, D).

        Returns:
            Float64, shape (M,).

        Raises:
            ValueError: As in `decide`.
        """
        return relative_score(self.decide(codes), self.normal_scores)
