"""Checkpoints that came from elsewhere: loaded without running anything that they say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nnood.errors import UserError


def load_foreign(path: Path, allowed: Sequence[Any] = ()) -> Any:
    """Load a checkpoint of tensors and plain values.

    Args:
        path: The file.
        allowed: What it may hold besides, as `torch.serialization.safe_globals` takes it.

    Raises:
        UserError: If it is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; correct the name of the checkpoint.")
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what reading made-up content raises can't be listed
        raise UserError(
            f"{path} is no checkpoint of tensors and plain values ({_first_line(error)}); it is not loaded, since "
            "loading could run anything."
        ) from error


def _first_line(error: Exception) -> str:
    """The gist: torch explains at length how to load files nevertheless."""
    text = str(error)
    unsupported = text.find("Unsupported ")
    text = text[unsupported:] if unsupported >= 0 else text
    return (text.strip().splitlines() or [type(error).__name__])[0].split(". ")[0].rstrip(".:")[:120]
