from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from nnood.evaluation.metrics import (
    Counts,
    auroc,
    average_precision,
    best_dice,
    count_scores,
    dice_at,
    precision_recall_points,
    roc_points,
    sensitivity,
)

VOXELS = 20_000
FIGURES: dict[str, Callable[[Counts], np.ndarray]] = {
    "AP": average_precision,
    "AUROC": auroc,
    "AUROC30": lambda counts: auroc(counts, limit=0.3),
    "best Dice": lambda counts: best_dice(counts)[0],
    "Dice": lambda counts: dice_at(counts, 0.5),
    "sensitivity": sensitivity,
}

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


@pytest.fixture(params=[_random, _heavy_ties, _all_equal, _crowded_near_zero, _crowded_near_one])
def scored(request: pytest.FixtureRequest) -> Scored:
    """Scores of one kind, and a rare truth that is likelier where the score ranks high."""
    rng = np.random.default_rng(7)
    scores = request.param(rng).astype(np.float32)
    rank = np.searchsorted(np.sort(scores), scores) / VOXELS
    return scores, rng.uniform(size=VOXELS) < 0.03 * rank**2 + 0.001


@pytest.fixture(params=range(4))
def few(request: pytest.FixtureRequest) -> Scored:
    """Three hundred scores with ties, few enough for loops over all thresholds."""
    rng = np.random.default_rng(request.param)
    truth = rng.uniform(size=300) < 0.2
    return np.clip(rng.normal(0.3, 0.15, size=300) + 0.2 * truth, 0, 1).round(2), truth


