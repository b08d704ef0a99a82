"""Outlier detectors fitted on the latent codes of normal training patches.

PyOD holds all of them but one and is an optional dependency: it is imported only when a detector is fitted. A detector
keeps PyOD's defaults unless they fail on few, equal or many codes; each exception is explained where it is made.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from nnood.errors import UserError

FEWEST_CODES = 10  # different ones: the fewest that every detector can be fitted on
MOST_COVARIANCE_CODES = 1000  # a robust covariance of 128 dimensions takes 6 s for 1000 codes and 12 s for 4000
MOST_DIMENSIONS = 128  # of a covariance: the time grows with the cube of their number
MOST_LSCP_CODES = 300  # LSCP builds 20 search trees over them for every call
LSCP_NEIGHBOURS = (10, 20, 30, 40)
LMDD_GROUP = 6
LMDD_ORDERS = 25
LMDD_SCORED = 100
BLOCK = 64
SEED = 0
SMALLEST_SPREAD = 1e-30

Decision = Callable[[np.ndarray], np.ndarray]
Fitted = tuple[Decision, np.ndarray]  # the decision function, the decision scores of the normal codes
Columns = tuple[Callable[[np.ndarray], np.ndarray], str]  # which dimensions are used, and the note about it


def _load(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(
            f"Latent outlier detectors need PyOD, but {module} cannot be imported ({error}); "
            "install it with `pip install nnood[latent]`."
        ) from error


def _pyod(name: str) -> Any:
    return _load(f"pyod.models.{name.lower()}", name)


@contextmanager
def _repeatable() -> Iterator[None]:
    """One thread, no warnings, and numpy's global random state seeded, then put back.

    LODA and the one-class SVM draw from that state. With several threads, k-means adds in an order that changes from
    run to run. The warnings are about small data and singular covariances, which are dealt with here.
    """
    threadpool_limits = _load("threadpoolctl", "threadpool_limits")
    state = np.random.get_state()
    np.random.seed(SEED)
    try:
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(state)


def _all(codes: np.ndarray) -> Columns:
    return lambda new: new, ""


def _varying(codes: np.ndarray) -> Columns:
    """Leave out constant dimensions: a histogram of one value has bins of an arbitrary width."""
    varying = np.ptp(codes, axis=0) > 0
    left_out = int((~varying).sum())
    note = f"{left_out} of {len(varying)} dimensions are constant in the normal codes and left out" if left_out else ""
    return lambda new: np.compress(varying, new, axis=1), note


def _principal(codes: np.ndarray) -> Columns:
    """Reduce by PCA where a full covariance cannot be estimated: more than two codes per dimension are wanted."""
    count, dimensions = codes.shape
    centre = codes.mean(axis=0)
    _, extents, axes = np.linalg.svd(codes - centre, full_matrices=False)
    rank = int((extents > 1e-6 * extents[0]).sum())
    kept, reason = min(
        (rank, f"the codes vary in fewer than their {dimensions} dimensions"),
        ((count - 1) // 2, f"{count} codes are too few for {dimensions} dimensions"),
        (MOST_DIMENSIONS, f"{dimensions} dimensions are too many for a covariance"),
    )
    if kept == dimensions:
        return _all(codes)
    return lambda new: (new - centre) @ axes[:kept].T, f"{reason}; reduced to {kept} by PCA"


def _first_that_fits(build: Callable[[Any], Any], values: Sequence[Any], codes: np.ndarray) -> Any:
    """Fit with the first of the parameter's values that the library does not refuse; the last one always works."""
    for value in values[:-1]:
        with suppress(ValueError):
            return build(value).fit(codes)
    return build(values[-1]).fit(codes)


def _fit_elliptic_envelope(codes: np.ndarray) -> Fitted:
    envelope = _load("sklearn.covariance", "EllipticEnvelope")
    # A support fraction of 1 gives the plain covariance: the robust one is refused where half of the codes coincide.
    detector = _first_that_fits(
        lambda support: envelope(support_fraction=support, random_state=SEED), (None, 1.0), codes
    )
    return lambda new: -detector.score_samples(new), -detector.score_samples(codes)


