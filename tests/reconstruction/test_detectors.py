import importlib
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.covariance import EllipticEnvelope
from sklearn.metrics import roc_auc_score

from nnood.errors import UserError
from nnood.reconstruction.detector_kinds import DETECTORS
from nnood.reconstruction.detectors import FEWEST_CODES, LatentDetector, relative_score

PARAMETERS = {
    "ECOD": {},
    "ABOD": {},
    "KDE": {"leaf_size": 120},
    "Sampling": {"subset_size": 20, "random_state": 0},
    "GMM": {"random_state": 0},
    "MCD": {"random_state": 0},
    "OCSVM": {},
    "LMDD": {"n_iter": 25, "random_state": 0},
    "LOF": {},
    "CBLOF": {"random_state": 0},
    "HBOS": {},
    "KNN": {},
    "IForest": {"random_state": 0},
    "INNE": {"random_state": 0},
    "LSCP": {"random_state": 0},
    "LODA": {"random_state": 0},
}
COVARIANCE = ("elliptic_envelope", "GMM", "MCD")
every_detector = pytest.mark.parametrize("name", DETECTORS)


def single(codes):
    return codes.astype(np.float32).astype(np.float64)


def codes_of(seed, count, dimensions=6, shift=0.0):
    rng = np.random.default_rng(seed)
    return single(rng.normal(size=(count, dimensions)) + shift)


def far_codes(seed, count, dimensions=6, distance=8.0):
    directions = codes_of(seed, count, dimensions)
    return single(distance * directions * np.sqrt(dimensions) / np.linalg.norm(directions, axis=1, keepdims=True))


NORMAL = codes_of(0, 120)
NEW = np.vstack([codes_of(1, 40), far_codes(2, 20)])


@pytest.fixture(scope="module")
def fitted():
    detectors = {}

    def fit(name):
        if name not in detectors:
            detectors[name] = LatentDetector.fit(name, NORMAL)
        return detectors[name]

    return fit


def pyod(name, **parameters):
    if name == "LSCP":
        parameters["detector_list"] = [pyod("LOF", n_neighbors=neighbours) for neighbours in (10, 20, 30, 40)]
    return getattr(importlib.import_module(f"pyod.models.{name.lower()}"), name)(**parameters)


def test_the_table_is_complete():
    assert set(DETECTORS) == {"elliptic_envelope", *PARAMETERS}


@every_detector
def test_far_codes_score_higher(fitted, name):
    labels = np.repeat([0, 1], (40, 20))
    detector = fitted(name)
    assert roc_auc_score(labels, detector.decide(NEW)) > 0.9
    assert roc_auc_score(labels, detector(NEW)) == roc_auc_score(labels, detector.decide(NEW))
    assert detector.note == ""


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name not in ("ECOD", "LMDD")])
@pytest.mark.filterwarnings("ignore")
def test_as_pyod_called_directly(fitted, name):
    direct = pyod(name, **PARAMETERS[name]).fit(NORMAL)
    if name == "LSCP":
        direct.random_state = np.random.RandomState(0)
    np.testing.assert_allclose(fitted(name).decide(NEW), direct.decision_function(NEW), rtol=1e-9)
    if name != "KDE":
        np.testing.assert_allclose(fitted(name).normal_scores, direct.decision_scores_, rtol=1e-9)


def test_ecod_as_pyod_with_one_code_appended(fitted):
    direct = pyod("ECOD").fit(NORMAL)
    expected = np.concatenate([direct.decision_function(code[None]) for code in NEW])
    np.testing.assert_allclose(fitted("ECOD").decide(NEW), expected, rtol=1e-9)
    np.testing.assert_allclose(fitted("ECOD").normal_scores, direct.decision_scores_, rtol=1e-9)
    ties, new = np.round(codes_of(3, 50)), np.round(codes_of(4, 9) * 2)
    expected = np.concatenate([pyod("ECOD").fit(ties).decision_function(code[None]) for code in new])
    np.testing.assert_allclose(LatentDetector.fit("ECOD", ties).decide(new), expected, rtol=1e-9)


def test_lmdd_as_pyod_on_each_code_beside_six_normal_ones(fitted):
    order = np.random.default_rng(0).permutation(len(NORMAL))
    direct = pyod("LMDD", **PARAMETERS["LMDD"])
    scores = [direct.decision_function(np.vstack([NORMAL[order[:6]], code]))[-1] for code in (*NEW, NORMAL[order[6]])]
    np.testing.assert_array_equal(fitted("LMDD").decide(NEW), scores[:-1])
    assert fitted("LMDD").normal_scores[0] == scores[-1]


