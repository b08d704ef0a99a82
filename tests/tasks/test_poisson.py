"""Poisson blending against a direct sparse solve of the same system."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from nnood.tasks.poisson import Poisson, solve_poisson

BOXES = [(7, 9), (5, 6, 7), (1, 8, 6), (2, 5, 5), (12,)]


def laplacian(shape: tuple[int, ...]) -> sparse.spmatrix:
    """Sum over the axes of more than one voxel of the second difference, values outside being 0."""
    total = sparse.csr_matrix((int(np.prod(shape)),) * 2)
    for axis, n in enumerate(shape):
        if n > 1:
            second = sparse.diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(n, n))
            before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
            total = total + sparse.kron(sparse.kron(sparse.eye(before), second), sparse.eye(after))
    return total.tocsc()


@pytest.mark.parametrize("shape", BOXES)
def test_solution_is_the_direct_one(shape: tuple[int, ...]) -> None:
    right = np.random.default_rng(0).normal(size=shape)
    expected = spsolve(laplacian(shape), right.ravel()).reshape(shape)
    solved = solve_poisson(torch.from_numpy(right).float()[None])[0].numpy()
    assert np.abs(solved - expected).max() < 1e-4 * np.ptp(expected)


def wanted_change(old: np.ndarray, new: np.ndarray, mask: np.ndarray, factor: float, mixed: bool) -> np.ndarray:
    """The difference to the image by a voxel-wise loop and a direct solve."""
    right = np.zeros(old.shape)
    for voxel in np.ndindex(old.shape):
        for axis in range(old.ndim):
            other = tuple(v + (i == axis) for i, v in enumerate(voxel))
            if other[axis] == old.shape[axis] or not (mask[voxel] and mask[other]):
                continue
            own, foreign = old[other] - old[voxel], new[other] - new[voxel]
            if mixed and abs(own) > abs(foreign):
                continue
            right[voxel] += factor * (foreign - own)
            right[other] -= factor * (foreign - own)
    return spsolve(laplacian(old.shape), right.ravel()).reshape(old.shape)


@pytest.mark.parametrize("shape", BOXES[:4])
@pytest.mark.parametrize(("factor", "mixed"), [(1.0, False), (0.3, False), (1.0, True)])
def test_blend_is_the_direct_one(shape: tuple[int, ...], factor: float, mixed: bool) -> None:
    rng = np.random.default_rng(1)
    old, new = rng.normal(size=(2, *shape)).astype(np.float32)
    depth = torch.from_numpy(rng.uniform(-0.4, 1, size=shape).astype(np.float32))
    blend = Poisson(factor=(factor, factor), mixed=mixed)
    values, _ = blend(torch.from_numpy(old)[None], torch.from_numpy(new)[None], depth, torch.Generator())
    expected = old + wanted_change(old, new, depth.numpy() > 0, factor, mixed)
    assert np.abs(values[0].numpy() - expected).max() < 1e-4 * np.ptp(old)


def test_an_empty_mask_changes_not_one_bit() -> None:
    old, new = torch.randn(2, 3, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    values, _ = Poisson()(old, new, torch.zeros(9, 8, 7), torch.Generator())
    assert torch.equal(values, old)


def test_a_constant_offset_has_no_gradient_and_vanishes() -> None:
    old = torch.randn(1, 10, 11, generator=torch.Generator().manual_seed(0))
    values, _ = Poisson()(old, old + 5, torch.ones(10, 11), torch.Generator())
    assert torch.allclose(values, old, atol=1e-5)
