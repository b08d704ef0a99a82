import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from nnood.evaluation import histogram as histogram_module
from nnood.evaluation.histogram import ScoreHistogram, bin_start, coarse_bins_of, coarse_scores, count_bins
from nnood.evaluation.metrics import Counts, auroc, average_precision

VOXELS = 200_000

Scored = tuple[np.ndarray, np.ndarray]


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


def _sigmoid(rng: np.random.Generator) -> np.ndarray:
    return 1 / (1 + np.exp(-rng.normal(-6, 3, size=VOXELS)))


def _narrow(rng: np.random.Generator) -> np.ndarray:
    """All in the middle of the range, as a network that has learned little gives them."""
    return np.clip(rng.normal(0.37, 0.01, size=VOXELS), 0, 1)


@pytest.fixture(params=[_random, _heavy_ties, _all_equal, _crowded_near_zero, _crowded_near_one, _sigmoid, _narrow])
def scored(request: pytest.FixtureRequest) -> Scored:
    """Scores of one kind, and a rare truth that is likelier where the score ranks high."""
    rng = np.random.default_rng(7)
    scores = request.param(rng).astype(np.float32)
    rank = np.searchsorted(np.sort(scores), scores) / VOXELS
    return scores, rng.uniform(size=VOXELS) < 0.03 * rank**8 + 0.001


def _histogram(scores: np.ndarray, truth: np.ndarray) -> ScoreHistogram:
    histogram = ScoreHistogram()
    histogram.add(count_bins(scores, truth))
    return histogram


def _coarse(scores: np.ndarray, truth: np.ndarray) -> Counts:
    counted = count_bins(scores, truth)
    bins = counted.coarse_bins()
    sums = (np.bincount(bins, each, minlength=len(coarse_scores())) for each in (counted.positives, counted.negatives))
    return Counts(coarse_scores(), *(each.astype(np.int64) for each in sums))


def test_agrees_with_scikit_learn(scored: Scored) -> None:
    scores, truth = scored
    counts = _histogram(scores, truth).counts()
    assert average_precision(counts) == pytest.approx(average_precision_score(truth, scores), abs=1e-4)
    assert auroc(counts) == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)


def test_coarse_bins_nearly_agree_and_lose_no_voxel(scored: Scored) -> None:
    scores, truth = scored
    counts = _coarse(scores, truth)
    assert average_precision(counts) == pytest.approx(average_precision_score(truth, scores), abs=1e-3)
    assert auroc(counts) == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)
    assert counts.positives.sum() == truth.sum()
    assert counts.negatives.sum() == (~truth).sum()


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
    counts = _histogram(scores, truth).counts()
    assert average_precision(counts) == auroc(counts) == 1


def _hard_scores() -> np.ndarray:
    """Float32 values of every magnitude towards both ends, and around powers of two and the middle."""
    rng = np.random.default_rng(3)
    powers = 2.0 ** -np.arange(1, 30)
    around = np.concatenate(
        [np.nextafter(np.float32(p), np.array([0, 1], np.float32)) for p in (*powers, *(1 - powers))]
    )
    spread = 10 ** rng.uniform(-12, 0, size=20_000)
    return np.unique(np.concatenate([spread, 1 - spread, powers, 1 - powers, around, [0, 0.5, 1]]).astype(np.float32))


def test_a_bin_s_score_is_the_lowest_in_it_and_close() -> None:
    scores = _hard_scores()
    near = np.minimum(scores, 1 - scores.astype(np.float64))
    width = np.maximum(near * 2**-13, 2**-24)
    found = np.array([_histogram(np.array([s]), np.array([True])).counts().scores[0] for s in scores[::200]])
    assert (found <= scores[::200]).all()
    assert (scores[::200] - found.astype(np.float64) <= width[::200]).all()
    # All at once: as many scores lie in a bin as its count says, so that none lies below its bin's score.
    counts = _histogram(scores, np.ones(scores.shape, dtype=bool)).counts()
    assert (np.diff(counts.scores) > 0).all()
    starts = np.searchsorted(scores, counts.scores)
    np.testing.assert_array_equal(np.diff([*starts, scores.size]), counts.positives)
    assert (scores - np.repeat(counts.scores, counts.positives).astype(np.float64) <= width).all()