def test_elliptic_envelope_as_scikit_learn(fitted):
    direct = EllipticEnvelope(random_state=0).fit(NORMAL)
    scores = fitted("elliptic_envelope").decide(NEW)
    np.testing.assert_allclose(scores, -direct.score_samples(NEW), rtol=1e-9)
    np.testing.assert_allclose(scores, fitted("MCD").decide(NEW), rtol=1e-9)


def test_kde_keeps_its_digits_in_many_dimensions():
    normal, new = codes_of(5, 200, 64), codes_of(6, 20, 64)
    detector = LatentDetector.fit("KDE", normal)

    def density(codes, at):
        return np.log(np.exp(-cdist(at, codes, "sqeuclidean") / 2).mean(axis=1)) - 32 * np.log(2 * np.pi)

    np.testing.assert_allclose(detector.decide(new), -density(normal, new), rtol=1e-12)
    np.testing.assert_allclose(detector.normal_scores[7], -density(np.delete(normal, 7, 0), normal[7:8])[0], rtol=1e-12)


@every_detector
def test_scores_rise_strictly_with_decisions_within_the_bounds(fitted, name):
    detector = fitted(name)
    decisions, place = np.unique(detector.decide(NEW), return_index=True)
    scores = detector(NEW)[place]
    assert scores.dtype == decisions.dtype == np.float64
    apart = np.diff(decisions) > 1e-12 * np.abs(decisions[1:])  # not by rounding only
    assert apart.sum() > 10
    assert (np.diff(scores)[apart] > 0).all()
    assert (np.diff(scores) >= 0).all()
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_relative_score_in_closed_form():
    normal = np.arange(101.0)
    np.testing.assert_allclose(relative_score(np.array([50, 95, 5, 140]), normal), [1 / 2, 3 / 4, 1 / 4, 5 / 6])
    np.testing.assert_array_equal(relative_score(np.array([-1.0, 0, 1]), np.zeros(9)), [0, 0.5, 1])


