r"""The reconstruction family: claims of the published study, and autoencoders beside nnood's tasks.

    python benchmarks/reconstruction.py toys --data DATA --out FOLDER
    python benchmarks/reconstruction.py classes --data DATA --out FOLDER
    python benchmarks/reconstruction.py fashion --data DATA --out FOLDER
    python benchmarks/reconstruction.py families --data DATA --out FOLDER

DATA is that of benchmarks/recipes.py; for `fashion`, it holds `fashion_mnist` with the four files. All networks are
small ones for slices, trained on all training cases.

toys: balls of constant intensity (4 radii by 5 intensities), random shapes and tumour-like anomalies in held-out
volumes; a VAE with noise around the head and one without, and the VAE whose activation map is the score. Voxel average
precision per intensity of each voxel score, and sample AUROC per intensity of the reconstruction error and of each
outlier detector on latent codes.
classes, fashion: each class of MedNIST or Fashion-MNIST as normal against each other: sample average precision.
families: nnood and autoencoders, trained for the same time, and the mean of the ranks of one of each. First the CPU
time of some steps of each recipe is measured, which gives the number of steps.

Goes on where it was stopped.
"""

import argparse
import dataclasses
import logging
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from recipes import SETS, Job, Set, headline, prepare, run_job, test_folder, train_job
from tqdm import tqdm

from dataset_conversion.fashion_mnist import convert_fashion_mnist
from dataset_conversion.mednist import convert_mednist
from nnood.case_files import list_cases
from nnood.evaluation.benchmark.sets import make_benchmark
from nnood.evaluation.benchmark.table import TABLE, read_benchmark
from nnood.evaluation.evaluate import evaluate
from nnood.evaluation.histogram import ScoreHistogram, count_bins
from nnood.evaluation.metrics import auroc, average_precision, count_scores
from nnood.evaluation.results import NORMAL
from nnood.images import read_case, read_image
from nnood.inference.ensembling import Combiner, reference_quantiles
from nnood.inference.export import write_prediction
from nnood.inference.members import Member
from nnood.inference.predictor import MapPredictor
from nnood.paths import Roots
from nnood.plan import PLANS_FILE
from nnood.planning.foreground import COMPUTED_METHODS, foreground_mask
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.reconstruction.network import PatchValues
from nnood.reconstruction.patch_scores import PATCH_COMBINATIONS, PATCH_SCORES, PatchScorer
from nnood.reconstruction.recipes import RECONSTRUCTING
from nnood.safety import read_json, write_json
from nnood.scores import sample_score
from nnood.training import resumable, trainer
from nnood.training.checkpoints import load_checkpoint
from nnood.training.recipes import RECIPES, Recipe

CPU = torch.device("cpu")
TOYS = ("spheres", "random_shapes", "tumour")
TOYS_PER_KIND = {"hippocampus": 40, "ixi": 20}
CLASSES = {
    "mednist": ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT"),
    "fashion_mnist": tuple(f"class{number}" for number in range(10)),
}
FIRST_ID = {"mednist": 110, "fashion_mnist": 120}
MOST_FASHION = 200  # test images of each class
CLASS_STEPS, TOY_STEPS = 600, 1000
TOY_SCORES = ("absolute", "activation", "elbo_gradient", "kl_gradient_x_residual")
RATE = 1e-3  # ten times the recipes', because training is short
FAMILY_STEPS = {"hippocampus": 2400, "ixi": 2400, "pneumonia": 800}  # of nnood; others as long as these take
TIMED_STEPS = 40
QUANTILE_CASES = 10
AUTOENCODERS = {recipe.name: dataclasses.replace(recipe, learning_rate=RATE) for recipe in RECONSTRUCTING}


def with_background(recipe: Recipe, background: str) -> Recipe:
    """The recipe with another background, under a name that says so."""
    if recipe.reconstruction is None or recipe.reconstruction.background == background:
        return recipe
    settings = dataclasses.replace(recipe.reconstruction, background=background)
    return dataclasses.replace(recipe, name=f"{recipe.name}_{background}", reconstruction=settings)


