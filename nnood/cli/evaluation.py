"""Commands that make test sets, evaluate and report."""

import argparse
from dataclasses import asdict
from pathlib import Path

from nnood.cli.console import Command, ConsoleCommand, add_processes, make_parser, names, positive, score
from nnood.cli.messages import keep_log, say
from nnood.errors import UserError
from nnood.paths import Roots


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threshold",
        type=score,
        help="score from which a voxel is anomalous, for a Dice there; the plan's if left out",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also evaluate what needs no training: random scores, intensities and their z-scores",
    )


class _ListKinds(argparse.Action):
    """Show the kinds of anomaly of a benchmark set, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from nnood.evaluation.benchmark.kinds import describe_kinds

        print(describe_kinds())  # as argparse does with --help, before the command begins
        parser.exit()


@ConsoleCommand
def make_benchmark() -> Command:
    """`nnood_make_benchmark`: plant anomalies of many kinds in held-out normal images."""
    parser = make_parser(
        "nnood_make_benchmark",
        "Make a test set with masks from a data set's held-out normal images: each once as it is, and with kinds of "
        "anomaly that have nothing in common with the training's code. Goes on after an interruption.",
        "nnood_make_benchmark -d 101 -o benchmark --kinds mood --seed 0",
    )
    parser.add_argument("-d", dest="dataset", required=True, help="id or name of the data set")
    parser.add_argument("-o", dest="output", type=Path, required=True, help="folder for the test set")
    parser.add_argument(
        "--kinds", type=names, default=["all"], metavar="KIND,...", help="kinds of anomaly or presets (see --list)"
    )
    parser.add_argument("--list", action=_ListKinds, nargs=0, help="show all kinds and presets, and exit")
    parser.add_argument("--per_kind", type=positive, default=20, help="anomalous cases of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the anomalies")
    parser.add_argument("--fold", type=int, help="take the cases that this fold left out, instead of imagesTs")
    parser.add_argument("-r", dest="recipe", default="nnood", help="recipe that the fold is of: its name or JSON file")
    parser.add_argument("--masks", type=Path, help="folder of masks of real lesions, for the kind lesions")
    parser.add_argument("--foreign", metavar="DATASET", help="data set of another body part, for the kind foreign")
    add_processes(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.evaluation.benchmark.sets import make_benchmark
        from nnood.training.recipes import recipe_name

        keep_log(arguments.output)
        rows = make_benchmark(
            arguments.dataset,
            roots,
            arguments.output,
            kinds=arguments.kinds,
            seed=arguments.seed,
            fold=arguments.fold,
            recipe=recipe_name(arguments.recipe),
            per_kind=arguments.per_kind,
            masks=arguments.masks,
            foreign=arguments.foreign,
            processes=arguments.np,
        )
        say(f"Wrote {len(rows)} cases to {arguments.output}")
        fold = "" if arguments.fold is None else f" -r {arguments.recipe} -f {arguments.fold}"
        say(f"Next: nnood_predict -i {arguments.output / 'imagesTs'} -o SCORES -d {arguments.dataset}{fold}")

    return parser, run


@ConsoleCommand
def evaluate() -> Command:
    """`nnood_evaluate`: compare predictions with labels."""
    parser = make_parser(
        "nnood_evaluate",
        "Figures per voxel, object, slice and sample, with 95 % intervals: pooled, per kind, per size, and per case.",
        "nnood_evaluate -p scores -l nnood_data/raw/Dataset101_Heads/labelsTs",
    )
    parser.add_argument("-p", dest="predictions", type=Path, required=True, help="folder that nnood_predict wrote")
    parser.add_argument("-l", dest="labels", type=Path, required=True, help="folder of masks, or CSV of case,label")
    parser.add_argument("-o", dest="output", type=Path, help="JSON file; PREDICTIONS/evaluation.json if left out")
    _add_comparison(parser)
    parser.add_argument("--mood", action="store_true", help="only the figures of the MOOD challenge's scorer")
    parser.add_argument("-d", dest="dataset", help="data set of the normal images, for --baselines")
    parser.add_argument(
        "-i", dest="images", type=Path, help="the test images, for --baselines; beside the labels if left out"
    )

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.evaluation.baselines import baselines_beside
        from nnood.evaluation.evaluate import evaluate
        from nnood.evaluation.mood import evaluate_mood
        from nnood.evaluation.tables import format_mood, format_table
        from nnood.safety import write_json

        predictions, labels = arguments.predictions, arguments.labels
        keep_log(predictions)
        if arguments.output is not None and arguments.output.is_dir():
            raise UserError(f"{arguments.output} is a folder; name the file to write, such as evaluation.json.")
        if arguments.mood and (arguments.baselines or arguments.threshold is not None):
            raise UserError("--mood gives the challenge's figures only; leave out --baselines and --threshold.")
        if not arguments.baselines and (arguments.dataset or arguments.images):
            raise UserError("-d and -i say what the baselines are made of; add --baselines or leave them out.")
        if arguments.mood:
            output = arguments.output or predictions / "mood.json"
            figures = evaluate_mood(predictions, labels)
            say(format_mood(figures))
            write_json(output, asdict(figures))
        else:
            output = arguments.output or predictions / "evaluation.json"
            result = evaluate(predictions, labels, threshold=arguments.threshold)
            others = {}
            if arguments.baselines:
                others = baselines_beside(
                    predictions,
                    labels,
                    roots,
                    dataset=arguments.dataset,
                    images=arguments.images,
                    threshold=arguments.threshold,
                )
            say(format_table(result, others))
            baselines = {name: other.to_dict() for name, other in others.items()}
            write_json(output, result.to_dict() | ({"baselines": baselines} if others else {}))
        say(f"Wrote {output}")

    return parser, run


@ConsoleCommand
def report() -> Command:
    """`nnood_report`: one HTML file with figures, curves, and all cases to look at."""
    parser = make_parser(
        "nnood_report",
        "Write one HTML file that needs nothing else: what was trained, figures, curves, and a viewer of every case. "
        "Without labels, a reading list with the most suspicious cases first.",
        "nnood_report -p scores -l nnood_data/raw/Dataset101_Heads/labelsTs -o report.html",
    )
    parser.add_argument(
        "-d", dest="dataset", help="data set whose training to describe; that of the predictions if left out"
    )
    parser.add_argument("-p", dest="predictions", type=Path, help="folder that nnood_predict wrote")
    parser.add_argument("-l", dest="labels", type=Path, help="folder of masks, or CSV of case,label")
    parser.add_argument("-i", dest="images", type=Path, help="the predicted images, if they were moved since")
    parser.add_argument("-o", dest="output", type=Path, required=True, help="the HTML file to write")
    _add_comparison(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.evaluation.report.from_folders import report

        file = report(
            arguments.output,
            roots,
            dataset=arguments.dataset,
            predictions=arguments.predictions,
            labels=arguments.labels,
            images=arguments.images,
            threshold=arguments.threshold,
            baselines=arguments.baselines,
        )
        say(f"Wrote {file}")

    return parser, run
