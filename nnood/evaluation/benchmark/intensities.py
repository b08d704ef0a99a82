"""Local anomalies that change intensities. Strengths are shares of the case's robust range, per channel."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnood.evaluation.benchmark.shapes import Region, Shape, ball, ball_of, blob, cube, diameters, place
from nnood.evaluation.benchmark.subjects import Draw, Planted, Subject, finish

# Makes the new values (C, z, y, x) of a region, and says how strong they are.
Fill = Callable[[Subject, Region, Draw], tuple[np.ndarray, float]]

RADII = 4
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
CONTRASTS = (0.15, 0.25, 0.35, 0.5, 0.7)
SEVERAL = (2, 5)
SEVERAL_FRACTIONS = (0.12, 0.3)


@dataclass(frozen=True)
class Local:
    """A shape in the foreground and what goes into it.

    Attributes:
        shape: Draws the shape.
        fill: Makes its values.
    """

    shape: Callable[[Subject, Draw], Shape]
    fill: Fill

    def __call__(self, subject: Subject, draw: Draw) -> Planted:
        """Plant one anomaly."""
        region = place(subject, self.shape(subject, draw), draw)
        values, strength = self.fill(subject, region, draw)
        image = subject.image.astype(np.float64)
        blend_in(image, region, values)
        mask = np.zeros(subject.foreground.shape, dtype=bool)
        mask[region.box] = region.weight > 0
        return finish(subject, image, mask, size_mm=region.size_mm, strength=strength)


def blend_in(image: np.ndarray, region: Region, values: np.ndarray) -> None:
    """Mix values into a float64 image by the region's weight; where that is 1, they are taken over exactly."""
    own = image[(slice(None), *region.box)]
    own[:] = np.where(region.weight >= 1, values, own + region.weight * (values - own))


def add_noise(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """Gaussian noise on top, independent per voxel and channel."""
    strength = draw.rng.uniform(0.1, 0.5)
    values = region.values(subject)
    return values + strength * subject.scale * draw.rng.normal(size=values.shape), strength


def add_constant(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """Brighter or darker, everywhere and in all channels by the same share of the range."""
    strength = draw.rng.choice([-1.0, 1.0]) * draw.rng.uniform(0.1, 0.6)
    return region.values(subject) + strength * subject.scale, float(strength)


def blur(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """A Gaussian filter of 0.1 to 0.4 diameters, at least one voxel."""
    spacings = [subject.spacing[axis] for axis in subject.axes]
    sigma_mm = max(draw.rng.uniform(0.1, 0.4) * region.size_mm, min(spacings))
    sigmas = [sigma_mm / subject.spacing[axis] if axis in subject.axes else 0.0 for axis in range(3)]
    margins = [int(np.ceil(3 * sigma)) for sigma in sigmas]
    wide, own = [slice(None)], [slice(None)]
    for part, margin, n in zip(region.box, margins, subject.foreground.shape, strict=True):
        start = max(part.start - margin, 0)
        wide.append(slice(start, min(part.stop + margin, n)))
        own.append(slice(part.start - start, part.stop - start))
    values = subject.image[tuple(wide)].astype(np.float64)
    return ndimage.gaussian_filter(values, (0, *sigmas), mode="nearest", truncate=3)[tuple(own)], sigma_mm


def listed_ball(subject: Subject, draw: Draw) -> Shape:
    """A ball of one of four radii, by the variant."""
    return ball_of(subject, float(np.linspace(*diameters(subject), RADII)[draw.variant // len(LEVELS)]))


def listed_level(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """One of five constant intensities, by the variant."""
    level = LEVELS[draw.variant % len(LEVELS)]
    return _constant(subject, region, level), level


def any_level(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """A constant intensity from dark to bright."""
    level = draw.rng.uniform(LEVELS[0], LEVELS[-1])
    return _constant(subject, region, level), level


def _constant(subject: Subject, region: Region, level: float) -> np.ndarray:
    return np.broadcast_to(subject.low + level * subject.scale, (len(subject.image), *region.weight.shape))


def several_shapes(subject: Subject, draw: Draw) -> Planted:
    """Two to five balls, cubes and blobs, each of a constant intensity of its own."""
    image = subject.image.astype(np.float64)
    mask = np.zeros(subject.foreground.shape, dtype=bool)
    count = int(draw.rng.integers(SEVERAL[0], SEVERAL[1] + 1))
    sizes = []
    for _ in range(count):
        make = (ball, cube, blob)[draw.rng.integers(3)]
        region = place(subject, make(subject, draw, SEVERAL_FRACTIONS), draw)
        blend_in(image, region, any_level(subject, region, draw)[0])
        mask[region.box] |= region.weight > 0
        sizes.append(region.size_mm)
    return finish(subject, image, mask, size_mm=max(sizes), strength=float(count))


def tumour(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """A dark core in a bright, blurred ring, around the median of what was there."""
    strength = draw.rng.uniform(0.2, 0.6)
    distance = np.sqrt(np.square(region.offsets() * np.reshape(subject.spacing, (3, 1, 1, 1))).sum(axis=0))
    depth = distance / (region.size_mm / 2)
    core = draw.rng.uniform(0.4, 0.6)
    # A blurred step from -1 in the core to 1 in the ring.
    profile = np.tanh((depth - core) / 0.12)
    middle = _median(subject, region)
    texture = 0.3 * (region.values(subject) - middle)
    return middle + texture + strength * profile * subject.scale, strength


def lesion_tissue(subject: Subject, region: Region, draw: Draw) -> tuple[np.ndarray, float]:
    """Darker or brighter tissue with a smooth texture, at one of five contrasts by the variant."""
    contrast = CONTRASTS[draw.variant % len(CONTRASTS)] * (1 if draw.variant // len(CONTRASTS) % 2 else -1)
    values = region.values(subject)
    sigmas = [1.0 if axis in subject.axes else 0.0 for axis in range(3)]
    grain = ndimage.gaussian_filter(draw.rng.normal(size=values.shape), (0, *sigmas), mode="wrap")
    grain /= max(grain.std(), np.finfo(float).tiny)
    middle = _median(subject, region)
    tissue = middle + 0.4 * (values - middle)
    return tissue + (contrast + 0.05 * grain) * subject.scale, contrast


def _median(subject: Subject, region: Region) -> np.ndarray:
    """Of each channel inside the region, (C, 1, 1, 1)."""
    return np.median(region.values(subject)[:, region.weight > 0], axis=1).reshape(-1, 1, 1, 1)
