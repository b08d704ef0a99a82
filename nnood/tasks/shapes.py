"""What form an anomaly has.

A shape is a *depth map* in a box: 0 or less outside of the shape, rising to 1 at its core. `depth > 0` is the mask; a
soft edge, or a profile that fades towards the border, is a function of the depth. Axes of a single voxel take no part.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from nnood.tasks.draws import integer, rotation, shear, uniforms
from nnood.tasks.filters import gaussian_weights, smooth
from nnood.tasks.sampling import along, combine

STRETCH = 0.5
SHEAR = 0.3


@dataclass(frozen=True, eq=False)
class Frame:
    """Coordinates in which a convex shape is the unit ball of a norm.

    Attributes:
        coordinates: One per axis, broadcastable to (*box).
        euclidean: Ball of the Euclidean norm (an ellipsoid), or else of the largest coordinate (a cuboid).
    """

    coordinates: list[torch.Tensor]
    euclidean: bool

    def norm(self) -> torch.Tensor:
        """Distance from the middle, 1 at the shape's border, (*box)."""
        if self.euclidean:
            return functools.reduce(torch.add, [u**2 for u in self.coordinates]).sqrt()
        return functools.reduce(torch.maximum, [u.abs() for u in self.coordinates])

    def gauge(self, centre: Sequence[int]) -> torch.Tensor:
        """Where each voxel lies on its ray from another centre: 0 at the centre, 1 at the shape's border, (*box).

        Args:
            centre: Index in the box of a voxel inside of the shape.
        """
        place = [u[tuple(min(c, n - 1) for c, n in zip(centre, u.shape, strict=True))].item() for u in self.coordinates]
        offsets = [u - c for u, c in zip(self.coordinates, place, strict=True)]
        if not self.euclidean:
            faces = [torch.maximum(q / (1 - c), q / (-1 - c)) for q, c in zip(offsets, place, strict=True)]
            return functools.reduce(torch.maximum, faces)
        # |c + q / gauge| = 1, solved for the gauge.
        rest = max(1 - sum(c**2 for c in place), 1e-3)
        along = functools.reduce(torch.add, [c * q for q, c in zip(offsets, place, strict=True)])
        square = functools.reduce(torch.add, [q**2 for q in offsets])
        return (along + (along**2 + rest * square).sqrt()) / rest


@dataclass(frozen=True, eq=False)
class Outline:
    """A shape in its box.

    Attributes:
        depth: Depth map (*box), float32.
        frame: Of a convex shape; None for others.
    """

    depth: torch.Tensor
    frame: Frame | None = None

    @classmethod
    def of(cls, depth: torch.Tensor, frame: Frame | None = None) -> "Outline":
        """An outline with something inside: in a box of a few voxels, all of them may lie beside a slanted shape."""
        deepest = depth.max()
        return cls(depth, frame) if deepest > 0 else cls((depth == deepest).float())


class Shape(Protocol):
    """Draws outlines of any size."""

    @property
    def isotropic(self) -> bool:
        """Whether the shape wants a box of equal edges in mm."""

    @property
    def grain(self) -> float:
        """Width of the shape's pieces, as a fraction of the box: boxes are drawn large enough for pieces to be seen."""

    def __call__(self, size: Sequence[int], generator: torch.Generator, device: torch.device) -> Outline:
        """Draw an outline.

        Args:
            size: Of the box, in voxels.
            generator: Randomness.
            device: Where to put it.
        """


@functools.lru_cache(maxsize=1024)
def _axis(n: int, device: torch.device) -> torch.Tensor:
    """Positions of n voxels between faces at -1 and 1; shared, so never to be modified."""
    return (torch.arange(n, device=device, dtype=torch.float32) + 0.5) * (2 / n) - 1


def box_coordinates(size: Sequence[int], device: torch.device) -> list[torch.Tensor]:
    """Positions of voxels, -1 and 1 at the box's faces: a broadcastable tensor per axis of more than one voxel."""
    axes = []
    for axis, n in enumerate(size):
        if n > 1:
            axes.append(along(_axis(n, device), axis, len(size)))
    return axes


@dataclass(frozen=True)
class Convex:
    """A cuboid or an ellipsoid that touches its box: depth 1 - |u|.

    A rotated one is the image of a unit cube or ball under a random stretch, shear and rotation, fitted into the box.

    Attributes:
        euclidean: An ellipsoid.
        rotated: Stretch, shear and rotate at random.
        isotropic: See `Shape`.
        grain: See `Shape`.
    """

    euclidean: bool
    rotated: bool = False
    isotropic: bool = False
    grain: float = 1.0

    def __call__(self, size: Sequence[int], generator: torch.Generator, device: torch.device) -> Outline:
        """See `Shape`."""
        coordinates = box_coordinates(size, device)
        if not coordinates:
            return Outline(torch.ones(tuple(size), device=device))
        if self.rotated:
            coordinates = combine(np.linalg.inv(self.matrix(len(coordinates), generator)).tolist(), coordinates)
        frame = Frame(coordinates, self.euclidean)
        return Outline.of(1 - frame.norm().expand(tuple(size)), frame)

    def matrix(self, dimensions: int, generator: torch.Generator) -> np.ndarray:
        """A random linear map (D, D) whose image of the unit cube or ball touches all faces of the box [-1, 1]^D."""
        stretch = uniforms(generator, STRETCH, 1, dimensions)
        drawn = rotation(generator, dimensions, 180) @ shear(generator, dimensions, SHEAR) * stretch
        reach = np.linalg.norm(drawn, axis=1) if self.euclidean else np.abs(drawn).sum(axis=1)
        return drawn / reach[:, None]


CUBOID = Convex(euclidean=False)
ELLIPSOID = Convex(euclidean=True)
SPHERE = Convex(euclidean=True, isotropic=True)
ROTATED_CUBOID = Convex(euclidean=False, rotated=True)
ROTATED_ELLIPSOID = Convex(euclidean=True, rotated=True)


@dataclass(frozen=True)
class SoftEdge:
    """A shape whose mask is smoothed by a Gaussian; the depth is then the mask's smoothed value, 1 at the core.

    Source: Naval Marimont, Siomos, Tarroni 2023, "Achieving state-of-the-art performance in the Medical
    Out-of-Distribution (MOOD) challenge using plausible synthetic anomalies".

    Attributes:
        shape: What is smoothed.
        sizes: Odd edges of the Gaussian's kernel in voxels, one of which is drawn; its sigma is 0.3 size / 2 + 0.35.
    """

    shape: Shape
    sizes: tuple[int, ...] = (1, 3, 5, 7)

    @property
    def isotropic(self) -> bool:
        """As the shape."""
        return self.shape.isotropic

    @property
    def grain(self) -> float:
        """As the shape."""
        return self.shape.grain

    def __call__(self, size: Sequence[int], generator: torch.Generator, device: torch.device) -> Outline:
        """See `Shape`: the shape is drawn smaller by the kernel's reach, so that it fades out within the box."""
        kernel = self.sizes[integer(generator, 0, len(self.sizes))]
        inner = [max(1, n - kernel + 1) for n in size]
        mask = self.shape(inner, generator, device).depth > 0
        result = torch.zeros(tuple(size), device=device)
        result[tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(size, inner, strict=True))] = mask.float()
        if kernel == 1:
            return Outline(result)
        weights = gaussian_weights(0.15 * kernel + 0.35, kernel // 2)
        result = smooth(result, range(len(size)), weights, repeat_border=False)
        return Outline(result / result.max().clamp(min=1e-6))
