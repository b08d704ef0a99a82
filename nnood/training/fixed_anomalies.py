"""Anomalies that are the same in every epoch, member and run: seeded per data set, case and task."""

import dataclasses
import hashlib

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

from nnood.tasks import TaskSettings, build_task
from nnood.tasks.donors import Donors
from nnood.training.loading import box_around

PAIRS = 10_000


def seed_of(*parts: str) -> int:
    """A seed that depends on nothing but the given words."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:7], "big")


def plant_fixed(
    image: torch.Tensor,
    foreground: torch.Tensor,
    donor: torch.Tensor,
    task: str,
    settings: TaskSettings,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plant the anomaly of a task that a seed stands for.

    Args:
        image: Values (C, *S).
        foreground: Boolean (*S).
        donor: Values of another case (C, *S), which lends foreign patches.
        task: Name of a task.
        settings: What the task must know of the image.
        seed: Of all that is random.

    Returns:
        The image (C, *S) with the anomaly, and the label (*S) in [0, 1]; anomalous is what is above 0. All 0 where
        nothing could be planted.
    """
    donors = Donors()
    donors.begin_batch(["target", "donor"], torch.stack([image, donor]))
    generator = torch.Generator().manual_seed(seed)
    corrupted = build_task(task, settings)(image[None], foreground[None], donors, generator)
    return corrupted.image[0], corrupted.label[0, 0]


def plant_in_case(
    image: np.ndarray,
    foreground: np.ndarray,
    donor: np.ndarray,
    task: str,
    settings: TaskSettings,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plant in a whole case, in its only slice where the settings are those of slices.

    Args:
        image: Values (C, Z, Y, X).
        foreground: Boolean (Z, Y, X).
        donor: Values of another case, of the image's shape.
        task: Name of a task.
        settings: Measured on the image, of 2 axes or 3.
        seed: Of all that is random.

    Returns:
        The image (C, Z, Y, X) with the anomaly, and the label (Z, Y, X).
    """
    whole, body, other = (torch.from_numpy(np.ascontiguousarray(part)) for part in (image, foreground, donor))
    if len(settings.extent) == 3:
        return plant_fixed(whole, body, other, task, settings, seed)
    planted, label = plant_fixed(whole[:, 0], body[0], other[:, 0], task, settings, seed)
    return planted[:, None], label[None]


def settings_from_image(
    image: np.ndarray, foreground: np.ndarray, spacing: tuple[float, ...], fractions: tuple[float, float]
) -> TaskSettings:
    """What tasks must know, measured on one image as it is, in whichever unit and on whichever grid.

    Args:
        image: Values (C, *S).
        foreground: Boolean (*S); the whole image is taken where it is empty.
        spacing: Of the voxels, in mm, one per axis of S.
        fractions: Smallest and largest anomaly, as fractions of the foreground's box.
    """
    inside = np.argwhere(foreground if foreground.any() else np.ones_like(foreground))
    extent = tuple((np.ptp(inside, axis=0) + 1).tolist())
    pairs = inside[np.random.default_rng(0).integers(len(inside), size=(2, PAIRS))]
    values = image[(slice(None), *np.moveaxis(pairs, -1, 0))]
    differences = np.abs(values[:, 0] - values[:, 1]).reshape(len(image), -1)
    # A channel without any contrast still needs scales > 0, in its own unit.
    lowest = 1e-3 * np.maximum(np.abs(image).reshape(len(image), -1).max(axis=1), 1e-6)
    saturation, contrast = np.maximum(np.percentile(differences, (40, 50), axis=1), lowest)
    return TaskSettings(
        extent=extent,
        fractions=fractions,
        label_sigma=tuple((0.5 * contrast).tolist()),
        spacing=spacing,
        label_saturation=tuple(saturation.tolist()),
    )


def measure_stored(
    image: np.ndarray, foreground: np.ndarray, first_spacing: float, settings: TaskSettings
) -> TaskSettings:
    """What tasks must know to plant in a whole stored case: in a volume, or in the only slice where slices are trained.

    Args:
        image: Values (C, Z, Y, X).
        foreground: Boolean (Z, Y, X).
        first_spacing: Of the first axis, in mm, if the configuration's patches lack that axis.
        settings: Of the configuration; what can be measured on the case itself is not taken from here.
    """
    if image.shape[1] == 1 and len(settings.spacing) == 2:
        image, foreground = image[:, 0], foreground[0]
    spacing = (first_spacing, *settings.spacing)[-foreground.ndim :]
    measured = settings_from_image(image, foreground, spacing, settings.fractions)
    return dataclasses.replace(measured, lesions=settings.lesions)


def fit_to(image: np.ndarray, foreground: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Crop a donor's image, and pad it with its edge values, around the middle of its foreground.

    Args:
        image: Values (C, *S).
        foreground: Boolean (*S).
        shape: Wanted spatial shape.

    Returns:
        Values (C, *shape).
    """
    inside = np.argwhere(foreground)
    middle = np.median(inside, axis=0).astype(int) if len(inside) else np.array(foreground.shape) // 2
    return crop_and_pad_nd(image, box_around(middle, shape, foreground.shape), pad_mode="edge")
