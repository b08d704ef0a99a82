"""What a command says: on the screen, and in a log file beside its results."""

import contextlib
import logging
import shlex
import sys
from pathlib import Path

from nnood import __version__

NOISY = ("numexpr", "matplotlib", "PIL", "tifffile")

logger = logging.getLogger(__name__)


class _Console(logging.StreamHandler):
    """Messages on stdout; that nobody reads them any more is an error like any other."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- logging's name
        """Raise what went wrong, which logging would only print."""
        raise


class _LogFile(logging.Handler):
    """All messages of a command, from its first one on, added to a file once it is known and its folder is there.

    It makes no folder, since those of data sets mean something, and where it cannot write, the command goes on.
    """

    def __init__(self, prog: str) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self.folder: Path | None = None
        self._file = f"{prog}.log"
        self._waiting: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record and those before it, or keep it."""
        self._waiting.append(self.format(record))
        if self.folder is not None and self.folder.is_dir():
            with contextlib.suppress(OSError):
                with (self.folder / self._file).open("a", encoding="utf-8") as file:
                    file.write("\n".join(self._waiting) + "\n")
                self._waiting.clear()


def keep_log(folder: Path) -> None:
    """Keep what the running command says, and the traceback of an error, in `folder/COMMAND.log`, beside its results.

    Args:
        folder: Need not be there yet.
    """
    for log in _log_files():
        log.folder = folder


def _log_files() -> list[_LogFile]:
    """That of the running command; none where no command runs, as in a notebook."""
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _LogFile)]


def say(text: str) -> None:
    """Tell the user, on stdout and in the log."""
    logger.info("%s", text)


def note(text: str) -> None:
    """Write into the log only."""
    for log in _log_files():
        log.handle(logging.makeLogRecord({"msg": text, "levelno": logging.INFO}))


def start_messages(prog: str) -> None:
    """Show all messages from now on, and collect them for the log of a command.

    Args:
        prog: The command.
    """
    console = _Console(sys.stdout)
    console.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[console, _LogFile(prog)], force=True)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.ERROR)
    note(f"nnood {__version__}: {shlex.join([prog, *sys.argv[1:]])}")
