"""Volumes for the viewer of a report: turned upright, on a grid coarse enough, as one picture per case.

A picture is an 8-bit PNG with the slices side by side: red is the image, green the score, blue the truth. That is what
a browser can decode by itself, losslessly, from a page on the disk.
"""

import base64
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import read_channels, read_image

WINDOW = (0.5, 99.5)  # percentiles of the image that become black and white
MAX_CHANNELS = 4
SMALLEST_EDGE = 8  # voxels along the longest axis, below which a picture shows nothing any more
MAX_PIXELS = 2**24  # what every browser can hold in a canvas
LEAST_BYTES_PER_VOXEL = 0.1  # of a packed volume: what cannot fit by this measure is not even tried


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
    """

    channels: list[np.ndarray]
    scores: np.ndarray
    truth: np.ndarray | None
    geometry: Geometry


@dataclass(frozen=True)
class Packed:
    """A case's picture.

    Attributes:
        uris: One data URI of image, score and truth, and one per further channel.
        layout: What the viewer must know to read it.
        factors: By which each axis (x, y[, z] of the file) was reduced.
    """

    uris: tuple[str, ...]
    layout: dict[str, Any]
    factors: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return sum(map(len, self.uris))


def read_volumes(files: CaseFiles) -> Volumes:
    """Read one case.

    Raises:
        UserError: If a file is broken, scores are not in [0, 1], or files differ in geometry.
    """
    values, geometry = read_image(files.score_map)
    if len(values) != 1 or values.min() < 0 or values.max() > 1:
        raise UserError(f"{files.score_map}: Expected one channel of scores in [0, 1]; predict the case again.")
    channels: list[np.ndarray] = []
    if files.images:
        channels, image_geometry = read_channels(files.images)
        _refuse_other_grid(files.score_map, geometry, files.images[0], image_geometry)
    truth = None
    if files.mask is not None:
        mask, mask_geometry = read_image(files.mask)
        _refuse_other_grid(files.score_map, geometry, files.mask, mask_geometry)
        truth = mask[0] != 0
    return Volumes(channels, values[0], truth if truth is not None and truth.any() else None, geometry)


def _refuse_other_grid(score_map: Path, geometry: Geometry, file: Path, other: Geometry) -> None:
    if not geometry.matches(other):
        raise UserError(
            f"{score_map}: Expected the geometry of {file} ({other.describe()}), but got {geometry.describe()}; "
            "give the folder of the images that were predicted."
        )


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
        return np.flip(turned, [last - world for world, flip in enumerate(self.flipped) if flip])

    def index(self, voxel: Sequence[int], size: Sequence[int]) -> list[int]:
        """Turn a voxel (x, y[, z]) of the file into one of the turned array (left, back[, head])."""
        return [
            size[axis] - 1 - voxel[axis] if flip else voxel[axis]
            for axis, flip in zip(self.axes, self.flipped, strict=True)
        ]


def reduce_by(array: np.ndarray, factors: Sequence[int], combine: np.ufunc) -> np.ndarray:
    """Combine blocks of voxels; those at the far edges may be smaller.

    Args:
        array: Any shape.
        factors: Edge of a block along each axis.
        combine: `np.add` or `np.maximum`.
    """
    for axis, factor in enumerate(factors):
        if factor > 1:
            array = combine.reduceat(array, np.arange(0, array.shape[axis], factor), axis=axis)
    return array


def mean_by(array: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Means of blocks of voxels."""
    counts = reduce_by(np.ones(array.shape, dtype=np.float32), factors, np.add)
    return reduce_by(array.astype(np.float32), factors, np.add) / counts


