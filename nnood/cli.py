"""The console commands: parse, call one function, word the errors. No logic."""

import argparse
import errno
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from nnood import __version__
from nnood.errors import UserError
from nnood.paths import Roots, get_roots
from nnood.safety import TEMPORARY_PREFIX

Run = Callable[[argparse.Namespace, Roots], None]

EXIT_OURS, EXIT_USERS, EXIT_INTERRUPTED = 1, 2, 130


def _parser(command: str, description: str, example: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command,
        description=description,
        epilog=f"Example: {example}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"nnood {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _execute(parser: argparse.ArgumentParser, run: Run) -> None:
    """Parse, say which folders are used, run, and turn errors into one sentence and an exit status."""
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    for noisy in ("numexpr", "matplotlib", "PIL", "tifffile"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if not arguments.debug:
        warnings.simplefilter("ignore")
    # The demo keeps everything in a folder of its own.
    roots = Roots.under(arguments.output) if parser.prog == "nnood_demo" else get_roots()
    print(roots.describe(), flush=True)
    try:
        run(arguments, roots)
    except UserError as error:
        _stop(parser, str(error), EXIT_USERS, debug=arguments.debug)
    except BrokenPipeError:  # whoever read our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _stop(parser, _word(error), EXIT_USERS, debug=arguments.debug)
    except KeyboardInterrupt:
        _stop(parser, "interrupted; start the command again to go on.", EXIT_INTERRUPTED, debug=arguments.debug)
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
    sys.stdout.flush()
    print(f"{parser.prog}: error: {text}", file=sys.stderr, flush=True)
    sys.exit(status)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _positive_number(text: str) -> float:
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _score(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a score from 0 to 1")
    return value


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-np", type=_positive, default=min(8, os.cpu_count() or 1), help="worker processes")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threshold", type=_score, help="score from which a voxel is anomalous, for a Dice there")
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also evaluate what needs no training: random scores, intensities and their z-scores",
    )


def convert() -> None:
    """`nnood_convert`: make a raw data set from a folder of images or a published data set."""
    from dataset_conversion import SOURCES

    parser = _parser(
        "nnood_convert",
        "Turn normal images into a raw data set. Sources: " + ", ".join(SOURCES),
        "nnood_convert folder -i scans -d 101 -n Heads --test new_scans --labels masks",
    )
    parser.add_argument("source", choices=sorted(SOURCES), help="what lies in the input")
    parser.add_argument("-i", dest="input", type=Path, required=True, help="the images: a folder, or the source's file")
    parser.add_argument("-d", dest="dataset_id", type=_positive, required=True, help="number of the new data set")
    parser.add_argument("-n", dest="name", required=True, help="name of the new data set")
    parser.add_argument("--test", type=Path, help="folder of test images (source folder)")
    parser.add_argument("--labels", type=Path, help="folder of masks, or CSV of case,label, for the test images")
    _add_processes(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        if arguments.source == "folder":
            options = {"test": arguments.test, "labels": arguments.labels, "processes": arguments.np}
        elif arguments.test or arguments.labels:
            raise UserError(f"--test and --labels go with the source folder; {arguments.source} has its own.")
        else:
            options = {}
        folder = SOURCES[arguments.source](arguments.input, roots.raw, arguments.dataset_id, arguments.name, **options)
        print(f"Wrote {folder}\nNext: nnood_plan_and_preprocess -d {arguments.dataset_id}")

    _execute(parser, run)


def plan_and_preprocess() -> None:
    """`nnood_plan_and_preprocess`: fingerprint, plan and preprocess a raw data set."""
    parser = _parser(
        "nnood_plan_and_preprocess",
        "Look at all training images, configure everything, and preprocess. Goes on after an interruption.",
        "nnood_plan_and_preprocess -d 101",
    )
    parser.add_argument("-d", dest="dataset", required=True, help="id or name of the data set")
    parser.add_argument(
        "-c", dest="configurations", nargs="+", default=[], metavar="CONFIGURATION", help="2d, 3d_lowres, 3d_fullres"
    )
    parser.add_argument("--gpu_memory_target", type=_positive_number, default=8.0, metavar="GB", help="for training")
    parser.add_argument(
        "--base_features", type=_positive, default=32, help="feature maps of the first stage; fewer suit a CPU"
    )
    parser.add_argument("--overwrite", action="store_true", help="forget earlier plans and preprocessed cases")
    _add_processes(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.planning.plan_and_preprocess import describe_plans, plan_and_preprocess

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
        print(f"{describe_plans(folder)}\nWrote {folder}\nNext: nnood_train {arguments.dataset} 0{named}")

    _execute(parser, run)


def tasks() -> None:
    """`nnood_tasks`: list the synthetic anomalies, or show them on the user's images."""
    parser = _parser(
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
    parser.add_argument("-t", dest="tasks", type=_names, default=[], metavar="TASK,...", help="all if left out")
    parser.add_argument("--seed", type=int, default=0, help="of the anomalies")

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.tasks import TASKS, describe_tasks
        from nnood.training.task_sheet import draw_tasks

        if not arguments.show:
            print("\n".join(f"{name:18}{line}" for name, line in describe_tasks().items()))
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
        print(
            "".join(f"Left out {name}: {reason}\n" for name, reason in left_out.items()) + f"Wrote {arguments.output}"
        )

    _execute(parser, run)


def train() -> None:
    """`nnood_train`: train folds."""
    parser = _parser(
        "nnood_train",
        "Train one network per fold on synthetic anomalies.",
        "nnood_train 101 0",
    )
    parser.add_argument("dataset", help="id or name of the data set")
    parser.add_argument(
        "folds", nargs="+", metavar="FOLD", help="fold numbers, every (each in turn) or all (one network on all cases)"
    )
    parser.add_argument("-c", dest="configuration", help="the plan's default if left out")
    parser.add_argument("-r", dest="recipe", default="nnood", help="name of the recipe")
    parser.add_argument("-t", dest="tasks", type=_names, default=[], metavar="TASK,...", help="instead of the recipe's")
    parser.add_argument("--donors", metavar="DATASET", help="id or name of another data set that lends foreign patches")
    parser.add_argument("--epochs", type=_positive, help="in the place of the recipe's")
    parser.add_argument("--iterations", type=_positive, help="per epoch, in the place of the recipe's")
    parser.add_argument("--continue", dest="go_on", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--seed", type=int, default=0, help="of augmentation, anomalies and initial weights")
    _add_device(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.precision import choose_device
        from nnood.training.train import train

        device = choose_device(arguments.device)
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
            device=device,
            seed=arguments.seed,
        )
        print("Trained: " + "\n         ".join(map(str, folders)))
        print(f"Next: nnood_predict -i IMAGES -o OUTPUT -d {arguments.dataset}")

    _execute(parser, run)


def predict() -> None:
    """`nnood_predict`: score maps and sample scores for new images."""
    parser = _parser(
        "nnood_predict",
        "Write a voxel score map and a sample score for every image of a folder. Goes on after an interruption.",
        "nnood_predict -i new_scans -o scores",
    )
    parser.add_argument("-i", dest="input", type=Path, required=True, help="folder of images")
    parser.add_argument("-o", dest="output", type=Path, required=True, help="folder for the scores")
    parser.add_argument("-d", dest="dataset", help="data set whose networks predict; may be left out if there is one")
    parser.add_argument(
        "-f", dest="folds", nargs="+", default=[], metavar="FOLD", help="every finished one if left out"
    )
    parser.add_argument("-c", dest="configuration", help="may be left out if one was trained")
    parser.add_argument("-r", dest="recipe", help="may be left out if one was trained")
    parser.add_argument("--checkpoint", choices=("best", "final"), default="best", help="which of each fold")
    _add_device(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.inference.predict import find_model, predict
        from nnood.precision import choose_device

        model = find_model(
            roots,
            dataset=arguments.dataset,
            recipe=arguments.recipe,
            configuration=arguments.configuration,
            folds=arguments.folds,
            checkpoint=f"checkpoint_{arguments.checkpoint}.pth",
        )
        device = choose_device(arguments.device)
        print("Members: " + "\n         ".join(map(str, model.checkpoints)))
        scores = predict(arguments.input, arguments.output, model, device=device)
        print(f"Wrote {len(scores)} score maps and sample scores to {arguments.output}")

    _execute(parser, run)


class _ListKinds(argparse.Action):
    """Show the kinds of anomaly of a benchmark set, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from nnood.evaluation.benchmark.kinds import describe_kinds

        print(describe_kinds())
        parser.exit()


def make_benchmark() -> None:
    """`nnood_make_benchmark`: plant anomalies of many kinds in held-out normal images."""
    parser = _parser(
        "nnood_make_benchmark",
        "Make a test set with masks from a data set's held-out normal images: each once as it is, and with kinds of "
        "anomaly that have nothing in common with the training's code. Goes on after an interruption.",
        "nnood_make_benchmark -d 101 -o benchmark --kinds mood --seed 0",
    )
    parser.add_argument("-d", dest="dataset", required=True, help="id or name of the data set")
    parser.add_argument("-o", dest="output", type=Path, required=True, help="folder for the test set")
    parser.add_argument(
        "--kinds", type=_names, default=["all"], metavar="KIND,...", help="kinds of anomaly or presets (see --list)"
    )
    parser.add_argument("--list", action=_ListKinds, nargs=0, help="show all kinds and presets, and exit")
    parser.add_argument("--per_kind", type=_positive, default=20, help="anomalous cases of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the anomalies")
    parser.add_argument("--fold", type=int, help="take the cases that this fold left out, instead of imagesTs")
    parser.add_argument("--masks", type=Path, help="folder of masks of real lesions, for the kind lesions")
    parser.add_argument("--foreign", metavar="DATASET", help="data set of another body part, for the kind foreign")
    _add_processes(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.evaluation.benchmark.sets import make_benchmark

        rows = make_benchmark(
            arguments.dataset,
            roots,
            arguments.output,
            kinds=arguments.kinds,
            seed=arguments.seed,
            fold=arguments.fold,
            per_kind=arguments.per_kind,
            masks=arguments.masks,
            foreign=arguments.foreign,
            processes=arguments.np,
        )
        print(f"Wrote {len(rows)} cases to {arguments.output}")
        fold = "" if arguments.fold is None else f" -f {arguments.fold}"
        print(f"Next: nnood_predict -i {arguments.output / 'imagesTs'} -o SCORES -d {arguments.dataset}{fold}")

    _execute(parser, run)


def evaluate() -> None:
    """`nnood_evaluate`: compare predictions with labels."""
    parser = _parser(
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
        if arguments.output is not None and arguments.output.is_dir():
            raise UserError(f"{arguments.output} is a folder; name the file to write, such as evaluation.json.")
        if arguments.mood and (arguments.baselines or arguments.threshold is not None):
            raise UserError("--mood gives the challenge's figures only; leave out --baselines and --threshold.")
        if not arguments.baselines and (arguments.dataset or arguments.images):
            raise UserError("-d and -i say what the baselines are made of; add --baselines or leave them out.")
        if arguments.mood:
            output = arguments.output or predictions / "mood.json"
            figures = evaluate_mood(predictions, labels)
            print(format_mood(figures))
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
            print(format_table(result, others))
            baselines = {name: other.to_dict() for name, other in others.items()}
            write_json(output, result.to_dict() | ({"baselines": baselines} if others else {}))
        print(f"Wrote {output}")

    _execute(parser, run)


def report() -> None:
    """`nnood_report`: one HTML file with figures, curves, and all cases to look at."""
    parser = _parser(
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
        print(f"Wrote {file}")

    _execute(parser, run)


def demo() -> None:
    """`nnood_demo`: the whole pipeline on phantoms, in a few minutes on a CPU."""
    parser = _parser(
        "nnood_demo",
        "Make a small data set of head-like phantoms and run the whole pipeline on it.",
        "nnood_demo",
    )
    parser.add_argument(
        "-o", dest="output", type=Path, default=Path("nnood_demo"), help="folder for everything it makes"
    )
    _add_device(parser)

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.demo import run_demo
        from nnood.precision import choose_device

        run_demo(arguments.output, roots, choose_device(arguments.device))

    _execute(parser, run)
