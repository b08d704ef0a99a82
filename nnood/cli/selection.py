"""The command that turns trained members into one inference plan."""

import argparse

from nnood.cli.console import Command, ConsoleCommand, add_device, add_processes, make_parser, positive
from nnood.cli.messages import keep_log, say
from nnood.paths import Roots


@ConsoleCommand
def find_best_configuration() -> Command:
    """`nnood_find_best_configuration`: choose configuration, ensemble, post-processing, sample score, calibration."""
    parser = make_parser(
        "nnood_find_best_configuration",
        "Judge all trained networks on what their folds left out, clean and with anomalies of tasks that they never "
        "saw, and write the inference plan that nnood_predict follows. Goes on after an interruption.",
        "nnood_find_best_configuration -d 101",
    )
    parser.add_argument("-d", dest="dataset", required=True, help="id or name of the data set")
    parser.add_argument(
        "-r",
        dest="recipes",
        nargs="+",
        default=[],
        metavar="RECIPE",
        help="names or JSON files; all trained if left out",
    )
    parser.add_argument(
        "-c", dest="configurations", nargs="+", default=[], metavar="CONFIGURATION", help="all trained if left out"
    )
    parser.add_argument(
        "-f", dest="folds", nargs="+", default=[], metavar="FOLD", help="every finished one if left out"
    )
    parser.add_argument("--checkpoint", choices=("best", "final"), default="best", help="which of each fold")
    parser.add_argument(
        "--max_cases",
        type=positive,
        default=40,
        help="so many held-out cases get anomalies at most, and five times as many are predicted clean",
    )
    add_processes(parser)
    add_device(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.datasets import find_dataset_name
        from nnood.inference.inference_plan import PLAN_FILE
        from nnood.inference.selection.find_best import find_best_configuration
        from nnood.inference.selection.report import format_candidates
        from nnood.training.recipes import recipe_name

        keep_log(roots.results / find_dataset_name(arguments.dataset, roots))
        plan = find_best_configuration(
            arguments.dataset,
            roots,
            recipes=[recipe_name(recipe) for recipe in arguments.recipes],
            configurations=arguments.configurations,
            folds=arguments.folds,
            checkpoint=f"checkpoint_{arguments.checkpoint}.pth",
            max_cases=arguments.max_cases,
            processes=arguments.np,
            device=arguments.device,
        )
        folder = roots.results / plan.dataset
        say(f"{format_candidates(plan)}\n{plan.describe()}")
        say(f"Wrote {folder / PLAN_FILE}, and inference_plan.md and .png beside it, to look at")
        say(f"Next: nnood_predict -i IMAGES -o OUTPUT -d {arguments.dataset}")

    return parser, run
