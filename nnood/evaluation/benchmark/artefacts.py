"""What befalls whole images: wrong orientation, missing slices, and what goes wrong in an MR scanner."""

from itertools import combinations

import numpy as np

from nnood.evaluation.benchmark.subjects import Draw, Planted, Subject, finish

# The axis' length in shifts.
GHOSTS = (2, 6)


def orientation(subject: Subject, draw: Draw) -> Planted:
    """Turned by 90, 180 or 270 degrees in a plane, or mirrored along an axis; on another grid all counts as changed."""
    planes = list(combinations(subject.axes, 2))
    options: list[tuple[float, tuple[int, ...]]] = [(0.0, (axis,)) for axis in subject.axes]
    options += [(degrees, plane) for plane in planes for degrees in (90.0, 180.0, 270.0)]
    degrees, axes = options[draw.rng.integers(len(options))]
    image = _turned(subject.image, degrees, tuple(axis + 1 for axis in axes))
    spacing = list(subject.spacing)
    if degrees in (90.0, 270.0):
        spacing[axes[0]], spacing[axes[1]] = spacing[axes[1]], spacing[axes[0]]
    whole = np.ones(image.shape[1:], dtype=bool)
    if image.shape == subject.image.shape and tuple(spacing) == subject.spacing:
        return finish(subject, image, whole, size_mm=None, strength=degrees)
    return Planted(np.ascontiguousarray(image), whole, tuple(spacing), None, degrees, 1.0)


def _turned(image: np.ndarray, degrees: float, axes: tuple[int, ...]) -> np.ndarray:
    return np.flip(image, axes) if len(axes) == 1 else np.rot90(image, round(degrees / 90), (axes[0], axes[1]))


def as_it_is(subject: Subject, draw: Draw) -> Planted:
    """The image unchanged: it is foreign itself, and all of it counts as changed."""
    whole = np.ones(subject.foreground.shape, dtype=bool)
    return Planted(subject.image.copy(), whole, subject.spacing, None, 1.0, 1.0)


def missing_slices(subject: Subject, draw: Draw) -> Planted:
    """A block of slices across the object, set to each channel's lowest value; dark air is no anomaly."""
    axis = subject.axes[0]
    extent = subject.foreground_box[axis]
    count = max(1, round(draw.rng.uniform(0.05, 0.2) * (extent.stop - extent.start)))
    start = int(draw.rng.integers(extent.start, max(extent.stop - count, extent.start) + 1))
    mask = np.zeros(subject.foreground.shape, dtype=bool)
    np.moveaxis(mask, axis, 0)[start : start + count] = True
    mask &= subject.foreground if (mask & subject.foreground).any() else True
    lowest = subject.image.min(axis=(1, 2, 3), keepdims=True)
    values = np.broadcast_to(lowest, subject.image.shape)
    return finish(subject, values, mask, size_mm=count * subject.spacing[axis], strength=float(count))


def ghosting(subject: Subject, draw: Draw) -> Planted:
    """Two weak copies of the image, shifted both ways along an axis and wrapped around at its end.

    In k-space, line k of n is multiplied by 1 - strength + strength * cos(2 pi k shift / n), as when something moves
    periodically between the lines; the overall brightness stays.
    """
    sizes = np.array([subject.foreground.shape[axis] for axis in subject.axes])
    long_enough = [axis for axis, n in zip(subject.axes, sizes, strict=True) if n >= min(8, sizes.max())]
    axis = int(draw.rng.choice(long_enough))
    shift = max(1, round(subject.foreground.shape[axis] / draw.rng.integers(GHOSTS[0], GHOSTS[1] + 1)))
    strength = draw.rng.uniform(0.15, 0.5)
    image = subject.image.astype(np.float64)
    copies = (np.roll(image, shift, axis + 1) + np.roll(image, -shift, axis + 1)) / 2
    return _everywhere(subject, image + strength * (copies - image), strength)


def bias_field(subject: Subject, draw: Draw) -> Planted:
    """Distances to each channel's lowest value, multiplied by a smooth field from exp(-strength) to exp(strength)."""
    strength = draw.rng.uniform(0.4, 1.0)
    coordinates = np.meshgrid(
        *[(np.arange(n) + 0.5) / n - 0.5 if n > 1 else np.zeros(1) for n in subject.foreground.shape], indexing="ij"
    )
    field = np.zeros(subject.foreground.shape)
    for _ in range(3):
        waves = np.where(np.isin(range(3), subject.axes), draw.rng.uniform(-1, 1, size=3), 0)
        phase = sum(wave * part for wave, part in zip(waves, coordinates, strict=True))
        field += np.cos(2 * np.pi * (phase + draw.rng.random()))
    inside = field[subject.foreground]
    middle, spread = (inside.max() + inside.min()) / 2, np.ptp(inside) / 2
    field = np.clip((field - middle) / max(spread, 1e-6), -1, 1)
    lowest = subject.image.min(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    return _everywhere(subject, lowest + (subject.image - lowest) * np.exp(strength * field), strength)


def spike_noise(subject: Subject, draw: Draw) -> Planted:
    """One to three spikes in k-space, each of which is a plane wave through the image."""
    strength = draw.rng.uniform(0.06, 0.25)
    count = int(draw.rng.integers(1, 4))
    waves = np.zeros(subject.foreground.shape)
    for _ in range(count):
        frequencies = [
            int(draw.rng.integers(-(n // 4), n // 4 + 1)) if axis in subject.axes else 0
            for axis, n in enumerate(subject.foreground.shape)
        ]
        axis = int(draw.rng.choice(subject.axes))
        # A wave must not be constant, nor as slow as a bias field.
        n = subject.foreground.shape[axis]
        frequencies[axis] = int(draw.rng.integers(max(1, n // 8), max(1, n // 3) + 1))
        waves += _plane_wave(subject.foreground.shape, frequencies, 2 * np.pi * draw.rng.random())
    return _everywhere(subject, subject.image + strength * subject.scale * waves / np.sqrt(count), strength)


def _plane_wave(shape: tuple[int, ...], frequencies: list[int], phase: float) -> np.ndarray:
    """The inverse Fourier transform of a spike and its conjugate, with amplitude 1."""
    total: np.ndarray = np.array(phase)
    for axis, (n, frequency) in enumerate(zip(shape, frequencies, strict=True)):
        angles = 2 * np.pi * frequency * np.arange(n) / n
        total = total + angles.reshape([-1 if i == axis else 1 for i in range(3)])
    return np.cos(total)


def _everywhere(subject: Subject, values: np.ndarray, strength: float) -> Planted:
    whole = np.ones(subject.foreground.shape, dtype=bool)
    return finish(subject, values, whole, size_mm=None, strength=strength)
