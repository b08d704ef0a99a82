"""A folder to build in, beside the place where the result will stand; gone afterwards, also after a kill."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from nnood.safety import flush, is_alive


@contextlib.contextmanager
def workshop(parent: Path, name: str, rescue: Callable[[Path], None] = lambda folder: None) -> Iterator[Path]:
    """Make a folder of this process and remove it in the end, and those that killed processes left.

    Args:
        parent: Where it lies; made if needed.
        name: What is built; of other things, nothing is removed.
        rescue: What to do with a folder before it is removed, whoever left it.
    """
    parent.mkdir(parents=True, exist_ok=True)
    prefix = f".nnood-{name}-"
    folder = parent / f"{prefix}{os.getpid()}"
    for leftover in parent.glob(f"{prefix}*"):
        process = leftover.name.removeprefix(prefix)
        # One with our own number is of a killed process whose number came round again.
        if process.isdecimal() and (leftover == folder or not is_alive(int(process))):
            rescue(leftover)
            shutil.rmtree(leftover)
    folder.mkdir()
    try:
        yield folder
    finally:
        rescue(folder)
        shutil.rmtree(folder, ignore_errors=True)


def flush_all(folder: Path) -> None:
    """Force a folder and everything in it to the disk."""
    for path in (*folder.rglob("*"), folder):
        flush(path)
