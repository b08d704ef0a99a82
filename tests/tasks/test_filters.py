"""Shifted sums and maxima against scipy's filters."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.signal import windows

from nnood.tasks.filters import gaussian_weights, shifted_maximum, smooth

SHAPES = [(20, 17), (9, 12, 10), (1, 12, 3), (2, 2), (1, 1)]


def random_values(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [0, 1, 2, 4])
def test_maximum_is_scipys(shape, radius):
    values = random_values(shape)
    expected = ndimage.maximum_filter(values.numpy(), size=2 * radius + 1, mode="constant", cval=-np.inf)
    np.testing.assert_array_equal(shifted_maximum(values, radius).numpy(), expected)


def test_maximum_leaves_its_input_alone():
    values = random_values((6, 7))
    before = values.clone()
    shifted_maximum(values, 1)
    assert torch.equal(values, before)


@pytest.mark.parametrize(("sigma", "radius"), [(0.5, 1), (1.3, 3), (3.0, 8), (1.0, 0)])
def test_weights_are_a_gaussian_window(sigma, radius):
    expected = windows.gaussian(2 * radius + 1, sigma)
    np.testing.assert_allclose(gaussian_weights(sigma, radius), (expected / expected.sum())[radius:], rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [1, 3, 6])
@pytest.mark.parametrize(("repeat_border", "mode"), [(True, "nearest"), (False, "constant")])
def test_smoothing_is_scipys_correlation(shape, radius, repeat_border, mode):
    values = random_values(shape)
    weights = np.random.default_rng(0).uniform(0.1, 1, size=radius + 1)
    both = np.concatenate([weights[:0:-1], weights])
    expected = values.double().numpy()
    for axis, n in enumerate(shape):
        if n > 1:
            expected = ndimage.correlate1d(expected, both, axis=axis, mode=mode)
    smoothed = smooth(values, range(len(shape)), weights.tolist(), repeat_border=repeat_border).numpy()
    np.testing.assert_allclose(smoothed, expected, atol=1e-5 * np.abs(expected).max() + 1e-6)


def test_only_the_given_axes_are_smoothed_and_the_input_is_left_alone():
    values = random_values((3, 10, 11))
    before = values.clone()
    smoothed = smooth(values, [2], [0.5, 0.25], repeat_border=True).numpy()
    expected = ndimage.correlate1d(before.numpy(), [0.25, 0.5, 0.25], axis=2, mode="nearest")
    np.testing.assert_allclose(smoothed, expected, atol=1e-6)
    assert torch.equal(values, before)
