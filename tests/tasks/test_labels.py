import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import norm

from nnood.tasks.labels import MIN_LABEL, FlippedGaussian, close_holes


def random_values(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_flipped_gaussian_in_closed_form(sigma):
    distances = np.linspace(-4, 4, 161) * sigma
    expected = 1 - norm.pdf(distances, scale=sigma) / norm.pdf(0, scale=sigma)
    for distance, value in zip(distances, expected, strict=True):
        # A constant change: closing has nothing to fill.
        after = torch.full((1, 3, 3), float(distance))
        label = FlippedGaussian((sigma,))(torch.zeros(1, 3, 3), after, torch.ones(3, 3))
        np.testing.assert_allclose(label.numpy(), value if value >= MIN_LABEL + 1e-6 else 0.0, atol=1e-5)


def test_the_channel_that_changes_most_for_its_own_sigma_decides():
    after = torch.zeros(2, 4, 4)
    after[0], after[1] = 1.0, 1.0
    label = FlippedGaussian((10.0, 0.5))(torch.zeros(2, 4, 4), after, torch.ones(4, 4))
    assert label[0, 0].item() == pytest.approx(1 - np.exp(-2.0), rel=1e-5)


def test_unchanged_voxels_and_those_without_weight_are_exactly_0():
    before = random_values((1, 12, 12))
    after = before.clone()
    after[:, :6] += 2
    weight = torch.ones(12, 12)
    weight[:, 8:] = 0
    label = FlippedGaussian((0.5,))(before, after, weight)
    assert (label[:6, :8] > 0.9).all()
    assert (label[6:] == 0).all()
    assert (label[:, 8:] == 0).all()


def test_a_hole_of_one_voxel_is_labelled():
    after = torch.full((1, 7, 7), 2.0)
    after[:, 3, 3] = 0
    assert (FlippedGaussian((0.5,))(torch.zeros(1, 7, 7), after, torch.ones(7, 7)) > 0.9).all()


@pytest.mark.parametrize("shape", [(20, 17), (9, 12, 10), (1, 12, 10), (2, 2)])
@pytest.mark.parametrize("radius", [1, 2])
def test_close_holes_is_scipys_closing(shape, radius):
    values = random_values(shape)
    closed = close_holes(values, radius).numpy()
    size = (2 * radius + 1,) * len(shape)
    inside = (slice(2 * radius, -2 * radius),) * len(shape)
    np.testing.assert_array_equal(closed[inside], ndimage.grey_closing(values.numpy(), size=size)[inside])
    # With neutral values beyond the border, it is the same everywhere.
    dilated = ndimage.grey_dilation(values.numpy(), size=size, mode="constant", cval=-np.inf)
    np.testing.assert_array_equal(closed, ndimage.grey_erosion(dilated, size=size, mode="constant", cval=np.inf))


def test_nothing_is_erased_at_borders():
    values = random_values((8, 9, 10))
    assert (close_holes(values) >= values).all()
    assert torch.equal(close_holes(torch.ones(5, 5)), torch.ones(5, 5))
