"""Where an anomaly goes and what form it has.

A shape is a *depth map* in a box: 0 or less outside of the shape, rising to 1 at its core. `depth > 0` is the mask; a
soft edge, or a profile that fades towards the border, is a function of the depth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nnood.tasks.draws import integer, uniform

Shape = Callable[[Sequence[int], torch.device], torch.Tensor]

PLACEMENT_TRIES = 5
CENTRE_DRAWS = 64
MIN_OVERLAP = 0.5


def _radii(size: Sequence[int], device: torch.device) -> list[torch.Tensor]:
    """Per axis, the distance of each voxel's centre from the box's centre, 1 at the box's faces; broadcastable."""
    radii = []
    for axis, n in enumerate(size):
        positions = (torch.arange(n, device=device, dtype=torch.float32) + 0.5) * (2 / n) - 1
        radii.append(positions.abs().reshape([-1 if i == axis else 1 for i in range(len(size))]))
    return radii


def cuboid(size: Sequence[int], device: torch.device) -> torch.Tensor:
    """A cuboid that fills its box: depth 1 - max |r|, (*size)."""
    depth = torch.ones(tuple(size), device=device)
    for radius in _radii(size, device):
        depth = torch.minimum(depth, 1 - radius)
    return depth


def ellipsoid(size: Sequence[int], device: torch.device) -> torch.Tensor:
    """An ellipsoid that touches its box: depth 1 - |r|, (*size)."""
    squares = torch.zeros(tuple(size), device=device)
    for radius, n in zip(_radii(size, device), size, strict=True):
        # An axis of one voxel has no curvature: its only voxel lies in the middle.
        squares = squares + (radius**2 if n > 1 else 0)
    return 1 - squares.sqrt()


@dataclass(frozen=True)
class Placement:
    """An anomaly's place in an image.

    Attributes:
        box: One slice per spatial axis, inside of the image.
        depth: The shape's depth map in the box.
    """

    box: tuple[slice, ...]
    depth: torch.Tensor


def draw_centre(foreground: torch.Tensor, generator: torch.Generator) -> list[int] | None:
    """A random position in the foreground (*S), or None if there is none.

    Random positions are tried first: listing a whole patch's foreground costs more than the anomaly itself.
    """
    shape = torch.tensor(foreground.shape, device=generator.device)
    draws = torch.rand(CENTRE_DRAWS, foreground.ndim, generator=generator, device=generator.device)
    positions = (draws * shape).long().to(foreground.device)
    hits = foreground[tuple(positions.T)].nonzero()
    if len(hits):
        return positions[hits[0, 0]].tolist()
    listed = foreground.nonzero()
    if not len(listed):
        return None
    return listed[integer(generator, 0, len(listed))].tolist()


def place(
    shape: Shape,
    foreground: torch.Tensor,
    extent: Sequence[int],
    fractions: tuple[float, float],
    generator: torch.Generator,
) -> Placement | None:
    """Choose size and position, so that at least half of the shape lies in the foreground where that can be had.

    Args:
        shape: Makes the depth map.
        foreground: Boolean (*S).
        extent: Voxels of a whole object's foreground box, per axis of S; patches may show less of it.
        fractions: Smallest and largest size, as fractions of `extent`; drawn per axis.
        generator: Randomness.

    Returns:
        The best of a fixed number of tries, or None if there is no foreground at all.
    """
    best: Placement | None = None
    best_overlap = 0.0
    for _ in range(PLACEMENT_TRIES):
        centre = draw_centre(foreground, generator)
        if centre is None:
            return None
        size = [
            min(max(1, round(uniform(generator, *fractions) * whole)), n)
            for whole, n in zip(extent, foreground.shape, strict=True)
        ]
        starts = [
            min(max(c - n // 2, 0), total - n) for c, n, total in zip(centre, size, foreground.shape, strict=True)
        ]
        box = tuple(slice(start, start + n) for start, n in zip(starts, size, strict=True))
        depth = shape(size, foreground.device)
        mask = depth > 0
        overlap = ((mask & foreground[box]).sum() / mask.sum().clamp(min=1)).item()
        if overlap > best_overlap:
            best, best_overlap = Placement(box, depth), overlap
        if overlap >= MIN_OVERLAP:
            break
    return best
