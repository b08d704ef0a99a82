"""Does bfloat16 on the CPU pay, and does it harm? Trains the demo's network with and without it, from the same seeds.

    python benchmarks/bfloat16.py --out FOLDER --epochs 6 --seeds 2

Prints the median seconds per training step of each and their ratio, validation figures, and how far the
scores of one trained network differ between both when it predicts. Both runs alternate, so that noise hits them alike.
"""

import argparse
import logging
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch

from nnood import precision
from nnood.demo import BASE_FEATURES, DATASET, GPU_MEMORY_TARGET
from nnood.evaluation.evaluate import evaluate
from nnood.images import read_image
from nnood.inference.predict import find_model, predict
from nnood.paths import Roots
from nnood.phantoms import write_demo_dataset
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.training.checkpoints import FINAL
from nnood.training.fold_folder import fold_name
from nnood.training.train import train

NATIVE = precision.has_native_bfloat16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--base_features", type=int, default=BASE_FEATURES)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    print(f"native bfloat16: {NATIVE()}")
    device = torch.device("cpu")
    shared = Roots.under(arguments.out)
    write_demo_dataset(shared.raw / DATASET)
    plan_and_preprocess(DATASET, shared, gpu_memory_target=GPU_MEMORY_TARGET, base_features=arguments.base_features)
    steps: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    figures: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for seed in range(arguments.seeds):
        for kind in steps:
            precision.has_native_bfloat16 = NATIVE if kind == "bfloat16" else lambda: False
            roots = Roots(shared.raw, shared.preprocessed, arguments.out / f"results_{kind}_{seed}")
            fold = train(
                DATASET,
                ["0"],
                roots,
                epochs=arguments.epochs,
                iterations=arguments.iterations,
                go_on=True,
                device=device,
                seeds=(seed,),
            )[0]
            log = torch.load(fold / FINAL, weights_only=True)["logging"]
            steps[kind] += log["seconds_per_step"]
            model = find_model(roots, dataset=DATASET, folds=[fold_name("0", seed)], checkpoint=FINAL)
            output = arguments.out / f"predictions_{kind}_{seed}"
            predict(shared.raw / DATASET / "imagesTs", output, model, device=device)
            figures[kind].append(evaluate(output, shared.raw / DATASET / "labelsTs").voxel_ap or 0.0)
            print(
                f"seed {seed} {kind}: validation loss {log['val_losses'][-1]:.4f}, mean voxel AP "
                f"{log['mean_voxel_ap'][-1]:.3f}, voxel AP on the test cases {figures[kind][-1]:.3f}"
            )
    for kind, values in steps.items():
        print(f"{kind}: {median(values):.3f} s a step (median), test voxel AP {mean(figures[kind]):.3f} (mean)")
    print(f"bfloat16 is {median(steps['float32']) / median(steps['bfloat16']):.2f} times faster")
    precision.has_native_bfloat16 = lambda: False
    predict(shared.raw / DATASET / "imagesTs", arguments.out / "again_float32", model, device=device)
    again = arguments.out / "again_float32"
    differences = [
        np.abs(read_image(file)[0] - read_image(output / file.name)[0]).max() for file in again.glob("*.nii.gz")
    ]
    print(f"largest difference of a score when the same network predicts in float32: {max(differences):.4f}")


if __name__ == "__main__":
    main()
