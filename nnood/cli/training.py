"""Commands that train."""

import argparse
from pathlib import Path

from nnood.cli.console import Command, ConsoleCommand, add_device, make_parser, names, positive
from nnood.cli.messages import keep_log, say
from nnood.paths import Roots


def _count(text: str) -> int:
    """Type of an argument: a whole number, 0 too."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


@ConsoleCommand
def train() -> Command:
    """`nnood_train`: train folds."""
    parser = make_parser(
        "nnood_train",
        "Train one network per fold on synthetic anomalies.",
        "nnood_train 101 0",
    )
    parser.add_argument("dataset", help="id or name of the data set")
    parser.add_argument(
        "folds", nargs="+", metavar="FOLD", help="fold numbers, every (each in turn) or all (one network on all cases)"
    )
    parser.add_argument("-c", dest="configuration", help="the recipe's if left out, or else the plan's default")
    parser.add_argument("-r", dest="recipe", default="nnood", help="name of the recipe, or a JSON file that holds one")
    parser.add_argument("-t", dest="tasks", type=names, default=[], metavar="TASK,...", help="instead of the recipe's")
    parser.add_argument("--donors", metavar="DATASET", help="id or name of another data set that lends foreign patches")
    parser.add_argument("--epochs", type=positive, help="in the place of the recipe's")
    parser.add_argument("--iterations", type=positive, help="per epoch, in the place of the recipe's")
    parser.add_argument("--continue", dest="go_on", action="store_true", help="go on with an interrupted run")
    parser.add_argument(
        "--whole_every", type=_count, metavar="N", help="epochs between validations on whole cases, 0 for none"
    )
    parser.add_argument(
        "--seeds", type=_count, nargs="+", default=[0], metavar="SEED", help="each fold is trained once per seed"
    )
    parser.add_argument("-num_gpus", type=positive, default=1, metavar="N", help="GPUs that share one training")
    parser.add_argument(
        "--pretrained",
        type=Path,
        metavar="FILE",
        help="nnU-Net's, nnssl's or nnood's checkpoint to start from",
    )
    add_device(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.datasets import find_dataset_name
        from nnood.training.checkpoints import FINAL
        from nnood.training.train import train

        keep_log(roots.results / find_dataset_name(arguments.dataset, roots))
        folders = train(
            arguments.dataset,
            arguments.folds,
            roots,
            configuration=arguments.configuration,
            recipe=arguments.recipe,
            tasks=arguments.tasks,
            donors=arguments.donors,
            epochs=arguments.epochs,
            iterations=arguments.iterations,
            go_on=arguments.go_on,
            device=arguments.device,
            whole_every=arguments.whole_every,
            seeds=arguments.seeds,
            num_gpus=arguments.num_gpus,
            pretrained=arguments.pretrained,
        )
        finished = [str(folder) for folder in folders if (folder / FINAL).exists()]  # others may be at some of `every`
        if finished:
            say("Trained: " + "\n         ".join(finished))
        say(f"Next: nnood_find_best_configuration -d {arguments.dataset}")

    return parser, run


@ConsoleCommand
def demo() -> Command:
    """`nnood_demo`: the whole pipeline on phantoms, in a few minutes on a CPU."""
    parser = make_parser(
        "nnood_demo",
        "Make a small data set of head-like phantoms and run the whole pipeline on it.",
        "nnood_demo",
    )
    parser.add_argument(
        "-o", dest="output", type=Path, default=Path("nnood_demo"), help="folder for everything it makes"
    )
    add_device(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.demo import run_demo

        keep_log(arguments.output)
        run_demo(arguments.output, roots, arguments.device)

    return parser, run
