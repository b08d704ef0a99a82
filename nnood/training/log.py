"""What is remembered per epoch, and its picture."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from nnood.safety import atomic_path, plain

# Below this share of the prior's entropy, the loss has visibly left it.
LEARNED = 0.97

KEYS = (
    "train_losses",
    "val_losses",
    "prior_entropy",
    "mean_voxel_ap",
    "voxel_ap",
    "sample_ap",
    "failed",
    "lrs",
    "seconds_per_step",
    "epoch_start_timestamps",
    "epoch_end_timestamps",
)


class AnomalyLog(LocalLogger):
    """nnU-Net's per-epoch log with nnood's figures: one plain value, or dict per task, per key and epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.my_fantastic_logging: dict[str, list[Any]] = {key: [] for key in KEYS}

    def log(self, key: str, value: Any, epoch: int) -> None:
        """Store a value as plain Python, so that checkpoints hold nothing else."""
        super().log(key, plain(value), epoch)

    @property
    def has_learned(self) -> bool:
        """Whether the newest validation loss has left the entropy of the prior."""
        return bool(self.get_value("val_losses", -1) < LEARNED * self.get_value("prior_entropy", -1))

    def describe_epoch(self, epochs: int) -> str:
        """The newest epoch in one line for the user.

        Args:
            epochs: How many there will be.
        """
        newest = {key: values[-1] for key, values in self.my_fantastic_logging.items()}

        def shown(value: float | None) -> str:
            return "undefined" if value is None else f"{value:.3f}"

        tasks = ", ".join(
            f"{task} {shown(value)}/{shown(newest['sample_ap'].get(task))}"
            for task, value in newest["voxel_ap"].items()
        )
        failed = f"; {newest['failed']} anomalies could not be planted" if newest["failed"] else ""
        seconds = newest["epoch_end_timestamps"] - newest["epoch_start_timestamps"]
        return (
            f"Epoch {len(self.my_fantastic_logging['val_losses'])}/{epochs} ({seconds:.0f} s): "
            f"loss {newest['train_losses']:.4f}, validation {newest['val_losses']:.4f} "
            f"(nothing learned: {newest['prior_entropy']:.4f}); voxel/sample AP: {tasks}{failed}"
        )

    def plot_progress_png(self, output_folder: str) -> None:
        """Draw losses, average precision per task, and time and learning rate into `progress.png`."""
        log = self.my_fantastic_logging
        epochs = np.arange(min(len(values) for values in log.values()))
        figure = Figure(figsize=(9, 11), layout="constrained")
        loss_axis, score_axis, time_axis = figure.subplots(3, 1)
        for key, style, name in (
            ("train_losses", "-", "training (all resolutions, several anomalies per image)"),
            ("val_losses", "-", "validation"),
            ("prior_entropy", ":", "entropy of the prior: nothing learned"),
        ):
            loss_axis.plot(epochs, log[key][: len(epochs)], style, label=name)
        self._plot_tasks(score_axis, epochs, "voxel_ap", "-")
        self._plot_tasks(score_axis, epochs, "sample_ap", ":")
        seconds = np.subtract(log["epoch_end_timestamps"][: len(epochs)], log["epoch_start_timestamps"][: len(epochs)])
        time_axis.plot(epochs, seconds, color="black", label="seconds per epoch")
        rate_axis = time_axis.twinx()
        rate_axis.plot(epochs, log["lrs"][: len(epochs)], color="tab:gray", linestyle=":", label="learning rate")
        loss_axis.set_ylabel("cross-entropy")
        loss_axis.set_ylim(bottom=0)
        score_axis.set_ylabel("average precision on fixed held-out patches\n(solid: voxels, dotted: samples)")
        score_axis.set_ylim(0, 1)
        time_axis.set_ylabel("seconds per epoch")
        time_axis.set_ylim(bottom=0)
        rate_axis.set_ylabel("learning rate (dotted)")
        time_axis.set_xlabel("epoch")
        loss_axis.legend(fontsize=8)
        score_axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        for axis in (loss_axis, score_axis):
            axis.grid(alpha=0.3)
        with atomic_path(Path(output_folder) / "progress.png") as temporary:
            figure.savefig(temporary, dpi=100)

    def _plot_tasks(self, axis: Axes, epochs: np.ndarray, key: str, style: str) -> None:
        """One line per task; solid for voxels, dotted for samples, the same colour for the same task."""
        values = self.my_fantastic_logging[key]
        tasks = sorted({task for entry in values for task in entry})
        colours = colormaps["tab10" if len(tasks) <= 10 else "tab20"]
        for number, task in enumerate(tasks):
            line = [entry.get(task) for entry in values[: len(epochs)]]
            numbers = [np.nan if value is None else value for value in line]
            axis.plot(epochs, numbers, style, color=colours(number % 20), label=task if style == "-" else None)
