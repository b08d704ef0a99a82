"""The outlier detectors that can be fitted on latent codes, each with what makes it work on few, equal or many of them.

PyOD holds all of them but one and is an optional dependency: it is imported only when a detector is fitted. A detector
keeps PyOD's defaults unless they fail on few, equal or many codes; each exception is explained where it is made.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from nnood.errors import UserError

MOST_COVARIANCE_CODES = 1000  # a robust covariance of 128 dimensions takes 6 s for 1000 codes and 12 s for 4000
MOST_DIMENSIONS = 128  # of a covariance: the time grows with the cube of their number
MOST_LSCP_CODES = 300  # LSCP builds 20 search trees over them for every call
LSCP_NEIGHBOURS = (10, 20, 30, 40)
LMDD_GROUP = 6
LMDD_ORDERS = 25
LMDD_SCORED = 100
BLOCK = 64
SEED = 0

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
def repeatable() -> Iterator[None]:
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
class Kind:
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


DETECTORS: dict[str, Kind] = {
    "elliptic_envelope": Kind(_fit_elliptic_envelope, _principal, distinct=True, most=MOST_COVARIANCE_CODES),
    "ECOD": Kind(_fit_ecod),
    "ABOD": Kind(_as_it_is("ABOD"), distinct=True),
    "KDE": Kind(_fit_kde),
    # Never more than half of the codes: those drawn are at distance 0 from themselves.
    "Sampling": Kind(_as_it_is("Sampling", lambda count: {"subset_size": min(20, count // 2), "random_state": SEED})),
    "GMM": Kind(_as_it_is("GMM", _seeded), _principal),
    "MCD": Kind(_fit_mcd, _principal, distinct=True, most=MOST_COVARIANCE_CODES),
    "OCSVM": Kind(_as_it_is("OCSVM")),
    "LMDD": Kind(_fit_lmdd),
    "LOF": Kind(_as_it_is("LOF", lambda count: {"n_neighbors": min(20, count - 1)}), distinct=True),
    "CBLOF": Kind(_fit_cblof),
    "HBOS": Kind(_as_it_is("HBOS"), _varying),
    "KNN": Kind(_as_it_is("KNN")),
    "IForest": Kind(_as_it_is("IForest", _seeded)),
    "INNE": Kind(_in_blocks(_as_it_is("INNE", _seeded)), distinct=True),
    "LSCP": Kind(_fit_lscp, distinct=True, most=MOST_LSCP_CODES),
    # Seeded by `repeatable`: older releases of PyOD have no seed for it. Fewer than some 8 codes per bin leave gaps,
    # whose codes score higher than those beyond the histogram, which get the density of its outermost bins.
    "LODA": Kind(_in_blocks(_as_it_is("LODA", lambda count: {"n_bins": min(10, max(3, count // 8))})), _varying),
}
