"""One picture of the foreground masks, so that a user sees at a glance if they went wrong."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nnood.datasets import Dataset
from nnood.images import read_case, read_image
from nnood.planning.storage import foreground_file
from nnood.safety import atomic_path

COLUMNS = 6
MAX_CASES = 18


def draw_foreground(dataset: Dataset, folder: Path, method: str, reason: str) -> Path:
    """Draw the middle slice of up to 18 cases, evenly chosen, with the outline of the foreground.

    Args:
        dataset: The raw data set.
        folder: Its preprocessed folder, which holds the masks.
        method: The foreground method.
        reason: Why it was chosen.

    Returns:
        The picture `foreground.png` in `folder`.
    """
    cases = list(dataset.training)
    chosen = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, MAX_CASES).astype(int))]
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS, 2.2 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, case in zip(axes, chosen, strict=False):
        image, _ = read_case(dataset.training[case], dataset.channels)
        mask = read_image(foreground_file(folder, case))[0].reshape(image.shape[1:])
        middle = image.shape[1] // 2
        low, high = np.percentile(image[0, middle], (1, 99))
        origin = "lower" if image.shape[1] > 1 else "upper"
        axis.imshow(image[0, middle], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin=origin)
        if 0 < mask[middle].mean() < 1:
            axis.contour(mask[middle], levels=[0.5], colors="tab:orange", linewidths=1)
        axis.set_title(f"{case[:20]}\n{mask.mean():.0%} foreground", fontsize=7)
    figure.suptitle(f"{dataset.name}: foreground '{method}' ({reason})", fontsize=9)
    target = folder / "foreground.png"
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110)
    return target
