"""Skull-stripped brains from different sources, made alike: 1 mm, values relative to the brain, all in one box."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from acvl_utils.morphology.morphology_helper import remove_all_but_largest_component
from scipy import ndimage

from dataset_conversion.cases import Source
from dataset_conversion.common import write_dataset
from nnood.case_files import group_by_case, has_channel_numbers, image_files
from nnood.errors import UserError, one_error
from nnood.geometry import Geometry
from nnood.images import read_channels

# Millimetres and so voxels (z, y, x), with room around an adult's brain, which is on average 140 wide and 167 long.
BOX = (176, 208, 176)


def write_brains(
    raw_root: Path,
    dataset_id: int,
    name: str,
    normal: Path,
    tests: Mapping[str, tuple[Path, Path]],
    *,
    processes: int,
) -> Path:
    """Write a raw data set of aligned brains: healthy ones for training, those with a lesion as test cases.

    Args:
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        normal: Folder of one T2 image per healthy person, skull-stripped.
        tests: Case to its T2 image and the mask of its lesion, non-zero inside.
        processes: Number of worker processes.

    Returns:
        The data set's folder.

    Raises:
        UserError: If images are bad or not skull-stripped; they are listed after the good ones were converted.
    """
    files = image_files(normal)
    training, faults = group_by_case(files, has_channel_numbers(files), channels=1)
    one_error(faults)
    settings = {"box": BOX}
    return write_dataset(
        raw_root,
        dataset_id,
        name,
        {case: Source(partial(_load_image, file), (file,), settings) for case, (file,) in training.items()},
        {case: Source(partial(_load_image, file), (file,), settings) for case, (file, _) in tests.items()},
        masks={
            case: Source(partial(_load_mask, file, mask), (mask, file), settings)
            for case, (file, mask) in tests.items()
        },
        channel_names=["T2"],
        # The values are those of brains around 0, so a dark background cannot be found.
        overrides={"foreground": "nonzero"},
        processes=processes,
    )


def _load_image(file: Path) -> tuple[list[np.ndarray], Geometry]:
    """Values (v - mean) / standard deviation in the brain, 0 outside it, in the common box."""
    original, grid = _one_volume(file)
    brain = _brain(original, grid)
    where = _brain_box(brain, file)
    values = _on_millimetres(original.astype(np.float32), grid, sitk.sitkLinear)
    inside = values[brain].astype(np.float64)
    if inside.std() == 0:
        raise UserError(f"{file} has one value only in its brain; replace the file by an intact copy.")
    scaled = np.where(brain, (values - inside.mean()) / inside.std(), 0).astype(np.float32)
    return [_in_common_box(scaled, where)], Geometry.from_spacing(BOX, (1.0, 1.0, 1.0))


def _load_mask(file: Path, mask: Path) -> tuple[list[np.ndarray], Geometry]:
    """The lesion in the common box, moved as its image is."""
    original, grid = _one_volume(file)
    labels, label_grid = _one_volume(mask)
    if not grid.matches(label_grid):
        raise UserError(f"{mask} does not lie on the grid of {file}; give the files as they were published.")
    lesion = _on_millimetres((labels != 0).astype(np.uint8), grid, sitk.sitkNearestNeighbor)
    placed = _in_common_box(lesion, _brain_box(_brain(original, grid), file))
    if not placed.any():  # an anomalous case must not pass for a normal one
        raise UserError(
            f"{mask} marks nothing in the brain of {file}; replace it by an intact copy or remove the case."
        )
    return [placed], Geometry.from_spacing(BOX, (1.0, 1.0, 1.0))


def _brain(original: np.ndarray, grid: Geometry) -> np.ndarray:
    """The brain mask (z, y, x) of 1 mm: the largest piece of what is not 0, without holes."""
    # A single voxel elsewhere, as skull-stripping leaves, would move the box around the brain.
    piece = remove_all_but_largest_component(original != 0)
    return _on_millimetres(ndimage.binary_fill_holes(piece).astype(np.uint8), grid, sitk.sitkNearestNeighbor) > 0


def _one_volume(file: Path) -> tuple[np.ndarray, Geometry]:
    """The only channel of a 3D image, (z, y, x)."""
    channels, geometry = read_channels([file])
    if geometry.dimensions != 3 or len(channels) != 1:
        raise UserError(
            f"{file} has {len(channels)} channel(s) and {geometry.dimensions} dimensions; expected one 3D image."
        )
    return channels[0], geometry


def _on_millimetres(values: np.ndarray, geometry: Geometry, interpolator: int) -> np.ndarray:
    """Turn the axes to left, posterior, superior and resample to voxels of 1 mm; what is oblique stays so."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    image = sitk.DICOMOrient(image, "LPS")
    spacing = np.array(image.GetSpacing())
    size = np.maximum(np.round(np.array(image.GetSize()) * spacing), 1).astype(int).tolist()
    # The outer edges of the first voxels coincide, not their centres.
    origin = image.TransformContinuousIndexToPhysicalPoint(((1 / spacing - 1) / 2).tolist())
    reference = sitk.Image(size, sitk.sitkUInt8)
    reference.SetOrigin(origin)
    reference.SetDirection(image.GetDirection())
    return sitk.GetArrayFromImage(sitk.Resample(image, reference, sitk.Transform(), interpolator))


def _brain_box(brain: np.ndarray, file: Path) -> tuple[slice, ...]:
    """The box around the brain."""
    found = ndimage.find_objects(brain.astype(np.uint8))
    extent = [axis.stop - axis.start for axis in found[0]] if found else [0, 0, 0]
    if not found or any(n > most for n, most in zip(extent, BOX, strict=True)):
        shown, most = (" x ".join(map(str, sizes)) for sizes in (extent, BOX))
        raise UserError(
            f"{file}: Expected a brain of at most {most} mm before a background of 0, but what is not 0 measures "
            f"{shown} mm; give a skull-stripped image."
        )
    return found[0]


def _in_common_box(values: np.ndarray, where: tuple[slice, ...]) -> np.ndarray:
    """Move the middle of the brain's box to the middle of the common box."""
    result = np.zeros(BOX, values.dtype)
    starts = [(most - (axis.stop - axis.start)) // 2 for axis, most in zip(where, BOX, strict=True)]
    target = tuple(slice(start, start + axis.stop - axis.start) for start, axis in zip(starts, where, strict=True))
    result[target] = values[where]
    return result
