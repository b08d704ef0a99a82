"""The demo: the very functions behind the commands, on phantoms, in minutes on a CPU."""

import logging
from pathlib import Path
from time import time

import numpy as np
import torch
from matplotlib.figure import Figure

from nnood.case_files import list_cases
from nnood.evaluation.baselines import baselines_beside
from nnood.evaluation.evaluate import evaluate
from nnood.evaluation.report.write import write_report
from nnood.evaluation.tables import format_comparison
from nnood.images import read_image
from nnood.inference.inference_plan import PLAN_FILE
from nnood.inference.predict import find_model, predict
from nnood.inference.selection.find_best import find_best_configuration
from nnood.inference.selection.report import format_candidates
from nnood.paths import Roots
from nnood.phantoms import write_demo_dataset
from nnood.planning.plan_and_preprocess import describe_plans, plan_and_preprocess
from nnood.safety import atomic_path, write_json
from nnood.training.train import train

logger = logging.getLogger(__name__)

DATASET = "Dataset999_Phantoms"
# A network and a schedule that two CPU cores finish in five to ten minutes.
BASE_FEATURES = 8
GPU_MEMORY_TARGET = 2.0
EPOCHS, ITERATIONS = 32, 60


def run_demo(folder: Path, roots: Roots, device: torch.device | str) -> Path:
    """Make phantoms, plan, preprocess, train fold 0, calibrate, predict, evaluate, and draw. Goes on where it stopped.

    Args:
        folder: For predictions, figures and the picture.
        roots: For everything else.
        device: Where to compute.

    Returns:
        The picture.
    """
    started = time()
    raw = roots.raw / DATASET
    logger.info("1. Phantoms: 24 normal heads to train on, 12 to test, half of them with an anomaly")
    write_demo_dataset(raw)
    logger.info("2. Plan and preprocess")
    planned = plan_and_preprocess(DATASET, roots, gpu_memory_target=GPU_MEMORY_TARGET, base_features=BASE_FEATURES)
    logger.info(describe_plans(planned))
    logger.info("3. Train fold 0")
    train(DATASET, ["0"], roots, epochs=EPOCHS, iterations=ITERATIONS, go_on=True, device=device)
    logger.info("4. Judge the network on what its fold left out, with anomalies of tasks it never saw, and calibrate")
    if not (roots.results / DATASET / PLAN_FILE).exists():
        logger.info(format_candidates(find_best_configuration(DATASET, roots, device=device)))
    logger.info("5. Predict the test images")
    model = find_model(roots, dataset=DATASET)
    predict(raw / "imagesTs", folder / "predictions", model, device=device)
    logger.info("6. Evaluate, beside what random and intensity scores reach without any training")
    predictions, labels = folder / "predictions", raw / "labelsTs"
    baselines = baselines_beside(predictions, labels, roots)
    results = {"nnood": evaluate(predictions, labels), **baselines}
    write_json(folder / "evaluation.json", {name: result.to_dict() for name, result in results.items()})
    logger.info(format_comparison(results))
    picture = draw_cases(raw, folder / "predictions", folder / "demo.png")
    report = write_report(
        folder / "report.html",
        roots=roots,
        dataset=DATASET,
        predictions=predictions,
        labels=labels,
        evaluation=results["nnood"],
        baselines=baselines,
    )
    logger.info("Picture: %s\nReport, with all cases to look at: %s", picture, report)
    logger.info("All of it took %.0f s.", time() - started)
    return picture


def draw_cases(raw: Path, predictions: Path, target: Path, *, normal: int = 2) -> Path:
    """Draw image, truth and score map side by side: every anomalous test case and a few normal ones.

    Args:
        raw: A raw data set with `imagesTs` and `labelsTs`, of one channel.
        predictions: Score maps of its test cases.
        target: The picture.
        normal: How many normal cases to show.

    Returns:
        `target`.
    """
    cases = list_cases(raw / "imagesTs", 1)
    masks = {case: raw / "labelsTs" / f"{case}.nii.gz" for case in cases}
    anomalous = [case for case in cases if masks[case].exists()]
    shown = anomalous + [case for case in cases if case not in anomalous][:normal]
    scores = {case: read_image(predictions / f"{case}.nii.gz")[0][0] for case in shown}
    highest = max(float(score.max()) for score in scores.values())
    figure = Figure(figsize=(2.1 * len(shown), 6.6), layout="constrained")
    axes = figure.subplots(3, len(shown), squeeze=False)
    for column, case in enumerate(shown):
        image = read_image(cases[case][0])[0][0]
        truth = read_image(masks[case])[0][0] > 0 if case in anomalous else np.zeros(image.shape, dtype=bool)
        level = int(truth.sum(axis=(1, 2)).argmax()) if truth.any() else image.shape[0] // 2
        sample = float((predictions / f"{case}.nii.gz.txt").read_text())
        title = f"{case}\n{'anomalous' if truth.any() else 'normal'}, sample score {sample:.2f}"
        axes[0, column].set_title(title, fontsize=8)
        for row in range(3):
            axes[row, column].imshow(image[level], cmap="gray", origin="lower")
            axes[row, column].axis("off")
        if truth[level].any():
            axes[1, column].contour(truth[level], levels=[0.5], colors="tab:orange", linewidths=1.5)
        axes[2, column].imshow(scores[case][level], cmap="inferno", vmin=0, vmax=highest, origin="lower", alpha=0.75)
    for row, name in enumerate(("image", "truth", "score map")):
        axes[row, 0].text(-0.05, 0.5, name, rotation=90, va="center", ha="right", transform=axes[row, 0].transAxes)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110)
    return target
