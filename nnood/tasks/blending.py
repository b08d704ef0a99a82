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
    """Linear interpolation, (1 - factor) old + factor new, inside of the shape (Tan et al. 2020, eq. 1).

    Attributes:
        factor: Smallest and largest factor.
    """

    factor: tuple[float, float]

    def __call__(
        self, old: torch.Tensor, new: torch.Tensor, depth: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Blend as `paste` does, with the factor as weight."""
        factor = uniform(generator, *self.factor)
        mask = depth > 0
        return torch.where(mask, torch.lerp(old, new, factor), old), factor * mask.to(old.dtype)
