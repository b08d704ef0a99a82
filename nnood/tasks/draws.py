"""Random draws from an explicit generator: the only source of randomness in `nnood.tasks`."""

from collections.abc import Sequence

import torch


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One number from [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator, device=generator.device).item()


def integer(generator: torch.Generator, low: int, high: int) -> int:
    """One integer from [low, high), or `low` where that is empty."""
    if high <= low + 1:
        return low
    return int(torch.randint(low, high, (), generator=generator, device=generator.device).item())


def choice(generator: torch.Generator, weights: Sequence[float], count: int) -> list[int]:
    """`count` independent indices, drawn in proportion to `weights` (non-negative, not all zero)."""
    probabilities = torch.tensor(weights, dtype=torch.float64, device=generator.device)
    return torch.multinomial(probabilities, count, replacement=True, generator=generator).tolist()
