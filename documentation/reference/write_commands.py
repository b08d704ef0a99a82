"""Write the page of all commands from their parsers: `python documentation/reference/write_commands.py`."""

import argparse
from pathlib import Path

from nnood import cli

PAGE = Path(__file__).with_name("commands.md")
# Of this machine, so not for a page.
PROCESSORS = "-np"
HEAD = """# Commands

<!-- Made by write_commands.py, which stands beside this page; a test compares them. -->

All commands take `--version`, `--help` (with an example) and `--debug`, which shows the traceback of an error. They
first say which folders they use, and end with the status 0, with 2 if the input was wrong, or with 1 if nnood itself
failed. Unknown options are refused. Progress bars are shown on terminals only. What a command says is also in a file
`nnood_COMMAND.log` beside its results, there with the traceback of an error. `nnood_status` shows what exists of a data
set and the next command.
"""


def commands_page() -> str:
    """The page as Markdown."""
    names = sorted(name for name in cli.__all__)
    listed = "\n".join(f"* [nnood_{name}](#nnood_{name})" for name in names)
    return "\n".join([HEAD, listed, *(_command(getattr(cli, name).build()[0], level=2) for name in names)])


def _command(parser: argparse.ArgumentParser, *, level: int) -> str:
    """One command: what it does, an example, its options, and its sub-commands."""
    actions = [action for action in parser._actions if action.dest not in ("help", "version", "debug")]
    parts = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    options = [action for action in actions if action not in parts]
    text = ["", f"{'#' * level} {parser.prog}", "", *(parser.description or "").splitlines()]
    example = (parser.epilog or "").removeprefix("Example: ")
    text += ["", "```bash", example, "```", ""]
    if options:
        text += ["| option | | default |", "|---|---|---|", *map(_row, options)]
    for part in parts:
        text += [_command(sub, level=level + 1) for sub in dict.fromkeys(part.choices.values())]
    return "\n".join(text)


def _row(action: argparse.Action) -> str:
    """One option as a row of a table."""
    value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
    value = value if isinstance(value, str) else " ".join(value)
    more = " ..." if action.nargs in ("+", "*") else ""
    flags = ", ".join(action.option_strings)
    choices = "|".join(map(str, action.choices)) if action.choices else ""
    shown = f"{flags} {choices or value}{more}" if flags else f"{choices or value}{more}"
    named = f"`{shown.strip()}`".replace("|", "\\|")
    return f"| {named} | {_sentence(action)} | {_default(action)} |"


def _sentence(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%").replace("|", "\\|")


def _default(action: argparse.Action) -> str:
    """What holds where the option is left out."""
    if action.required:
        return "required"
    if PROCESSORS in action.option_strings:
        return "one per core, at most 8"
    default = action.default
    if default in (None, False, True, [], (), argparse.SUPPRESS):
        return ""
    return f"`{' '.join(map(str, default)) if isinstance(default, list | tuple) else default}`"


if __name__ == "__main__":
    PAGE.write_text(commands_page() + "\n", encoding="utf-8")
