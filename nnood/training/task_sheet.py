"""One picture of what the tasks do to the user's own images: before, after and label."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnood.datasets import find_dataset_name
from nnood.errors import UserError, one_error
from nnood.paths import Roots, set_nnunet_roots
from nnood.plan import CASE_LIST_FILE, NnoodPlan
from nnood.planning.preprocessor import stored_case_faults
from nnood.planning.storage import CaseStore
from nnood.safety import atomic_path, read_json
from nnood.tasks import build_task
from nnood.tasks.donors import Donors
from nnood.tasks.task import Corrupted
from nnood.training.choices import choose_configuration, load_plans, refuse_unknown
from nnood.training.fixed_anomalies import seed_of
from nnood.training.loading import load_seen
from nnood.training.recipes import DEFAULT_RECIPE, RECIPES
from nnood.training.task_settings import task_settings
from nnood.views import views_of

CASES = 4
COLUMNS = ("before", "after", "label")


def draw_tasks(
    dataset: str, roots: Roots, tasks: Sequence[str], target: Path, *, configuration: str | None = None, seed: int = 0
) -> dict[str, str]:
    """Plant one anomaly of each task in a few training images and draw them, with the default recipe's label.

    Args:
        dataset: Id or name of a preprocessed data set.
        roots: The three root folders.
        tasks: Names of the tasks.
        target: The picture to write.
        configuration: The plan's default if None.
        seed: Of the anomalies.

    Returns:
        Tasks that are left out, and why.

    Raises:
        UserError: If the data set has not been preprocessed, a task does not exist, or the picture's format is unknown.
    """
    refuse_unknown(tasks)
    known = sorted(Figure().canvas.get_supported_filetypes())
    if target.suffix.removeprefix(".").lower() not in known:
        raise UserError(
            f"{target} is no picture's name; expected one that ends in {', '.join(known)}, such as tasks.png."
        )
    set_nnunet_roots(roots)
    name = find_dataset_name(dataset, roots)
    plans = load_plans(roots, name)
    plan = NnoodPlan.from_dict(plans["nnood"])
    configuration = choose_configuration(plans, configuration)
    planned = PlansManager(plans).get_configuration(configuration)
    folder = roots.preprocessed / name
    view = views_of(planned)[0]
    measured = task_settings(plan, configuration, planned.spacing, folder)
    settings = view.settings(replace(measured, label=RECIPES[DEFAULT_RECIPE].label))
    cases = read_json(folder / CASE_LIST_FILE)
    chosen = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, CASES).round().astype(int))]
    one_error(stored_case_faults(folder, plans, configuration, chosen))
    store = CaseStore(str(folder / planned.data_identifier))
    patches = [load_seen(store, case, planned.patch_size, view) for case in chosen]
    image, foreground = (torch.stack(parts) for parts in zip(*patches, strict=True))
    planted: dict[str, Corrupted] = {}
    left_out: dict[str, str] = {}
    for task in tasks:
        donors = Donors()
        donors.begin_batch(chosen, image)
        generator = torch.Generator().manual_seed(seed_of(name, task, str(seed)))
        try:
            planted[task] = build_task(task, settings)(image, foreground, donors, generator)
        except ValueError as error:
            left_out[task] = str(error)
    if not planted:
        raise UserError("There is nothing to draw: " + " ".join(left_out.values()))
    middle = slice(view.beyond, view.beyond + 1)  # of the slices of the first channel
    shown = {task: replace(result, image=result.image[:, middle]) for task, result in planted.items()}
    figure = _draw(chosen, image[:, middle], foreground, shown)
    title = f"{name}, {configuration}: images before, after, and the default label; one seed per task"
    figure.suptitle(title, fontsize=9)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=100)
    return left_out


def _draw(cases: Sequence[str], image: torch.Tensor, foreground: torch.Tensor, planted: dict[str, Corrupted]) -> Figure:
    """A row per task; for each case the slice in which the label is largest."""
    columns = len(cases) * len(COLUMNS)
    figure = Figure(figsize=(1.25 * columns, 1.35 * len(planted) + 0.8), layout="constrained")
    grid = figure.subplots(len(planted), columns, squeeze=False)
    for line, (task, result) in enumerate(planted.items()):
        row = grid[line]
        for number, case in enumerate(cases):
            pictures = _slices(image[number, 0], result.image[number, 0], result.label[number, 0], foreground[number])
            part = row[number * len(COLUMNS) : (number + 1) * len(COLUMNS)]
            low, high = np.percentile(pictures[0], (0.5, 99.5))
            grey = {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-6)}
            titles = (case[-12:], *COLUMNS[1:]) if line == 0 else ("",) * len(COLUMNS)
            for axis, picture, title in zip(part, pictures, titles, strict=True):
                colours = {"cmap": "inferno", "vmin": 0, "vmax": 1} if axis is part[-1] else grey
                axis.imshow(picture, origin="upper" if image.ndim == 4 else "lower", **colours)
                axis.set_title(title, fontsize=6)
                axis.set_xticks([])
                axis.set_yticks([])
            if result.failed[number]:
                part[-1].set_xlabel("could not be planted", fontsize=6)
        row[0].set_ylabel(task, fontsize=8)
    return figure


def _slices(
    before: torch.Tensor, after: torch.Tensor, label: torch.Tensor, foreground: torch.Tensor
) -> list[np.ndarray]:
    """Of volumes, the slice along the first axis in which most of the label lies in the foreground."""
    if label.ndim == 2:
        return [before.numpy(), after.numpy(), label.numpy()]
    where = int((label * foreground).flatten(1).sum(dim=1).argmax())
    return [values[where].numpy() for values in (before, after, label)]
