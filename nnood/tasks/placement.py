"""Where an anomaly goes and how large it is."""

from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

from nnood.tasks.draws import integer, uniform
from nnood.tasks.settings import TaskSettings
from nnood.tasks.shapes import Outline, Shape

PLACEMENT_TRIES = 5
CENTRE_DRAWS = 64
MIN_OVERLAP = 0.5


@dataclass(frozen=True, eq=False)
class Placement:
    """An anomaly's place in an image.

    Attributes:
        box: One slice per spatial axis, inside of the image.
        outline: The shape in the box.
    """

    box: tuple[slice, ...]
    outline: Outline


def draw_centre(foreground: torch.Tensor, generator: torch.Generator) -> list[int] | None:
    """A random position in the foreground (*S), or None if there is none.

    Random positions are tried first: listing a whole patch's foreground costs more than the anomaly itself.
    """
    draws = torch.randint(foreground.numel(), (CENTRE_DRAWS,), generator=generator, device=generator.device)
    hits = foreground.take(draws.to(foreground.device)).tolist()
    if True in hits:
        index = int(draws[hits.index(True)])
        return [int(i) for i in np.unravel_index(index, tuple(foreground.shape))]
    listed = foreground.nonzero()
    if not len(listed):
        return None
    return listed[integer(generator, 0, len(listed))].tolist()


def draw_size(shape: Shape, image: torch.Size, settings: TaskSettings, generator: torch.Generator) -> list[int]:
    """Voxels of the anomaly's box per axis.

    A fraction of the object's extent is drawn for each axis; for an isotropic shape one for all, of the middle one of
    the extents in mm. Shapes of small pieces get no small boxes. No edge is longer than the largest fraction of its
    axis, or than the image.
    """
    low, high = settings.fractions
    low = min(low / shape.grain, high)
    if shape.isotropic:
        edge = uniform(generator, low, high) * median(
            e * s for e, s in zip(settings.extent, settings.spacing, strict=True)
        )
        wanted = [min(edge / s, high * e) for e, s in zip(settings.extent, settings.spacing, strict=True)]
    else:
        wanted = [uniform(generator, low, high) * whole for whole in settings.extent]
    return [min(max(1, round(voxels)), n) for voxels, n in zip(wanted, image, strict=True)]


def place(
    shape: Shape,
    foreground: torch.Tensor,
    settings: TaskSettings,
    generator: torch.Generator,
    *,
    foreground_only: bool = False,
) -> Placement | None:
    """Choose size and position, so that at least half of the shape lies in the foreground where that can be had.

    Args:
        shape: Draws the outline.
        foreground: Boolean (*S).
        settings: Extent, fractions and spacing.
        generator: Randomness.
        foreground_only: Cut off what lies outside of the foreground.

    Returns:
        The best of a fixed number of tries, or None if there is no foreground at all.
    """
    best: Placement | None = None
    best_overlap = 0.0
    for _ in range(PLACEMENT_TRIES):
        centre = draw_centre(foreground, generator)
        if centre is None:
            return None
        size = draw_size(shape, foreground.shape, settings, generator)
        starts = [
            min(max(c - n // 2, 0), total - n) for c, n, total in zip(centre, size, foreground.shape, strict=True)
        ]
        box = tuple(slice(start, start + n) for start, n in zip(starts, size, strict=True))
        outline = shape(size, generator, foreground.device)
        mask = outline.depth > 0
        inside = foreground[box]
        covered, voxels = int(torch.count_nonzero(mask & inside)), int(torch.count_nonzero(mask))
        if voxels == 0:  # too thin for the grid
            continue
        if covered / voxels > best_overlap:
            if foreground_only:
                outline = replace(outline, depth=torch.where(inside, outline.depth, outline.depth.clamp(max=0)))
            best, best_overlap = Placement(box, outline), covered / voxels
        if best_overlap >= MIN_OVERLAP:
            break
    return best
