"""Poisson blending in n dimensions, solved exactly by the discrete sine transform."""

import functools
import math
from dataclasses import dataclass

import torch

from nnood.tasks.draws import uniform
from nnood.tasks.sampling import along


@functools.lru_cache(maxsize=256)
def _sine_transform(n: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The orthonormal DST-I matrix of size n, which is its own inverse, and the eigenvalues of the 1D Laplacian.

    A product with the matrix is as fast for every n; transforms by FFT are slow where n + 1 is prime.
    """
    numbers = torch.arange(1, n + 1, dtype=torch.float64)
    matrix = math.sqrt(2 / (n + 1)) * torch.sin(math.pi / (n + 1) * numbers[:, None] * numbers)
    eigenvalues = 2 * torch.cos(math.pi / (n + 1) * numbers) - 2
    return matrix.float().to(device), eigenvalues.float().to(device)


def solve_poisson(divergence: torch.Tensor) -> torch.Tensor:
    """Solve Laplacian d = divergence in a box, with d = 0 just outside of it.

    Args:
        divergence: float32 (C, *box). Axes of a single voxel take no part.

    Returns:
        d, (C, *box); exactly 0 where the divergence is 0 everywhere.
    """
    axes = [axis for axis in range(1, divergence.ndim) if divergence.shape[axis] > 1]
    if not axes:
        return torch.zeros_like(divergence)
    result, total = divergence.contiguous(), torch.zeros((), device=divergence.device)
    for axis in axes:
        matrix, eigenvalues = _sine_transform(divergence.shape[axis], divergence.device)
        result = _along(result, matrix, axis)
        total = total + along(eigenvalues, axis, divergence.ndim)
    result /= total
    for axis in axes:
        result = _along(result, _sine_transform(divergence.shape[axis], divergence.device)[0], axis)
    return result


def _along(values: torch.Tensor, matrix: torch.Tensor, axis: int) -> torch.Tensor:
    """Multiply a (symmetric) matrix to one axis. Neither the contiguous values nor the result are transposed: slow."""
    n = values.shape[axis]
    inner = math.prod(values.shape[axis + 1 :])
    if inner == 1:
        return (values.reshape(-1, n) @ matrix).reshape(values.shape)
    layers = values.reshape(-1, n, inner)
    return torch.bmm(matrix.expand(len(layers), n, n), layers).reshape(values.shape)


@dataclass(frozen=True)
class Poisson:
    """Keep the gradients of what goes in and the values of what is around it (Perez et al. 2003).

    Solved for the difference to the image: Laplacian d = div(mask * (wanted gradient - image's gradient)), d = 0 out of
    the box. So the image outside of the box is bit-identical, and an empty mask changes nothing at all.

    Attributes:
        factor: Smallest and largest share of the new gradients, the rest is the image's own (Tan et al. 2021, PII).
        mixed: Where the image's own gradient is the larger one, keep it.
    """

    factor: tuple[float, float] = (1.0, 1.0)
    mixed: bool = False

    def __call__(
        self, old: torch.Tensor, new: torch.Tensor, depth: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Blend as `paste` does; the weight is 1 in the whole box, since d is 0 nowhere in it."""
        factor = uniform(generator, *self.factor)
        # Masks as numbers: products are several times faster than selecting.
        inside = torch.gt(depth, 0, out=torch.empty_like(depth))
        difference = new - old
        divergence = torch.zeros_like(difference)
        for axis in range(1, old.ndim):
            n = old.shape[axis] - 1
            if n == 0:
                continue
            change = difference.diff(dim=axis)
            if self.mixed:
                own, foreign = old.diff(dim=axis).abs_(), new.diff(dim=axis).abs_()
                change *= torch.le(own, foreign, out=own)
            change *= inside.narrow(axis - 1, 0, n)
            change *= inside.narrow(axis - 1, 1, n)
            divergence.narrow(axis, 0, n).add_(change)
            divergence.narrow(axis, 1, n).sub_(change)
        return torch.add(old, solve_poisson(divergence), alpha=factor), torch.ones_like(depth)
