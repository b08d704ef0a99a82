"""Reading and writing images, behind a gate that lets nothing broken through.

SimpleITK loads a truncated `.nii.gz` as zeros without a word. So every file is checked before it is used: compressed
data is read to its end (checksum), sizes are compared with the header, and values must be finite.
"""

import logging
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from nnood.errors import UserError
from nnood.file_checks import check_file
from nnood.geometry import Geometry
from nnood.image_readers import ENDINGS, READERS
from nnood.safety import atomic_path, incomplete_write

ADVICE = "replace the file by an intact copy"
# What SimpleITK, Pillow, tifffile and numpy raise when they meet a damaged file.
DECODER_ERRORS = (
    *(RuntimeError, ValueError, OSError, EOFError, SyntaxError, LookupError, TypeError, ArithmeticError),
    *(struct.error, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError),
)

logger = logging.getLogger(__name__)


def image_ending(path: Path) -> str | None:
    """The known ending of an image file (`.nii.gz`, `.png`, ...) in lower case, or None."""
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def read_image(path: Path) -> tuple[np.ndarray, Geometry]:
    """Read one image file, checked.

    Args:
        path: A file with one of `ENDINGS`.

    Returns:
        The values (C, *S), S in numpy order (z, y, x) or (y, x), in the file's own type, and the geometry. An alpha
        channel is dropped with a warning in the log.

    Raises:
        UserError: If the file is missing, broken, of more than three dimensions, or holds NaN or infinite values.
    """
    ending = image_ending(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the name.")
    if ending is None:
        raise UserError(f"{path} is no image that nnood reads; expected one of {', '.join(ENDINGS)}.")
    check_file(path, ending)
    try:
        array, geometry = READERS[ending](path)
    except DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); {ADVICE}.") from error
    if not holds_real_numbers(array):
        raise UserError(f"{path} holds values of type {array.dtype}; expected real numbers, convert the file.")
    if not array.size or not np.isfinite(array).all():
        what = "has no voxels" if not array.size else "holds NaN or infinite values"
        raise UserError(f"{path} {what}; {ADVICE} or leave the case out.")
    if min(geometry.spacing) <= 0:
        raise UserError(f"{path} has a spacing of {geometry.spacing} mm; expected values > 0, correct its header.")
    return array, geometry


def holds_real_numbers(array: np.ndarray) -> bool:
    """Whether values are integers, floats or booleans, whatever their size."""
    return array.dtype == bool or (np.issubdtype(array.dtype, np.number) and not np.iscomplexobj(array))


def read_channels(files: Sequence[Path]) -> tuple[list[np.ndarray], Geometry]:
    """Read all channels of a case, each in its file's own type.

    Args:
        files: One file per channel, or one file that holds them all (RGB).

    Returns:
        One array (z, y, x) or (y, x) per channel, and the geometry that they share.

    Raises:
        UserError: If a file is broken, or channels differ in geometry.
    """
    images = [read_image(path) for path in files]
    geometry = images[0][1]
    for path, (_, other) in zip(files, images, strict=True):
        if not geometry.matches(other):
            raise UserError(
                f"{path} and {files[0].name} are channels of one case but differ in geometry "
                f"({other.describe()} and {geometry.describe()}); resample them to one grid."
            )
    return [channel for values, _ in images for channel in values], geometry


def refuse_constant(channels: Sequence[np.ndarray], file: Path | str) -> None:
    """Refuse a case in which every channel has one value only.

    Raises:
        UserError: Names the file.
    """
    if all((values == values.flat[0]).all() for values in channels):
        raise UserError(f"{file} is constant, there is nothing to see in it; {ADVICE} or leave the case out.")


def read_case(files: Sequence[Path], channels: int) -> tuple[np.ndarray, Geometry]:
    """Read all channels of a case.

    Args:
        files: One file per channel, or one file that holds them all (RGB).
        channels: How many channels the case must have.

    Returns:
        float32 values (C, Z, Y, X), Z = 1 for 2D images, and the geometry.

    Raises:
        UserError: If a file is broken, or channels differ in number or geometry.
    """
    channel_values, geometry = read_channels(files)
    with np.errstate(over="ignore"):  # reported below
        array = np.stack([values.astype(np.float32) for values in channel_values])
    if not np.isfinite(array).all():
        raise UserError(f"{files[0]} holds values beyond the range of float32; rescale it.")
    if len(array) != channels:
        names = ", ".join(path.name for path in files)
        raise UserError(
            f"{files[0].parent}: {names} hold {len(array)} channel(s) but {channels} are expected; check the files."
        )
    refuse_constant(channel_values, files[0])
    return (array[:, None] if geometry.dimensions == 2 else array), geometry


def nnunet_properties(geometry: Geometry) -> dict[str, Any]:
    """What nnU-Net's preprocessing wants to know of an image: its spacing (z, y, x) in mm.

    A 2D image counts as one very thick slice, as in nnU-Net's own readers.
    """
    spacing = [float(value) for value in reversed(geometry.spacing)]
    return {"spacing": [999 * max(spacing), *spacing] if geometry.dimensions == 2 else spacing}


def write_image(array: np.ndarray, geometry: Geometry, path: Path) -> None:
    """Write a scalar image atomically and verify it.

    Args:
        array: Values (z, y, x) or (y, x); a leading axis of 1 is dropped for a 2D geometry.
        geometry: Where it lies; its size must agree with the array.
        path: Ends in one of `MEDICAL_ENDINGS` or `.png`.

    Raises:
        ValueError: If the values are not finite or their number is not the geometry's.
        OSError: If the disk is full or the folder cannot be written.
    """
    if not np.isfinite(array).all():
        raise ValueError(f"Expected finite values for {path}, but got NaN or infinite ones.")
    if array.ndim == 3 and geometry.dimensions == 2:
        array = array[0]
    image = sitk.GetImageFromArray(array)
    if image.GetSize() != geometry.size:
        raise ValueError(f"Expected an array of size {geometry.size}, but got {image.GetSize()}.")
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            check_file(temporary, image_ending(path) or path.suffix)
        except (RuntimeError, UserError) as error:
            raise incomplete_write(path) from error
