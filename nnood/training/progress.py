"""What is done, running, stopped or missing among the folds of a recipe, and who trains a fold at present."""

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnood.errors import UserError
from nnood.safety import TEMPORARY_PREFIX, is_alive
from nnood.training.checkpoints import BEST, FINAL, LATEST, PREVIOUS

RUNNING_FILE = "running.json"
DONE, RUNNING, STOPPED, MISSING = "done", "running", "stopped", "missing"


class TakenError(UserError):
    """Another process trains the fold."""


def fold_states(folder: Path, numbers: list[str]) -> dict[str, str]:
    """The state of each fold.

    Args:
        folder: The members' folder, whose sub-folders are the folds.
        numbers: Of the folds, as in their folders' names.

    Returns:
        Number to `done`, `running`, `stopped` (there is a checkpoint to go on from) or `missing`.
    """
    return {number: _state(folder / f"fold_{number}") for number in numbers}


def format_states(folder: Path, numbers: list[str]) -> str:
    """A table of the folds for the user to read: state, newest epoch, and average precision where finished.

    Args:
        folder: The members' folder, whose sub-folders are the folds.
        numbers: Of the folds, as in their folders' names.
    """
    rows = [("fold", "state", "epoch", "voxel AP")]
    for number, state in fold_states(folder, numbers).items():
        fold = folder / f"fold_{number}"
        rows.append((number, state, _epoch(fold), _voxel_ap(fold) if state == DONE else ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@contextlib.contextmanager
def mark_running(folder: Path) -> Iterator[None]:
    """Say in a fold's folder that this process trains it, for as long as the context lasts.

    Args:
        folder: Of the fold; made if needed.

    Raises:
        TakenError: If another living process, or one of another computer, trains it already.
    """
    file = folder / RUNNING_FILE
    anew = file.exists()  # asked before it is read: what appears later is of a living process
    _refuse_other(file)
    own = {"process": os.getpid(), "host": socket.gethostname()}
    _put(file, own, anew=anew)
    try:
        yield
    finally:
        if _read(file) == own:
            file.unlink(missing_ok=True)


def _refuse_other(file: Path) -> None:
    other = _other_process(file)
    if other is not None:
        raise TakenError(
            f"{file.parent} is being trained by the process {other['process']} on {other['host']}; wait for it to "
            f"end, or delete {file.name} there if that process no longer exists."
        )


def _put(file: Path, own: dict[str, Any], *, anew: bool) -> None:
    """Write the file, unless another process does so at the same moment: of two that start together one goes on.

    Args:
        file: Of the running process.
        own: Its content.
        anew: Whether one of a process that is gone lies there.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{file.name}"
    temporary.write_text(json.dumps(own), encoding="utf-8")
    try:
        if anew:
            temporary.replace(file)
        else:
            _link(temporary, file)
    except FileExistsError:
        _refuse_other(file)
        raise TakenError(f"{file.parent} is being trained by another process; wait for it to end.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, file: Path) -> None:
    """Give a file its name if there is none of that name yet; where there are no links, in any case."""
    try:
        os.link(temporary, file)
    except FileExistsError:
        raise
    except OSError:
        temporary.replace(file)


def _state(fold: Path) -> str:
    """The state of the fold in a folder."""
    if (fold / FINAL).exists():
        return DONE
    process = _read(fold / RUNNING_FILE)
    if process is not None and _lives(process):
        return RUNNING
    return STOPPED if any((fold / name).exists() for name in (LATEST, PREVIOUS, BEST)) else MISSING


def _other_process(file: Path) -> dict[str, Any] | None:
    """The living process, other than this one, that a file names."""
    process = _read(file)
    if process is None or process == {"process": os.getpid(), "host": socket.gethostname()}:
        return None  # with our own number, one from before that was killed
    return process if _lives(process) else None


def _lives(process: dict[str, Any]) -> bool:
    """Whether a process lives; of another computer's this cannot be known, so it is taken to."""
    return process["host"] != socket.gethostname() or is_alive(process["process"])


def _read(file: Path) -> dict[str, Any] | None:
    """What the file of a running process says; None if it is not there or not whole."""
    content = _read_json(file)
    number = content.get("process")
    # Signals to 0 or below would go to groups of processes.
    whole = isinstance(number, int) and number > 0 and isinstance(content.get("host"), str)
    return content if whole else None


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a file; empty if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _epoch(fold: Path) -> str:
    """The newest finished epoch in the newest log, such as `17/1000`; empty if none."""
    logs = sorted(fold.glob("training_log_*.txt"), key=lambda log: log.stat().st_mtime)
    for log in reversed(logs):
        epochs = re.findall(r"\bEpoch (\d+/\d+)", log.read_text(encoding="utf-8", errors="replace"))
        if epochs:
            return epochs[-1]
    return ""


def _voxel_ap(fold: Path) -> str:
    """The average precision in the summary of a finished fold; empty if there is none."""
    value = _read_json(fold / "validation" / "summary.json").get("mean_voxel_ap")
    return f"{value:.3f}" if isinstance(value, int | float) else ""