def sample_scores(member: Member, values: dict[str, PatchValues]) -> dict[str, dict[str, float]]:
    """By kind and combination, the sample score of each case by its patches.

    Args:
        member: Whose patches they are.
        values: By case.
    """
    scorer = PatchScorer(load_checkpoint(member.file, CPU)["patches"])
    together = PatchValues(*(torch.cat(part) for part in zip(*values.values(), strict=True)))
    ends = np.cumsum([len(one.error) for one in values.values()])[:-1]
    found = {}
    for kind in PATCH_SCORES:
        cases = dict(zip(values, np.split(scorer(kind, together), ends), strict=True))
        for name, combine in PATCH_COMBINATIONS.items():
            found[f"{kind} {name}"] = {case: combine(scores) for case, scores in cases.items()}
    return found


def test_toys(job: Job) -> float:
    """Train a network and test it on toys; returns the seconds it took."""
    started, figures = time.time(), job.out / "figures" / f"toys_{job.name}.json"
    if figures.exists():
        return 0.0
    member = train_job(job).members[0]
    trained, test = time.time(), job.out / "toys" / job.dataset
    table = read_benchmark(test / TABLE)
    predictor = MapPredictor([dataclasses.replace(member, voxel_score=score) for score in TOY_SCORES], CPU)
    histograms: dict[tuple[str, str], ScoreHistogram] = {}
    values: dict[str, PatchValues] = {}
    grouped: dict[str, list[str]] = {}
    for case, files in list_cases(test / "imagesTs", 1).items():
        image, geometry = read_case(files, 1)
        row, mask = table[case], test / "labelsTs" / f"{case}.nii.gz"
        truth = read_image(mask)[0].reshape(image.shape[1:]) > 0 if mask.exists() else np.zeros(image.shape[1:], bool)
        groups = [row.kind]
        if row.kind == "spheres":
            groups += [f"intensity {row.strength:.2f}"]
        for number, score_map in predictor.maps(image, geometry):
            counted = count_bins(score_map, truth)
            for group in groups:
                histograms.setdefault((TOY_SCORES[number], group), ScoreHistogram()).add(counted)
        ((_, values[case]),) = predictor.patch_values(image, geometry, [0])
        for group in groups:
            grouped.setdefault(group, []).append(case)
    samples = {
        name: {group: [scores[case] for case in cases] for group, cases in grouped.items()}
        for name, scores in sample_scores(member, values).items()
    }
    write_json(
        figures,
        {
            "voxels": {name: _voxel_aps(histograms, name) for name in TOY_SCORES},
            "samples": {name: _aurocs(groups) for name, groups in samples.items()},
            "minutes": {"training": (trained - started) / 60, "testing": (time.time() - trained) / 60},
        },
    )
    return time.time() - started


def _voxel_aps(histograms: dict[tuple[str, str], ScoreHistogram], name: str) -> dict[str, float]:
    """Voxel average precision per group, its cases pooled with the normal ones."""
    found = {}
    for (score, group), histogram in histograms.items():
        if score == name and group != NORMAL:
            pooled = ScoreHistogram()
            pooled.merge(histogram)
            pooled.merge(histograms[score, NORMAL])
            found[group] = float(average_precision(pooled.counts()))
    return found


def _aurocs(groups: dict[str, list[float]]) -> dict[str, float]:
    """Sample AUROC per group against the normal cases."""
    return {group: _against(auroc, values, groups[NORMAL]) for group, values in groups.items() if group != NORMAL}


def _against(figure: Any, anomalous: Sequence[float], normal: Sequence[float]) -> float:
    truth = np.repeat([True, False], [len(anomalous), len(normal)])
    return float(figure(count_scores(np.array([*anomalous, *normal]), truth)))


def toys(data: Path, out: Path, seeds: Sequence[int], processes: int) -> None:
    """Train and test all networks of this part, and print its tables."""
    vae, constrained = AUTOENCODERS["vae"], AUTOENCODERS["constrained_vae"]
    recipes = {"ixi": (vae, with_background(vae, "keep"), constrained), "hippocampus": (vae, constrained)}
    for dataset in recipes:
        prepare(data, out, dataset, ["2d"], 8, None)
        make_benchmark(
            SETS[dataset].name,
            Roots(out / "raw", out / "preprocessed", out / "results"),
            out / "toys" / dataset,
            kinds=TOYS,
            per_kind=TOYS_PER_KIND[dataset],
            processes=2,
        )
    jobs = [
        Job(out, dataset, "2d", recipe, seed, 1, TOY_STEPS)
        for seed in seeds
        for dataset, chosen in recipes.items()
        for recipe in chosen
    ]
    run(test_toys, jobs, processes)
    print(format_toys(jobs))


