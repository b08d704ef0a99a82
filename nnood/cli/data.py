"""Commands from a raw data set to a planned, preprocessed one, and a look at its folds and tasks."""

import argparse
from pathlib import Path

from nnood.cli.console import Command, ConsoleCommand, add_processes, make_parser, names, positive, positive_number
from nnood.cli.messages import keep_log, say
from nnood.errors import UserError
from nnood.paths import Roots


@ConsoleCommand
def plan_and_preprocess() -> Command:
    """`nnood_plan_and_preprocess`: fingerprint, plan and preprocess a raw data set."""
    parser = make_parser(
        "nnood_plan_and_preprocess",
        "Look at all training images, configure everything, and preprocess. Goes on after an interruption.",
        "nnood_plan_and_preprocess -d 101",
    )
    parser.add_argument("-d", dest="dataset", required=True, help="id or name of the data set")
    parser.add_argument(
        "-c",
        dest="configurations",
        nargs="+",
        default=[],
        metavar="CONFIGURATION",
        help="2d, 2.5d, 3d_lowres, 3d_fullres",
    )
    parser.add_argument("--gpu_memory_target", type=positive_number, metavar="GB", help="for training; as before, or 8")
    parser.add_argument(
        "--base_features", type=positive, help="feature maps of the first stage; as before, or 32; fewer suit a CPU"
    )
    parser.add_argument("--overwrite", action="store_true", help="forget earlier plans and preprocessed cases")
    add_processes(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.datasets import find_dataset_name
        from nnood.planning.plan_and_preprocess import describe_plans, plan_and_preprocess

        keep_log(roots.preprocessed / find_dataset_name(arguments.dataset, roots))
        folder = plan_and_preprocess(
            arguments.dataset,
            roots,
            configurations=arguments.configurations,
            processes=arguments.np,
            gpu_memory_target=arguments.gpu_memory_target,
            base_features=arguments.base_features,
            overwrite=arguments.overwrite,
        )
        named = f" -c {arguments.configurations[0]}" if arguments.configurations else ""
        say(f"{describe_plans(folder)}\nWrote {folder}\nNext: nnood_train {arguments.dataset} 0{named}")

    return parser, run


@ConsoleCommand
def cross_validation() -> Command:
    """`nnood_cross_validation`: write and show which cases and tasks each network trains and validates on."""
    parser = make_parser(
        "nnood_cross_validation",
        "Write the folds of a recipe, or check and show those that are there; a user may edit the file.",
        "nnood_cross_validation -d 101 -r many_tasks_1of5 --groups 'patient[0-9]+'",
    )
    parser.add_argument("-d", dest="dataset", required=True, help="id or name of the data set")
    parser.add_argument("-r", dest="recipe", default="nnood", help="name of the recipe, or a JSON file that holds one")
    parser.add_argument("--scheme", help="per_task, single_task, leave_task_out or paired(N); the recipe's if left out")
    parser.add_argument("--tasks", type=names, default=[], metavar="TASK,...", help="instead of the recipe's")
    parser.add_argument("--folds", type=positive, metavar="N", help="over cases; five if left out")
    parser.add_argument(
        "--groups",
        metavar="REGEX|CSV",
        help="which cases stay together: a file of case,group, or what matches the group in a case's name",
    )

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.datasets import find_dataset_name
        from nnood.training.cross_validation import cross_validate, describe_folds

        keep_log(roots.preprocessed / find_dataset_name(arguments.dataset, roots))
        made = cross_validate(
            arguments.dataset,
            roots,
            recipe=arguments.recipe,
            scheme=arguments.scheme,
            tasks=arguments.tasks,
            number=arguments.folds,
            groups=arguments.groups,
        )
        say(describe_folds(made.folds))
        say("Files: " + "\n       ".join(map(str, made.files)))
        chosen = f" -t {','.join(arguments.tasks)}" if arguments.tasks else ""
        say(f"Next: nnood_train {arguments.dataset} every -r {arguments.recipe}{chosen}")

    return parser, run


@ConsoleCommand
def tasks() -> Command:
    """`nnood_tasks`: list the synthetic anomalies, or show them on the user's images."""
    parser = make_parser(
        "nnood_tasks",
        "List the self-supervised tasks, or draw what they do to a few images of a data set.",
        "nnood_tasks --show -d 101 -o tasks.png",
    )
    parser.add_argument(
        "--show", action="store_true", help="draw a few training images before, after, and their labels"
    )
    parser.add_argument("-d", dest="dataset", help="id or name of a preprocessed data set, for --show")
    parser.add_argument("-o", dest="output", type=Path, help="the picture to write, for --show")
    parser.add_argument("-c", dest="configuration", help="the plan's default if left out")
    parser.add_argument("-t", dest="tasks", type=names, default=[], metavar="TASK,...", help="all if left out")
    parser.add_argument("--seed", type=int, default=0, help="of the anomalies")

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.tasks import TASKS, describe_tasks
        from nnood.training.task_sheet import draw_tasks

        if not arguments.show:
            say("\n".join(f"{name:18}{line}" for name, line in describe_tasks().items()))
            return
        if arguments.dataset is None or arguments.output is None:
            raise UserError("--show needs a data set and a file; expected -d DATASET -o PICTURE.png.")
        left_out = draw_tasks(
            arguments.dataset,
            roots,
            arguments.tasks or list(TASKS),
            arguments.output,
            configuration=arguments.configuration,
            seed=arguments.seed,
        )
        say("".join(f"Left out {name}: {reason}\n" for name, reason in left_out.items()) + f"Wrote {arguments.output}")

    return parser, run
