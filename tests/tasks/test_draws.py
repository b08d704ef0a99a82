"""Random draws: ranges, shares and distributions."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from nnood.tasks.draws import choice, gaussian, integer, rotation, shear, sign, uniform, uniforms

CPU = torch.device("cpu")


def test_uniform_numbers_are_uniform(seeded):
    generator = seeded(0)
    assert stats.kstest([uniform(generator, -2, 3) for _ in range(2000)], stats.uniform(-2, 5).cdf).pvalue > 1e-3
    assert stats.kstest(uniforms(generator, -2, 3, 2000), stats.uniform(-2, 5).cdf).pvalue > 1e-3


def test_integers_and_signs_are_equally_likely(seeded, assert_share):
    generator = seeded(0)
    drawn = Counter(integer(generator, 3, 6) for _ in range(3000))
    assert set(drawn) == {3, 4, 5}
    for number in (3, 4, 5):
        assert_share(drawn[number], 3000, 1 / 3)
    signs = Counter(sign(generator) for _ in range(3000))
    assert set(signs) == {-1.0, 1.0}
    assert_share(signs[1.0], 3000, 1 / 2)


@pytest.mark.parametrize("high", [4, 5, -1])
def test_an_empty_range_is_its_lower_end(seeded, high):
    assert integer(seeded(0), 4, high) == 4


def test_choices_follow_their_weights(seeded, assert_share):
    drawn = Counter(choice(seeded(0), (1.0, 0.0, 3.0), 8000))
    assert set(drawn) == {0, 2}
    assert_share(drawn[2], 8000, 0.75)


def test_gaussian_numbers_are_normal(seeded):
    numbers = gaussian(seeded(0), (50, 60), CPU)
    assert numbers.shape == (50, 60)
    assert stats.kstest(numbers.flatten().numpy(), stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_rotations_keep_lengths_and_hands(seeded, dimensions):
    for seed in range(20):
        matrix = rotation(seeded(seed), dimensions, 180)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(dimensions), atol=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)


def test_angles_are_uniform_within_their_limit(seeded):
    generator = seeded(0)
    matrices = [rotation(generator, 2, 30) for _ in range(1000)]
    angles = [math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])) for matrix in matrices]
    assert stats.kstest(angles, stats.uniform(-30, 60).cdf).pvalue > 1e-3


def test_a_rotation_in_space_moves_every_axis(seeded):
    matrices = np.stack([rotation(seeded(seed), 3, 180) for seed in range(500)])
    assert (matrices.max(axis=0) > 0.9).all()
    assert (matrices.min(axis=0) < -0.9).all()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_shears_keep_volume_and_stay_within_their_limit(seeded, dimensions):
    above = np.triu_indices(dimensions, 1)
    drawn = []
    for seed in range(200):
        matrix = shear(seeded(seed), dimensions, 0.3)
        assert np.linalg.det(matrix) == pytest.approx(1)
        assert not matrix[np.tril_indices(dimensions, -1)].any()
        drawn.extend(matrix[above])
    assert stats.kstest(drawn, stats.uniform(-0.3, 0.6).cdf).pvalue > 1e-3
