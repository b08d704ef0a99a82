"""Commands from networks to score maps."""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from nnood.cli.console import Command, ConsoleCommand, add_device, make_parser
from nnood.cli.messages import keep_log, say
from nnood.errors import UserError
from nnood.paths import Roots

if TYPE_CHECKING:
    from nnood.inference.predict import Planned


def add_members(parser: argparse.ArgumentParser) -> None:
    """Add what says who predicts: `-d`, `-f`, `-c`, `-r`, `--checkpoint`, `--plan`."""
    parser.add_argument("-d", dest="dataset", help="data set whose networks predict; may be left out if there is one")
    parser.add_argument(
        "-f", dest="folds", nargs="+", default=[], metavar="FOLD", help="every finished one if left out"
    )
    parser.add_argument("-c", dest="configuration", help="may be left out if one was trained")
    parser.add_argument("-r", dest="recipe", help="name or JSON file; may be left out if one was trained")
    parser.add_argument("--checkpoint", choices=("best", "final"), help="which of each fold; the best if left out")
    parser.add_argument(
        "--plan", type=Path, metavar="FILE", help="inference plan to follow, instead of the data set's own"
    )


def find_members(arguments: argparse.Namespace, roots: Roots) -> "Planned":
    """Who predicts, as the options of `add_members` say."""
    from nnood.inference.predict import find_model
    from nnood.training.recipes import recipe_name

    return find_model(
        roots,
        dataset=arguments.dataset,
        recipe=arguments.recipe and recipe_name(arguments.recipe),
        configuration=arguments.configuration,
        folds=arguments.folds,
        checkpoint=arguments.checkpoint and f"checkpoint_{arguments.checkpoint}.pth",
        plan=arguments.plan,
    )


def names_members(arguments: argparse.Namespace) -> bool:
    """Whether any option of `add_members` is given."""
    return any(
        getattr(arguments, name) for name in ("dataset", "folds", "configuration", "recipe", "checkpoint", "plan")
    )


def _chosen_model(arguments: argparse.Namespace, roots: Roots) -> contextlib.AbstractContextManager["Planned"]:
    """The model, for as long as its files are needed."""
    if arguments.model is None:
        return contextlib.nullcontext(find_members(arguments, roots))
    if names_members(arguments):
        raise UserError(
            f"{arguments.model} holds members and plan already; leave out --model, or -d, -f, -c, -r, --checkpoint and "
            "--plan."
        )
    from nnood.sharing import open_model

    return open_model(arguments.model)


@ConsoleCommand
def predict() -> Command:
    """`nnood_predict`: score maps and sample scores for new images."""
    parser = make_parser(
        "nnood_predict",
        "Write a voxel score map and a sample score for every image of a folder. Goes on after an interruption.",
        "nnood_predict -i new_scans -o scores",
    )
    parser.add_argument("-i", dest="input", type=Path, required=True, help="folder of images")
    parser.add_argument("-o", dest="output", type=Path, required=True, help="folder for the scores")
    add_members(parser)
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help="archive that nnood_export wrote, instead of all of these"
    )
    parser.add_argument(
        "--save_mask", action="store_true", help="write masks too, at the plan's threshold for 1 %% false positives"
    )
    add_device(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.inference.predict import predict

        if arguments.output.resolve() != arguments.input.resolve():  # which is refused, and gets no file
            keep_log(arguments.output)
        with _chosen_model(arguments, roots) as planned:
            source = planned.archive or planned.file
            say("Members are averaged." if source is None else f"Following the inference plan {source}")
            say(planned.plan.describe())
            scores = predict(
                arguments.input, arguments.output, planned, device=arguments.device, save_mask=arguments.save_mask
            )
        say(f"Wrote {len(scores)} score maps and sample scores to {arguments.output}")

    return parser, run


@ConsoleCommand
def ensemble() -> Command:
    """`nnood_ensemble`: several predictions of the same images in one."""
    parser = make_parser(
        "nnood_ensemble",
        "Combine existing predictions of the same images, case by case. Goes on after an interruption.",
        "nnood_ensemble -i scores_2d scores_3d -o scores_both",
    )
    parser.add_argument(
        "-i", dest="inputs", type=Path, nargs="+", required=True, metavar="FOLDER", help="predictions, two or more"
    )
    parser.add_argument("-o", dest="output", type=Path, required=True, help="folder for the combined scores")
    parser.add_argument(
        "--combine", choices=("mean", "median", "rank_mean"), default="mean", help="how; the mean if left out"
    )

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.inference.combine_folders import ensemble

        keep_log(arguments.output)
        scores = ensemble(arguments.inputs, arguments.output, combination=arguments.combine)
        say(f"Wrote {len(scores)} score maps and sample scores to {arguments.output}")

    return parser, run


@ConsoleCommand
def apply_postprocessing() -> Command:
    """`nnood_apply_postprocessing`: an inference plan's steps on existing predictions."""
    parser = make_parser(
        "nnood_apply_postprocessing",
        "Post-process, calibrate and score plain predictions as an inference plan says. Goes on after an interruption.",
        "nnood_apply_postprocessing -i plain_scores -o scores -d 101",
    )
    parser.add_argument("-i", dest="input", type=Path, required=True, help="predictions that went through no plan")
    parser.add_argument("-o", dest="output", type=Path, required=True, help="folder for the finished scores")
    parser.add_argument("-d", dest="dataset", help="data set whose plan to follow; the noted one if left out")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="inference plan to follow, instead")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the predicted images; noted ones if left out")

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.inference.postprocess_folder import apply_postprocessing, find_plan_file

        keep_log(arguments.output)
        file = find_plan_file(arguments.input, roots, dataset=arguments.dataset, plan=arguments.plan)
        say(f"Following the inference plan {file}")
        scores = apply_postprocessing(arguments.input, arguments.output, file, roots, images=arguments.images)
        say(f"Wrote {len(scores)} score maps and sample scores to {arguments.output}")

    return parser, run
