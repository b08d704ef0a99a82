r"""Every recipe on equal terms: the same network plan, number of training steps and training cases for each.

    python benchmarks/recipes.py --data DATA --out FOLDER
    python benchmarks/recipes.py --data DATA --out FOLDER --configuration 3d_fullres --sets hippocampus ixi \
        --recipes nnood many_tasks_1of5 mood22 --iterations 900

DATA holds `hippocampus/images` (Medical Segmentation Decathlon, task 4), `ixi_2mm/t1` (IXI),
`pneumoniamnist/pneumoniamnist.npz` (MedMNIST), `mednist/CLASS` (MedNIST) and `lesion_masks` (shapes of real lesions).
Each recipe trains one network per seed on all training cases with all of its tasks (fold `all`), so the schemes of
cross-validation, which `benchmarks/cross_validation.py` compares, play no part, and many_tasks_1of5 stands for all four
of that name. Recipes that ask for a configuration of their own get it where the images have one. Volumes are tested on
held-out cases, each as it is and with planted anomalies of the kinds below; X-rays on real anomalies and on images of
something else. Goes on where it was stopped.
"""

import argparse
import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from real_data import VOLUMES, split_images
from tqdm import tqdm

from dataset_conversion.folder import convert_folder
from dataset_conversion.medmnist import convert_medmnist
from nnood.evaluation.benchmark.kinds import KINDS
from nnood.evaluation.benchmark.sets import make_benchmark
from nnood.evaluation.evaluate import evaluate
from nnood.evaluation.results import Figure
from nnood.inference.predict import Planned, find_model, predict
from nnood.paths import Roots
from nnood.plan import PLANS_FILE
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.reconstruction.recipes import RECONSTRUCTING
from nnood.safety import read_json, write_json
from nnood.training.checkpoints import FINAL
from nnood.training.recipes import RECIPES, Recipe
from nnood.training.train import train

# No recipe trains on these, in whatever form.
HEADLINE = ("reflection", "slice_shuffle", "blur", "shift", "tumour", "lesions")
# Close to some recipes' own tasks: shown, and marked.
NEAR = ("noise", "addition", "source", "random_shapes")
# Trained on all cases and tasks, the first three are the same as many_tasks_1of5; benchmarks/reconstruction.py compares
# the others, at equal time.
LEFT_OUT = ("many_tasks_2of5", "many_tasks_3of5", "many_tasks_4of5", *(recipe.name for recipe in RECONSTRUCTING))
NORMAL_CLASS = "CXR"
MEDNIST_TEST = 100


@dataclasses.dataclass(frozen=True)
class Set:
    """A data set of the comparison.

    Attributes:
        name: Of the raw data set.
        batch_size: In 2D: a small batch makes many small steps in the same time.
        per_kind: Planted anomalies of each kind; 0 where the test images are anomalous themselves.
        patch_size: In 3D: many small patches hold more anomalies than a few large ones of the same cost.
        batch_size_3d: In 3D.
        shrink: So many voxels along each axis become one, their mean: patches of a small network see enough of a head.
    """

    name: str
    batch_size: int
    per_kind: int = 0
    patch_size: tuple[int, ...] = ()
    batch_size_3d: int = 0
    shrink: int = 1


