"""Series of DICOM slices: whether they make up one volume, in which order, and where it lies."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from dataset_conversion.cases import Source
from dataset_conversion.dicom_files import DicomHeader, open_dicom, read_values
from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import refuse_constant

SAME_POSITION = 1e-3  # mm
GAP_TOLERANCE = 0.1  # of the usual gap: headers are rounded
SHIFT_TOLERANCE = 0.5  # of a pixel


def series_source(headers: Sequence[DicomHeader]) -> Source:
    """The case that a series makes up: a volume, or a 2D image if it has one slice.

    Args:
        headers: Of all files of the series, in any order.

    Raises:
        UserError: If the files are no volume: sizes, spacings or directions differ, slices are missing, doubled or
            shifted, or don't say where they lie.
    """
    files, geometry = arrange(headers)
    return Source(partial(_load, files, geometry), inputs=tuple(files), settings=asdict(geometry))


def arrange(headers: Sequence[DicomHeader]) -> tuple[list[Path], Geometry]:
    """The files of a series in the order of the slices, and the geometry of the whole."""
    first = headers[0]
    if len(headers) == 1:
        slice_spacing = first.geometry.spacing[1::-1]
        flat = Geometry.from_spacing(first.geometry.size[1::-1], slice_spacing)
        return [first.path], flat if first.frames == 1 else first.geometry
    where = f"{first.path.parent}: series {first.number} of patient {first.patient}"
    if not all(header.has_position and header.frames == 1 for header in headers):
        raise UserError(
            f"{where} has {len(headers)} files that are no slices with a position; expected one file, or slices with "
            "ImagePositionPatient, leave the series out or give each image a series of its own."
        )
    for header in headers:
        if other := _difference(header.geometry, first.geometry):
            raise UserError(
                f"{where} differs in {other} between {first.path.name} and {header.path.name}, at the position "
                f"{_shown(header)}; sort them into series of their own or leave the series out."
            )
    normal = np.array(first.geometry.direction).reshape(3, 3)[:, 2]
    ordered = sorted(headers, key=lambda header: float(np.dot(normal, header.geometry.origin)))
    gap = _gap(ordered, normal, where)
    _refuse_shifts(ordered, normal * gap, where)
    start = ordered[0].geometry
    geometry = Geometry(
        size=(*start.size[:2], len(ordered)),
        spacing=(*start.spacing[:2], gap),
        origin=start.origin,
        direction=start.direction,
    )
    return [header.path for header in ordered], geometry


def _difference(one: Geometry, other: Geometry) -> str:
    """In what two slices differ that should lie on top of each other."""
    if one.size != other.size:
        return "size"
    if not np.allclose(one.direction, other.direction, rtol=0, atol=1e-3):
        return "orientation"
    return "" if np.allclose(one.spacing[:2], other.spacing[:2], rtol=1e-3, atol=0) else "spacing"


def _gap(ordered: Sequence[DicomHeader], normal: np.ndarray, where: str) -> float:
    """The distance of slices in mm, which must be the same everywhere."""
    positions = np.array([np.dot(normal, header.geometry.origin) for header in ordered])
    gaps = np.diff(positions)
    if (gaps < SAME_POSITION).any():
        index = int(np.argmin(gaps))
        raise UserError(
            f"{where} has {ordered[index].path.name} and {ordered[index + 1].path.name} at the same position "
            f"{_shown(ordered[index])}; remove one, or sort them into series of their own."
        )
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    deviations = np.abs(gaps - usual)
    if deviations.max() > GAP_TOLERANCE * usual:
        index = int(np.argmax(deviations))
        raise UserError(
            f"{where} has a gap of {gaps[index]:.4g} mm after the position {_shown(ordered[index])}, where {usual:.4g} "
            "mm are usual; slices are missing, add them or leave the series out."
        )
    return float((positions[-1] - positions[0]) / len(gaps))


def _refuse_shifts(ordered: Sequence[DicomHeader], step: np.ndarray, where: str) -> None:
    """Refuse slices that don't lie straight above each other, as those of a tilted gantry."""
    start = ordered[0].geometry
    for index, header in enumerate(ordered):
        across = np.array(header.geometry.origin) - start.origin - index * step
        across -= step * np.dot(across, step) / np.dot(step, step)
        if np.linalg.norm(across) > SHIFT_TOLERANCE * min(start.spacing[:2]):
            raise UserError(
                f"{where} is shifted sideways by {np.linalg.norm(across):.4g} mm at the position {_shown(header)}; "
                "resample the series to a straight grid (tilted gantry) or leave it out."
            )


def _shown(header: DicomHeader) -> str:
    return "({})".format(", ".join(f"{value:.4g}" for value in header.geometry.origin))


def _load(files: list[Path], geometry: Geometry) -> tuple[list[np.ndarray], Geometry]:
    """All channels of a series. Each slice is rescaled on its own: in PET, scales differ from slice to slice."""
    slices = [read_values(open_dicom(file)) for file in files]
    if len({len(channels) for channels in slices}) > 1:
        raise UserError(f"{files[0].parent} has grey and coloured slices in one series; leave the series out.")
    channels = [np.concatenate(parts) for parts in zip(*slices, strict=True)]
    if geometry.dimensions == 2:
        channels = [values[0] for values in channels]
    refuse_constant(channels, files[0])
    return channels, geometry
