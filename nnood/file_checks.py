"""Is an image file whole? Compressed data is read to its end and sizes are compared with the header."""

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nnood.errors import UserError

BLOCK = 1 << 20
NIFTI_FLOATS = {16: "f4", 64: "f8"}
METAIMAGE_BYTES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}
NRRD_BYTES = {
    **dict.fromkeys(("char", "int8"), 1),
    **dict.fromkeys(("short", "int16"), 2),
    **dict.fromkeys(("int", "int32", "float"), 4),
    **dict.fromkeys(("long long", "longlong", "int64", "double"), 8),
}


def check_file(path: Path, ending: str) -> None:
    """Refuse a file that is damaged or cut off. Formats that carry no size or checksum are left to their reader.

    Args:
        path: The file.
        ending: Which format it is in, such as `.nii.gz`.

    Raises:
        UserError: If the file is empty, truncated, fails its checksum, or its header makes no sense.
    """
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; replace the file by an intact copy.")
    check = _CHECKS.get(ending)
    if check is None:
        return
    try:
        check(path)
    except (EOFError, gzip.BadGzipFile, zlib.error, struct.error, KeyError, ValueError, OverflowError) as error:
        reason = f"unknown or missing entry {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is damaged or cut off ({reason}); replace the file by an intact copy.") from error


def _length(stream: BinaryIO) -> int:
    """Read a stream to its end, which checks a gzip checksum, and return the number of bytes."""
    total = 0
    while block := stream.read(BLOCK):
        total += len(block)
    return total


def _check_nifti(path: Path) -> None:
    opener: Callable[..., BinaryIO] = gzip.open if path.name.lower().endswith(".gz") else Path.open  # type: ignore[assignment]
    with opener(path, "rb") as file:
        header = file.read(348)
        if len(header) < 348:
            raise ValueError("the file ends within its header")
        order = "<" if struct.unpack("<i", header[:4])[0] in (348, 540) else ">"
        if struct.unpack(order + "i", header[:4])[0] == 540:
            raise UserError(f"{path} is a NIfTI-2 file, which SimpleITK does not read; save it as NIfTI-1.")
        offset = int(struct.unpack(order + "f", header[108:112])[0])
        file.read(max(0, offset - len(header)))
        kind = NIFTI_FLOATS.get(struct.unpack(order + "h", header[70:72])[0])
        length = _length(file) if kind is None else _finite_length(file, np.dtype(order + kind), path)
    _check_nifti_header(header, order, length, path)


