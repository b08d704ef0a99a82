"""Run the whole pipeline on real images and print plan, time per step, time in all and peak memory.

    python benchmarks/real_data.py hippocampus --data DATA --out FOLDER --epochs 2 --iterations 10

DATA holds `hippocampus/images` (Medical Segmentation Decathlon, task 4), `ixi_2mm/t1` (IXI) and
`pneumoniamnist/pneumoniamnist.npz` (MedMNIST). The step's time is the median over epochs of the mean of an epoch's
training steps, loading, augmentation and synthesis included.
"""

import argparse
import logging
import resource
import time
from pathlib import Path
from statistics import median

import torch

from dataset_conversion.folder import convert_folder
from dataset_conversion.medmnist import convert_medmnist
from nnood.evaluation.baselines import baselines_beside
from nnood.evaluation.evaluate import evaluate
from nnood.evaluation.tables import format_comparison
from nnood.inference.predict import find_model, predict
from nnood.paths import Roots
from nnood.planning.plan_and_preprocess import describe_plans, plan_and_preprocess
from nnood.precision import choose_device
from nnood.training.checkpoints import FINAL
from nnood.training.train import train

# Images, number of training cases (the rest, in the order of the names, is for testing), id.
VOLUMES = {"hippocampus": ("hippocampus/images", 200, 104), "ixi": ("ixi_2mm/t1", 32, 105)}


def split_images(images: Path, count: int, folder: Path) -> tuple[Path, Path]:
    """Two folders of links: the first `count` images, and the rest."""
    parts = (folder / "normal", folder / "test")
    for number, file in enumerate(sorted(images.glob("*.nii.gz"))):
        part = parts[0] if number < count else parts[1]
        part.mkdir(parents=True, exist_ok=True)
        link = part / file.name
        if not link.exists():
            link.symlink_to(file.resolve())
    return parts


def _convert(name: str, data: Path, out: Path, roots: Roots) -> Path:
    if name == "pneumoniamnist":
        return convert_medmnist(data / "pneumoniamnist" / "pneumoniamnist.npz", roots.raw, 106, "Pneumonia")
    images, count, number = VOLUMES[name]
    normal, test = split_images(data / images, count, out / "split")
    return convert_folder(normal, roots.raw, number, name.capitalize(), test=test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=[*VOLUMES, "pneumoniamnist"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--gpu_memory_target", type=float, default=8.0)
    parser.add_argument("--base_features", type=int, default=32)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out = arguments.out / arguments.dataset
    roots = Roots(out / "raw", out / "preprocessed", out / "results")
    device = choose_device(arguments.device)
    laps = [time.time()]

    def lap(what: str) -> None:
        laps.append(time.time())
        print(f"== {what}: {laps[-1] - laps[-2]:.1f} s")

    raw = _convert(arguments.dataset, arguments.data, out, roots)
    lap("conversion")
    planned = plan_and_preprocess(
        raw.name,
        roots,
        processes=2,
        gpu_memory_target=arguments.gpu_memory_target,
        base_features=arguments.base_features,
    )
    print(describe_plans(planned))
    lap("planning and preprocessing")
    fold = train(
        raw.name,
        ["0"],
        roots,
        epochs=arguments.epochs,
        iterations=arguments.iterations,
        go_on=True,
        device=device,
    )[0]
    lap("training")
    log = torch.load(fold / FINAL, map_location="cpu", weights_only=True)["logging"]
    print(f"== time per training step: {median(log['seconds_per_step']):.3f} s")
    model = find_model(roots, dataset=raw.name, folds=["0"])
    predict(raw / "imagesTs", out / "predictions", model, device=device)
    lap("prediction")
    if (raw / "labelsTs.csv").exists():
        predictions, labels = out / "predictions", raw / "labelsTs"
        results = {"nnood": evaluate(predictions, labels), **baselines_beside(predictions, labels, roots)}
        print(format_comparison(results))
    own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        f"== in all {laps[-1] - laps[0]:.0f} s; "
        f"peak memory {own / 2**20:.2f} GiB, of a worker {workers / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    main()
