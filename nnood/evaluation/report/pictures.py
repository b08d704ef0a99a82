"""Volumes for the viewer of a report, each on the finest grid that there is room for, as one picture per case.

A picture is an 8-bit PNG with the slices side by side: red is the image, green the score, blue the truth. That is what
a browser can decode by itself, losslessly, from a page on the disk.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from nnood.evaluation.report.volumes import Upright, Volumes, places

WINDOW = (0.5, 99.5)  # percentiles of the image that become black and white
MAX_CHANNELS = 4
SMALLEST_EDGE = 8  # voxels along the longest axis, below which a picture shows nothing any more
MAX_PIXELS = 2**24  # what every browser can hold in a canvas
LEAST_BYTES_PER_VOXEL = 0.1  # of a packed volume: what cannot fit by this measure is not even tried


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
    array = array.astype(np.float32)
    for axis, factor in enumerate(factors):
        if factor > 1:
            one_axis = [factor if i == axis else 1 for i in range(array.ndim)]
            starts = np.arange(0, array.shape[axis], factor)
            counts = np.diff(starts, append=array.shape[axis]).astype(np.float32)
            array = reduce_by(array, one_axis, np.add) / np.expand_dims(
                counts, [i for i in range(array.ndim) if i != axis]
            )
    return array


def coarser(factors: Sequence[int], shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """The next coarser grid: one more along the axes that are finest now, so that voxels become isotropic.

    Args:
        factors: The present ones.
        shape: Voxels per axis of the full grid; an axis of a single voxel is never chosen.
        spacing: In mm, of the full grid.
    """
    present = [factor * step for factor, step in zip(factors, spacing, strict=True)]
    finest = min(step for step, factor, edge in zip(present, factors, shape, strict=True) if -(-edge // factor) > 1)
    return tuple(
        factor + (step <= 1.01 * finest and edge > 1)
        for factor, step, edge in zip(factors, present, shape, strict=True)
    )


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
        **places(volumes.geometry, upright, tuple(reversed(factors))),
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
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=7)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
