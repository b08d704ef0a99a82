"""How the default recipe was found: variants of a start, one thing at a time, on equal terms.

    python benchmarks/default_recipe.py --data DATA --out FOLDER
    python benchmarks/default_recipe.py --data DATA --out FOLDER --variants start loss_combo --seeds 1 2

See `benchmarks/recipes.py`, whose data, test sets and figures these are. FOLDER may be the same.
"""

import argparse
import dataclasses
import logging
from pathlib import Path

from recipes import SETS, Job, format_figures, prepare, run_jobs

from nnood.training.recipes import NNOOD, Recipe

MANY_TASKS = ("poisson_inter", "poisson_intra", "sink", "source", "smooth_intensity")
MOOD22 = ("mood22_hard", "mood22_smooth")
OWN = ("sink", "source", "smooth_intensity")


def shares(*tasks: str) -> dict[str, float]:
    """Equal shares."""
    return dict.fromkeys(tasks, 1.0)


# Many-tasks' deformations and intensities; its foreign patches in MOOD22's shapes, with hard and smooth edges.
START = dataclasses.replace(NNOOD, name="start", tasks=shares(*MOOD22, *OWN), normal=0.2, repeat=0.5)

CHANGES: dict[str, dict[str, object]] = {
    "start": {},
    "tasks_many": {"tasks": shares(*MANY_TASKS)},
    "tasks_mood22": {"tasks": shares(*MOOD22)},
    "tasks_first": {"tasks": shares("smooth_intensity", "mood22_smooth", "dag", "source")},
    "tasks_broad": {
        "tasks": shares(*MOOD22, *OWN, "fpi", "pii", "nsa", "poisson_inter", "random_shape", "dag", "cutout")
    },
    "tasks_foreign": {"tasks": shares(*MOOD22, "nsa", "poisson_inter", "dag", "autoseg")},
    "tasks_noisy": {"tasks": shares(*MOOD22, *OWN, "random_shape", "random_shape")},
    "tasks_poisson": {"tasks": shares(*MOOD22, *OWN, "poisson_inter", "nsa")},
    "normal_none": {"normal": 0.0},
    "normal_half": {"normal": 0.5},
    "anomalies_one": {"repeat": 0.0},
    "anomalies_many": {"repeat": 0.8},
    "rate_low": {"learning_rate": 1e-3},
    "rate_high": {"learning_rate": 1e-2},
    "label_binary": {"label": "binary"},
}
VARIANTS: dict[str, Recipe] = {
    name: dataclasses.replace(START, name=name, **change)  # type: ignore[arg-type]
    for name, change in CHANGES.items()
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["hippocampus", "ixi"], choices=list(SETS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    out = arguments.out.resolve()
    for dataset in arguments.sets:
        prepare(
            arguments.data.resolve(), out, dataset, arguments.configuration, arguments.features, arguments.batch_size
        )
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
