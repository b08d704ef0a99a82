"""Does cross-validation over folds and tasks help? Schemes, checkpoints and inference plans on planted test anomalies.

    python benchmarks/cross_validation.py --data DATA --out FOLDER

DATA holds `hippocampus/images` (Medical Segmentation Decathlon, task 4) and `lesion_masks` (shapes of real lesions).
200 cases are for training and 60 for testing: each of those once as it is and once with an anomaly of a kind that no
task makes. Every network has the same number of training steps. Goes on where it was stopped. With the defaults (2D
slices, six schemes, three seeds: 120 networks) it takes less than 90 minutes on two cores;
`--configuration 3d_fullres --batch_size 2 --schemes many_tasks_1of5 many_tasks_4of5 --seeds 0` is a run in 3D.
"""

import argparse
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_data import VOLUMES, split_images
from tqdm import tqdm

from dataset_conversion.folder import convert_folder
from nnood.case_files import list_cases
from nnood.evaluation.benchmark.sets import make_benchmark
from nnood.evaluation.metrics import Counts, average_precision, count_scores
from nnood.images import read_case, read_image
from nnood.inference.ensembling import Combiner
from nnood.inference.finishing import finish, foreground_of
from nnood.inference.inference_plan import PLAN_FILE, load_plan
from nnood.inference.members import members_in
from nnood.inference.predictor import MapPredictor
from nnood.inference.selection.figures import BINS, count
from nnood.inference.selection.find_best import find_best_configuration
from nnood.paths import Roots
from nnood.plan import PLANS_FILE, NnoodPlan
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.safety import read_json, write_json
from nnood.scores import sample_score
from nnood.training.checkpoints import BEST, FINAL
from nnood.training.recipes import RECIPES
from nnood.training.train import member_folder, train

KINDS = ("reflection", "slice_shuffle", "blur", "tumour", "noise", "lesions")
# A patch holds nearly a whole slice, so validation on whole cases would say the same for more time.
FIVE = dataclasses.replace(RECIPES["many_tasks_1of5"], validate_whole_every=0, learning_rate=3e-3, weight_decay=1e-5)
SCHEMES = {f"many_tasks_{trained}of5": f"paired({trained})" for trained in range(1, 5)}
SCHEMES |= {"leave_task_out": "leave_task_out", "per_task": "per_task"}
MEMBERS = {"many_tasks_1of5": 5, "many_tasks_2of5": 10, "many_tasks_3of5": 10, "many_tasks_4of5": 5}
SELECTION_CASES = 15
NAME = "Dataset104_Hippocampus"


@dataclasses.dataclass(frozen=True)
class Run:
    """All networks of a scheme with one seed.

    Attributes:
        out: Folder of the whole benchmark.
        configuration: To train.
        scheme: One of `SCHEMES`.
        seed: Of everything random in training.
        epochs: Of every network.
        iterations: Per epoch.
    """

    out: Path
    configuration: str
    scheme: str
    seed: int
    epochs: int
    iterations: int

    @property
    def roots(self) -> Roots:
        """Results of their own, so that runs do not meet."""
        results = self.out / "results" / f"{self.configuration}_{self.scheme}_{self.seed}"
        return Roots(self.out / "raw", self.out / "preprocessed", results)

    @property
    def figures(self) -> Path:
        """Where its figures are kept."""
        return self.out / "figures" / f"{self.configuration}_{self.scheme}_{self.seed}.json"

    @property
    def folds(self) -> range:
        """Numbers of the folds."""
        return range(MEMBERS.get(self.scheme, 5))


def train_fold(run: Run, fold: int) -> float:
    """Train one network; returns the seconds it took."""
    torch.set_num_threads(1)
    RECIPES[run.scheme] = dataclasses.replace(FIVE, name=run.scheme, scheme=SCHEMES[run.scheme])
    started = time.time()
    train(
        NAME,
        [str(fold)],
        run.roots,
        configuration=run.configuration,
        recipe=run.scheme,
        epochs=run.epochs,
        iterations=run.iterations,
        seeds=(run.seed,),
        go_on=True,
    )
    return time.time() - started


def select_and_test(run: Run) -> float:
    """Make the inference plan and evaluate on the test set; returns the seconds it took."""
    torch.set_num_threads(1)
    started = time.time()
    if not run.figures.exists():
        if not (run.roots.results / NAME / PLAN_FILE).exists():
            find_best_configuration(NAME, run.roots, max_cases=SELECTION_CASES)
        write_json(run.figures, _test(run))
    return time.time() - started


class Tally:
    """Voxel and sample scores of one way to predict."""

    def __init__(self) -> None:
        self.voxels = np.zeros((2, BINS))
        self.samples: list[tuple[float, bool]] = []

    def add(self, score_map: np.ndarray, sample: float, truth: np.ndarray) -> None:
        """Add a test case."""
        self.voxels += count(score_map, truth)
        self.samples.append((sample, bool(truth.any())))

    def figures(self) -> dict[str, float]:
        """Average precision of voxels, all cases pooled, and of samples."""
        scores, truth = zip(*self.samples, strict=True)
        return {
            "voxel_ap": float(average_precision(Counts(np.arange(BINS, dtype=float), *self.voxels))),
            "sample_ap": float(average_precision(count_scores(np.array(scores), np.array(truth)))),
        }