def _finite_length(stream: BinaryIO, kind: np.dtype, path: Path) -> int:
    """As `_length`, for floating-point data, which must be finite: ITK's NIfTI reader turns NaN into 0 silently."""
    total = 0
    while block := stream.read(BLOCK):
        total += len(block)
        values = np.frombuffer(block, dtype=kind, count=len(block) // kind.itemsize)
        if not np.isfinite(values).all():
            raise UserError(f"{path} holds NaN or infinite values; mend it or leave the case out.")
    return total


def _check_nifti_header(header: bytes, order: str, length: int, path: Path) -> None:
    """Compare the header with the number of bytes that follow it, and refuse a spacing of zero."""
    dimensions = struct.unpack(order + "8h", header[40:56])
    bits = struct.unpack(order + "h", header[72:74])[0]
    spacing = struct.unpack(order + "8f", header[76:108])
    count = dimensions[0]
    if not 1 <= count <= 7 or any(n < 1 for n in dimensions[1 : count + 1]):
        raise ValueError(f"its header gives the dimensions {dimensions}")
    expected = math.prod(dimensions[1 : count + 1]) * bits // 8
    if length < expected:
        raise ValueError(f"{length} bytes where the header promises {expected}")
    if not all(math.isfinite(s) and s != 0 for s in spacing[1 : min(count, 3) + 1]):
        shown = tuple(round(s, 4) for s in spacing[1 : min(count, 3) + 1])
        raise UserError(f"{path} has a spacing of {shown} mm; expected values > 0, correct its header.")


def _text_header(file: BinaryIO, separator: str, is_last: Callable[[str], bool]) -> dict[str, str]:
    """Read `key separator value` lines up to and with the one that ends the header."""
    fields: dict[str, str] = {}
    for _ in range(1000):
        line = file.readline(4096).decode("latin-1")
        if not line:
            raise ValueError("the file ends within its header")
        key, _, value = line.partition(separator)
        fields[key.strip().lower()] = value.strip()
        if is_last(line):
            return fields
    raise ValueError("its header has no end")


def _payload_length(file: BinaryIO, compressed: bool) -> int:
    """Bytes of the data that follow the header, decompressed if need be."""
    if not compressed:
        return _length(file)
    inflate = zlib.decompressobj(wbits=47)  # 47: zlib or gzip, found out by itself
    total = 0
    while block := file.read(BLOCK):
        total += len(inflate.decompress(block))
    if not inflate.eof:
        raise ValueError("the compressed data has no end")
    return total + len(inflate.flush())


def _check_metaimage(path: Path) -> None:
    with path.open("rb") as file:
        header = _text_header(file, "=", lambda line: line.lower().startswith("elementdatafile"))
        if header["elementdatafile"].upper() != "LOCAL":
            return
        length = _payload_length(file, header.get("compresseddata", "False").lower() == "true")
    expected = math.prod(int(n) for n in header["dimsize"].split()) * METAIMAGE_BYTES[header["elementtype"].upper()]
    expected *= int(header.get("elementnumberofchannels", "1"))
    if length < expected:
        raise ValueError(f"{length} bytes of data where the header promises {expected}")


def _check_nrrd(path: Path) -> None:
    with path.open("rb") as file:
        header = _text_header(file, ":", lambda line: not line.strip())
        if "data file" in header or "datafile" in header:
            return
        length = _payload_length(file, header["encoding"].lower() in ("gz", "gzip"))
    if header["encoding"].lower() in ("raw", "gz", "gzip"):
        expected = math.prod(int(n) for n in header["sizes"].split()) * _nrrd_bytes(header["type"])
        if length < expected:
            raise ValueError(f"{length} bytes of data where the header promises {expected}")


def _nrrd_bytes(kind: str) -> int:
    """Bytes per value of a NRRD type, which has many names: `signed short int`, `ushort`, `uint16_t`, ..."""
    core = kind.lower().replace("unsigned", "").replace("signed", "").strip().removesuffix("_t")
    core = core.removeprefix("u") if core != "u" else core
    return NRRD_BYTES[core.removesuffix(" int")]


def _check_tiff(path: Path) -> None:
    """Follow the chain of pages to its end: tifffile leaves out the pages that a cut-off file lacks."""
    with path.open("rb") as file:
        order = {b"II": "<", b"MM": ">"}[file.read(2)]
        is_big = struct.unpack(order + "H", file.read(2))[0] == 43
        count_format, offset_format, entry_bytes = ("Q", "Q", 20) if is_big else ("H", "I", 12)
        file.seek(8 if is_big else 4)
        seen: set[int] = set()
        while offset := struct.unpack(order + offset_format, file.read(struct.calcsize(offset_format)))[0]:
            if offset in seen:
                raise ValueError("its pages form a circle")
            seen.add(offset)
            file.seek(offset)
            entries = struct.unpack(order + count_format, file.read(struct.calcsize(count_format)))[0]
            file.seek(entries * entry_bytes, 1)


def _check_png(path: Path) -> None:
    """Walk the chunks of a PNG file and compare each checksum."""
    content = path.read_bytes()
    position, kind = 8, b""
    while kind != b"IEND":
        size, kind = struct.unpack(">I4s", content[position : position + 8])
        data = content[position + 4 : position + 8 + size]
        checksum = content[position + 8 + size : position + 12 + size]
        if len(checksum) < 4 or struct.unpack(">I", checksum)[0] != zlib.crc32(data):
            raise ValueError("a checksum does not fit")
        position += 12 + size


_CHECKS = {
    ".nii.gz": _check_nifti,
    ".nii": _check_nifti,
    ".mha": _check_metaimage,
    ".nrrd": _check_nrrd,
    ".png": _check_png,
    ".tif": _check_tiff,
    ".tiff": _check_tiff,
}
