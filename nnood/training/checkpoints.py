"""Checkpoints of tensors and plain values only, written so that a kill at any moment leaves one that verifies."""

import hashlib
import io
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nnood.errors import UserError
from nnood.safety import DISK_FULL, atomic_path, flush, incomplete_write, read_json, sha256, write_json

logger = logging.getLogger(__name__)

FINAL, BEST, LATEST = "checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth"
PREVIOUS = "checkpoint_previous.pth"


@dataclass(frozen=True)
class Found:
    """A checkpoint to go on from.

    Attributes:
        path: The file.
        epoch: Number of finished epochs.
        step: Number of finished steps of the epoch after them.
    """

    path: Path
    epoch: int
    step: int


def hash_file(path: Path) -> Path:
    """Where the hashes lie that a checkpoint may have."""
    return path.with_suffix(".sha256.json")


def agrees(path: Path) -> bool:
    """Whether a checkpoint is one that was recorded."""
    if not path.is_file() or not hash_file(path).is_file():
        return False
    try:
        return sha256(path) in read_json(hash_file(path))
    except (UserError, TypeError):
        return False


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically, with its hash beside it, and check that it is on the disk as it should be.

    The hash file names the new and the old content before the checkpoint itself is replaced: whenever the process dies,
    the checkpoint that is there agrees with one of them.

    Raises:
        OSError: If the disk is full, the folder cannot be written, or what was written reads back differently; an
            earlier checkpoint survives.
    """
    with atomic_path(path) as temporary:
        digest = _write_verified(content, temporary, path)
        accepted = [digest, sha256(path)] if agrees(path) else [digest]
        write_json(hash_file(path), accepted)


def save_latest(content: dict[str, Any], folder: Path) -> None:
    """Write the latest checkpoint; the one before stays, as `checkpoint_previous.pth`.

    At every moment one of both agrees with its hash file: the old one is renamed only after its new hash file knows it,
    and a damaged one never takes the place of an intact one.

    Raises:
        OSError: See `save_checkpoint`.
    """
    latest, previous = folder / LATEST, folder / PREVIOUS
    with atomic_path(latest) as temporary:
        digest = _write_verified(content, temporary, latest)
        if agrees(latest):
            kept = [sha256(previous)] if agrees(previous) else []
            write_json(hash_file(previous), [sha256(latest), *kept])
            latest.replace(previous)
            flush(folder)
        write_json(hash_file(latest), [digest])


def _write_verified(content: dict[str, Any], temporary: Path, path: Path) -> str:
    """Write to a temporary name, compare what the disk holds with what memory held, and return its hash."""
    serialised = io.BytesIO()
    torch.save(content, serialised)
    digest = hashlib.sha256(serialised.getbuffer()).hexdigest()
    try:
        temporary.write_bytes(serialised.getbuffer())
    except OSError as error:
        if error.errno in DISK_FULL:
            raise incomplete_write(path) from error
        raise
    flush(temporary)
    _forget(temporary)
    if sha256(temporary) != digest:
        raise incomplete_write(path)
    return digest


def _forget(path: Path) -> None:
    """Have the system forget a flushed file, where it can, so that the next reader asks the disk."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Load a checkpoint, verified, without unpickling anything but tensors and plain values.

    Raises:
        UserError: If it is missing or does not agree with its hash.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; has this fold been trained?")
    if not agrees(path):
        raise UserError(
            f"{path} does not agree with its recorded hash; it was changed or damaged, train the fold anew."
        )
    return torch.load(path, map_location=device, weights_only=True)


def find_newest(folder: Path) -> Found | None:
    """The checkpoint of a fold that trained longest, among those that verify; damaged ones are warned of.

    Returns:
        None if there is no checkpoint at all.

    Raises:
        UserError: If there are checkpoints, but all are damaged.
    """
    present = [folder / name for name in (LATEST, PREVIOUS, BEST) if (folder / name).exists()]
    found = []
    for path in present:
        if agrees(path):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            found.append(Found(path, content["current_epoch"], content["step"]))
        else:
            logger.warning("%s does not agree with its recorded hash, it was changed or damaged: left out.", path)
    if present and not found:
        raise UserError(
            f"{present[0]} does not agree with its recorded hash, and no other checkpoint of the fold does; move the "
            "folder away to train it anew."
        )
    # Among equals the first: the latest.
    return max(found, key=lambda one: (one.epoch, one.step), default=None)
