"""Commands from networks to score maps."""

import argparse
from pathlib import Path

from nnood.cli.console import add_device, execute, make_parser
from nnood.paths import Roots


def predict() -> None:
    """`nnood_predict`: score maps and sample scores for new images."""
    parser = make_parser(
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
    add_device(parser)

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

    execute(parser, run)
