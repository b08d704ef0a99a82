"""How the default recipe was found: variants of a start, one thing at a time, on equal terms.

    python benchmarks/default_recipe.py --data DATA --out FOLDER
    python benchmarks/default_recipe.py --data DATA --out FOLDER --variants start loss_combo --seeds 1 2

See `benchmarks/recipes.py`, whose data, test sets and figures these are. FOLDER may be the same.
"""

import argparse
import dataclasses
import logging
from pathlib import Path

from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from recipes import SETS, Job, format_figures, prepare, run_jobs

from nnood.plan import PLANS_FILE
from nnood.safety import read_json, write_json
from nnood.training.recipe import Recipe

# Of nnU-Net's ResEncUNetPlanner, per stage.
BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6)
MOOD22 = ("mood22_hard", "mood22_smooth")
FIRST = ("smooth_intensity", "mood22_smooth", "dag", "source")
THREE = ("smooth_intensity", "mood22_smooth", "source")
POISSON = ("poisson_inter", "poisson_intra")
OWN = ("sink", "source", "smooth_intensity")
MANY_TASKS = (*POISSON, *OWN)


def shares(*tasks: str) -> dict[str, float]:
    """Equal shares."""
    return dict.fromkeys(tasks, 1.0)


# Many-tasks' deformations and intensities; its foreign patches in MOOD22's shapes, with hard and smooth edges.
START = Recipe(
    name="start",
    summary="Where the search began.",
    tasks=shares(*MOOD22, *OWN),
    normal=0.2,
    repeat=0.5,
    label="flipped_gaussian",
    loss="bce",
    learning_rate=3e-3,
)
# The winner of the first round, in which mixtures were tried.
BROAD = dataclasses.replace(
    START,
    name="tasks_broad",
    tasks=shares(*MOOD22, *OWN, "fpi", "pii", "nsa", "poisson_inter", "random_shape", "autoseg", "cutout"),
)