def _fit_ecod(codes: np.ndarray) -> Fitted:
    """PyOD's decision for each new code appended alone to the normal codes, in closed form.

    PyOD appends the whole batch, so that a code's score would depend on the codes beside it. Its choice of the tail by
    skewness is left out: it takes the larger of both tails anyway, unless a skewness is exactly 0.
    """
    varying, _ = _varying(codes)  # the skewness of a constant is NaN; constants add nothing to normal codes' scores
    scores = _pyod("ECOD")().fit(varying(codes)).decision_scores_
    ordered = np.sort(codes, axis=0)
    count = len(codes)

    def decide(new: np.ndarray) -> np.ndarray:
        total = np.zeros(len(new))
        for column, values in zip(ordered.T, new.T, strict=True):
            not_above = np.searchsorted(column, values, side="right") + 1
            not_below = count - np.searchsorted(column, values, side="left") + 1
            total -= np.log(np.minimum(not_above, not_below) / (count + 1))
        return total

    return decide, scores


def _fit_kde(codes: np.ndarray) -> Fitted:
    """A normal code's own kernel, beside which all others vanish in many dimensions, is left out of its score.

    One leaf holds all codes: over several, scikit-learn's sum of kernels loses digits, in 64 dimensions all of them.
    """
    detector = _pyod("KDE")(leaf_size=len(codes)).fit(codes)
    squared = cdist(codes, codes, "sqeuclidean")
    np.fill_diagonal(squared, np.inf)
    count, dimensions = codes.shape
    density = logsumexp(-squared / 2, axis=1) - np.log(count - 1) - dimensions / 2 * np.log(2 * np.pi)
    return detector.decision_function, -density


def _fit_lmdd(codes: np.ndarray) -> Fitted:
    """Each code is decided beside the same few normal codes, and others of the normal codes say what is normal.

    PyOD's LMDD has no memory: it compares the codes of a batch with one another. Its time grows with the square of the
    batch. Of the sizes and numbers of orders that take as long, these tie the fewest normal codes at 0.
    """
    order = np.random.default_rng(SEED).permutation(len(codes))
    group, others = codes[order[:LMDD_GROUP]], codes[order[LMDD_GROUP : LMDD_GROUP + LMDD_SCORED]]
    detector = _pyod("LMDD")(n_iter=LMDD_ORDERS, random_state=SEED)

    def decide(new: np.ndarray) -> np.ndarray:
        return np.array([detector.decision_function(np.vstack([group, code]))[-1] for code in new])

    return decide, decide(others)


def _fit_cblof(codes: np.ndarray) -> Fitted:
    # PyOD's 8 clusters are refused if all of them hold more than a tenth of the codes, which 10 clusters never do.
    detector = _first_that_fits(lambda clusters: _pyod("CBLOF")(n_clusters=clusters, random_state=SEED), (8, 10), codes)
    return detector.decision_function, detector.decision_scores_


def _fit_mcd(codes: np.ndarray) -> Fitted:
    # As in the elliptic envelope.
    detector = _first_that_fits(
        lambda support: _pyod("MCD")(support_fraction=support, random_state=SEED), (None, 1.0), codes
    )
    return detector.decision_function, detector.decision_scores_


def _fit_lscp(codes: np.ndarray) -> Fitted:
    """LSCP over local outlier factors of several neighbourhoods, all of them smaller where the codes are few."""
    share = min(1, (len(codes) - 1) / max(LSCP_NEIGHBOURS))
    base = [_pyod("LOF")(n_neighbors=int(share * neighbours)) for neighbours in LSCP_NEIGHBOURS]
    detector = _pyod("LSCP")(base, local_region_size=min(30, len(codes)), random_state=SEED).fit(codes)

    def decide(new: np.ndarray) -> np.ndarray:
        detector.random_state = np.random.RandomState(SEED)  # else the subspaces drawn depend on the calls before
        return detector.decision_function(new)

    return decide, detector.decision_scores_


