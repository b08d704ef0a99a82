"""Reading and writing images, behind a gate that lets nothing broken through.

SimpleITK loads a truncated `.nii.gz` as zeros without a word. So every file is checked before it is used: compressed
data is read to its end (checksum), sizes are compared with the header, and values must be finite.
"""

import logging
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from nnood.errors import UserError
from nnood.file_checks import check_file
from nnood.safety import atomic_path

MEDICAL_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
TIFF_ENDINGS = (".tif", ".tiff")
ARRAY_ENDINGS = (".npy", ".npz")
ENDINGS = MEDICAL_ENDINGS + PICTURE_ENDINGS + TIFF_ENDINGS + ARRAY_ENDINGS
ADVICE = "replace the file by an intact copy"
# What SimpleITK, Pillow, tifffile and numpy raise when they meet a damaged file.
DECODER_ERRORS = (
    *(RuntimeError, ValueError, OSError, EOFError, SyntaxError, LookupError, TypeError, ArithmeticError),
    *(struct.error, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Geometry:
    """Where an image lies in space, in SimpleITK's order (x, y[, z]).

    Attributes:
        size: Voxels per axis.
        spacing: Millimetres per voxel and axis, all > 0.
        origin: Position of the first voxel in millimetres.
        direction: Row-major direction cosines.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def from_spacing(cls, shape: Sequence[int], spacing: Sequence[float]) -> "Geometry":
        """An axis-aligned geometry at the origin, from numpy-ordered (z, y, x) shape and spacing in mm."""
        dimensions = len(shape)
        return cls(
            size=tuple(int(n) for n in reversed(shape)),
            spacing=tuple(float(s) for s in reversed(spacing)),
            origin=(0.0,) * dimensions,
            direction=tuple(np.eye(dimensions).ravel().tolist()),
        )

    @classmethod
    def of(cls, image: sitk.Image) -> "Geometry":
        """The geometry of a SimpleITK image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.size)

    def matches(self, other: "Geometry") -> bool:
        """Whether both describe the same grid: equal sizes, the rest within a thousandth of a voxel."""
        if self.size != other.size:
            return False
        tolerance = 1e-3 * min(self.spacing)
        return (
            np.allclose(self.spacing, other.spacing, rtol=0, atol=tolerance)
            and np.allclose(self.origin, other.origin, rtol=1e-5, atol=tolerance)
            and np.allclose(self.direction, other.direction, rtol=0, atol=1e-3)
        )

    def describe(self) -> str:
        """For error messages: size, spacing, origin and direction."""
        spacing, origin, direction = (
            tuple(round(value, 4) for value in values) for values in (self.spacing, self.origin, self.direction)
        )
        return f"size {self.size}, spacing {spacing} mm, origin {origin}, direction {direction}"


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
        array, geometry = _READERS[ending](path)
    except DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); {ADVICE}.") from error
    if not (array.dtype == bool or np.issubdtype(array.dtype, np.number)) or np.iscomplexobj(array):
        raise UserError(f"{path} holds values of type {array.dtype}; expected real numbers, convert the file.")
    if not array.size or not np.isfinite(array).all():
        what = "has no voxels" if not array.size else "holds NaN or infinite values"
        raise UserError(f"{path} {what}; {ADVICE} or leave the case out.")
    if min(geometry.spacing) <= 0:
        raise UserError(f"{path} has a spacing of {geometry.spacing} mm; expected values > 0, correct its header.")
    return array, geometry


def _read_medical(path: Path) -> tuple[np.ndarray, Geometry]:
    image = sitk.ReadImage(str(path))
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[..., 0]
    if image.GetDimension() > 3:
        raise UserError(
            f"{path} has {image.GetDimension()} dimensions (size {image.GetSize()}); expected one 2D or 3D image, "
            "split it into one file per channel (_0000, _0001, ...)."
        )
    array = sitk.GetArrayFromImage(image)
    array = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    return _drop_alpha(array, path), Geometry.of(image)


