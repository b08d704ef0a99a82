"""Make the documentation's pictures again, from the demo's phantoms and, for two of them, from MedNIST.

    python documentation/pictures/make_pictures.py FOLDER --mednist MEDNIST --lesions LESION_MASKS

FOLDER keeps the demo and all that is trained, about ten minutes on two cores; a second call goes on with it. Needs a
Chromium and playwright for the picture of the report.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from playwright.sync_api import sync_playwright

from dataset_conversion import SOURCES
from nnood import Roots, plan_and_preprocess, train
from nnood.demo import DATASET, run_demo
from nnood.evaluation.benchmark.sets import make_benchmark
from nnood.images import read_image
from nnood.inference.inference_plan import PLAN_FILE
from nnood.tasks import TASKS
from nnood.training.task_sheet import draw_tasks

PICTURES = Path(__file__).parent
BENCHMARK_ROWS = 2
MOST_OF_A_SLICE = 0.4
SLICES = 200  # of head CT, as in getting_started.md
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHOWN_CASE, VIEWER_HEIGHT = "phantom_035", 710


def demo(work: Path, target: Path) -> None:
    """Image, truth and score map of the demo's test cases."""
    shutil.copyfile(work / "demo" / "demo.png", target)


def inference_plan(work: Path, target: Path) -> None:
    """What the demo's inference plan was chosen from."""
    shutil.copyfile((work / "demo" / "results" / DATASET / PLAN_FILE).with_suffix(".png"), target)


def tasks(work: Path, target: Path) -> None:
    """Each task on phantoms."""
    draw_tasks(DATASET, Roots.under(work / "demo"), list(TASKS), target)


def benchmark(work: Path, target: Path, lesions: Path) -> None:
    """One case of each kind of anomaly, in the slice where most of it lies."""
    folder = work / "benchmark"
    rows = make_benchmark(DATASET, Roots.under(work / "demo"), folder, per_kind=1, masks=lesions)
    shown = [row for row in rows if row.kind != "normal"]
    columns = -(-len(shown) // BENCHMARK_ROWS)
    figure = Figure(figsize=(1.2 * columns, 1.65 * BENCHMARK_ROWS), layout="constrained")
    axes = figure.subplots(BENCHMARK_ROWS, columns).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, row in zip(axes, shown, strict=False):
        image = read_image(folder / "imagesTs" / f"{row.case}_0000.nii.gz")[0][0]
        mask = folder / "labelsTs" / f"{row.case}.nii.gz"
        truth = read_image(mask)[0][0] > 0 if mask.exists() else np.zeros(image.shape, bool)
        if MOST_OF_A_SLICE < truth.mean(axis=(1, 2)).max() < 1:  # whole slices: seen from the side
            image, truth = image.swapaxes(0, 1), truth.swapaxes(0, 1)
        # An anomaly of the whole image is everywhere alike.
        level = len(image) // 2 if truth.all() or not truth.any() else int(truth.sum(axis=(1, 2)).argmax())
        axis.imshow(image[level], cmap="gray", origin="lower")
        axis.set_title(row.kind, fontsize=8)
        if 0 < truth[level].mean() < 1:
            axis.contour(truth[level], levels=[0.5], colors="tab:orange", linewidths=1)
    figure.savefig(target, dpi=100)


def report(work: Path, target: Path) -> None:
    """The report's viewer, as a browser shows it."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1150, "height": 1400})
        page.goto((work / "demo" / "report.html").resolve().as_uri())
        page.get_by_role("button", name=SHOWN_CASE, exact=True).click()
        page.locator("#region-box").scroll_into_view_if_needed()
        box = page.locator(".viewer-head").bounding_box()
        if box is None:
            raise RuntimeError("Expected a viewer in the report, but got none.")
        clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": VIEWER_HEIGHT}
        page.screenshot(path=target, clip=clip)
        browser.close()


def of_mednist(work: Path, mednist: Path) -> Path:
    """Train on head CT as getting_started.md does; returns the folder of all."""
    folder, roots = work / "head_ct", Roots.under(work / "head_ct")
    normal = folder / "normal"
    if not normal.is_dir():
        normal.mkdir(parents=True)
        for file in sorted((mednist / "HeadCT").iterdir())[:SLICES]:
            values = read_image(file)[0]
            if values.min() < values.max():
                (normal / file.name).symlink_to(file.resolve())
    SOURCES["folder"].function(normal, roots.raw, 7, "HeadCT")
    plan_and_preprocess(7, roots)
    train(7, 0, roots, epochs=6, iterations=60, go_on=True)
    return folder


def foreground(work: Path, target: Path, mednist: Path) -> None:
    """Foreground masks of head CT slices."""
    shutil.copyfile(of_mednist(work, mednist) / "preprocessed" / "Dataset007_HeadCT" / "foreground.png", target)


def progress(work: Path, target: Path, mednist: Path) -> None:
    """Losses and average precision per epoch."""
    (picture,) = (of_mednist(work, mednist) / "results" / "Dataset007_HeadCT").glob("*/fold_0/progress.png")
    shutil.copyfile(picture, target)


def main() -> None:
    """Make all pictures for which there is a source."""
    parser = argparse.ArgumentParser(description="Make the documentation's pictures.", allow_abbrev=False)
    parser.add_argument("work", type=Path, help="folder for the demo and all that is trained")
    parser.add_argument(
        "--mednist", type=Path, help="MedNIST's classes; without it, foreground and progress are left out"
    )
    parser.add_argument("--lesions", type=Path, help="masks of real lesions; benchmark.png is left out without them")
    parser.add_argument("-o", dest="output", type=Path, default=PICTURES, help="where the pictures go")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    work: Path = arguments.work
    if not (work / "demo" / "report.html").exists():
        run_demo(work / "demo", Roots.under(work / "demo"), "cpu")
    makers: list[tuple[Callable[..., None], tuple[Path, ...]]] = [
        (made, ()) for made in (demo, inference_plan, tasks, report)
    ]
    makers += [(benchmark, (arguments.lesions,))] if arguments.lesions else []
    makers += [(made, (arguments.mednist,)) for made in (foreground, progress)] if arguments.mednist else []
    arguments.output.mkdir(parents=True, exist_ok=True)
    for make, sources in makers:
        target = arguments.output / f"{make.__name__}.png"
        make(work, target, *sources)
        logging.getLogger(__name__).info("Wrote %s", target)


if __name__ == "__main__":
    main()
