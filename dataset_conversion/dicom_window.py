"""X-rays as they are displayed: the window that a DICOM header gives, in grey values from 0 (black) to 1 (white)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from dataset_conversion.dicom_files import open_dicom, read_values, tag
from nnood.errors import UserError

Window = Callable[[np.ndarray, float, float], np.ndarray]

# VOI LUT functions, of values, centre and width (DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3).
WINDOWS: dict[str, Window] = {
    "LINEAR": lambda values, centre, width: (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5,
    "LINEAR_EXACT": lambda values, centre, width: (values - centre) / width + 0.5,
    # 1 / (1 + exp(-4 u)), which can't overflow in this form.
    "SIGMOID": lambda values, centre, width: 0.5 + 0.5 * np.tanh(2 * (values - centre) / width),
}


def read_displayed(path: Path) -> np.ndarray:
    """Read an X-ray as its header wants it displayed.

    Of several windows the first is taken. Without a window (or with one that is no number, or no wider than 0), the
    smallest value is black and the largest white. Tables of grey values (VOI LUT Sequence) are not looked at.

    Args:
        path: A DICOM file of one frame and one channel.

    Returns:
        float32 values (y, x) in [0, 1]; MONOCHROME1 is inverted, so that bone is bright in all images.

    Raises:
        UserError: If the file is broken, or is a film or in colours.
    """
    header = open_dicom(path)
    channels = read_values(header)
    if len(channels) > 1 or len(channels[0]) > 1:
        raise UserError(
            f"{path} has {len(channels)} channel(s) and {len(channels[0])} frame(s); expected one X-ray per file."
        )
    values = channels[0][0].astype(np.float64)
    is_inverted = tag(header, "0028|0004") == "MONOCHROME1"
    window = _window(header)
    if window is None:
        smallest, largest = values.min(), values.max()
        return ((values - smallest) / max(largest - smallest, 1e-6)).astype(np.float32)
    if is_inverted:
        values = _undo_inversion(values, header)
    centre, width = window
    function = WINDOWS.get(tag(header, "0028|1056"), WINDOWS["LINEAR"])
    grey = np.clip(function(values, centre, width), 0, 1)
    return (1 - grey if is_inverted else grey).astype(np.float32)


def _window(header: sitk.ImageFileReader) -> tuple[float, float] | None:
    """Centre and width, if the header has a usable window."""
    try:
        centre, width = (float(tag(header, name).split("\\")[0]) for name in ("0028|1050", "0028|1051"))
    except ValueError:
        return None
    return (centre, width) if np.isfinite([centre, width]).all() and width > 0 else None


def _undo_inversion(values: np.ndarray, header: sitk.ImageFileReader) -> np.ndarray:
    """The values as they are stored and rescaled, to which the window refers; the reader has mirrored them.

    It mirrors the stored values within their bits before it rescales them.
    """
    bits, is_signed = int(tag(header, "0028|0101")), tag(header, "0028|0103") == "1"
    slope, intercept = (float(tag(header, name) or default) for name, default in (("0028|1053", 1), ("0028|1052", 0)))
    return slope * (-1 if is_signed else 2**bits - 1) + 2 * intercept - values
