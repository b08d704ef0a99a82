"""Where an image lies in space."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813


@dataclass(frozen=True)
class Geometry:
    """Where an image lies in space, in SimpleITK's order (x, y[, z]).

    Attributes:
        size: Voxels per axis.
        spacing: Millimetres per voxel and axis, all > 0.
        origin: Position of the first voxel in millimetres.
        direction: Row-major direction cosines.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def from_spacing(cls, shape: Sequence[int], spacing: Sequence[float]) -> "Geometry":
        """An axis-aligned geometry at the origin, from numpy-ordered (z, y, x) shape and spacing in mm."""
        dimensions = len(shape)
        return cls(
            size=tuple(int(n) for n in reversed(shape)),
            spacing=tuple(float(s) for s in reversed(spacing)),
            origin=(0.0,) * dimensions,
            direction=tuple(np.eye(dimensions).ravel().tolist()),
        )

    @classmethod
    def of(cls, image: sitk.Image) -> "Geometry":
        """The geometry of a SimpleITK image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.size)

    def matches(self, other: "Geometry") -> bool:
        """Whether both describe the same grid: equal sizes, the rest within a thousandth of a voxel."""
        if self.size != other.size:
            return False
        tolerance = 1e-3 * min(self.spacing)
        return (
            np.allclose(self.spacing, other.spacing, rtol=0, atol=tolerance)
            and np.allclose(self.origin, other.origin, rtol=1e-5, atol=tolerance)
            and np.allclose(self.direction, other.direction, rtol=0, atol=1e-3)
        )

    def describe(self) -> str:
        """For error messages: size, spacing, origin and direction."""
        spacing, origin, direction = (
            tuple(round(value, 4) for value in values) for values in (self.spacing, self.origin, self.direction)
        )
        return f"size {self.size}, spacing {spacing} mm, origin {origin}, direction {direction}"