SETS = {
    "hippocampus": Set("Dataset104_Hippocampus", 8, 10, (24, 32, 24), 8),
    "ixi": Set("Dataset105_Ixi", 4, 8, (32, 40, 32), 4, shrink=2),
    "pneumonia": Set("Dataset106_Pneumonia", 16),
    "mednist": Set("Dataset107_Mednist", 16),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One network to train and test.

    Attributes:
        out: Folder of the whole benchmark.
        dataset: A key of `SETS`.
        configuration: Of the network.
        recipe: What to train.
        seed: Of everything random in training.
        epochs: Number of them.
        iterations: Steps per epoch.
    """

    out: Path
    dataset: str
    configuration: str
    recipe: Recipe
    seed: int
    epochs: int
    iterations: int

    @property
    def name(self) -> str:
        """Unique."""
        return f"{self.dataset}_{self.configuration}_{self.recipe.name}_{self.seed}"

    @property
    def roots(self) -> Roots:
        """Results of their own, so that jobs do not meet."""
        return Roots(self.out / "raw", self.out / "preprocessed", self.out / "results" / self.name)

    @property
    def figures(self) -> Path:
        """Where its figures are kept."""
        return self.out / "figures" / f"{self.name}.json"


def train_job(job: Job) -> Planned:
    """Train one network on all cases, unless that is done; returns what to predict with."""
    torch.set_num_threads(1)
    RECIPES[job.recipe.name] = job.recipe
    name = SETS[job.dataset].name
    train(
        name,
        ["all"],
        job.roots,
        configuration=job.configuration,
        recipe=job.recipe.name,
        epochs=job.epochs,
        iterations=job.iterations,
        whole_every=0,
        seeds=(job.seed,),
        go_on=True,
    )
    return find_model(
        job.roots, dataset=name, recipe=job.recipe.name, configuration=job.configuration, checkpoint=FINAL
    )


def run_job(job: Job) -> float:
    """Train and test one network; returns the seconds it took."""
    started = time.time()
    if job.figures.exists():
        return 0.0
    planned = train_job(job)
    trained = time.time()
    test = test_folder(job.out, job.dataset)
    output = job.out / "predictions" / job.name
    predict(test / "imagesTs", output, planned, device=torch.device("cpu"))
    labels = test / "labelsTs"
    evaluation = evaluate(output, labels if labels.is_dir() else labels.with_suffix(".csv"), rounds=10, progress=False)
    kinds = {group.name: _values(group.figures) for group in evaluation.groups if group.by == "kind"}
    minutes = {"training": (trained - started) / 60, "testing": (time.time() - trained) / 60}
    write_json(job.figures, {"all": _values(evaluation.figures), "kinds": kinds, "minutes": minutes})
    return time.time() - started


def _values(figures: dict[str, Figure]) -> dict[str, float | None]:
    return {key: figure.value for key, figure in figures.items()}


def test_folder(out: Path, dataset: str) -> Path:
    """Where the test images of a data set lie."""
    return out / "test" / dataset if SETS[dataset].per_kind else out / "raw" / SETS[dataset].name


def prepare(
    data: Path, out: Path, dataset: str, configurations: Sequence[str], features: int, batch_size: int | None
) -> None:
    """Convert, plan with a small network and batch, preprocess, and make the test set."""
    chosen, roots = SETS[dataset], Roots(out / "raw", out / "preprocessed", out / "results")
    if not (roots.raw / chosen.name / "dataset.json").exists():
        _convert(dataset, data, out, roots)
    planned = roots.preprocessed / chosen.name / PLANS_FILE
    if not planned.exists() or set(configurations) - set(read_json(planned)["nnood"]["configurations"]):
        plan_and_preprocess(
            chosen.name,
            roots,
            configurations=configurations,
            processes=2,
            gpu_memory_target=0.08,
            base_features=features,
        )
    # nnU-Net's planner would fill the memory; a small batch makes many small steps in the same time.
    plans = read_json(planned)
    for configuration in configurations:
        values = plans["configurations"][configuration]
        is_3d = configuration.startswith("3d")
        values["batch_size"] = batch_size or (chosen.batch_size_3d if is_3d else chosen.batch_size)
        if is_3d:
            values["patch_size"] = list(chosen.patch_size)
    write_json(planned, plans)
    if chosen.per_kind:
        make_benchmark(
            chosen.name,
            roots,
            out / "test" / dataset,
            kinds=(*HEADLINE, *NEAR),
            per_kind=chosen.per_kind,
            masks=data / "lesion_masks",
            processes=2,
        )


def _convert(dataset: str, data: Path, out: Path, roots: Roots) -> None:
    number, name = SETS[dataset].name.removeprefix("Dataset").split("_")
    if dataset == "pneumonia":
        convert_medmnist(data / "pneumoniamnist" / "pneumoniamnist.npz", roots.raw, int(number), name)
    elif dataset == "mednist":
        normal, test, labels = split_classes(data / "mednist", out / "split_mednist")
        convert_folder(normal, roots.raw, int(number), name, test=test, labels=labels, processes=2)
    else:
        images, count, _ = VOLUMES[dataset]
        folder = shrink(data / images, SETS[dataset].shrink, out / f"shrunk_{dataset}")
        normal, test = split_images(folder, count, out / f"split_{dataset}")
        convert_folder(normal, roots.raw, int(number), name, test=test, processes=2)


def shrink(images: Path, factor: int, folder: Path) -> Path:
    """Copies in which so many voxels along each axis are one, their mean; returns their folder."""
    if factor == 1:
        return images
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(images.glob("*.nii.gz")):
        if not (folder / file.name).exists():
            image = SimpleITK.ReadImage(str(file), SimpleITK.sitkFloat32)
            SimpleITK.WriteImage(SimpleITK.BinShrink(image, [factor] * image.GetDimension()), str(folder / file.name))
    return folder


def split_classes(classes: Path, folder: Path) -> tuple[Path, Path, Path]:
    """One class is normal: its last images, and as many of the other classes in turn, are for testing.

    Returns:
        Folders of links to the training and the test images, and a file of the test images' labels.
    """
    normal, test, labels = folder / "normal", folder / "test", folder / "labels.csv"
    for part in (normal, test):
        part.mkdir(parents=True, exist_ok=True)
    own = sorted((classes / NORMAL_CLASS).glob("*.jp*g"))
    others = [sorted(path.glob("*.jp*g")) for path in sorted(classes.iterdir()) if path.name != NORMAL_CLASS]
    foreign = [file for row in zip(*others, strict=False) for file in row][:MEDNIST_TEST]
    lines = ["case,label"]
    for part, label, files in ((normal, 0, own[:-MEDNIST_TEST]), (test, 0, own[-MEDNIST_TEST:]), (test, 1, foreign)):
        for file in files:
            case = f"{file.parent.name}{file.stem}"
            if not (part / f"{case}{file.suffix}").exists():
                (part / f"{case}{file.suffix}").symlink_to(file.resolve())
            if part == test:
                lines.append(f"{case},{label}")
    labels.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return normal, test, labels


def headline(figures: dict[str, Any], key: str) -> float:
    """Mean of a figure over the kinds that no recipe trains on."""
    return float(np.mean([figures["kinds"][kind][key] for kind in HEADLINE]))


def format_figures(jobs: Sequence[Job]) -> str:
    """Mean and standard deviation over seeds, as tables in Markdown."""
    found = {job.name: read_json(job.figures) for job in jobs}
    lines = []
    for dataset in dict.fromkeys(job.dataset for job in jobs):
        own = [job for job in jobs if job.dataset == dataset]
        groups = [[job for job in own if job.recipe.name == name] for name in dict.fromkeys(j.recipe.name for j in own)]
        lines += ["", f"{dataset}, {own[0].epochs * own[0].iterations} steps", ""]
        lines += _planted(groups, found) if SETS[dataset].per_kind else _real(groups, found)
    return "\n".join(lines)


def _planted(groups: Sequence[Sequence[Job]], found: dict[str, Any]) -> list[str]:
    keys = ("voxel_ap", "sample_ap", "object_recall")
    kinds = (*HEADLINE, *NEAR)
    lines = [
        "| recipe | seeds | voxel AP | sample AP | objects found at 1 false positive per case | minutes |",
        "|---" * 6 + "|",
    ]
    for group in groups:
        cells = [_spread([headline(found[job.name], key) for job in group]) for key in keys]
        cells.append(_spread([found[job.name]["minutes"]["training"] for job in group], digits=1))
        lines.append(f"| `{group[0].recipe.name}` | {len(group)} | {' | '.join(cells)} |")
    lines += ["", f"| voxel AP | {' | '.join(f'`{kind}`' for kind in kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for group in groups:
        cells = [
            _spread([found[job.name]["kinds"][kind]["voxel_ap"] for job in group])
            + (" *" if set(KINDS[kind].close_to) & set(group[0].recipe.tasks) else "")
            for kind in kinds
        ]
        lines.append(f"| `{group[0].recipe.name}` | {' | '.join(cells)} |")
    return lines


def _real(groups: Sequence[Sequence[Job]], found: dict[str, Any]) -> list[str]:
    lines = ["| recipe | seeds | sample AP | sample AUROC | minutes |", "|---" * 5 + "|"]
    for group in groups:
        cells = [_spread([found[job.name]["all"][key] for job in group]) for key in ("sample_ap", "sample_auroc")]
        cells.append(_spread([found[job.name]["minutes"]["training"] for job in group], digits=1))
        lines.append(f"| `{group[0].recipe.name}` | {len(group)} | {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float], digits: int = 3) -> str:
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def choose_configuration(recipe: Recipe, dataset: str, configuration: str) -> str:
    """The recipe's own, on volumes; the one that was asked for otherwise."""
    return (SETS[dataset].per_kind and recipe.configuration) or configuration


def run_jobs(jobs: Sequence[Job], processes: int) -> None:
    """Train and test networks side by side, one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for _ in tqdm(pool.map(run_job, jobs), total=len(jobs), desc="Training and testing", disable=None):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--recipes", nargs="+", default=[name for name in RECIPES if name not in LEFT_OUT])
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    started, out = time.time(), arguments.out.resolve()
    recipes = [RECIPES[name] for name in arguments.recipes]
    for dataset in arguments.sets:
        wanted = dict.fromkeys(choose_configuration(recipe, dataset, arguments.configuration) for recipe in recipes)
        prepare(arguments.data.resolve(), out, dataset, list(wanted), arguments.features, arguments.batch_size)
    jobs = [
        Job(
            out,
            dataset,
            choose_configuration(recipe, dataset, arguments.configuration),
            recipe,
            seed,
            arguments.epochs,
            arguments.iterations,
        )
        for seed in arguments.seeds
        for dataset in arguments.sets
        for recipe in recipes
    ]
    run_jobs(jobs, arguments.processes)
    print(format_figures(jobs))
    print(f"All of it took {(time.time() - started) / 60:.0f} minutes.")


if __name__ == "__main__":
    main()
