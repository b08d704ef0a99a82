"""DICOM files one by one: which files are images, what their headers say, and their values.

SimpleITK's reader (GDCM) is given the format, since the names of DICOM files need not have an ending. It applies
RescaleSlope and RescaleIntercept, and turns MONOCHROME1, where low values are bright, into MONOCHROME2.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import ADVICE

MARK, MARK_OFFSET = b"DICM", 128
# Kinds of DICOM files (SOP classes) that hold no image: folder listings, presentation states, waveforms, registrations
# and raw data, reports, documents, and the structures, plans and records of radiotherapy.
NO_IMAGE = (
    "1.2.840.10008.1.3.10",
    *(f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("9.", "11.", "66", "88.", "104.", "481.3", "481.4", "481.5")),
    *(f"1.2.840.10008.5.1.4.1.1.481.{kind}" for kind in ("6", "7", "8", "9")),
)
DERIVED = ("SEG", "RTDOSE")  # modalities that are drawn or computed, not scanned


@dataclass(frozen=True)
class DicomHeader:
    """What is needed to sort images into series.

    Attributes:
        path: The file.
        patient: PatientID, or the study's identifier where that is blank.
        series: SeriesInstanceUID, or the file's path where there is none.
        number: SeriesNumber; 0 if there is none.
        geometry: Of one slice, or of all frames; always of three dimensions.
        has_position: Whether the file says where its slice lies.
        modality: Such as CT or MR.
    """

    path: Path
    patient: str
    series: str
    number: int
    geometry: Geometry
    has_position: bool
    modality: str

    @property
    def frames(self) -> int:
        """Number of slices in the file."""
        return self.geometry.size[2]

    @property
    def is_derived(self) -> bool:
        """Whether it is no scan but the outcome of one, such as a segmentation."""
        return self.modality in DERIVED


def open_dicom(path: Path) -> sitk.ImageFileReader:
    """A reader of a DICOM image whose header has been read.

    Raises:
        UserError: If the file is missing, is no DICOM file, is damaged, or holds no image.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the name.")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        what = "is damaged or holds no image" if _has_mark(path) else "is no DICOM file"
        raise UserError(f"{path} {what}; {ADVICE}.") from error
    return reader


def read_values(reader: sitk.ImageFileReader) -> list[np.ndarray]:
    """The values (z, y, x) of each channel, rescaled; as float32 where the scale is no whole number.

    Raises:
        UserError: If they cannot be decoded.
    """
    try:
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{reader.GetFileName()} cannot be read ({reason}); {ADVICE}.") from error
    values = sitk.GetArrayFromImage(image)
    if values.dtype == np.float64:  # of 16 stored bits at most
        values = values.astype(np.float32)
    return list(np.moveaxis(values, -1, 0)) if image.GetNumberOfComponentsPerPixel() > 1 else [values]


def tag(reader: sitk.ImageFileReader, name: str) -> str:
    """A value of the header, such as that of `0010|0020`; empty if it has none."""
    if not reader.HasMetaDataKey(name):
        return ""
    content = reader.GetMetaData(name).encode("utf-8", errors="surrogateescape")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # any bytes are text in it
    return text.strip("\0 ")


def read_header(path: Path) -> DicomHeader | None:
    """What the header says; None if the file is no DICOM file, or one that is not meant to hold an image.

    Raises:
        UserError: If it should hold an image but is damaged.
    """
    try:
        reader = open_dicom(path)
    except UserError:
        if _has_mark(path) and not _storage_class(path).startswith(NO_IMAGE):
            raise
        return None
    number = tag(reader, "0020|0011")
    return DicomHeader(
        path=path,
        patient=tag(reader, "0010|0020") or tag(reader, "0020|000d") or "unknown",
        series=tag(reader, "0020|000e") or str(path),
        number=int(number) if number.isdecimal() else 0,
        geometry=Geometry(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection()),
        has_position=reader.HasMetaDataKey("0020|0032"),
        modality=tag(reader, "0008|0060"),
    )


def _has_mark(path: Path) -> bool:
    """Whether the file calls itself DICOM."""
    with path.open("rb") as file:
        file.seek(MARK_OFFSET)
        return file.read(len(MARK)) == MARK


def _storage_class(path: Path) -> str:
    """The kind of thing that a DICOM file holds, out of the part before the data, whose encoding is always the same."""
    with path.open("rb") as file:
        start = file.read(1024)
    _, _, rest = start.partition(b"\x02\x00\x02\x00UI")
    length = int.from_bytes(rest[:2], "little")
    return rest[2 : 2 + length].decode("ascii", errors="replace").strip("\0 ")