def _test(run: Run) -> dict[str, Any]:
    """Every network with its best and its last checkpoint, their plain means, and the planned ensemble."""
    test = run.out / "test"
    folder = member_folder(run.roots, NAME, RECIPES[run.scheme], run.configuration)
    plan = load_plan(run.roots.results / NAME / PLAN_FILE)
    predictors = {name: MapPredictor(members_in(folder, (), name), torch.device("cpu")) for name in (BEST, FINAL)}
    names = [member.fold for member in members_in(folder, (), BEST)]
    planned = [names.index(member.fold) for member in plan.members]
    method = NnoodPlan.from_dict(read_json(run.roots.preprocessed / NAME / PLANS_FILE)["nnood"]).foreground_method
    tallies: dict[str, Tally] = {}

    def add(name: str, score_map: np.ndarray, sample: float, truth: np.ndarray) -> None:
        tallies.setdefault(name, Tally()).add(score_map, sample, truth)

    for case, files in list_cases(test / "imagesTs", 1).items():
        image, geometry = read_case(files, 1)
        mask = test / "labelsTs" / f"{case}.nii.gz"
        truth = read_image(mask)[0][0] > 0 if mask.exists() else np.zeros(image.shape[1:], dtype=bool)
        for checkpoint, predictor in predictors.items():
            maps = dict(predictor.maps(image, geometry))
            for number, score_map in maps.items():
                add(f"{checkpoint} {number}", score_map, sample_score(score_map), truth)
            mean = _combined("mean", [(score_map, ()) for score_map in maps.values()])
            add(f"{checkpoint} mean", mean, sample_score(mean), truth)
            if checkpoint == BEST:
                chosen = [(maps[n], member.quantiles) for n, member in zip(planned, plan.members, strict=True)]
                score_map, foreground = _combined(plan.combination, chosen), foreground_of(image, plan, method)
                add("plan", *finish(score_map, plan, foreground=foreground, geometry=geometry), truth)
    figures = {name: tally.figures() for name, tally in tallies.items()}
    singles = {
        checkpoint: {
            key: float(np.mean([figures[f"{checkpoint} {number}"][key] for number in range(len(names))]))
            for key in ("voxel_ap", "sample_ap")
        }
        for checkpoint in (BEST, FINAL)
    }
    return {
        "single, last checkpoint": singles[FINAL],
        "single, best checkpoint": singles[BEST],
        "mean of all, last checkpoint": figures[f"{FINAL} mean"],
        "mean of all, best checkpoint": figures[f"{BEST} mean"],
        "inference plan": figures["plan"],
        "planned": plan.describe(),
    }


def _combined(kind: str, maps: Sequence[tuple[np.ndarray, Sequence[float]]]) -> np.ndarray:
    combiner = Combiner(kind, count=len(maps))
    for score_map, quantiles in maps:
        combiner.add(score_map, quantiles)
    return combiner.result()


def prepare(data: Path, out: Path, configuration: str, batch_size: int) -> None:
    """Convert, plan with a small network and batch, preprocess, and make the test set."""
    images, number_of_cases, number = VOLUMES["hippocampus"]
    roots = Roots(out / "raw", out / "preprocessed", out / "results")
    if not (roots.raw / NAME / "dataset.json").exists():
        normal, test = split_images(data / images, number_of_cases, out / "split")
        convert_folder(normal, roots.raw, number, "Hippocampus", test=test)
    if not (roots.preprocessed / NAME / PLANS_FILE).exists():
        plan_and_preprocess(
            NAME, roots, configurations=[configuration], processes=2, gpu_memory_target=0.15, base_features=8
        )
        # nnU-Net's planner would fill the memory; a small batch makes many small steps in the same time.
        plans = read_json(roots.preprocessed / NAME / PLANS_FILE)
        plans["configurations"][configuration]["batch_size"] = batch_size
        write_json(roots.preprocessed / NAME / PLANS_FILE, plans)
    make_benchmark(NAME, roots, out / "test", kinds=KINDS, per_kind=10, masks=data / "lesion_masks", processes=2)


def format_figures(runs: Sequence[Run]) -> str:
    """Mean and standard deviation over seeds, as tables in Markdown."""
    found = {run: read_json(run.figures) for run in runs}
    ways = [way for way in next(iter(found.values())) if way != "planned"]
    lines = []
    for key, title in (("voxel_ap", "voxel AP"), ("sample_ap", "sample AP")):
        lines += [f"| {title} | networks | {' | '.join(ways)} |", "|---" * (len(ways) + 2) + "|"]
        for scheme in dict.fromkeys(run.scheme for run in runs):
            group = [run for run in runs if run.scheme == scheme]
            cells = [_spread([found[run][way][key] for run in group]) for way in ways]
            lines.append(f"| {SCHEMES[scheme]} | {len(group[0].folds)} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES), choices=list(SCHEMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    started = time.time()
    out = arguments.out.resolve()
    prepare(arguments.data.resolve(), out, arguments.configuration, arguments.batch_size)
    runs = [
        Run(out, arguments.configuration, scheme, seed, arguments.epochs, arguments.iterations)
        for seed in arguments.seeds
        for scheme in arguments.schemes
    ]
    stages: dict[str, list[tuple[Callable[..., float], tuple[Any, ...]]]] = {
        "training": [(train_fold, (run, fold)) for run in runs for fold in run.folds],
        "selecting and testing": [(select_and_test, (run,)) for run in runs],
    }
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        for title, parts in stages.items():
            seconds = list(tqdm(pool.map(_call, parts), total=len(parts), desc=title.capitalize(), disable=None))
            print(f"{title}: {len(seconds)} jobs, {np.mean(seconds):.0f} s each", flush=True)
    print(format_figures(runs))
    print(f"All of it took {(time.time() - started) / 60:.0f} minutes.")


def _call(job: tuple[Callable[..., float], tuple[Any, ...]]) -> float:
    function, parameters = job
    return function(*parameters)


if __name__ == "__main__":
    main()
