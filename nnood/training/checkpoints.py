"""Checkpoints of tensors and plain values only, written so that a kill at any moment leaves one that verifies."""

from pathlib import Path
from typing import Any

import torch

from nnood.errors import UserError
from nnood.safety import atomic_path, incomplete_write, read_json, sha256, write_json

FINAL, BEST, LATEST = "checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth"


def _hash_file(path: Path) -> Path:
    return path.with_suffix(".sha256.json")


def _agrees(path: Path) -> bool:
    """Whether a checkpoint is one that was recorded."""
    return _hash_file(path).is_file() and sha256(path) in read_json(_hash_file(path))


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically, with its hash beside it.

    The hash file names the new and the old content before the checkpoint itself is replaced: whenever the process dies,
    the checkpoint that is there agrees with one of them.

    Raises:
        OSError: If the disk is full or the folder cannot be written; an earlier checkpoint survives.
    """
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's word for a write that failed
            raise incomplete_write(path) from error
        accepted = [sha256(temporary)]
        if path.exists() and _agrees(path):
            accepted.append(sha256(path))
        write_json(_hash_file(path), accepted)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Load a checkpoint, verified, without unpickling anything but tensors and plain values.

    Raises:
        UserError: If it is missing or does not agree with its hash.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; has this fold been trained?")
    if not _agrees(path):
        raise UserError(
            f"{path} does not agree with its recorded hash; it was changed or damaged, train the fold anew."
        )
    return torch.load(path, map_location=device, weights_only=True)
