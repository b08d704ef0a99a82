"""The command that says how far a data set has come."""

import argparse

from nnood.cli.console import Command, ConsoleCommand, make_parser
from nnood.cli.messages import say
from nnood.paths import Roots


@ConsoleCommand
def status() -> Command:
    """`nnood_status`: what exists of a data set, and the next command to run."""
    parser = make_parser(
        "nnood_status",
        "Show what exists of a data set (raw images, plan, folds, inference plan) and the next command to run; without "
        "-d, one line per data set.",
        "nnood_status -d 101",
    )
    parser.add_argument("-d", dest="dataset", help="id or name of the data set; all of them if left out")

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.datasets import dataset_names
        from nnood.status import find_stages, next_step

        if arguments.dataset is not None:
            stages = find_stages(arguments.dataset, roots)
            say("\n".join(stage.text for stage in stages))
            say(f"Next: {next_step(stages, arguments.dataset)}")
            return
        names = dataset_names(roots)
        for name in names:
            say(f"{name}: next {next_step(find_stages(name, roots), name)}")
        if not names:
            say("There is no data set yet.\nNext: nnood_convert folder -i IMAGES -d 101 -n NAME")

    return parser, run