def test_coarse_bins_are_within_a_two_thousandth() -> None:
    scores = _hard_scores()
    counts = _coarse(scores, np.ones(scores.shape, dtype=bool))
    used = counts.positives > 0
    lowest, members = counts.scores[used], counts.positives[used]
    np.testing.assert_array_equal(np.diff([*np.searchsorted(scores, lowest), scores.size]), members)
    width = np.maximum(np.minimum(scores, 1 - scores.astype(np.float64)) / 1024, 2**-24)
    assert (scores - np.repeat(lowest, members).astype(np.float64) <= width).all()


def test_a_bin_starts_at_its_lowest_score() -> None:
    for score in _hard_scores()[::100]:
        one = _histogram(np.array([score]), np.array([True]))
        assert bin_start(float(score)) == one.counts().scores[0]
        assert bin_start(float(score), coarse=True) == coarse_scores()[coarse_bins_of(np.array([score]))][0]
    assert (bin_start(-0.5), bin_start(1.5, coarse=True)) == (-0.5, 1.5)


def test_a_score_is_in_the_last_coarse_bin_that_starts_below_it() -> None:
    scores = _hard_scores()
    expected = [np.flatnonzero(coarse_scores() <= score)[-1] for score in scores[::50]]
    np.testing.assert_array_equal(coarse_bins_of(scores[::50]), expected)


def test_merged_equals_added_together(scored: Scored, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, truth = scored
    together = _histogram(scores, truth).counts()
    monkeypatch.setattr(histogram_module, "_CHUNK", 999)
    merged = _histogram(scores[:5000], truth[:5000])
    merged.merge(_histogram(scores[5000:20_000].reshape(3, -1), truth[5000:20_000].reshape(3, -1)))
    monkeypatch.undo()
    merged.merge(_histogram(scores[20_000:], truth[20_000:]))
    apart = merged.counts()
    np.testing.assert_array_equal(apart.scores, together.scores)
    np.testing.assert_array_equal(apart.positives, together.positives)
    np.testing.assert_array_equal(apart.negatives, together.negatives)
    assert together.positives.sum() == truth.sum()
    assert together.negatives.sum() == (~truth).sum()


def test_counting_many_and_few_at_once_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short array takes another way through the code than a long one."""
    rng = np.random.default_rng(4)
    scores, truth = rng.uniform(size=5000).astype(np.float32), rng.uniform(size=5000) < 0.4
    few = _histogram(scores, truth).counts()
    monkeypatch.setattr(histogram_module, "_FEW", 0)
    many = _histogram(scores, truth).counts()
    np.testing.assert_array_equal(few.positives, many.positives)
    np.testing.assert_array_equal(few.negatives, many.negatives)


def test_negative_zero_is_zero() -> None:
    counts = _histogram(np.array([-0.0, 0.0], dtype=np.float32), np.array([True, False])).counts()
    assert (counts.scores.tolist(), counts.positives.tolist(), counts.negatives.tolist()) == ([0], [1], [1])


def test_ends_of_the_range_have_bins_of_their_own() -> None:
    scores = np.array([0.0, 1e-30, np.nextafter(np.float32(1), np.float32(0)), 1.0], dtype=np.float32)
    counts = _histogram(scores, np.array([False, True, False, True])).counts()
    assert counts.scores[[0, -1]].tolist() == [0, 1]
    assert counts.positives.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("bad", [-1e-6, 1.0000001, np.nan, np.inf, -np.inf])
def test_scores_outside_the_range_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"Expected finite scores in \[0, 1\]"):
        count_bins(np.array([0.5, bad, 0.5]), np.array([True, False, True]))


def test_input_is_not_modified() -> None:
    scores, truth = np.array([-0.0, 0.5, 0.9], dtype=np.float32), np.array([True, False, False])
    _histogram(scores, truth)
    assert np.signbit(scores[0])
    assert scores[1:].tolist() == [0.5, np.float32(0.9)]


def test_shapes_and_types_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        _histogram(np.zeros(3), np.zeros((3, 1), dtype=bool))
    with pytest.raises(ValueError, match="type bool"):
        _histogram(np.zeros(3), np.zeros(3, dtype=np.uint8))


def test_nothing_at_all() -> None:
    counts = _histogram(np.zeros(0), np.zeros(0, dtype=bool)).counts()
    assert np.isnan([average_precision(counts), auroc(counts)]).all()
