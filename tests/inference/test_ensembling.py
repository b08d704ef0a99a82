from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import rankdata

from nnood.evaluation.metrics import Counts, count_scores
from nnood.inference.ensembling import COMBINATIONS, RANK_LEVELS, Combiner, ranks, reference_quantiles

SHAPE = (7, 8, 9)


def maps(count: int, shape: tuple[int, ...] = SHAPE) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.beta(0.5, 4, size=shape).astype(np.float32) for _ in range(count)]


def counted(scores: np.ndarray) -> Counts:
    return count_scores(scores, np.zeros(scores.shape, dtype=bool))


def combined(kind: str, score_maps: list[np.ndarray], quantiles: tuple[float, ...] = ()) -> np.ndarray:
    combiner = Combiner(kind, count=len(score_maps))
    for score_map in score_maps:
        combiner.add(score_map, quantiles)
    return combiner.result()


@pytest.mark.parametrize(("kind", "reference"), [("mean", np.mean), ("median", np.median)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_mean_and_median(kind, reference, count):
    score_maps = maps(count)
    before = [score_map.copy() for score_map in score_maps]
    result = combined(kind, score_maps)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, reference(np.stack(score_maps).astype(np.float64), axis=0), atol=1e-7)
    for one, other in zip(score_maps, before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", COMBINATIONS)
def test_any_shape_and_the_bounds(kind):
    for shape in [(5,), (1, 4, 4)]:
        for value in (0.0, 1.0):
            result = combined(kind, [np.full(shape, value, np.float32)] * 3, tuple(np.linspace(0.1, 0.9, 59)))
            assert result.shape == shape
            assert (result == value).all()


def test_levels_rise_to_one_in_a_million():
    assert all(a < b for a, b in pairwise(RANK_LEVELS))
    assert RANK_LEVELS[0] > 0
    assert RANK_LEVELS[-1] == pytest.approx(1 - 1e-6, abs=1e-12)


def test_a_rank_tells_the_share_of_the_reference_that_scores_at_least_this():
    scores = np.random.default_rng(1).beta(0.5, 4, size=200_000)
    quantiles = reference_quantiles(counted(scores))
    np.testing.assert_allclose(quantiles, np.quantile(scores, RANK_LEVELS, method="inverted_cdf"), rtol=1e-12)
    share = (len(scores) - rankdata(scores, method="ordinal") + 1) / len(scores)
    checked = (share < 0.9) & (share > 1e-4)
    np.testing.assert_allclose(ranks(scores, quantiles)[checked], -np.log10(share[checked]) / 8, atol=5e-3)


def test_ranks_rise_strictly_far_beyond_the_reference():
    quantiles = reference_quantiles(counted(np.random.default_rng(2).uniform(1e-4, 1e-2, size=10_000)))
    scores = np.concatenate([[0], np.geomspace(1e-6, 0.5, 400), 1 - np.geomspace(0.4, 1e-6, 400), [1]])
    values = ranks(scores, quantiles)
    assert (values[0], values[-1]) == (0, 1)
    # Also after the combination, which is float32: what is anomalous lies beyond all normal scores.
    assert (np.diff(combined("rank_mean", [scores] * 2, quantiles)) > 0).all()


def test_tied_quantiles_and_those_at_the_ends():
    quantiles = np.concatenate([np.zeros(20), np.full(20, 0.25), np.ones(len(RANK_LEVELS) - 40)])
    values = ranks(np.array([0, 0.1, 0.25, 0.3, 1]), tuple(quantiles))
    assert values[2] == pytest.approx(-np.log10(1 - RANK_LEVELS[20]) / 8)
    assert (np.diff(values) > 0).all()


def test_members_with_other_habits_count_alike():
    """A monotone change of one member's scores, with its own reference, changes nothing in the mean of ranks."""
    one, two = (score_map.astype(np.float64) for score_map in maps(2, (60_000,)))
    squeezed = two**3
    results = []
    for second in (two, squeezed):
        combiner = Combiner("rank_mean", count=2)
        combiner.add(one, reference_quantiles(counted(one)))
        combiner.add(second, reference_quantiles(counted(second)))
        results.append(combiner.result())
    np.testing.assert_allclose(*results, atol=3e-3)
    assert np.abs(combined("mean", [one, two]) - combined("mean", [one, squeezed])).max() > 0.1


def test_without_a_reference_a_score_is_its_rank():
    scores = maps(1)[0]
    np.testing.assert_array_equal(combined("rank_mean", [scores]), scores)
    assert reference_quantiles(Counts(np.zeros(0), np.zeros(0), np.zeros(0))) == ()


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(ValueError, match=r"rank_mean.*soup"):
        Combiner("soup", count=1)
    with pytest.raises(ValueError, match="at least one"):
        Combiner("mean", count=0)
    with pytest.raises(ValueError, match="2 score maps, but got 0"):
        Combiner("median", count=2).result()
    with pytest.raises(ValueError, match="59 quantiles, but got 3"):
        ranks(np.zeros(3), (0.1, 0.2, 0.3))
