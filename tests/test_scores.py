import numpy as np
import pytest

from nnood.scores import TOP_VOXELS, sample_score


@pytest.mark.parametrize("shape", [(40, 50), (9, 10, 11), (1, 20, 20)])
def test_mean_of_the_highest_voxels(shape):
    score_map = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    before = score_map.copy()
    assert sample_score(score_map) == pytest.approx(np.sort(score_map.ravel())[-TOP_VOXELS:].mean(), rel=1e-6)
    np.testing.assert_array_equal(score_map, before)


@pytest.mark.parametrize("size", [1, 30, TOP_VOXELS])
def test_all_voxels_where_there_are_few(size):
    score_map = np.linspace(0, 1, size)
    assert sample_score(score_map) == pytest.approx(score_map.mean())


def test_the_rest_of_the_image_does_not_matter():
    score_map = np.zeros(100_000, np.float32)
    score_map[::1000] = 0.75
    assert sample_score(score_map) == 0.75


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_bounds_are_kept(value):
    score = sample_score(np.full((20, 20), value, np.float32))
    assert isinstance(score, float)
    assert score == value