def _dice(called: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (called & truth).sum() / (called.sum() + truth.sum())


def _rates(scores: np.ndarray, truth: np.ndarray) -> list[tuple[float, float]]:
    """False and true positive rate at every threshold, from one that calls nothing on."""
    thresholds = [np.inf, *sorted(set(scores.tolist()), reverse=True)]
    return [((scores[~truth] >= t).mean(), (scores[truth] >= t).mean()) for t in thresholds]


def _partial_area(rates: list[tuple[float, float]], limit: float) -> float:
    """By trapezoids, the last of them cut off at the limit."""
    area = 0.0
    for (left, low), (right, high) in pairwise(rates):
        if right > left and left < limit:
            end = min(right, limit)
            area += (end - left) * (low + low + (high - low) * (end - left) / (right - left)) / 2
    return area / limit


def test_ap_and_auroc_agree_with_scikit_learn(scored: Scored) -> None:
    scores, truth = scored
    counts = count_scores(scores, truth)
    assert average_precision(counts) == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert auroc(counts) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize("limit", [0.01, 0.3, 0.9])
def test_partial_auroc_agrees_with_scikit_learn(scored: Scored, limit: float) -> None:
    """scikit-learn maps the area between chance and the best, limit^2 / 2 and limit, to 0.5 and 1 (McClish)."""
    scores, truth = scored
    standardised = roc_auc_score(truth, scores, max_fpr=limit)
    chance = limit**2 / 2
    expected = chance + (2 * standardised - 1) * (limit - chance)
    assert auroc(count_scores(scores, truth), limit=limit) == pytest.approx(expected / limit, abs=1e-12)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_partial_auroc_by_trapezoids(few: Scored, limit: float) -> None:
    expected = _partial_area(_rates(*few), limit)
    assert auroc(count_scores(*few), limit=limit) == pytest.approx(expected, abs=1e-12)


def test_a_tie_across_the_limit_is_cut_there() -> None:
    """Ten normal and two anomalous voxels; one of each kind above the tie, which reaches from 0.1 to 0.6 false ones."""
    scores = np.array([0.9, 0.8, *[0.5] * 6, *[0.1] * 4])
    truth = np.array([True, False, True, *[False] * 9])
    # Flat at 1/2 up to 0.1, then rising by 1/2 over 0.5: at 0.3 it has risen by 0.2.
    expected = (0.1 * 0.5 + 0.2 * 0.6) / 0.3
    assert auroc(count_scores(scores, truth), limit=0.3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("limit", [0.3, 1.0])
def test_auroc_of_the_best_the_worst_and_no_order(limit: float) -> None:
    truth = np.arange(50) >= 40
    assert auroc(count_scores(truth.astype(float), truth), limit=limit) == pytest.approx(1)
    assert auroc(count_scores((~truth).astype(float), truth), limit=limit) == 0
    assert auroc(count_scores(np.zeros(50), truth), limit=limit) == pytest.approx(limit / 2)


def test_best_dice_over_all_thresholds(few: Scored) -> None:
    scores, truth = few
    dice, threshold = best_dice(count_scores(scores, truth))
    assert dice == pytest.approx(max(_dice(scores >= t, truth) for t in np.unique(scores)), abs=1e-12)
    assert _dice(scores >= threshold, truth) == pytest.approx(dice, abs=1e-12)


def test_dice_at_any_threshold(few: Scored) -> None:
    scores, truth = few
    counts = count_scores(scores, truth)
    for threshold in (*np.unique(scores), 0.123, -1.0, 2.0):
        assert dice_at(counts, threshold) == pytest.approx(_dice(scores >= threshold, truth), abs=1e-12)
    assert dice_at(counts, 2.0) == 0


@pytest.mark.parametrize("specificity", [0.5, 0.9, 0.95, 0.99])
def test_sensitivity_over_all_thresholds(few: Scored, specificity: float) -> None:
    expected = max(true for false, true in _rates(*few) if 1 - false >= specificity - 1e-12)
    assert sensitivity(count_scores(*few), specificity=specificity) == pytest.approx(expected, abs=1e-12)


def test_specificity_of_exactly_95_percent_is_enough() -> None:
    normal, anomalous = [*[0.1] * 19, 0.6], [0.5, 0.7, 0.8, 0.05]
    scores, truth = np.array(normal + anomalous), np.arange(24) >= 20
    assert sensitivity(count_scores(scores, truth)) == 0.75
    assert sensitivity(count_scores(scores, truth), specificity=0.951) == 0.5


def test_sensitivity_is_0_where_every_threshold_calls_too_many() -> None:
    scores, truth = np.array([0.9, 0.9, 0.9, 0.1]), np.array([True, False, False, False])
    assert sensitivity(count_scores(scores, truth)) == 0


@pytest.mark.parametrize("name", FIGURES)
def test_leading_axes_are_independent(name: str) -> None:
    rng = np.random.default_rng(1)
    scores = np.linspace(0, 1, 40)
    positives, negatives = rng.integers(0, 4, size=(2, 3, 40)), rng.integers(0, 9, size=(2, 3, 40))
    positives[0, 1] = 0
    negatives[1, 2] = 0
    together = FIGURES[name](Counts(scores, positives, negatives))
    assert together.shape == (2, 3)
    for place in np.ndindex(2, 3):
        alone = FIGURES[name](Counts(scores, positives[place], negatives[place]))
        np.testing.assert_allclose(together[place], alone, rtol=1e-12)
    assert np.isnan(together[0, 1])
    assert np.unique(together[~np.isnan(together)]).size >= 3


def test_weights_count_as_in_scikit_learn(few: Scored) -> None:
    scores, truth = few
    weights = np.random.default_rng(0).uniform(0, 3, size=scores.size)
    distinct = np.unique(scores)
    positives = np.array([weights[truth & (scores == score)].sum() for score in distinct])
    negatives = np.array([weights[~truth & (scores == score)].sum() for score in distinct])
    counts = Counts(distinct, positives, negatives)
    expected = average_precision_score(truth, scores, sample_weight=weights)
    assert average_precision(counts) == pytest.approx(expected, abs=1e-12)
    assert auroc(counts) == pytest.approx(roc_auc_score(truth, scores, sample_weight=weights), abs=1e-12)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("scores", [np.array([0.1, 0.2, 0.2]), np.zeros(0)], ids=["all normal", "empty"])
def test_undefined_without_positives(name: str, scores: np.ndarray) -> None:
    counts = count_scores(scores, np.zeros(scores.shape, dtype=bool))
    assert np.isnan(FIGURES[name](counts))
    assert np.isnan(best_dice(counts)[1])
    assert precision_recall_points(counts) == roc_points(counts) == []


def test_all_anomalous() -> None:
    counts = count_scores(np.array([0.1, 0.6, 0.6]), np.ones(3, dtype=bool))
    assert average_precision(counts) == best_dice(counts)[0] == 1
    assert best_dice(counts)[1] == 0.1
    assert dice_at(counts, 0.5) == pytest.approx(0.8)
    assert np.isnan([auroc(counts), auroc(counts, limit=0.3), sensitivity(counts)]).all()
    assert roc_points(counts) == []
    assert precision_recall_points(counts)[-1] == (1, 1)


def test_precision_and_recall_for_a_plot(few: Scored) -> None:
    scores, truth = few
    every = {(truth[scores >= t].sum() / truth.sum(), truth[scores >= t].mean()) for t in np.unique(scores)}
    points = precision_recall_points(count_scores(scores, truth))
    assert all(any(point == pytest.approx(one, abs=1e-12) for one in every) for point in points)
    assert [recall for recall, _ in points] == sorted(recall for recall, _ in points)
    highest = truth[scores == scores.max()]
    assert points[0] == pytest.approx((highest.sum() / truth.sum(), highest.mean()))
    assert points[-1] == pytest.approx((1, truth.mean()))


def test_roc_for_a_plot(few: Scored) -> None:
    points = roc_points(count_scores(*few))
    assert points[0] == (0, 0)
    assert points[-1] == (1, 1)
    every = _rates(*few)
    assert all(any(point == pytest.approx(one, abs=1e-12) for one in every) for point in points)


def test_a_plot_gets_few_points_and_keeps_its_shape(scored: Scored) -> None:
    scores, truth = scored
    counts = count_scores(scores, truth)
    x, y = np.array(roc_points(counts, 50)).T
    assert len(x) <= 50
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(truth, scores), abs=0.01)
    false, true, _ = roc_curve(truth, scores)
    np.testing.assert_allclose(y, np.interp(x, false, true), atol=0.01)
    assert len(precision_recall_points(counts, 50)) <= 50


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        count_scores(np.array([0.1, bad]), np.array([True, False]))


def test_shapes_and_types_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        count_scores(np.zeros(3), np.zeros((3, 1), dtype=bool))
    with pytest.raises(ValueError, match="type bool"):
        count_scores(np.zeros(3), np.zeros(3, dtype=np.uint8))


def test_counts_per_distinct_score() -> None:
    scores = np.array([[0.5, -2.0, 0.5], [7.0, 0.5, -2.0]])
    counts = count_scores(scores, np.array([[True, False, False], [True, True, False]]))
    assert counts.scores.tolist() == [-2, 0.5, 7]
    assert counts.positives.tolist() == [0, 2, 1]
    assert counts.negatives.tolist() == [2, 1, 0]
