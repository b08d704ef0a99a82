import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from nnood.evaluation import metrics
from nnood.evaluation.metrics import ScoreHistogram, auroc, average_precision, exact_auroc, exact_average_precision

VOXELS = 200_000


def _random(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(size=VOXELS)


def _heavy_ties(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 5, size=VOXELS) / 4


def _all_equal(rng: np.random.Generator) -> np.ndarray:
    return np.full(VOXELS, 0.3)


def _crowded_near_zero(rng: np.random.Generator) -> np.ndarray:
    return 10 ** rng.uniform(-8, 0, size=VOXELS)


def _crowded_near_one(rng: np.random.Generator) -> np.ndarray:
    return 1 - 10 ** rng.uniform(-6, 0, size=VOXELS)


@pytest.fixture(params=[_random, _heavy_ties, _all_equal, _crowded_near_zero, _crowded_near_one])
def scored(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Scores of one kind, and a rare truth that is likelier where the score ranks high."""
    rng = np.random.default_rng(7)
    scores = request.param(rng).astype(np.float32)
    rank = np.searchsorted(np.sort(scores), scores) / VOXELS
    return scores, rng.uniform(size=VOXELS) < 0.03 * rank**2 + 0.001


def _histogram(scores: np.ndarray, truth: np.ndarray) -> ScoreHistogram:
    histogram = ScoreHistogram()
    histogram.add(scores, truth)
    return histogram


def test_histogram_agrees_with_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = scored
    histogram = _histogram(scores, truth)
    assert average_precision(histogram) == pytest.approx(average_precision_score(truth, scores), abs=1e-4)
    assert auroc(histogram) == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)


def test_exact_agrees_with_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = scored
    assert exact_average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert exact_auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize(
    "scores",
    [
        np.array([1e-9, 1e-8, 1.01e-8, 1e-7]),
        1 - np.array([1e-6, 5e-7, 3e-7, 0]),
        np.array([0.4999, 0.5, 0.5001, 0.5002]),
    ],
    ids=["near zero", "near one", "across the middle"],
)
def test_close_scores_keep_their_order(scores: np.ndarray) -> None:
    """Bins of equal width would put the first four, and the second four, into one bin."""
    truth = np.array([False, False, True, True])
    assert average_precision(_histogram(scores, truth)) == 1
    assert auroc(_histogram(scores, truth)) == 1


def test_merged_equals_added_together(scored: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    scores, truth = scored
    together = _histogram(scores, truth)
    monkeypatch.setattr(metrics, "_CHUNK", 999)
    merged = _histogram(scores[:5000], truth[:5000])
    merged.merge(_histogram(scores[5000:20_000].reshape(3, -1), truth[5000:20_000].reshape(3, -1)))
    monkeypatch.undo()
    merged.merge(_histogram(scores[20_000:], truth[20_000:]))
    np.testing.assert_array_equal(merged.positives, together.positives)
    np.testing.assert_array_equal(merged.negatives, together.negatives)
    assert together.positives.sum() == truth.sum()
    assert together.negatives.sum() == (~truth).sum()


def test_negative_zero_is_zero() -> None:
    truth = np.array([True, False])
    histogram = _histogram(np.array([-0.0, 0.0], dtype=np.float32), truth)
    assert histogram.positives[0] == histogram.negatives[0] == 1


def test_bins_rise_with_the_score() -> None:
    scores = np.sort(np.random.default_rng(3).uniform(size=100))
    bins = []
    for score in scores:
        histogram = _histogram(np.array([score]), np.array([True]))
        bins.append(int(np.flatnonzero(histogram.positives)[0]))
    assert bins == sorted(bins)
    assert len(set(bins)) > 90


def test_ends_of_the_range_have_bins() -> None:
    histogram = _histogram(np.array([0.0, 1.0]), np.array([False, True]))
    assert histogram.negatives[0] == histogram.positives[-1] == 1


@pytest.mark.parametrize("bad", [-1e-6, 1.0000001, np.nan, np.inf, -np.inf])
def test_scores_outside_the_range_are_refused_and_not_counted(bad: float) -> None:
    histogram = ScoreHistogram()
    with pytest.raises(ValueError, match=r"Expected finite scores in \[0, 1\]"):
        histogram.add(np.array([0.5, bad, 0.5]), np.array([True, False, True]))
    assert histogram.positives.sum() == histogram.negatives.sum() == 0


def test_input_is_not_modified() -> None:
    scores, truth = np.array([-0.0, 0.5], dtype=np.float32), np.array([True, False])
    _histogram(scores, truth)
    assert np.signbit(scores[0])


@pytest.mark.parametrize("function", [exact_average_precision, exact_auroc, _histogram])
def test_shapes_and_types_must_agree(function) -> None:
    with pytest.raises(ValueError, match="one shape"):
        function(np.zeros(3), np.zeros((3, 1), dtype=bool))
    with pytest.raises(ValueError, match="type bool"):
        function(np.zeros(3), np.zeros(3, dtype=np.uint8))


def test_undefined_without_positives() -> None:
    scores, truth = np.array([0.1, 0.2]), np.zeros(2, dtype=bool)
    histogram = _histogram(scores, truth)
    figures = [average_precision(histogram), auroc(histogram)]
    figures += [exact_average_precision(scores, truth), exact_auroc(scores, truth)]
    assert np.isnan(figures).all()


def test_without_negatives_only_auroc_is_undefined() -> None:
    scores, truth = np.array([0.1, 0.2]), np.ones(2, dtype=bool)
    histogram = _histogram(scores, truth)
    assert average_precision(histogram) == exact_average_precision(scores, truth) == 1
    assert np.isnan([auroc(histogram), exact_auroc(scores, truth)]).all()


def test_nothing_at_all_is_undefined() -> None:
    nothing = np.zeros(0), np.zeros(0, dtype=bool)
    assert np.isnan([average_precision(_histogram(*nothing)), auroc(_histogram(*nothing))]).all()
    assert np.isnan([exact_average_precision(*nothing), exact_auroc(*nothing)]).all()


def test_exact_refuses_nan() -> None:
    with pytest.raises(ValueError, match="finite"):
        exact_auroc(np.array([0.1, np.nan]), np.array([True, False]))
