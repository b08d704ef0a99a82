"""Finding the folder that matters in a source that may have been unpacked one level deeper or not."""

from collections.abc import Sequence
from pathlib import Path

from nnood.errors import UserError


def find_folder(source: Path, candidates: Sequence[str], pattern: str) -> Path | None:
    """The first candidate that holds a fitting file.

    Args:
        source: What the user gave.
        candidates: Folders below it, the likeliest first; `.` is the source itself.
        pattern: Of files, as in `Path.glob`; hidden ones, such as macOS leaves in archives, don't count.

    Returns:
        The folder, or None.
    """
    for candidate in candidates:
        folder = source / candidate
        if any(not file.name.startswith(".") for file in folder.glob(pattern)):
            return folder
    return None


def first_folder(source: Path, candidates: Sequence[str], pattern: str, what: str) -> Path:
    """As `find_folder`, where there must be one.

    Args:
        source: What the user gave.
        candidates: Folders below it.
        pattern: Of files.
        what: What the user should give, for the message.

    Raises:
        UserError: If no candidate holds a fitting file.
    """
    folder = find_folder(source, candidates, pattern)
    if folder is None:
        places = ", ".join(str(source / candidate) for candidate in candidates)
        raise UserError(f"There is no {pattern} in {places}; give {what}.")
    return folder
