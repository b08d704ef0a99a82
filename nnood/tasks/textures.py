"""What goes into an anomaly: new values for a box of the image."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nnood.tasks.donors import Donors
from nnood.tasks.draws import integer, uniform
from nnood.tasks.shapes import Placement


@dataclass(frozen=True)
class Region:
    """The part of one image that a texture may replace.

    Attributes:
        image: The whole image, (C, *S).
        values: The image's values in the box, (C, *box).
        placement: Box and depth map.
        target: Index of the image in the batch, by which donors know whom to leave out.
        scale: Per channel, the typical difference of two foreground voxels in normalised intensity, (C,).
    """

    image: torch.Tensor
    values: torch.Tensor
    placement: Placement
    target: int
    scale: torch.Tensor


Texture = Callable[[Region, Donors, torch.Generator], torch.Tensor | None]


def foreign_patch(region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor | None:
    """The same region of another case (Tan et al. 2020, FPI); None without a donor."""
    return donors.patch(region.target, region.placement.box, generator)


def own_patch(region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
    """A region of the same image, from a random other place (Li et al. 2021, CutPaste).

    Where the draw gives the very same place, as it must when the box fills the image, the region is mirrored.
    """
    sizes = region.values.shape[1:]
    starts = [integer(generator, 0, n - size + 1) for n, size in zip(region.image.shape[1:], sizes, strict=True)]
    box = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    patch = region.image[(slice(None), *box)].clone()
    longest = max(range(len(sizes)), key=lambda axis: sizes[axis]) + 1
    return patch.flip(longest) if box == region.placement.box else patch


def image_mean(region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
    """The mean of the image per channel: nothing to be seen (DeVries and Taylor 2017, Cutout)."""
    means = region.image.float().flatten(1).mean(dim=1).to(region.values.dtype)
    return means.reshape(-1, *[1] * (region.values.ndim - 1)).expand_as(region.values)


@dataclass(frozen=True)
class SmoothOffset:
    """Brighter or darker by an offset that rises smoothly from the shape's border to its core.

    Source: the smooth intensity task of Baugh et al. 2023, "Many tasks make light work"; here the offset is measured in
    typical tissue differences of the data, so that it does not depend on the unit of the intensities.

    Attributes:
        strength: Smallest and largest offset, in typical differences of two foreground voxels.
        plateau: Depth at which the full offset is reached; 1 is the core only.
    """

    strength: tuple[float, float] = (0.5, 2.5)
    plateau: tuple[float, float] = (0.1, 0.8)

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
        """Return the region's values plus the offset."""
        profile = (region.placement.depth / uniform(generator, *self.plateau)).clamp(0, 1)
        profile = profile * profile * (3 - 2 * profile)
        sign = 1.0 if uniform(generator, 0, 1) < 0.5 else -1.0
        offset = sign * uniform(generator, *self.strength) * region.scale
        return region.values + offset.reshape(-1, *[1] * profile.ndim) * profile
