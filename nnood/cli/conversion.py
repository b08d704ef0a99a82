"""The command from images to a raw data set: one sub-command per source."""

import argparse
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnood.cli.console import Command, ConsoleCommand, add_common, add_processes, make_parser, parser_settings, positive
from nnood.cli.messages import keep_log, say
from nnood.paths import Roots

if TYPE_CHECKING:
    from dataset_conversion.converter import Converter, Option


@ConsoleCommand
def convert() -> Command:
    """`nnood_convert`: make a raw data set from a folder of images or a published data set."""
    from dataset_conversion import SOURCES
    from dataset_conversion.cases import RECEIPTS
    from dataset_conversion.common import dataset_folder

    parser = make_parser(
        "nnood_convert",
        "Turn normal images into a raw data set. Each source has a help page of its own: nnood_convert SOURCE --help.",
        "nnood_convert folder -i scans -d 101 -n Heads --test new_scans --labels masks",
    )
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True, title="sources")
    for name, converter in SOURCES.items():
        _add_source(sources, name, converter)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        converter = SOURCES[arguments.source]
        own = _own_options(arguments, converter)
        name = getattr(arguments, "name", None) or converter.name_with(own)
        # In the folder by which a converter knows its own data sets, so that nothing is written into others.
        keep_log(dataset_folder(roots.raw, arguments.dataset_id, name) / RECEIPTS)
        folder = converter.function(
            arguments.input,
            roots.raw,
            arguments.dataset_id,
            name,
            **own,
            link=arguments.link,
            processes=arguments.np,
        )
        say(f"Wrote {folder}\nNext: nnood_plan_and_preprocess -d {arguments.dataset_id}")

    return parser, run


def _add_source(sources: "argparse._SubParsersAction", name: str, converter: "Converter") -> None:
    """Add the parser of one source."""
    settings = parser_settings(converter.description, f"nnood_convert {name} {converter.example}")
    first = converter.description.splitlines()[0]
    parser = sources.add_parser(name, help=first.replace("%", "%%"), **settings)
    parser.add_argument("-i", dest="input", type=Path, required=True, help="the source's folder or file")
    parser.add_argument("-d", dest="dataset_id", type=positive, required=True, help="number of the new data set")
    name_shown = converter.name_with({option.name: option.name.upper() for option in converter.options})
    shown = f"name of the new data set (default: {name_shown})"
    parser.add_argument("-n", dest="name", default=argparse.SUPPRESS, help=shown)
    for option in converter.options:
        _add_option(parser, option, converter.default(option))
    parser.add_argument("--link", action="store_true", help="make symbolic links to .nii.gz files, instead of copies")
    add_processes(parser)
    # Left out, an option that stands before the source's name counts.
    add_common(parser, debug=argparse.SUPPRESS)


def _add_option(parser: argparse.ArgumentParser, option: "Option", default: Any) -> None:
    """Add an option that only one source has; left out, the function's default holds."""
    required = default is inspect.Parameter.empty
    values = default if isinstance(default, tuple) else (default,)
    shown = "" if required or default is None else f" (default: {' '.join(map(str, values))})"
    parser.add_argument(
        f"--{option.name}",
        type=option.type,
        choices=option.choices or None,
        nargs="+" if option.several else None,
        required=required,
        default=argparse.SUPPRESS,
        help=option.help + shown,
    )


def _own_options(arguments: argparse.Namespace, converter: "Converter") -> dict[str, Any]:
    """The source's own options that were given; lists as tuples."""
    given = {option.name: getattr(arguments, option.name) for option in converter.options if option.name in arguments}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
