"""Writing so that a kill, a full disk or a changed input can never pass for a finished result.

Two ideas carry everything. *Atomic writes*: a file appears under its name only when it is complete and on the disk.
*Receipts*: a finished step leaves a JSON file with the sha256 of all it read and wrote and with its settings; the step
is done if and only if its receipt still agrees with the disk.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnood.errors import UserError

TEMPORARY_PREFIX = ".tmp-"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Offer a temporary name in the same folder; on success flush it to the disk and rename it to `path`.

    Args:
        path: The final file. Its folder is made if needed. What lay there before survives any failure.

    Yields:
        The temporary path to write to; it keeps the file's ending, by which image libraries choose a format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}"
    temporary.unlink(missing_ok=True)  # of a killed process whose number came round again
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        if error.errno in DISK_FULL:  # say which file: libraries leave that out
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def link_file(path: Path, target: Path) -> None:
    """Make a symbolic link atomically; a file or link that lay at `path` is replaced, its target untouched.

    Args:
        path: The link. Its folder is made if needed.
        target: Absolute, so that the link's folder may be moved.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}"
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(target)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def incomplete_write(path: Path) -> OSError:
    """What to raise when a library reports a failed write in words of its own."""
    return OSError(f"{path} could not be written completely; is the disk full?")


def flush(path: Path) -> None:
    """Force a file's or folder's content to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that killed processes left in `folder`; those of living processes stay."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        process = leftover.name.removeprefix(TEMPORARY_PREFIX).split("-")[0]
        if process.isdecimal() and not is_alive(int(process)):
            leftover.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; numpy scalars, arrays and paths become plain values, NaN becomes null."""
    write_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: If the file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); mend it or delete it and repeat the step before."
        ) from None


def plain(value: Any) -> Any:
    """Turn numpy scalars and arrays, paths, tuples and non-finite floats into plain JSON values."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(content: Any) -> str:
    """The SHA-256 of a JSON-ready value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()


def _entry(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def describe_files(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file, by its name."""
    return {path.name: _entry(path) for path in files}


def agrees_with_disk(record: dict[str, dict[str, Any]], files: Sequence[Path]) -> bool:
    """Whether `files` are exactly those of a `describe_files` record, unchanged in size and content."""
    if sorted(record) != sorted(path.name for path in files):
        return False
    for path in files:
        if not path.is_file() or path.stat().st_size != record[path.name]["size"]:
            return False
    return all(sha256(path) == record[path.name]["sha256"] for path in files)


def write_receipt(
    path: Path, *, settings: Any, inputs: Sequence[Path], outputs: Sequence[Path], result: dict[str, Any]
) -> None:
    """Record that a step is finished; written after everything that the step writes.

    Args:
        path: The receipt's file.
        settings: All that decides the outcome besides the input files; only its digest is kept.
        inputs: The files that were read.
        outputs: The files that were written.
        result: What the step found out, JSON-ready.
    """
    write_json(
        path,
        {
            "settings": digest_of(settings),
            "inputs": describe_files(inputs),
            "outputs": describe_files(outputs),
            "result": result,
        },
    )


def read_receipt(
    path: Path, *, settings: Any, inputs: Sequence[Path], outputs: Sequence[Path]
) -> dict[str, Any] | None:
    """The result of a finished step, or None if it was never finished or anything changed since.

    Args:
        path: The receipt's file.
        settings: As given to `write_receipt`.
        inputs: The input files as they are now.
        outputs: The output files as they should be.
    """
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
        same = receipt["settings"] == digest_of(settings)
        same = same and agrees_with_disk(receipt["inputs"], inputs) and agrees_with_disk(receipt["outputs"], outputs)
        return receipt["result"] if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