def _as_it_is(name: str, parameters: Callable[[int], dict[str, Any]] = lambda count: {}) -> Callable[..., Fitted]:
    """A detector of PyOD with these parameters, which may depend on the number of codes."""

    def fit(codes: np.ndarray) -> Fitted:
        detector = _pyod(name)(**parameters(len(codes))).fit(codes)
        return detector.decision_function, detector.decision_scores_

    return fit


def _in_blocks(fit: Callable[..., Fitted]) -> Callable[..., Fitted]:
    """Decide always as many codes at once, the last ones padded.

    A product of matrices is rounded by its shape, which decides on which side of a bin's or a sphere's edge a normal
    code falls that defines this edge.
    """

    def fit_blocks(codes: np.ndarray) -> Fitted:
        decide, scores = fit(codes)

        def decide_blocks(new: np.ndarray) -> np.ndarray:
            blocks = -(-len(new) // BLOCK)
            padded = np.resize(new, (blocks, BLOCK, new.shape[1]))
            return np.concatenate([decide(block) for block in padded])[: len(new)]

        return decide_blocks, scores

    return fit_blocks


def _seeded(count: int) -> dict[str, Any]:
    return {"random_state": SEED}


@dataclass(frozen=True)
class _Kind:
    """How one detector is fitted.

    Attributes:
        fit: From codes (N, D) to the decision function and the codes' decision scores.
        columns: Which dimensions it is given.
        distinct: Equal codes count once: among them there are no angles, densities or spheres.
        most: A larger number of codes is thinned to this one; None for no limit.
    """

    fit: Callable[..., Fitted]
    columns: Callable[[np.ndarray], Columns] = _all
    distinct: bool = False
    most: int | None = None


DETECTORS: dict[str, _Kind] = {
    "elliptic_envelope": _Kind(_fit_elliptic_envelope, _principal, distinct=True, most=MOST_COVARIANCE_CODES),
    "ECOD": _Kind(_fit_ecod),
    "ABOD": _Kind(_as_it_is("ABOD"), distinct=True),
    "KDE": _Kind(_fit_kde),
    # Never more than half of the codes: those drawn are at distance 0 from themselves.
    "Sampling": _Kind(_as_it_is("Sampling", lambda count: {"subset_size": min(20, count // 2), "random_state": SEED})),
    "GMM": _Kind(_as_it_is("GMM", _seeded), _principal),
    "MCD": _Kind(_fit_mcd, _principal, distinct=True, most=MOST_COVARIANCE_CODES),
    "OCSVM": _Kind(_as_it_is("OCSVM")),
    "LMDD": _Kind(_fit_lmdd),
    "LOF": _Kind(_as_it_is("LOF", lambda count: {"n_neighbors": min(20, count - 1)}), distinct=True),
    "CBLOF": _Kind(_fit_cblof),
    "HBOS": _Kind(_as_it_is("HBOS"), _varying),
    "KNN": _Kind(_as_it_is("KNN")),
    "IForest": _Kind(_as_it_is("IForest", _seeded)),
    "INNE": _Kind(_in_blocks(_as_it_is("INNE", _seeded)), distinct=True),
    "LSCP": _Kind(_fit_lscp, distinct=True, most=MOST_LSCP_CODES),
    # Seeded by `_repeatable`: older releases of PyOD have no seed for it. Fewer than some 8 codes per bin leave gaps,
    # whose codes score higher than those beyond the histogram, which get the density of its outermost bins.
    "LODA": _Kind(_in_blocks(_as_it_is("LODA", lambda count: {"n_bins": min(10, max(3, count // 8))})), _varying),
}


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


def _chosen(codes: np.ndarray, kind: _Kind) -> tuple[np.ndarray, str]:
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
        with _repeatable():
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
        with _repeatable():
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
