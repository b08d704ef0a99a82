"""Prediction without files: an array or a SimpleITK image in, a score map and a sample score out."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import holds_real_numbers, refuse_constant
from nnood.inference.predict import MASK_RATE, Planned, find_model, follow_plan, refuse_flat, score_image
from nnood.inference.predictor import MapPredictor
from nnood.paths import Roots, get_roots
from nnood.precision import choose_device
from nnood.sharing import open_model

Images = np.ndarray | sitk.Image | Sequence[sitk.Image]


@dataclass(frozen=True)
class ScoreResult:
    """What is said of one image.

    Attributes:
        score_map: float32 in [0, 1], one per voxel, (Z, Y, X) or (Y, X) as the image.
        sample_score: Of the whole image, in [0, 1].
        mask: Bool, of the same shape: where the score reaches the inference plan's threshold, at which 1 % of the
            voxels of normal images are called anomalous; None without an inference plan.
    """

    score_map: np.ndarray
    sample_score: float
    mask: np.ndarray | None


class Predictor:
    """A model, ready to score images one by one: `Predictor("model.zip")(array, spacing)`.

    Networks are loaded once; the same scores come out as from `nnood_predict`.
    """

    def __init__(
        self, model: Path | str | int, *, roots: Roots | None = None, device: torch.device | str = "auto"
    ) -> None:
        """Load the networks.

        Args:
            model: One of: an archive that nnood_export wrote (`*.zip`), an inference plan (`*.json`), or the id or name
                of a trained data set.
            roots: The three root folders; as the commands have them (`nnood.paths.get_roots`) if None.
            device: `auto` (the fastest there is), `cpu`, `cuda`, `cuda:1` or `mps`, or a device.

        Raises:
            UserError: If there is no such model or device, or the model is damaged.
        """
        device = choose_device(device)
        with _open(model, roots or get_roots()) as planned:
            self._planned = planned
            self._predictor = MapPredictor(planned.members, device)
        threshold = planned.plan.threshold("voxel", MASK_RATE)
        self._threshold = None if threshold is None else np.float32(threshold.value)

    def __call__(self, image: Images, spacing: Sequence[float] | None = None) -> ScoreResult:
        """Score one image.

        Args:
            image: An array (Z, Y, X) or (Y, X), or with the channels first; or a SimpleITK image; or one SimpleITK
                image per channel.
            spacing: Of an array, in mm and in the order of its axes: (z, y, x) or (y, x). If None, the array is a
                picture with pixels of 1 mm, as files without a spacing are. SimpleITK images have their own.

        Raises:
            UserError: If the image does not fit the model, is constant, or holds NaN or infinite values.
        """
        values, geometry = _checked(image, spacing, self._planned.channels)
        refuse_flat("The image", geometry, self._planned.members)
        score_map, sample_score = score_image(self._predictor, self._planned, values, geometry)
        score_map = score_map[0] if geometry.dimensions == 2 else score_map
        mask = None if self._threshold is None else score_map >= self._threshold
        return ScoreResult(score_map, sample_score, mask)


@contextlib.contextmanager
def _open(model: Path | str | int, roots: Roots) -> Iterator[Planned]:
    """The model, for as long as its files are needed."""
    name = str(model)
    if name.endswith(".zip"):
        with open_model(Path(name)) as planned:
            yield planned
    elif name.endswith(".json"):
        yield follow_plan(Path(name), roots)
    else:
        yield find_model(roots, dataset=name)


def _checked(image: Images, spacing: Sequence[float] | None, channels: int) -> tuple[np.ndarray, Geometry]:
    """float32 values (C, Z, Y, X), Z = 1 for 2D, and the geometry."""
    if isinstance(image, np.ndarray):
        values, geometry = _of_array(image, spacing)
    elif spacing is not None:
        raise UserError("spacing goes with arrays, SimpleITK images have their own; leave it out.")
    else:
        values, geometry = _of_images([image] if isinstance(image, sitk.Image) else list(image))
    if len(values) != channels:
        raise UserError(f"Expected {channels} channel(s), as the model was trained with, but got {len(values)}.")
    with np.errstate(over="ignore"):  # reported below
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError("The image holds NaN or infinite values; expected finite ones in the range of float32.")
    refuse_constant(list(values), "The image")
    return (values[:, None] if geometry.dimensions == 2 else values), geometry


def _of_array(array: np.ndarray, spacing: Sequence[float] | None) -> tuple[np.ndarray, Geometry]:
    """Values with the channels first, and the geometry."""
    spacing = (1.0, 1.0) if spacing is None else tuple(spacing)
    dimensions = len(spacing)
    if dimensions not in (2, 3) or array.ndim not in (dimensions, dimensions + 1) or not array.size:
        raise UserError(
            f"Expected an array (z, y, x) with a spacing of three values, or (y, x) with one of two or none, channels "
            f"before them if there are several, but got an array of shape {array.shape} and the spacing {spacing}."
        )
    if not all(np.isfinite(value) and value > 0 for value in spacing):
        raise UserError(f"Expected a spacing in mm, all values above 0, but got {spacing}.")
    if not holds_real_numbers(array):
        raise UserError(f"Expected an array of real numbers, but got one of {array.dtype}.")
    values = array if array.ndim > dimensions else array[None]
    return values, Geometry.from_spacing(values.shape[1:], spacing)


def _of_images(images: list[sitk.Image]) -> tuple[np.ndarray, Geometry]:
    """Values with the channels first, and the geometry that all images share."""
    if not images or not all(isinstance(image, sitk.Image) and image.GetDimension() in (2, 3) for image in images):
        raise UserError("Expected an array, a SimpleITK image of two or three dimensions, or a list of such images.")
    geometry = Geometry.of(images[0])
    channels: list[np.ndarray] = []
    for number, image in enumerate(images):
        if not geometry.matches(Geometry.of(image)):
            raise UserError(
                f"Image {number} of the list lies elsewhere than the first ({Geometry.of(image).describe()} and "
                f"{geometry.describe()}); resample the channels to one grid."
            )
        values = sitk.GetArrayFromImage(image)
        channels += list(np.moveaxis(values, -1, 0)) if image.GetNumberOfComponentsPerPixel() > 1 else [values]
    return np.stack(channels), geometry
