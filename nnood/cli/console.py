"""What all commands share: a parser, types of arguments, and errors worded in one sentence."""

import argparse
import errno
import functools
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from nnood import __version__
from nnood.cli.messages import note, say, start_messages
from nnood.errors import UserError
from nnood.paths import Roots, get_roots
from nnood.safety import TEMPORARY_PREFIX
from nnood.training.signals import EXIT_TERMINATED, Stopped

Run = Callable[[argparse.Namespace, Roots], None]
Command = tuple[argparse.ArgumentParser, Run]

EXIT_OURS, EXIT_USERS, EXIT_INTERRUPTED = 1, 2, 130


class _Paragraphs(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows defaults, and keeps the paragraphs of a description apart."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(super(_Paragraphs, self)._fill_text(part, width, indent) for part in paragraphs)


def parser_settings(description: str, example: str) -> dict[str, Any]:
    """What every parser of a command or of its parts is made with."""
    return {
        "description": description,
        "epilog": f"Example: {example}",
        "formatter_class": _Paragraphs,
        "allow_abbrev": False,
    }


def add_common(parser: argparse.ArgumentParser, *, debug: Any = False) -> None:
    """Add `--version` and `--debug`."""
    parser.add_argument("--version", action="version", version=f"nnood {__version__}")
    parser.add_argument("--debug", action="store_true", default=debug, help="show the traceback of an error")


def make_parser(command: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser with what every command has: an example, `--version` and `--debug`."""
    parser = argparse.ArgumentParser(prog=command, **parser_settings(description, example))
    add_common(parser)
    return parser


class ConsoleCommand:
    """A console command: called, it parses the command line and runs.

    Attributes:
        build: Returns the parser, which the reference is written from, and what to run with the parsed arguments.
    """

    def __init__(self, build: Callable[[], Command]):
        self.build = build
        functools.update_wrapper(self, build)

    def __call__(self) -> None:
        """Parse the command line, run, and exit with a status other than 0 if that fails."""
        _execute(*self.build())


def _execute(parser: argparse.ArgumentParser, run: Run) -> None:
    """Parse, say which folders are used, run, and turn errors into one sentence and an exit status."""
    arguments = parser.parse_args()
    start_messages(parser.prog)
    if not arguments.debug:
        warnings.simplefilter("ignore")
    # The demo keeps everything in a folder of its own.
    roots = Roots.under(arguments.output) if parser.prog == "nnood_demo" else get_roots()
    try:
        say(roots.describe())
        run(arguments, roots)
    except UserError as error:
        _stop(parser, str(error), EXIT_USERS, debug=arguments.debug)
    except BrokenPipeError:  # whoever read our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _stop(parser, _word(error), EXIT_USERS, debug=arguments.debug)
    except Stopped as request:
        _stop(parser, str(request), EXIT_TERMINATED, debug=arguments.debug)
    except KeyboardInterrupt:
        how = " with --continue" if hasattr(arguments, "go_on") else ""
        text = f"interrupted; start the command again{how} to go on."
        _stop(parser, text, EXIT_INTERRUPTED, debug=arguments.debug)
    except Exception as error:
        text = f"something went wrong in nnood itself ({type(error).__name__}: {error}); see it whole with --debug."
        _stop(parser, text, EXIT_OURS, debug=arguments.debug)


def _word(error: OSError) -> str:
    """An error of the file system, as a sentence with advice."""
    advice = {
        errno.ENOSPC: "the disk is full; make room and start the command again, finished work is kept.",
        errno.EACCES: "it cannot be written or read; check the permissions or choose another folder.",
        errno.EPERM: "it cannot be written or read; check the permissions or choose another folder.",
        errno.EROFS: "the file system is read-only; choose another folder.",
        errno.EISDIR: "a folder stands where a file is needed; choose another name.",
        errno.ENOENT: "it cannot be made there; choose another folder.",
        errno.ENOTDIR: "a file stands where a folder is needed; choose another name.",
        errno.EEXIST: "a file stands where a folder is needed; choose another name.",
    }
    # Of an atomic write, the user knows the final name only.
    named = re.sub(rf"{re.escape(TEMPORARY_PREFIX)}\d+-", "", str(error.filename)) if error.filename else ""
    where = f"{named}: " if named else ""
    return where + advice.get(error.errno or 0, f"{error.strerror or error}.")


def _stop(parser: argparse.ArgumentParser, text: str, status: int, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    note(f"{text}\n{traceback.format_exc()}")
    sys.stdout.flush()
    print(f"{parser.prog}: error: {text}", file=sys.stderr, flush=True)
    sys.exit(status)


def names(text: str) -> list[str]:
    """Type of an argument: a list, separated by commas."""
    return [name.strip() for name in text.split(",")]


def positive(text: str) -> int:
    """Type of an argument: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def number(text: str) -> float:
    """Type of an argument: any number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def positive_number(text: str) -> float:
    """Type of an argument: a number above 0."""
    value = number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def score(text: str) -> float:
    """Type of an argument: a number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a score from 0 to 1")
    return value


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add `-np`."""
    parser.add_argument("-np", type=positive, default=min(8, os.cpu_count() or 1), help="worker processes")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