def coarser(factors: Sequence[int], shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """The next coarser grid: one more along the axes that are finest now, so that voxels become isotropic.

    Args:
        factors: The present ones.
        shape: Voxels per axis of the full grid; an axis of a single voxel is never chosen.
        spacing: In mm, of the full grid.
    """
    present = [factor * step for factor, step in zip(factors, spacing, strict=True)]
    finest = min(
        step for step, factor, edge in zip(present, factors, shape, strict=True) if -(-edge // factor) > 1
    )
    return tuple(factor + (step <= 1.01 * finest) for factor, step in zip(factors, present, strict=True))


def pack(volumes: Volumes, allowance: int) -> Packed | None:
    """Make the picture of a case, on the finest grid that fits.

    Args:
        volumes: The case.
        allowance: Largest size in the page, in bytes.

    Returns:
        The picture, or None if not even a tiny one fits.
    """
    upright = Upright.of(volumes.geometry)
    spacing = [volumes.geometry.spacing[axis] for axis in reversed(upright.axes)]
    scores = upright.apply(volumes.scores)
    limit = min(MAX_PIXELS, allowance / LEAST_BYTES_PER_VOXEL)
    factors: tuple[int, ...] = (1,) * scores.ndim
    while True:
        shape = [-(-edge // factor) for edge, factor in zip(scores.shape, factors, strict=True)]
        if math.prod(shape) <= limit:
            packed = _pack_at(volumes, upright, factors)
            if packed.size <= allowance:
                return packed
            limit = math.prod(shape) * allowance / packed.size
        if max(shape) <= SMALLEST_EDGE:
            return None
        factors = coarser(factors, scores.shape, spacing)


def _pack_at(volumes: Volumes, upright: Upright, factors: tuple[int, ...]) -> Packed:
    scores = reduce_by(upright.apply(volumes.scores), factors, np.maximum).astype(np.float64)
    top = float(scores.max()) or 1.0
    green = np.rint(scores * (255 / top)).astype(np.uint8)
    blue = np.zeros_like(green)
    if volumes.truth is not None:
        blue = reduce_by(upright.apply(volumes.truth), factors, np.maximum).astype(np.uint8) * 255
    windows, greys = [], []
    for channel in volumes.channels[:MAX_CHANNELS]:
        low, high = window(channel)
        windows.append((low, high))
        grey = (mean_by(upright.apply(channel), factors) - low) * (255 / (high - low))
        greys.append(np.rint(np.clip(grey, 0, 255)).astype(np.uint8))
    red = greys[0] if greys else np.zeros_like(green)
    columns = _columns(green.shape)
    uris = [_png(np.stack([_mosaic(part, columns) for part in (red, green, blue)], axis=-1))]
    uris += [_png(_mosaic(grey, columns)) for grey in greys[1:]]
    layout = {
        "size": list(reversed(green.shape)),
        "columns": columns,
        "top": top,
        "windows": windows,
        "truth": volumes.truth is not None,
        "check": int(green.sum(dtype=np.int64)),
        **_places(volumes.geometry, upright, tuple(reversed(factors))),
    }
    by_axis = dict(zip(upright.axes, reversed(factors), strict=True))
    return Packed(tuple(uris), layout, tuple(by_axis[axis] for axis in sorted(by_axis)))


def window(values: np.ndarray) -> tuple[float, float]:
    """The intensities that become black and white: robust percentiles, or the extremes where those coincide."""
    low, high = (float(value) for value in np.percentile(values, WINDOW))
    if low == high:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1)


def _columns(shape: tuple[int, ...]) -> int:
    """Slices side by side in the mosaic, so that it is about square."""
    if len(shape) == 2:
        return 1
    slices, height, width = shape
    return min(slices, max(1, round(math.sqrt(slices * height / width))))


def _mosaic(volume: np.ndarray, columns: int) -> np.ndarray:
    if volume.ndim == 2:
        return volume
    slices, height, width = volume.shape
    rows = -(-slices // columns)
    padded = np.zeros((rows * columns, height, width), dtype=volume.dtype)
    padded[:slices] = volume
    return padded.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def _png(pixels: np.ndarray) -> str:
    """A PNG without colour profile or gamma, which a browser would apply, as a data URI."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _places(geometry: Geometry, upright: Upright, factors: tuple[int, ...]) -> dict[str, Any]:
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
