import numpy as np
import pytest

from nnood.scores import DEFAULT_SAMPLE_SCORE, SAMPLE_SCORES, sample_score

COUNTS = {
    "mean": lambda n: n,
    "max": lambda n: 1,
    "top_100_voxels": lambda n: min(100, n),
    "top_500_voxels": lambda n: min(500, n),
    "top_0.1_percent": lambda n: max(1, round(n / 1000)),
    "top_1_percent": lambda n: max(1, round(n / 100)),
    "top_5_percent": lambda n: max(1, round(n / 20)),
}


def test_the_table_is_complete():
    assert SAMPLE_SCORES.keys() == COUNTS.keys()
    assert DEFAULT_SAMPLE_SCORE == "top_100_voxels"


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("shape", [(40, 50), (9, 10, 11), (1, 20, 20), (3,), (1,)])
def test_mean_of_the_highest_voxels(kind, shape):
    score_map = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    before = score_map.copy()
    highest = np.sort(score_map.ravel())[-COUNTS[kind](score_map.size) :]
    assert sample_score(score_map, kind) == pytest.approx(highest.mean(dtype=np.float64), rel=1e-6)
    np.testing.assert_array_equal(score_map, before)


@pytest.mark.parametrize("kind", COUNTS)
def test_within_the_foreground_only_its_voxels_count(kind):
    rng = np.random.default_rng(1)
    score_map = rng.uniform(size=(12, 13, 14)).astype(np.float32)
    foreground = rng.uniform(size=score_map.shape) < 0.3
    score_map[~foreground] = 1
    inside = np.sort(score_map[foreground])
    expected = inside[-COUNTS[kind](len(inside)) :].mean(dtype=np.float64)
    assert sample_score(score_map, kind, foreground) == pytest.approx(expected, rel=1e-6)
    assert sample_score(score_map, kind) > expected


def test_the_rest_of_the_image_does_not_matter():
    score_map = np.zeros(100_000, np.float32)
    score_map[::1000] = 0.75
    assert sample_score(score_map) == 0.75


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("kind", COUNTS)
def test_bounds_are_kept(kind, value):
    score = sample_score(np.full((20, 20), value, np.float32), kind)
    assert isinstance(score, float)
    assert score == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("soup",), "top_100_voxels.*soup"),
        (("max", np.ones((3, 4), bool)), "foreground of shape"),
        (("max", np.ones((4, 4), np.uint8)), "bool"),
        (("max", np.zeros((4, 4), bool)), "at least one voxel"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_score(np.ones((4, 4), np.float32), *arguments)
