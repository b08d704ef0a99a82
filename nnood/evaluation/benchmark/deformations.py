"""Local anomalies that move what is there; their values all come from the image itself."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from nnood.evaluation.benchmark.shapes import MIN_OVERLAP, PLACEMENT_TRIES, Region
from nnood.evaluation.benchmark.subjects import Draw, Subject

# The centre shrinks or grows two- to tenfold.
RADIAL_STRENGTHS = (0.5, 0.9)


def shift(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """What lies 0.3 to 1 diameters away, in the foreground by half or more where that can be had."""
    indices = np.argwhere(region.weight > 0).T + np.array([part.start for part in region.box])[:, None]
    limits = np.array(subject.foreground.shape)[:, None]
    best, most = np.zeros(3, dtype=int), -1.0
    for _ in range(PLACEMENT_TRIES):
        step = _displacement(subject, region, draw)
        moved = indices + step[:, None]
        inside = ((moved >= 0) & (moved < limits)).all(axis=0)
        overlap = subject.foreground[tuple(moved[:, inside])].sum() / inside.size
        if step.any() and overlap > most:
            best, most = step, overlap
        if most >= MIN_OVERLAP:
            break
    length = float(np.linalg.norm(best * np.array(subject.spacing)))
    return _moved(subject, region, best), length / region.size_mm


def _displacement(subject: Subject, region: Region, draw: Draw) -> np.ndarray:
    """A random direction and length, in voxels (z, y, x)."""
    direction = np.where(np.isin(range(3), subject.axes), draw.rng.normal(size=3), 0)
    direction /= max(np.linalg.norm(direction), np.finfo(float).tiny)
    length = draw.rng.uniform(0.3, 1.0) * region.size_mm
    return np.round(length * direction / np.array(subject.spacing)).astype(int)


def _moved(subject: Subject, region: Region, step: np.ndarray) -> np.ndarray:
    """The box's content displaced by whole voxels; beyond the image, its border is repeated."""
    values = subject.image
    for axis, (part, n) in enumerate(zip(region.box, subject.foreground.shape, strict=True)):
        indices = np.clip(np.arange(part.start, part.stop) + step[axis], 0, n - 1)
        values = values.take(indices, axis=axis + 1)
    return values.astype(np.float64)


def reflection(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """Mirrored along an axis at the plane through the centre; beyond the image, its border is repeated."""
    axis = int(draw.rng.choice(subject.axes))
    part, n = region.box[axis], subject.foreground.shape[axis]
    indices = np.clip(2 * region.centre[axis] - np.arange(part.start, part.stop), 0, n - 1)
    wide = list(region.box)
    wide[axis] = slice(None)
    return subject.image[(slice(None), *wide)].take(indices, axis=axis + 1).astype(np.float64), 1.0


def sink(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """The ball's content drawn towards its centre: at u radii lies what was at u / (1 - k + k u)."""
    strength = draw.rng.uniform(*RADIAL_STRENGTHS)
    return _radial(subject, region, lambda u: 1 / (1 - strength + strength * u)), strength


def source(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """The inverse of a sink, pushed away from the centre: at u radii lies what was at (1 - k) u / (1 - k u)."""
    strength = draw.rng.uniform(*RADIAL_STRENGTHS)
    return _radial(subject, region, lambda u: (1 - strength) / (1 - strength * u)), strength


def _radial(subject: Subject, region: Region, factor: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Resample along the rays of a ball, whose surface stays where it is."""
    offsets = region.offsets()
    distance = np.sqrt(np.square(offsets * np.reshape(subject.spacing, (3, 1, 1, 1))).sum(axis=0))
    u = np.minimum(distance / (region.size_mm / 2), 1)
    positions = np.reshape(region.centre, (3, 1, 1, 1)) + offsets * factor(u)
    channels = [
        ndimage.map_coordinates(channel, positions, np.float64, order=1, mode="nearest") for channel in subject.image
    ]
    return np.stack(channels)


def slice_shuffle(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """The slices along an axis in another order, none at its place; in 2D rows or columns."""
    values = region.values(subject)
    sizes = region.weight.shape
    thick = [axis for axis in range(3) if sizes[axis] >= 3] or [int(np.argmax(sizes))]
    axis = int(draw.rng.choice(thick))
    return values.take(_derangement(sizes[axis], draw.rng), axis=axis + 1), float(sizes[axis])


def _derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A random order in which nothing keeps its place: one random circle through all."""
    circle = rng.permutation(count)
    order = np.empty(count, dtype=int)
    order[circle] = np.roll(circle, 1)
    return order
