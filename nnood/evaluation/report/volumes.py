"""What a report shows of a case: its files, read and checked, and how they are turned upright."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnood.errors import UserError
from nnood.evaluation.evaluate import load_prediction
from nnood.geometry import Geometry
from nnood.image_readers import MEDICAL_ENDINGS
from nnood.images import image_ending, read_channels

# What millimetres may be, and how a report says so.
SPACES = {
    "plane": "Millimetres are in the image's physical space, x along its rows and y along its columns.",
    "patient": "Millimetres are in the image's physical space, x towards the patient's left, y towards the back and z "
    "towards the head (LPS, as in ITK and DICOM).",
    "image": "Positions are image coordinates in mm: the images do not say how the patient lies.",
}


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Attributes:
        score_map: The prediction.
        images: One per channel, or one with all of them; none if there is no image.
        mask: The truth, if there is any.
    """

    score_map: Path
    images: tuple[Path, ...] = ()
    mask: Path | None = None


@dataclass(frozen=True)
class Volumes:
    """What is shown of one case; all arrays are (z, y, x) or (y, x).

    Attributes:
        channels: The image, one array per channel; none if there is no image.
        scores: In [0, 1].
        truth: True where anomalous; None if unknown or nothing is.
        geometry: Shared by all.
        oriented: Whether the geometry says how the patient lies; that of an image without orientation is made up.
    """

    channels: list[np.ndarray]
    scores: np.ndarray
    truth: np.ndarray | None
    geometry: Geometry
    oriented: bool = True

    @property
    def space(self) -> str:
        """What its millimetres are, a key of `SPACES`."""
        return "plane" if self.geometry.dimensions == 2 else "patient" if self.oriented else "image"


def read_volumes(files: CaseFiles) -> Volumes:
    """Read one case.

    Raises:
        UserError: If a file is broken, holds values out of range, or files differ in geometry.
    """
    case = load_prediction(files.score_map, files.mask, sample_score=math.nan)  # which is not asked for here
    channels: list[np.ndarray] = []
    if files.images:
        channels, image_geometry = read_channels(files.images)
        if not case.geometry.matches(image_geometry):
            raise UserError(
                f"{files.score_map}: Expected the geometry of {files.images[0]} ({image_geometry.describe()}), but got "
                f"{case.geometry.describe()}; give the folder of the images that were predicted."
            )
    truth = case.truth if case.truth.any() else None
    return Volumes(channels, case.score_map, truth, case.geometry, _is_oriented(files, case.geometry))


def _is_oriented(files: CaseFiles, geometry: Geometry) -> bool:
    """Whether the image stores a direction; without an image, whether its score map has one that was not made up."""
    if files.images:
        return image_ending(files.images[0]) in MEDICAL_ENDINGS
    return geometry != Geometry.from_spacing(geometry.size[::-1], (1.0,) * geometry.dimensions)


@dataclass(frozen=True)
class Upright:
    """How an array of a file is turned so that its axes run to the patient's left, back and head.

    Attributes:
        axes: Axis of the file (0 = x) that runs most nearly to the left, the back and the head.
        flipped: Whether each of them runs the other way in the file.
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]

    @classmethod
    def of(cls, geometry: Geometry) -> "Upright":
        """Read it off the direction cosines (LPS, as in ITK and DICOM); oblique axes go to the nearest one."""
        count = geometry.dimensions
        cosines = np.reshape(geometry.direction, (count, count))
        axes = max(
            itertools.permutations(range(count)),
            key=lambda order: sum(abs(cosines[world, axis]) for world, axis in enumerate(order)),
        )
        return cls(axes, tuple(bool(cosines[world, axis] < 0) for world, axis in enumerate(axes)))

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Turn an array (z, y, x) of the file into one of (head, back, left)."""
        last = array.ndim - 1
        turned = array.transpose([last - axis for axis in reversed(self.axes)])
        return np.flip(turned, tuple(last - world for world, flip in enumerate(self.flipped) if flip))

    def index(self, voxel: Sequence[int], size: Sequence[int]) -> list[int]:
        """Turn a voxel (x, y[, z]) of the file into one of the turned array (left, back[, head])."""
        return [
            size[axis] - 1 - voxel[axis] if flip else voxel[axis]
            for axis, flip in zip(self.axes, self.flipped, strict=True)
        ]


def places(geometry: Geometry, upright: Upright, factors: tuple[int, ...]) -> dict[str, Any]:
    """Where a voxel of the picture lies: in the file, and in millimetres.

    Args:
        geometry: Of the file.
        upright: How the picture was turned.
        factors: Along left, back[, head].

    Returns:
        `spacing` in mm along the picture's axes, `voxel` with one entry (axis of the file, first index, step, number
        of voxels) per axis, and `origin` and `steps` of the millimetres.
    """
    count = geometry.dimensions
    cosines = np.reshape(geometry.direction, (count, count)) * geometry.spacing
    first = np.zeros(count)
    steps, voxel = [], []
    for axis, flip, factor in zip(upright.axes, upright.flipped, factors, strict=True):
        edge = geometry.size[axis]
        step = -factor if flip else factor
        # The middle of the first block, which is a voxel itself where nothing was reduced.
        middle = (min(factor, edge) - 1) / 2
        first[axis] = edge - 1 - middle if flip else middle
        steps.append((step * cosines[:, axis]).tolist())
        voxel.append((axis, float(first[axis]), step, edge))
    origin = (np.asarray(geometry.origin) + cosines @ first).tolist()
    spacing = [geometry.spacing[axis] * factor for axis, factor in zip(upright.axes, factors, strict=True)]
    return {"spacing": spacing, "voxel": voxel, "origin": origin, "steps": steps}