def format_toys(jobs: Sequence[Job]) -> str:
    """Mean and standard deviation over seeds, as tables in Markdown."""
    lines = []
    for dataset in dict.fromkeys(job.dataset for job in jobs):
        for recipe in dict.fromkeys(job.recipe.name for job in jobs if job.dataset == dataset):
            own = [job for job in jobs if (job.dataset, job.recipe.name) == (dataset, recipe)]
            files = [job.out / "figures" / f"toys_{job.name}.json" for job in own]
            found = [read_json(file) for file in files if file.exists()]
            if not found:
                continue
            lines += ["", f"{dataset}, `{recipe}`, {len(found)} seeds", ""]
            lines += _table("voxel AP", [one["voxels"] for one in found])
            best = sorted(found[0]["samples"], key=lambda name: -np.mean(_of(found, name)))
            lines += ["", *_table("sample AUROC", [{name: one["samples"][name] for name in best} for one in found])]
    return "\n".join(lines)


def _of(found: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [np.mean(list(one["samples"][name].values())) for one in found]


def _table(title: str, found: Sequence[dict[str, dict[str, float]]]) -> list[str]:
    groups = list(found[0][next(iter(found[0]))])
    intensities = [group for group in groups if group.startswith("intensity")]
    header = [title, *groups, "spread over intensities"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name in found[0]:
        cells = [spread([one[name][group] for one in found]) for group in groups]
        cells.append(spread([float(np.std([one[name][group] for group in intensities])) for one in found]))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and, of several, standard deviation."""
    told = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{told}"


@dataclasses.dataclass(frozen=True)
class ClassJob:
    """One class as normal.

    Attributes:
        job: The network.
        source: A key of `CLASSES`.
        normal: Name of the class.
    """

    job: Job
    source: str
    normal: str

    @property
    def figures(self) -> Path:
        """Where its figures are kept."""
        return self.job.out / "figures" / f"class_{self.job.name}.json"


def test_class(one: ClassJob) -> float:
    """Train a network on one class, and tell it from each other; returns the seconds it took."""
    started = time.time()
    if one.figures.exists():
        return 0.0
    SETS[one.job.dataset] = class_set(one.source, one.normal)
    member = train_job(one.job).members[0]
    predictor = MapPredictor([member], CPU)
    values: dict[str, PatchValues] = {}
    groups: dict[str, list[str]] = {}
    for case, files in list_cases(one.job.roots.raw / SETS[one.job.dataset].name / "imagesTs", 1).items():
        image, geometry = read_case(files, 1)
        group = next(name for name in CLASSES[one.source] if case.startswith(name))
        groups.setdefault(group, []).append(case)
        ((_, values[case]),) = predictor.patch_values(image, geometry, [0])
    figures = {}
    for name, scores in sample_scores(member, values).items():
        if name.endswith("mean"):  # there is one patch
            found = {group: [scores[case] for case in cases] for group, cases in groups.items()}
            normal = found.pop(one.normal)
            figures[name.removesuffix(" mean")] = {
                other: _against(average_precision, anomalous, normal) for other, anomalous in found.items()
            }
    write_json(one.figures, figures)
    return time.time() - started


def class_set(source: str, normal: str) -> Set:
    """The data set whose normal class this is."""
    return Set(f"Dataset{FIRST_ID[source] + CLASSES[source].index(normal)}_{normal}", 16)


def classes(data: Path, out: Path, seeds: Sequence[int], processes: int, *, source: str = "mednist") -> None:
    """Train and test all networks of this part, and print its tables."""
    roots, jobs = Roots(out / "raw", out / "preprocessed", out / "results"), []
    for normal in CLASSES[source]:
        chosen = SETS[f"class{normal}"] = class_set(source, normal)
        if not (roots.preprocessed / chosen.name / PLANS_FILE).exists():
            _convert_class(data, out, roots, source, normal)
            plan_and_preprocess(chosen.name, roots, processes=2, gpu_memory_target=0.08, base_features=8)
        plans = read_json(roots.preprocessed / chosen.name / PLANS_FILE)
        plans["configurations"]["2d"]["batch_size"] = chosen.batch_size
        write_json(roots.preprocessed / chosen.name / PLANS_FILE, plans)
        for seed in seeds:
            job = Job(out, f"class{normal}", "2d", AUTOENCODERS["vae"], seed, 1, CLASS_STEPS)
            jobs.append(ClassJob(job, source, normal))
    run(test_class, jobs, processes)
    print(format_classes(jobs))


def _convert_class(data: Path, out: Path, roots: Roots, source: str, normal: str) -> None:
    number, name = class_set(source, normal).name.removeprefix("Dataset").split("_")
    target = roots.raw, int(number), name
    if source == "mednist":
        convert_mednist(not_constant(data / source, out / "classes"), *target, normal=(normal,))
    else:
        chosen = (CLASSES[source].index(normal),)
        convert_fashion_mnist(data / source, *target, normal=chosen, most=MOST_FASHION)


def not_constant(source: Path, folder: Path) -> Path:
    """Links to the images in which there is something to see; a few of the heads are black."""
    for file in sorted(source.glob("*/*.jp*g")):
        link = folder / file.parent.name / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists() and np.ptp(np.asarray(Image.open(file))) > 0:
            link.symlink_to(file.resolve())
    return folder


def format_classes(jobs: Sequence[ClassJob]) -> str:
    """Per score and normal class, the mean over the other classes; mean and standard deviation over seeds."""
    found = [(one, read_json(one.figures)) for one in jobs if one.figures.exists()]
    normals = list(dict.fromkeys(one.normal for one, _ in found))
    lines = [f"| sample AP | {' | '.join(normals)} | mean |", "|---" * (len(normals) + 2) + "|"]
    rows = {}
    for name in found[0][1]:
        cells = [spread([_mean(table[name]) for one, table in found if one.normal == key]) for key in normals]
        by_seed = [
            float(np.mean([_mean(table[name]) for one, table in found if one.job.seed == seed]))
            for seed in sorted({one.job.seed for one, _ in found})
        ]
        rows[name] = (np.mean(by_seed), f"| {name} | {' | '.join(cells)} | {spread(by_seed)} |")
    return "\n".join([*lines, *(line for _, line in sorted(rows.values(), reverse=True))])


def _mean(groups: dict[str, float]) -> float:
    return float(np.mean(list(groups.values())))


def families(data: Path, out: Path, seeds: Sequence[int], processes: int) -> None:
    """Train and test all networks of this part, and print its table."""
    jobs = []
    for dataset, steps in FAMILY_STEPS.items():
        prepare(data, out, dataset, ["2d"], 8, None)
        for name, count in equal_steps(out, dataset, steps).items():
            # Networks of the same names are trained for other lengths in the first part.
            where = out if name == "nnood" else _linked(out, "families")
            jobs += [Job(where, dataset, "2d", family_recipe(name), seed, 1, count) for seed in seeds]
    run(run_job, jobs, processes)
    pairs = [
        (one, other)
        for one in jobs
        for other in jobs
        if one.recipe.name == "nnood"
        and other.recipe.reconstruction is not None
        and (one.dataset, one.seed) == (other.dataset, other.seed)
    ]
    run(test_pair, pairs, processes)
    print(format_families(jobs, pairs))


def family_recipe(name: str) -> Recipe:
    """Nnood's as it is, autoencoders with the higher rate."""
    return AUTOENCODERS.get(name) or RECIPES[name]


def equal_steps(out: Path, dataset: str, steps: int) -> dict[str, int]:
    """How many steps of each recipe take as long as so many of nnood's, in CPU time."""
    file = out / "figures" / f"steps_{dataset}.json"
    # The trainer's own clock, which the log's seconds per step come from: other work beside must not count.
    resumable.time = trainer.time = time.process_time
    if not file.exists():
        names, seconds = ["nnood", *AUTOENCODERS], {}
        for name in names:
            job = Job(_linked(out, "timed"), dataset, "2d", family_recipe(name), 0, 1, TIMED_STEPS)
            member = train_job(job).members[0]
            seconds[name] = load_checkpoint(member.file, CPU)["logging"]["seconds_per_step"][-1]
        write_json(file, {name: round(steps * seconds["nnood"] / seconds[name]) for name in names})
    resumable.time = trainer.time = time.time
    return read_json(file)


def _linked(out: Path, name: str) -> Path:
    """A folder with the same data and results of its own."""
    folder = out / name
    folder.mkdir(exist_ok=True)
    for shared in ("raw", "preprocessed", "test"):
        if not (folder / shared).exists():
            (folder / shared).symlink_to(out / shared)
    return folder


def pair_figures(one: Job, other: Job) -> Path:
    """Where the figures of two networks together are kept."""
    return one.out / "figures" / f"pair_{one.name}_{other.recipe.name}.json"


def test_pair(pair: tuple[Job, Job]) -> float:
    """Test the mean of the ranks of two networks; returns the seconds it took."""
    started, figures = time.time(), pair_figures(*pair)
    if figures.exists():
        return 0.0
    members = [train_job(job).members[0] for job in pair]
    predictor = MapPredictor(members, CPU)
    quantiles = _quantiles(predictor, members, pair[0])
    test, output = test_folder(pair[0].out, pair[0].dataset), figures.with_suffix("")
    for case, files in tqdm(list_cases(test / "imagesTs", 1).items(), desc="Predicting", leave=False, disable=None):
        image, geometry = read_case(files, 1)
        combiner = Combiner("rank_mean", count=2)
        for number, score_map in predictor.maps(image, geometry):
            combiner.add(score_map, quantiles[number])
        combined = combiner.result()
        write_prediction(combined, sample_score(combined), geometry, output, case)
    labels = test / "labelsTs"
    evaluation = evaluate(output, labels if labels.is_dir() else labels.with_suffix(".csv"), rounds=10, progress=False)
    kinds = {
        group.name: {key: figure.value for key, figure in group.figures.items()}
        for group in evaluation.groups
        if group.by == "kind"
    }
    write_json(figures, {"all": {key: figure.value for key, figure in evaluation.figures.items()}, "kinds": kinds})
    return time.time() - started


def _quantiles(predictor: MapPredictor, members: Sequence[Member], job: Job) -> list[tuple[float, ...]]:
    """Of each network's scores in the foreground of some training images."""
    method = members[0].plans["nnood"]["foreground_method"]
    found: list[list[np.ndarray]] = [[] for _ in members]
    images = list_cases(job.roots.raw / SETS[job.dataset].name / "imagesTr", 1)
    for files in list(images.values())[:QUANTILE_CASES]:
        image, geometry = read_case(files, 1)
        inside = foreground_mask(image, method) if method in COMPUTED_METHODS else np.ones(image.shape[1:], bool)
        for number, score_map in predictor.maps(image, geometry):
            found[number].append(score_map[inside])
    scores = [np.concatenate(one) for one in found]
    return [reference_quantiles(count_scores(one, np.zeros(len(one), bool))) for one in scores]


def format_families(jobs: Sequence[Job], pairs: Sequence[tuple[Job, Job]]) -> str:
    """Mean and standard deviation over seeds, as a table in Markdown."""
    rows: dict[tuple[str, str, int], list[Any]] = {}
    for job in jobs:
        if job.figures.exists():
            rows.setdefault((job.dataset, job.recipe.name, job.iterations), []).append(read_json(job.figures))
    for one, other in pairs:
        if pair_figures(one, other).exists():
            rows.setdefault((one.dataset, f"nnood and {other.recipe.name}", 0), []).append(
                read_json(pair_figures(one, other))
            )
    lines = ["| data | recipe | steps | minutes | seeds | voxel AP | sample AP |", "|---" * 7 + "|"]
    for (dataset, name, steps), found in rows.items():
        minutes = spread([one["minutes"]["training"] for one in found], 1) if steps else ""
        if SETS[dataset].per_kind:
            cells = [spread([headline(one, key) for one in found]) for key in ("voxel_ap", "sample_ap")]
        else:
            cells = ["", spread([one["all"]["sample_ap"] for one in found])]
        told = [dataset, f"`{name}`", str(steps or ""), minutes, str(len(found)), *cells]
        lines.append(f"| {' | '.join(told)} |")
    return "\n".join(lines)


def run(function: Any, jobs: Iterable[Any], processes: int) -> None:
    """Train and test networks side by side, one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    listed = list(jobs)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for _ in tqdm(pool.map(function, listed), total=len(listed), desc="Training and testing", disable=None):
            pass


PARTS = {"toys": toys, "classes": classes, "fashion": partial(classes, source="fashion_mnist"), "families": families}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    PARTS[arguments.part](arguments.data.resolve(), arguments.out.resolve(), arguments.seeds, arguments.processes)


if __name__ == "__main__":
    main()
