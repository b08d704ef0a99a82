"""Reading between voxels against scipy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from nnood.tasks.sampling import combine, positions_in, sample

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(17, 23), (9, 12, 15), (1, 12, 15), (1, 14), (9, 1, 7), (1, 1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_are_scipys_also_beyond_the_border(shape, channels):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    positions = [rng.uniform(-3, n + 2, size=(6, 50)).astype(np.float32) for n in shape]
    expected = [ndimage.map_coordinates(channel, positions, order=1, mode="nearest") for channel in image]
    values = sample(torch.from_numpy(image), [torch.from_numpy(p) for p in positions])
    np.testing.assert_allclose(values.numpy(), np.stack(expected), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(17, 23), (1, 20), (9, 12, 15), (1, 11, 13)])
def test_a_grid_of_positions_is_resampled_as_scipy_does(shape, channels):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    along = [
        np.linspace(*sorted(rng.uniform(-2, n + 1, size=2)), 7)[::step]
        for n, step in zip(shape, (1, -1, 1), strict=False)
    ]
    expected = [
        ndimage.map_coordinates(channel, np.meshgrid(*along, indexing="ij"), order=1, mode="nearest")
        for channel in image
    ]
    positions = [torch.from_numpy(p).float() for p in np.meshgrid(*along, indexing="ij", sparse=True)]
    np.testing.assert_allclose(sample(torch.from_numpy(image), positions).numpy(), np.stack(expected), atol=1e-4)


@pytest.mark.parametrize("shape", [(17, 23), (9, 12, 15)])
def test_voxels_at_their_own_positions_are_themselves(shape):
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample(image, positions_in(shape, CPU)), image, atol=3e-5, rtol=0)


def test_positions_broadcast_to_the_wanted_shape():
    image = torch.arange(20.0).reshape(1, 4, 5)
    rows, columns = torch.tensor([[0.5], [2.0]]), torch.tensor([[1.0, 3.0, 3.5]])
    torch.testing.assert_close(sample(image, [rows, columns]), (5 * rows + columns)[None])


def test_half_precision_images_are_read_in_full():
    image = torch.tensor([[[0.0, 1.0]]], dtype=torch.bfloat16)
    values = sample(image, [torch.zeros(1), torch.tensor([0.3])])
    assert values.dtype == torch.float32
    assert values.item() == pytest.approx(0.3)


@pytest.mark.parametrize("size", [(4, 3), (2, 1, 5)])
def test_positions_are_the_indices(size):
    positions = torch.broadcast_tensors(*positions_in(size, CPU))
    np.testing.assert_array_equal(np.stack([p.numpy() for p in positions]), np.indices(size))


@pytest.mark.parametrize("size", [(4, 3), (2, 6, 5)])
@pytest.mark.parametrize("zeros", [False, True])
def test_combining_is_a_matrix_product(size, zeros):
    matrix = np.random.default_rng(1).normal(size=(len(size),) * 2)
    if zeros:
        matrix[0] = 0
        matrix[1, 0] = 0
    combined = torch.broadcast_tensors(*combine(matrix.tolist(), positions_in(size, CPU)))
    expected = np.einsum("ij,j...->i...", matrix, np.indices(size))
    np.testing.assert_allclose(np.stack([p.expand(size).numpy() for p in combined]), expected, atol=1e-5)
