"""Textures that move what is there: sinks, sources, reflections, shuffled slices."""

from dataclasses import dataclass

import torch

from nnood.tasks.donors import Donors
from nnood.tasks.draws import integer, uniform
from nnood.tasks.placement import draw_centre
from nnood.tasks.sampling import positions_in, sample
from nnood.tasks.textures import Region


@dataclass(frozen=True)
class Radial:
    """A sink or a source: the image drawn towards a random centre in the shape, or pushed away from it.

    On the ray from the centre to the shape's border, which is 1 long, position u shows what was at 1 - (1 - u)^f in a
    sink and at u^f in a source. Nothing from outside of the shape comes in, and the border stays where it is.

    Source: Baugh et al. 2023, "Many tasks make light work", equations 1 and 2.

    Attributes:
        inwards: A sink.
        factor: Smallest and largest exponent f > 1.
    """

    inwards: bool
    factor: tuple[float, float] = (1.5, 4.0)

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor | None:
        """Return the deformed values; None for a shape that is not convex."""
        outline = region.placement.outline
        if outline.frame is None:
            return None
        centre = draw_centre(outline.depth > 0, generator)
        if centre is None:
            return None
        factor = uniform(generator, *self.factor)
        reached = outline.frame.gauge(centre).clamp(1e-6, 1)
        wanted = 1 - (1 - reached) ** factor if self.inwards else reached**factor
        share = wanted / reached
        here = positions_in(region.values.shape[1:], region.values.device)
        return sample(region.values, [c + share * (p - c) for c, p in zip(centre, here, strict=True)])


def _thick_axis(values: torch.Tensor, generator: torch.Generator) -> int | None:
    """A random axis of `values` (C, *box) of more than one voxel, or None."""
    thick = [axis for axis in range(1, values.ndim) if values.shape[axis] > 1]
    return thick[integer(generator, 0, len(thick))] if thick else None


def reflection(region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor | None:
    """The box mirrored along a random axis (Tan et al. 2020, FPI's test set)."""
    axis = _thick_axis(region.values, generator)
    return None if axis is None else region.values.flip(axis)


def shuffled_slices(region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor | None:
    """The slices of the box along a random axis, in random order (Meissen et al. 2022, AutoSeg's test set)."""
    axis = _thick_axis(region.values, generator)
    if axis is None:
        return None
    order = torch.randperm(region.values.shape[axis], generator=generator, device=generator.device)
    return region.values.index_select(axis, order.to(region.values.device))
