"""Random draws from an explicit generator: the only source of randomness in `nnood.tasks`."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One number from [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator, device=generator.device).item()


def uniforms(generator: torch.Generator, low: float, high: float, count: int) -> list[float]:
    """Several independent numbers from [low, high)."""
    draws = torch.rand(count, generator=generator, device=generator.device).tolist()
    return [low + (high - low) * draw for draw in draws]


def integer(generator: torch.Generator, low: int, high: int) -> int:
    """One integer from [low, high), or `low` where that is empty."""
    if high <= low + 1:
        return low
    return int(torch.randint(low, high, (), generator=generator, device=generator.device).item())


def sign(generator: torch.Generator) -> float:
    """1 or -1, equally often."""
    return 1.0 if uniform(generator, 0, 1) < 0.5 else -1.0


def choice(generator: torch.Generator, weights: Sequence[float], count: int) -> list[int]:
    """`count` independent indices, drawn in proportion to `weights` (non-negative, not all zero)."""
    probabilities = torch.tensor(weights, dtype=torch.float64, device=generator.device)
    return torch.multinomial(probabilities, count, replacement=True, generator=generator).tolist()


def gaussian(generator: torch.Generator, shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Normal numbers of mean 0 and deviation 1, float32."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device).to(device)


def rotation(generator: torch.Generator, dimensions: int, degrees: float) -> np.ndarray:
    """A rotation matrix (D, D): about each pair of axes by an angle from [-degrees, degrees)."""
    result = np.eye(dimensions)
    pairs = list(itertools.combinations(range(dimensions), 2))
    for (first, second), angle in zip(pairs, uniforms(generator, -degrees, degrees, len(pairs)), strict=True):
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        result[:, [first, second]] = result[:, [first, second]] @ [[cosine, -sine], [sine, cosine]]
    return result


def shear(generator: torch.Generator, dimensions: int, most: float) -> np.ndarray:
    """A shear matrix (D, D): ones on the diagonal, above it numbers from [-most, most)."""
    result = np.eye(dimensions)
    pairs = list(itertools.combinations(range(dimensions), 2))
    for pair, draw in zip(pairs, uniforms(generator, -most, most, len(pairs)), strict=True):
        result[pair] = draw
    return result
