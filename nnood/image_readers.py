"""One reader per kind of file: values with channels first, and a geometry. The gate in `nnood.images` calls them."""

import logging
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from nnood.errors import UserError
from nnood.geometry import Geometry

MEDICAL_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
TIFF_ENDINGS = (".tif", ".tiff")
ARRAY_ENDINGS = (".npy", ".npz")
ENDINGS = MEDICAL_ENDINGS + PICTURE_ENDINGS + TIFF_ENDINGS + ARRAY_ENDINGS

logger = logging.getLogger(__name__)


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
            raise UserError(f"{path} is no plain array; pickles are never loaded, save it as numbers.") from error
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


READERS = {
    **dict.fromkeys(MEDICAL_ENDINGS, _read_medical),
    **dict.fromkeys(PICTURE_ENDINGS, _read_picture),
    **dict.fromkeys(TIFF_ENDINGS, _read_tiff),
    **dict.fromkeys(ARRAY_ENDINGS, _read_array),
}
