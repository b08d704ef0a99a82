"""Head-like phantoms with anomalies: the embedded demo data, made from a seed instead of downloaded.

Arrays are in (z, y, x) order: z grows towards the top of the head, y towards its back, x from side to side.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation
from scipy.special import expit

from nnood.geometry import Geometry
from nnood.images import write_image
from nnood.safety import write_json

Anomaly: TypeAlias = Callable[[np.ndarray, np.ndarray, tuple[float, float], np.random.Generator], np.ndarray]

TISSUE_LEVELS = {"scalp": 1.0, "fluid": 0.2, "muscle": 0.45, "grey": 0.5, "white": 0.8, "nuclei": 0.58}
VISIBLE_CHANGE = 0.15  # fraction of the tissue contrast below which a change is not marked
_MAX_TRIES = 8


def make_phantom(rng: np.random.Generator, shape: tuple[int, int, int] = (32, 40, 32)) -> np.ndarray:
    """One normal head with its own anatomy, contrast, bias field, noise and intensity scale.

    Args:
        rng: Source of all randomness.
        shape: Voxels along z, y, x; about 32 or more each for the anatomy to be resolved.

    Returns:
        float32 array of this shape; air is noise near 0, the brightest tissue between about 50 and 500.
    """
    coordinates = _head_coordinates(rng, shape)
    levels = {tissue: level * rng.uniform(0.95, 1.05) for tissue, level in TISSUE_LEVELS.items()}
    image = np.full(shape, 0.02)
    for tissue, inside in _anatomy(rng, coordinates):
        image += expit(inside / 0.02) * (levels[tissue] - image)
    image *= np.exp(0.05 * _smooth_field(rng, shape, 0.3))
    noise = rng.uniform(0.01, 0.03)
    # The magnitude of a complex signal: noise that is never negative, as in MRI.
    image = np.hypot(image + rng.normal(0, noise, shape), rng.normal(0, noise, shape))
    return (image * 50 * 10 ** rng.uniform(0, 1)).astype(np.float32)


def add_anomaly(image: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Plant one anomaly in the brain of a phantom.

    Args:
        image: A phantom, (z, y, x); it is not modified.
        kind: A key of `ANOMALY_KINDS`.
        rng: Source of all randomness.

    Returns:
        The changed image, and the boolean mask of the visibly changed voxels; outside it, the image is bit-identical.

    Raises:
        ValueError: If the kind is unknown, or the image holds no head in which anything could be changed.
    """
    if kind not in ANOMALY_KINDS:
        raise ValueError(f"Expected one of the kinds {', '.join(ANOMALY_KINDS)}, but got {kind!r}.")
    head = head_mask(image)
    depth = ndimage.distance_transform_edt(head)
    brain = depth > 0.25 * depth.max()
    if not brain.any():
        raise ValueError("Expected a phantom with a head in it, but got an image without one; use make_phantom.")
    low, high = np.percentile(image[brain], [3, 95])
    extent = float(np.mean([np.ptp(indices) + 1 for indices in np.nonzero(head)]))
    diameter = rng.uniform(0.3, 0.42) * extent
    for _ in range(_MAX_TRIES):
        weight = _irregular_blob(rng, brain, diameter / 2)
        changed = ANOMALY_KINDS[kind](image, weight, (low, high), rng)
        changed = np.clip(changed, image[head].min(), image[head].max()).astype(np.float32)
        change = ndimage.gaussian_filter(np.abs(changed - image), 0.8)
        mask = _largest_part(head & (weight > 0) & (change > VISIBLE_CHANGE * (high - low)))
        if mask.sum() > 0.4 * weight.sum():
            return np.where(mask, changed, image), mask
        diameter = min(1.1 * diameter, 0.45 * extent)
    raise ValueError(f"Expected an image that {kind} changes visibly, but {_MAX_TRIES} tries did not; use a phantom.")


def head_mask(image: np.ndarray) -> np.ndarray:
    """Mask of the head: what is brighter than the air, holes filled, the largest part only."""
    smooth = ndimage.gaussian_filter(image, 0.7)
    return ndimage.binary_fill_holes(_largest_part(smooth > 0.25 * np.percentile(smooth, 95)))


