"""The most suspicious regions of a score map, in millimetres and in words."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnood.evaluation.report.html import short
from nnood.geometry import Geometry

TOP_REGIONS = 3
SHARE_OF_PEAK = 0.5


@dataclass(frozen=True)
class Region:
    """One connected region of high scores.

    Attributes:
        peak: Its highest score.
        centre: Centre of gravity in mm, in the image's physical space (x, y[, z]).
        extent: Edges of its box in mm, along the axes of the file (x, y[, z]).
        volume: In mm^3; in 2D, area in mm^2.
        voxel: Its voxel (x, y[, z]) of the highest score; of several, the one nearest to the centre.
    """

    peak: float
    centre: tuple[float, ...]
    extent: tuple[float, ...]
    volume: float
    voxel: tuple[int, ...]


def find_regions(scores: np.ndarray, geometry: Geometry) -> list[Region]:
    """Find up to three regions above half of the highest score, by falling peak, then by falling volume.

    Voxels that touch in a corner belong together.

    Args:
        scores: A score map (z, y, x) or (y, x).
        geometry: Where it lies.

    Returns:
        The regions; none if all scores are 0.
    """
    top = float(scores.max())
    if top <= 0:
        return []
    parts, count = ndimage.label(scores >= SHARE_OF_PEAK * top, structure=np.ones((3,) * scores.ndim))
    inside = parts > 0
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, parts[inside], scores[inside])
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    chosen = np.lexsort((-sizes, -peaks[1:]))[:TOP_REGIONS]
    boxes = ndimage.find_objects(parts)
    return [_measure(scores, parts, boxes[i], i + 1, geometry) for i in chosen]


def _measure(scores: np.ndarray, parts: np.ndarray, box: tuple[slice, ...], number: int, geometry: Geometry) -> Region:
    first = np.array([edge.start for edge in box])
    inside = parts[box] == number
    voxels = (np.argwhere(inside) + first)[:, ::-1]  # x, y, z as in the geometry
    values = scores[box][inside]
    centre = voxels.mean(axis=0)
    spacing = np.asarray(geometry.spacing)
    highest = voxels[values == values.max()]
    nearest = highest[np.square((highest - centre) * spacing).sum(axis=1).argmin()]
    cosines = np.reshape(geometry.direction, (geometry.dimensions,) * 2)
    return Region(
        peak=float(values.max()),
        centre=tuple((np.asarray(geometry.origin) + cosines @ (spacing * centre)).tolist()),
        extent=tuple((np.ptp(voxels, axis=0) + 1) * spacing),
        volume=float(len(voxels) * spacing.prod()),
        voxel=tuple(nearest.tolist()),
    )


def region_text(region: Region) -> str:
    """A region in words: centre, size and peak."""
    centre = ", ".join(f"{round(value, 1) + 0:.1f}" for value in region.centre).replace("-", "\N{MINUS SIGN}")
    extent = " × ".join(short(round(value, 1)) for value in region.extent)  # noqa: RUF001
    return f"({centre}) mm, {extent} mm, {volume_text(region.volume, len(region.centre))}, peak {region.peak:.3f}"


def volume_text(volume: float, dimensions: int) -> str:
    """A volume or, in 2D, an area, in a unit that keeps the number short."""
    if dimensions == 2:
        return f"{short(volume)} mm²"
    return f"{short(volume / 1000)} ml" if volume >= 100 else f"{short(volume)} mm³"
