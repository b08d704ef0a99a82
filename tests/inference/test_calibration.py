import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from nnood.evaluation.metrics import Counts, count_scores
from nnood.inference.calibration import IDENTITY, RATES, Calibration, Threshold, fit_calibration, fit_thresholds


def counted(scores):
    return count_scores(np.asarray(scores), np.zeros(len(scores), dtype=bool))


def sigmoid(values):
    return (1 / (1 + np.exp(-values.astype(np.float64)))).astype(np.float32)


def normal_scores(count=1_000_000, seed=0):
    """As a trained network gives them: nearly all crowded near 0."""
    return sigmoid(np.random.default_rng(seed).normal(-9, 2, size=count))


# ---- the map --------------------------------------------------------------------------------------------------------


def test_a_value_says_how_rare_a_score_is():
    scores = normal_scores()
    calibration = fit_calibration(counted(scores))
    values = np.sort(calibration(scores))
    for share in (0.4, 0.1, 0.03, 1e-2, 1e-3, 1e-4, 2e-5):
        value = values[-round(share * len(values))]
        assert value == pytest.approx(-math.log10(share) / 8, abs=0.004)
    assert len(calibration.scores) == 2 + 15  # 5, 2, 1 per decade down to 10 voxels in a million


def test_it_spreads_over_the_range_of_float16():
    rng = np.random.default_rng(1)
    normal, anomalous = normal_scores(300_000, seed=2), sigmoid(rng.normal(9, 2.5, size=3000))
    mistaken = sigmoid(rng.normal(8, 2.5, size=2000))  # normal voxels that look anomalous
    calibration = fit_calibration(counted(np.concatenate([normal, mistaken])))
    scores = np.concatenate([normal, mistaken, anomalous])
    truth = np.arange(len(scores)) >= len(scores) - len(anomalous)
    exact = average_precision_score(truth, scores)
    assert abs(average_precision_score(truth, scores.astype(np.float16)) - exact) > 5e-3
    assert abs(average_precision_score(truth, calibration(scores).astype(np.float16)) - exact) < 1e-3


def test_it_rises_strictly_between_the_ends_and_keeps_them():
    calibration = fit_calibration(counted(normal_scores(50_000)))
    scores = np.concatenate([[0], np.geomspace(1e-8, 0.5, 500), 1 - np.geomspace(0.49, 1e-6, 500), [1]])
    values = calibration(scores.reshape(2, -1))
    assert values.dtype == np.float32
    assert values.shape == (2, 501)
    assert (values.flat[0], values.flat[-1]) == (0, 1)
    assert (np.diff(values.ravel()) > 0).all()


def test_above_the_last_knot_it_is_a_straight_line_of_the_logit():
    calibration = Calibration((0.0, 0.5, 1.0), (0.0, 0.25, 1.0))
    logits = np.array([0.0, 5.0, 10.0])
    np.testing.assert_allclose(calibration(1 / (1 + np.exp(-logits))), 0.25 + 0.75 * logits / 20, rtol=1e-6)
    np.testing.assert_allclose(calibration(1 / (1 + np.exp(logits))), 0.25 * (1 - logits / 20), rtol=1e-6)


@pytest.mark.parametrize(
    "scores",
    [
        [],
        [0.3],
        [0.3] * 1000,
        [0.0] * 1000,
        [1.0] * 1000,
        [0.0] * 500 + [1.0] * 500,
        [0.2] * 999 + [0.9],
        np.linspace(0, 1, 11),
        np.linspace(1 - 1e-7, 1, 5000, dtype=np.float32),
        np.geomspace(1e-30, 1e-10, 5000),
    ],
    ids=str,
)
def test_degenerate_scores_give_a_valid_map(scores):
    calibration = fit_calibration(counted(np.asarray(scores, dtype=np.float64)))
    values = calibration(np.array([0, 1e-9, 0.1, 0.5, 0.9, 1]))
    assert (values[0], values[-1]) == (0, 1)
    assert (np.diff(values) >= 0).all()
    assert (np.diff(values[1:]) > 0).all()


def test_tied_scores_stand_for_the_share_that_reaches_them():
    calibration = fit_calibration(counted([0.1] * 9000 + [0.4] * 990 + [0.8] * 10))
    np.testing.assert_allclose(calibration(np.array([0.4, 0.8])), [-math.log10(0.1) / 8, 3 / 8], rtol=1e-6)


def test_the_identity_changes_nothing():
    scores = np.random.default_rng(0).uniform(size=(3, 4)).astype(np.float32)
    result = IDENTITY(scores)
    np.testing.assert_array_equal(result, scores)
    assert not np.shares_memory(result, scores)


