"""How new values go into an image: each blend returns the values of the box and a weight map in [0, 1]."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nnood.tasks.draws import uniform

Blend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]]


def paste(
    old: torch.Tensor, new: torch.Tensor, depth: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace the values inside of the shape.

    Args:
        old: The image's values (C, *box).
        new: What goes in, (C, *box).
        depth: The shape's depth map (*box).
        generator: Randomness; not used.

    Returns:
        The blended values (C, *box) and the weight (*box).
    """
    mask = depth > 0
    return torch.where(mask, new, old), mask.to(old.dtype)


@dataclass(frozen=True)
class Interpolate:
    """Linear interpolation, (1 - weight) old + weight new (Tan et al. 2020, eq. 1).

    Attributes:
        factor: Smallest and largest factor.
        edge: Depth at which the weight reaches the factor, rising from 0 at the border; 0 is a hard edge, 1 takes the
            depth itself as the mask, as it should be for a `SoftEdge`.
    """

    factor: tuple[float, float] = (1.0, 1.0)
    edge: float = 0.0

    def __call__(
        self, old: torch.Tensor, new: torch.Tensor, depth: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Blend as `paste` does."""
        factor = self.factor[0] if self.factor[0] == self.factor[1] else uniform(generator, *self.factor)
        weight = factor * ((depth / self.edge).clamp(0, 1) if self.edge else (depth > 0).to(old.dtype))
        return torch.where(weight > 0, torch.lerp(old, new, weight), old), weight
