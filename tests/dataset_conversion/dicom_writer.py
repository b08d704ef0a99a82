"""Small DICOM files for tests, written by SimpleITK; what it can't write is changed in the bytes."""

import locale
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

ROOT = "1.2.826.0.1.3680043.8.498"
CT = "1.2.840.10008.5.1.4.1.1.2"


def write_dicom(path: Path, values: np.ndarray, tags: dict[str, str] | None = None, *, compress: bool = False) -> Path:
    """One file.

    Args:
        path: Of any name.
        values: (y, x), or (y, x, 3) in colours, or (z, y, x) frames; rescaled values, as a reader will see them.
        tags: Header entries such as `0010|0020`.
        compress: As JPEG 2000.
    """
    is_colour = values.ndim == 3 and values.shape[-1] == 3
    image = sitk.GetImageFromArray(values, isVector=is_colour)
    for name, value in (tags or {}).items():
        image.SetMetaData(name, value)
    return _write(path, image, compress=compress)


def write_series(
    folder: Path,
    volume: np.ndarray,
    *,
    patient: str = "P1",
    number: int = 1,
    series: str = "1",
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    direction: np.ndarray | None = None,
    tags: dict[str, str] | None = None,
) -> list[Path]:
    """One file per slice, whose names have no ending and are in no order.

    Args:
        folder: Made if need be.
        volume: (z, y, x), int16.
        patient: PatientID.
        number: SeriesNumber.
        series: End of the SeriesInstanceUID.
        spacing: x, y, z in mm.
        origin: Of the first slice in mm.
        direction: Columns are the directions of x, y and z.
        tags: Further header entries.
    """
    axes = np.eye(3) if direction is None else direction
    files = []
    for index, values in enumerate(volume):
        position = np.array(origin) + axes[:, 2] * spacing[2] * index
        image = sitk.GetImageFromArray(values[None])
        image.SetSpacing(spacing)
        header = {
            "0008|0016": CT,
            "0008|0018": f"{ROOT}.{series}.{index}",
            "0008|0060": "CT",
            "0010|0020": patient,
            "0020|000d": f"{ROOT}.9",
            "0020|000e": f"{ROOT}.{series}",
            "0020|0011": str(number),
            "0020|0032": "\\".join(f"{value:.8g}" for value in position),
            "0020|0037": "\\".join(f"{value:.8g}" for value in (*axes[:, 0], *axes[:, 1])),
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for name, value in (header | (tags or {})).items():
            image.SetMetaData(name, value)
        image.SetOrigin(tuple(map(float, position)))
        image.SetDirection(tuple(axes.ravel().tolist()))
        files.append(_write(folder / f"IM{(37 * index + 50) % 101:03d}", image))
    return files


def _write(path: Path, image: sitk.Image, *, compress: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.SetUseCompression(compress)
    written = path.with_name(path.name + ".dcm")  # other names are refused
    writer.SetFileName(str(written))
    before = locale.setlocale(locale.LC_ALL)
    writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)  # which GDCM sets to C, so that files would be opened as ASCII
    return written.rename(path)


def make_monochrome1(path: Path) -> None:
    """Say that low values are bright; the stored values stay."""
    _replace(path, b"MONOCHROME2", b"MONOCHROME1")


def set_stored_bits(path: Path, bits: int) -> None:
    """Say that so many of the 16 bits are in use."""
    replace_tag(path, "0028|0101", "\x10\0", f"{chr(bits)}\0")
    replace_tag(path, "0028|0102", "\x0f\0", f"{chr(bits - 1)}\0")


def replace_tag(path: Path, name: str, before: str, after: str) -> None:
    """Change a header entry that SimpleITK would compute or heed when it writes; both must be of the same length."""
    group, element = (int(part, 16).to_bytes(2, "little") for part in name.split("|"))
    start = group + element + len(before).to_bytes(4, "little")
    _replace(path, start + before.encode(), start + after.encode())


def forget_position(path: Path) -> None:
    """Take ImagePositionPatient away, by the name of an entry that nobody reads any more."""
    _replace(path, b"\x20\0\x32\0", b"\x20\0\x30\0")


def _replace(path: Path, before: bytes, after: bytes) -> None:
    content = path.read_bytes()
    assert content.count(before) == 1, (path, before)
    path.write_bytes(content.replace(before, after))