@every_detector
def test_same_codes_same_scores_whatever_came_before(fitted, name):
    expected = fitted(name).decide(NEW)
    np.random.seed(5)
    np.random.normal(size=3)
    state = np.random.get_state()
    again = LatentDetector.fit(name, NORMAL.astype(np.float32))
    again.decide(codes_of(7, 5))
    np.testing.assert_array_equal(again.decide(NEW), expected)
    for before, after in zip(state, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(before, after)


@every_detector
def test_a_score_does_not_depend_on_the_codes_beside_it(fitted, name):
    detector = fitted(name)
    codes = np.vstack([NEW[::15], NORMAL[:4]])
    together = detector.decide(codes)
    np.testing.assert_allclose([detector.decide(code[None])[0] for code in codes], together, rtol=1e-9)
    np.testing.assert_allclose(detector.decide(codes[::-1])[::-1], together, rtol=1e-9)
    np.testing.assert_allclose(detector.decide(np.vstack([codes, far_codes(8, 4)]))[: len(codes)], together, rtol=1e-9)


@every_detector
@pytest.mark.parametrize(("count", "kept"), [(FEWEST_CODES, 4), (24, 11)])
def test_fewer_codes_than_dimensions(name, count, kept):
    detector = LatentDetector.fit(name, codes_of(9, count, 40))
    note = f"{count} codes are too few for 40 dimensions; reduced to {kept} by PCA"
    assert detector.note == (note if name in COVARIANCE else "")
    normal, far = detector(codes_of(10, 8, 40)), detector(far_codes(11, 8, 40, 20))
    assert np.isfinite([normal, far]).all()
    if (name, count) == ("LODA", FEWEST_CODES):
        return  # histograms of 10 codes have no say
    assert np.median(far) > np.median(normal)


@every_detector
def test_one_dimension(name):
    detector = LatentDetector.fit(name, codes_of(12, 30, 1))
    scores = detector(np.array([[0.1], [-0.1], [30]]))
    assert np.isfinite(scores).all()
    if name != "LODA":  # all its histograms are the same one
        assert scores[2] > scores[:2].max()


@every_detector
def test_constant_dimensions(name):
    normal, new = codes_of(13, 40, 8), NEW.repeat(2, axis=1)[:, :8]
    for codes in (normal, new):
        codes[:, 2], codes[:, 5] = 0.1, 0
    detector = LatentDetector.fit(name, normal)
    scores = detector.decide(new)
    assert np.isfinite(scores).all()
    assert roc_auc_score(np.repeat([0, 1], (40, 20)), scores) > 0.9
    assert ("constant" in detector.note) == (name in ("HBOS", "LODA"))
    assert ("fewer than their 8 dimensions; reduced to 6 by PCA" in detector.note) == (name in COVARIANCE)
    new[:, 2] += 100
    assert np.isfinite(detector.decide(new)).all()


@every_detector
@pytest.mark.parametrize(("noise", "scale"), [(0, 1), (1e-3, 1e-6), (1e-3, 1e6)])
def test_most_codes_alike(name, noise, scale):
    normal = np.vstack([NORMAL[:20], NORMAL[0] + noise * codes_of(14, 60)]) * scale
    detector = LatentDetector.fit(name, normal)
    scores = detector(
        np.vstack([NORMAL[:20] * scale, far_codes(15, 5, distance=1000) * scale, far_codes(16, 2) * 1e30])
    )
    assert np.isfinite(scores).all()
    if name == "LODA":
        return  # it takes the density of its outermost bin for all beyond, above that of the gaps between normal codes
    assert scores[20:].min() > np.median(scores[:20])


def test_clusters_of_one_size():
    normal = np.vstack(
        [codes_of(17, 10) + 100 * corner for corner in np.eye(6)] + [codes_of(18, 10, shift=s) for s in (-99, 99)]
    )
    with pytest.raises(ValueError, match="valid cluster separation"):
        pyod("CBLOF", random_state=0).fit(normal)
    detector = LatentDetector.fit("CBLOF", normal)
    assert detector(far_codes(19, 5, distance=500)).min() > detector(normal).max()


@pytest.mark.parametrize(("name", "most"), [("LSCP", 300), ("MCD", 1000)])
def test_many_codes_are_thinned(name, most):
    detector = LatentDetector.fit(name, codes_of(20, 1200, 2))
    assert detector.note == f"fitted on {most} of 1200 codes"
    assert len(detector.normal_scores) == most


def test_many_dimensions():
    assert LatentDetector.fit("GMM", codes_of(21, 400, 140)).note == (
        "140 dimensions are too many for a covariance; reduced to 128 by PCA"
    )


@every_detector
def test_without_pyod(name, monkeypatch):
    missing = "sklearn" if name == "elliptic_envelope" else "pyod"
    for module in [module for module in sys.modules if module.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r"need PyOD.* install it with `pip install nnood\[latent\]`\.$"):
        LatentDetector.fit(name, NORMAL)


def test_pyod_is_imported_only_when_a_detector_is_fitted():
    code = (
        "import sys, nnood.reconstruction.detectors\n"
        "sys.exit(any(module in sys.modules for module in ('pyod', 'sklearn', 'numba')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_codes_to_decide(fitted):
    assert fitted("KNN")(np.empty((0, 6))).shape == (0,)


@pytest.mark.parametrize(
    ("name", "codes", "message"),
    [
        ("knn", NORMAL, r"Expected one of elliptic_envelope, ECOD, .*LODA, but got 'knn'\."),
        ("KNN", NORMAL[:9], r"Expected at least 10 different codes, but got 9 among 9\."),
        ("KNN", NORMAL[:9].repeat(5, axis=0), r"Expected at least 10 different codes, but got 9 among 45\."),
        ("KNN", NORMAL[0], r"Expected codes of shape \(number, dimensions\), but got \(6,\)\."),
        ("KNN", NORMAL[:, :0], r"Expected codes of shape \(number, dimensions\), but got \(120, 0\)\."),
        ("KNN", np.where(NORMAL > 2, np.nan, NORMAL), "Expected finite codes"),
        ("KNN", NORMAL * 1e40, "Expected finite codes"),
    ],
)
def test_unusable_arguments(name, codes, message):
    with pytest.raises(ValueError, match=message):
        LatentDetector.fit(name, codes)


def test_codes_of_another_network(fitted):
    with pytest.raises(ValueError, match=r"Expected codes of shape \(number, 6\), but got \(60, 5\)\."):
        fitted("KNN").decide(NEW[:, :5])