def _read_picture(path: Path) -> tuple[np.ndarray, Geometry]:
    with path.open("rb") as stream:
        header = stream.read(26)
    if header.startswith(b"\x89PNG") and header[24] == 16 and header[25] != 0:
        return _read_medical(path)  # Pillow would cut 16-bit colours down to 8 bits
    with Image.open(path) as file:
        file.load()
        target = "RGBA" if "transparency" in file.info else "RGB"
        picture: Image.Image = file.convert(target) if file.mode in ("P", "CMYK", "YCbCr", "HSV", "LAB") else file
        array = np.asarray(picture)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    channels = np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None]
    return _drop_alpha(channels, path), Geometry.from_spacing(channels.shape[1:], (1.0, 1.0))


def _read_tiff(path: Path) -> tuple[np.ndarray, Geometry]:
    with tifffile.TiffFile(path) as file:
        series = list(file.series)
        if len({(part.shape, part.dtype) for part in series}) > 1:
            raise UserError(f"{path} holds {len(series)} images of different sizes; expected one image per file.")
        arrays = [part.asarray() for part in series]
        axes = series[0].axes
    # Slices that were written one by one make up one series each.
    array = arrays[0] if len(arrays) == 1 else np.stack(arrays)
    axes = axes if len(arrays) == 1 else f"Z{axes}"
    if "S" in axes:  # samples of a colour; C: channels without a meaning
        array = _drop_alpha(np.moveaxis(array, axes.index("S"), 0), path)
    else:
        array = np.moveaxis(array, axes.index("C"), 0) if "C" in axes else array[None]
    return _without_geometry(array, path)


def _read_array(path: Path) -> tuple[np.ndarray, Geometry]:
    content = _load_array(path)
    if content.ndim == 3 and content.shape[-1] in (3, 4) and min(content.shape[:2]) > 4:
        return _without_geometry(_drop_alpha(np.moveaxis(content, -1, 0), path), path)
    return _without_geometry(content[None], path)


def _load_array(path: Path) -> np.ndarray:
    """The only array of a `.npy` or `.npz` file; pickled objects are never loaded."""
    with path.open("rb") as file:
        try:
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                return content
            if len(content.files) == 1:
                return content[content.files[0]]
        except ValueError as error:
            if "pickle" not in str(error):
                raise
            raise UserError(f"{path} is no plain array; pickled objects are never loaded, {ADVICE}.") from error
    names = ", ".join(content.files[:5])
    raise UserError(f"{path} holds {len(content.files)} arrays ({names}); expected one image per file.")


def _without_geometry(array: np.ndarray, path: Path) -> tuple[np.ndarray, Geometry]:
    """Check the dimensions of channels-first values that carry no geometry, and give them one of 1 mm."""
    if array.ndim not in (3, 4):
        shape = array.shape[1:] if array.shape[0] == 1 else (*array.shape[1:], array.shape[0])
        raise UserError(f"{path} holds an array of shape {shape}; expected (y, x), (y, x, 3) or (z, y, x).")
    return array, Geometry.from_spacing(array.shape[1:], (1.0,) * (array.ndim - 1))


def _drop_alpha(array: np.ndarray, path: Path) -> np.ndarray:
    if array.shape[0] not in (2, 4) or path.name.lower().endswith(MEDICAL_ENDINGS):
        return array
    logger.warning("%s has an alpha channel; it is dropped.", path)
    return array[:-1]


_READERS = {
    **dict.fromkeys(MEDICAL_ENDINGS, _read_medical),
    **dict.fromkeys(PICTURE_ENDINGS, _read_picture),
    **dict.fromkeys(TIFF_ENDINGS, _read_tiff),
    **dict.fromkeys(ARRAY_ENDINGS, _read_array),
}


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
    if (array == array.reshape(channels, -1)[:, :1].reshape(channels, *[1] * (array.ndim - 1))).all():
        raise UserError(f"{files[0]} is constant, there is nothing to see in it; {ADVICE} or leave the case out.")
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
            raise OSError(f"{path} could not be written completely; is the disk full?") from error