@pytest.mark.parametrize(
    ("scores", "values"),
    [
        ((0.0, 1.0), (0.0,)),
        ((0.0,), (0.0,)),
        ((0.0, 0.5), (0.0, 1.0)),
        ((0.1, 1.0), (0.0, 1.0)),
        ((0.0, 0.5, 0.5, 1.0), (0.0, 0.2, 0.3, 1.0)),
        ((0.0, 0.5, 0.6, 1.0), (0.0, 0.3, 0.3, 1.0)),
        ((0.0, math.nan, 1.0), (0.0, 0.3, 1.0)),
    ],
)
def test_what_is_no_calibration(scores, values):
    with pytest.raises(ValueError, match="Expected"):
        Calibration(scores, values)


# ---- thresholds -----------------------------------------------------------------------------------------------------


def by_level(thresholds):
    return {(threshold.level, threshold.rate): threshold for threshold in thresholds}


@pytest.mark.parametrize("count", [100, 250, 1000])
@pytest.mark.parametrize("rate", RATES)
def test_sample_thresholds_keep_the_rate_and_are_the_lowest(count, rate):
    samples = np.random.default_rng(count).uniform(size=count)
    found = by_level(fit_thresholds(samples, []))["sample", rate]
    assert (samples >= found.value).mean() <= rate
    lower = np.sort(samples[samples < found.value])[-1]
    assert (samples >= lower).mean() > rate
    assert found.value == pytest.approx(lower, abs=1e-6)
    assert found.reliable
    assert found.low <= found.value <= found.high


def test_the_interval_covers_what_more_cases_would_give():
    """The bootstrap's interval holds the true quantile about 19 times of 20."""
    rng, covered = np.random.default_rng(3), 0
    for seed in range(60):
        found = by_level(fit_thresholds(rng.uniform(size=300), [], seed=seed))["sample", 0.05]
        covered += found.low <= 0.95 <= found.high
    assert 51 <= covered <= 60


def test_too_few_cases_are_said_to_be_so():
    found = by_level(fit_thresholds([0.2, 0.6, 0.4] * 7, []))
    assert found["sample", 0.05].reliable
    assert not found["sample", 0.01].reliable
    assert 0.6 < found["sample", 0.01].value < 0.6000002


def test_equal_samples():
    for threshold in fit_thresholds([1.0] * 200, []):
        assert 1 < threshold.value < 1.000001
        assert threshold.low == threshold.high == threshold.value


def test_voxel_thresholds_keep_the_rate():
    rng = np.random.default_rng(4)
    cases = [rng.beta(1, 5, size=rng.integers(500, 4000)) for _ in range(30)]
    found = by_level(fit_thresholds([], [counted(case) for case in cases]))
    pooled = np.concatenate(cases)
    for rate in RATES:
        threshold = found["voxel", rate]
        assert (pooled >= threshold.value).mean() <= rate
        assert threshold.value == pytest.approx(np.quantile(pooled, 1 - rate), abs=2e-3)
        assert threshold.reliable
        means = [
            np.quantile(np.concatenate([cases[i] for i in rng.integers(30, size=30)]), 1 - rate) for _ in range(200)
        ]
        low, high = np.percentile(means, (2.5, 97.5))
        assert threshold.low == pytest.approx(low, abs=0.006)
        assert threshold.high == pytest.approx(high, abs=0.006)


def test_cases_that_differ_make_voxel_thresholds_uncertain():
    rng = np.random.default_rng(5)
    alike = [rng.uniform(size=1000) for _ in range(20)]
    unlike = [rng.uniform(size=1000) * (0.2 + 0.04 * number) for number in range(20)]
    width = [
        threshold.high - threshold.low
        for cases in (alike, unlike)
        for threshold in fit_thresholds([], [counted(case) for case in cases], rates=[0.05])
    ]
    assert width[1] > 3 * width[0]


def test_voxels_of_few_cases_or_of_one_score():
    single = fit_thresholds([], [counted(np.full(1000, 0.5))])
    assert all(not threshold.reliable and 0.5 < threshold.value < 0.500001 for threshold in single)
    nothing = Counts(np.zeros(0), np.zeros(0), np.zeros(0))
    assert fit_thresholds([], [nothing]) == ()


@pytest.mark.parametrize(
    "wrong",
    [{"level": "slice"}, {"rate": 0.0}, {"low": 0.6}, {"high": 0.4}, {"value": math.nan}, {"high": 1.5}],
    ids=str,
)
def test_what_is_no_threshold(wrong):
    right = {"level": "voxel", "rate": 0.01, "value": 0.5, "low": 0.4, "high": 0.6, "reliable": True}
    assert Threshold(**right).to_dict() == right
    with pytest.raises(ValueError, match="Expected"):
        Threshold(**{**right, **wrong})