def write_demo_dataset(
    folder: Path,
    *,
    num_train: int = 24,
    num_test: int = 12,
    shape: tuple[int, int, int] = (32, 40, 32),
    spacing: float = 5.0,
    seed: int = 0,
) -> None:
    """Write a raw data set of phantoms; the same arguments give bit-identical arrays.

    Args:
        folder: The data set's own folder, such as `raw/Dataset999_Phantoms`; made where missing.
        num_train: Normal training cases.
        num_test: Test cases; the first half is normal, the others hold the kinds of anomaly in turn.
        shape: Voxels along z, y, x.
        spacing: Edge of a voxel in mm.
        seed: Seed of the whole set; each case depends on it and on its own number only.
    """
    geometry = Geometry.from_spacing(shape, (spacing,) * 3)
    for part in ("imagesTr", "imagesTs", "labelsTs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(num_train + num_test):
        rng = np.random.default_rng([seed, number])
        image = make_phantom(rng, shape)
        name = f"phantom_{number:03d}"
        is_test = number >= num_train
        anomaly_number = number - num_train - (num_test + 1) // 2
        if anomaly_number >= 0:
            kind = list(ANOMALY_KINDS)[anomaly_number % len(ANOMALY_KINDS)]
            image, mask = add_anomaly(image, kind, rng)
            write_image(mask.astype(np.uint8), geometry, folder / "labelsTs" / f"{name}.nii.gz")
        write_image(image, geometry, folder / ("imagesTs" if is_test else "imagesTr") / f"{name}_0000.nii.gz")
    description = {"channel_names": {"0": "T1-like"}, "numTraining": num_train, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", description)


def _largest_part(mask: np.ndarray) -> np.ndarray:
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return mask & (parts == sizes.argmax())


def _smooth_field(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Random field of mean 0 and deviation 1; `scale` is its smoothness as a fraction of the shortest edge."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), scale * min(shape), mode="wrap")
    return (field - field.mean()) / field.std()


def _head_coordinates(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Coordinates (3, *shape) in which the head is the unit ball: position, tilt, size and individual form."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, edge) for edge in shape], indexing="ij"))
    grid -= rng.uniform(-0.04, 0.04, size=(3, 1, 1, 1))
    tilt = Rotation.from_euler("xyz", rng.uniform(-6, 6, size=3), degrees=True).as_matrix()
    coordinates = np.tensordot(tilt, grid, axes=1) / rng.uniform(0.84, 0.94, size=(3, 1, 1, 1))
    deformation = np.stack([_smooth_field(rng, shape, 0.15) for _ in range(3)])
    return coordinates + 0.025 * deformation


def _ellipsoid(coordinates: np.ndarray, centre: tuple[float, ...], axes: tuple[float, ...]) -> np.ndarray:
    """About the distance to the ellipsoid's surface, positive inside."""
    offset = (coordinates - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(axes, (3, 1, 1, 1))
    return (1 - np.sqrt(np.square(offset).sum(axis=0))) * min(axes)


def _anatomy(rng: np.random.Generator, coordinates: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Tissues from outside in, each painted over the ones before: (tissue, depth below its surface)."""
    z, y, x = coordinates
    radius = np.sqrt(np.square(coordinates).sum(axis=0))
    folds = _smooth_field(rng, z.shape, 0.035)
    base = rng.uniform(-0.5, -0.4)
    yield "scalp", 1 - radius
    yield "fluid", rng.uniform(0.89, 0.92) - radius
    yield "muscle", np.minimum(0.87 - radius, base - 0.08 - z)
    brain = np.minimum(rng.uniform(0.82, 0.86) - radius - 0.05 * np.maximum(folds - 0.5, 0), z - base)
    yield "grey", brain
    yield "white", brain - rng.uniform(0.12, 0.16) - 0.07 * np.tanh(folds)
    yield (
        "fluid",
        np.minimum(rng.uniform(0.015, 0.03) - np.abs(x), np.minimum(radius - 0.5, np.minimum(z, 0.88 - radius))),
    )
    cerebellum = _ellipsoid(coordinates, (base - 0.12, rng.uniform(0.36, 0.44), 0), (0.24, 0.32, 0.46))
    yield "fluid", cerebellum + 0.05
    yield "grey", cerebellum
    yield "white", np.minimum(cerebellum - 0.06, 0.05 * np.cos(22 * np.hypot(z - base, y - 0.1)))
    yield "white", np.minimum(rng.uniform(0.1, 0.14) - np.hypot(x, y - 0.08), np.minimum(-0.1 - z, 0.9 - radius))
    width, length, height = rng.uniform([0.07, 0.29, 0.12], [0.11, 0.39, 0.17])
    level = rng.uniform(0.08, 0.2)
    for side in (-1, 1):
        yield "fluid", _ellipsoid(coordinates, (base - 0.08, -0.52, side * 0.3), (0.13, 0.15, 0.14))
        yield "nuclei", _ellipsoid(coordinates, (level - 0.14, -0.16, side * 0.27), (0.14, 0.22, 0.1))
        yield "nuclei", _ellipsoid(coordinates, (level - 0.16, 0.14, side * 0.14), (0.11, 0.14, 0.1))
        bent = coordinates + np.stack([0.7 * y**2, np.zeros_like(y), -side * 0.5 * np.maximum(y, 0) ** 2])
        size = rng.uniform(0.85, 1.15)
        yield "fluid", _ellipsoid(bent, (level, 0.02, side * (width + 0.04)), (height, length * size, width * size))


def _irregular_blob(rng: np.random.Generator, brain: np.ndarray, radius: float) -> np.ndarray:
    """Weight in [0, 1]: a plateau with a ragged outline and a soft edge, centred in the brain and confined to it."""
    centre = rng.choice(np.argwhere(brain))
    axes = radius * rng.uniform(0.85, 1.2, size=3)
    grid = np.stack(np.meshgrid(*[np.arange(float(edge)) for edge in brain.shape], indexing="ij"))
    distance = np.sqrt(np.square((grid - centre.reshape(3, 1, 1, 1)) / axes.reshape(3, 1, 1, 1)).sum(axis=0))
    ragged = distance * (1 + 0.2 * _smooth_field(rng, brain.shape, 0.06))
    return np.clip((1.1 - ragged) / 0.3, 0, 1) * ndimage.gaussian_filter(brain.astype(float), 0.7)


def _blob(bright: bool) -> Anomaly:
    """Tissue of its own with a texture of its own, at the bright or the dark end of what the brain holds anyway."""

    def plant(
        image: np.ndarray, weight: np.ndarray, levels: tuple[float, float], rng: np.random.Generator
    ) -> np.ndarray:
        low, high = levels
        contrast = high - low
        level = high + rng.uniform(0.05, 0.2) * contrast if bright else low + rng.uniform(0.0, 0.15) * contrast
        texture = 0.1 * _smooth_field(rng, image.shape, 0.03)
        return image + weight * (level + texture * contrast - image)

    return plant


def _shifted_structure(
    image: np.ndarray, weight: np.ndarray, levels: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """The blob's content moved by about 15 % of the image; the tissue around it is stretched and squeezed."""
    direction = rng.normal(size=3)
    shift = rng.uniform(0.12, 0.17) * min(image.shape) * direction / np.linalg.norm(direction)
    grid = np.stack(np.meshgrid(*[np.arange(float(edge)) for edge in image.shape], indexing="ij"))
    smooth = ndimage.gaussian_filter(weight, 0.8)
    return ndimage.map_coordinates(image, grid + smooth * shift.reshape(3, 1, 1, 1), order=1, mode="nearest")


def _texture_change(
    image: np.ndarray, weight: np.ndarray, levels: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Stripes or grain around the blurred tissue: the local mean stays, the pattern is foreign."""
    if rng.random() < 0.5:
        direction = rng.normal(size=3)
        direction *= 2 * np.pi / rng.uniform(2.8, 4.0) / np.linalg.norm(direction)
        pattern = np.sqrt(2) * np.sin(np.tensordot(direction, np.indices(image.shape), axes=1))
    else:
        pattern = _smooth_field(rng, image.shape, 0.012)
    contrast = levels[1] - levels[0]
    texture = ndimage.gaussian_filter(image, 1.0) + rng.uniform(0.27, 0.37) * contrast * pattern
    return image + weight * (texture - image)


ANOMALY_KINDS: dict[str, Anomaly] = {
    "bright_blob": _blob(bright=True),
    "dark_blob": _blob(bright=False),
    "shifted_structure": _shifted_structure,
    "texture_change": _texture_change,
}