ROUNDS: tuple[tuple[Recipe, dict[str, dict[str, object]]], ...] = (
    (
        START,
        {
            "start": {},
            "tasks_many": {"tasks": shares(*MANY_TASKS)},
            "tasks_mood22": {"tasks": shares(*MOOD22)},
            "tasks_first": {"tasks": shares(*FIRST)},
            "tasks_broad": {"tasks": BROAD.tasks},
            "tasks_foreign": {"tasks": shares(*MOOD22, "nsa", "poisson_inter", "dag", "autoseg")},
        },
    ),
    (
        BROAD,
        {
            "normal_none": {"normal": 0.0},
            "normal_half": {"normal": 0.5},
            "anomalies_one": {"repeat": 0.0},
            "anomalies_many": {"repeat": 0.8},
            "sizes_small": {"sizes": (0.1, 0.35)},
            "sizes_large": {"sizes": (0.25, 0.9)},
            "rate_low": {"learning_rate": 1e-3},
            "rate_high": {"learning_rate": 1e-2},
            "label_binary": {"label": "binary"},
            "label_weight": {"label": "weight"},
            "loss_combo": {"loss": "combo"},
            "loss_dice_ce": {"loss": "dice_ce"},
            "augmentation_none": {"augmentation": "none"},
            "foreground_all": {"foreground_share": 1.0},
        },
    ),
    (
        dataclasses.replace(BROAD, loss="combo"),
        {
            "combo_fast": {"learning_rate": 1e-2},
            "combo_binary": {"label": "binary"},
            "combo_fast_binary": {"learning_rate": 1e-2, "label": "binary"},
        },
    ),
    (
        # How much is owed to the mixture, how much to the way of learning it.
        dataclasses.replace(BROAD, loss="combo", learning_rate=1e-2, label="binary"),
        {
            "learning_first": {"tasks": shares(*FIRST), "normal": 0.06},
            "learning_many": {"tasks": shares(*MANY_TASKS)},
            "learning_mood22": {"tasks": shares(*MOOD22)},
            "learning_start": {"tasks": START.tasks},
            "learning_faster": {"learning_rate": 3e-2},
            "learning_dice_ce": {"loss": "dice_ce"},
            "learning_many_anomalies": {"repeat": 0.8},
            "learning_half_normal": {"normal": 0.5},
        },
    ),
    (
        # As learning_first, but for the way of learning.
        dataclasses.replace(BROAD, tasks=shares(*FIRST), normal=0.06, loss="combo", learning_rate=1e-2, label="binary"),
        {
            "first_former": {"loss": "bce", "learning_rate": 3e-3, "label": "flipped_gaussian"},
            "first_combo_slow": {"learning_rate": 3e-3},
        },
    ),
    (
        dataclasses.replace(BROAD, tasks=shares(*THREE), normal=0.06, loss="combo", learning_rate=1e-2, label="binary"),
        {
            "three": {},
            "three_slow": {"learning_rate": 5e-3},
            "three_soft": {"label": "flipped_gaussian"},
            "three_sink": {"tasks": shares(*THREE, "sink")},
            "three_random": {"tasks": shares(*THREE, "random_shape")},
            "three_plain": {"augmentation": "none"},
            "three_donors": {"donors": SETS["ixi"].name},  # for the hippocampus, tissue of heads
        },
    ),
    (
        # Twice as long, in volumes: from nnood's first recipe.
        dataclasses.replace(START, tasks=shares(*FIRST), normal=0.06),
        {
            "long_plain": {"augmentation": "none"},
            "long_fast": {"learning_rate": 1e-2},
            "long_without_dag": {"tasks": shares(*THREE)},
            "long_poisson": {"tasks": shares(*FIRST, *POISSON)},
        },
    ),
    (
        dataclasses.replace(START, tasks=shares(*FIRST), normal=0.06, label="binary"),
        {
            "long_binary": {},
            "long_binary_faster": {"learning_rate": 5e-3},
            "long_combo": {"loss": "combo", "learning_rate": 5e-3},
            "long_many_combo": {"loss": "combo", "learning_rate": 5e-3, "tasks": shares(*MANY_TASKS)},
            "long_binary_six": {"tasks": shares(*THREE, *POISSON, "sink")},
            "long_binary_intra": {"tasks": shares(*FIRST, "poisson_intra")},
            "long_binary_inter": {"tasks": shares(*FIRST, "poisson_inter")},
            "long_double_dag": {"tasks": shares(*FIRST, "poisson_inter") | {"dag": 2.0}},
            "long_inter_plain": {"tasks": shares(*FIRST, "poisson_inter"), "augmentation": "none"},
        },
    ),
)
VARIANTS: dict[str, Recipe] = {
    name: dataclasses.replace(base, name=name, **change)  # type: ignore[arg-type]
    for base, changes in ROUNDS
    for name, change in changes.items()
}


def use_residual_encoder(out: Path, dataset: str, configuration: str) -> None:
    """Change a plan to nnU-Net's residual encoder of the same stages and widths, with its blocks per stage."""
    file = out / "preprocessed" / SETS[dataset].name / PLANS_FILE
    plans = read_json(file)
    network = plans["configurations"][configuration]["architecture"]
    if not network["network_class_name"].endswith("ResidualEncoderUNet"):
        network["network_class_name"] = f"{ResidualEncoderUNet.__module__}.{ResidualEncoderUNet.__name__}"
        kwargs = network["arch_kwargs"]
        kwargs["n_blocks_per_stage"] = list(BLOCKS[: len(kwargs.pop("n_conv_per_stage"))])
        kwargs["n_conv_per_stage_decoder"] = [1] * len(kwargs["n_conv_per_stage_decoder"])
        write_json(file, plans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["hippocampus", "ixi"], choices=list(SETS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--residual_encoder", action="store_true", help="needs a FOLDER of its own")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    out = arguments.out.resolve()
    for dataset in arguments.sets:
        prepare(
            arguments.data.resolve(), out, dataset, [arguments.configuration], arguments.features, arguments.batch_size
        )
        if arguments.residual_encoder:
            use_residual_encoder(out, dataset, arguments.configuration)
    jobs = [
        Job(out, dataset, arguments.configuration, VARIANTS[name], seed, arguments.epochs, arguments.iterations)
        for seed in arguments.seeds
        for name in arguments.variants
        for dataset in arguments.sets
    ]
    run_jobs(jobs, arguments.processes)
    print(format_figures(jobs))


if __name__ == "__main__":
    main()
