"""What is remembered per epoch, and its picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from nnood.safety import atomic_path, plain
from nnood.training.losses import entropy
from nnood.training.validation import TaskScores

# Below this share of the prior's entropy, the loss has visibly left it. A network that learned by Dice is too sure of
# itself for that: it has learned something if its average precision is so many times that of random scores.
LEARNED, TIMES_CHANCE = 0.97, 3.0
# Of more tasks than these, a line tells the mean and the extremes.
MOST_TOLD = 5

SUMMARY_KEYS = (
    "val_losses",
    "prior_entropy",
    "mean_voxel_ap",
    "voxel_ap",
    "sample_ap",
    "mean_whole_voxel_ap",
    "whole_voxel_ap",
    "whole_sample_ap",
)

KEYS = (
    "train_losses",
    "val_losses",
    "prior_entropy",
    "mean_voxel_ap",
    "mean_chance",
    "voxel_ap",
    "sample_ap",
    "mean_training_voxel_ap",
    "mean_whole_voxel_ap",
    "whole_voxel_ap",
    "whole_sample_ap",
    "failed",
    "lrs",
    "seconds_per_step",
    "epoch_start_timestamps",
    "epoch_end_timestamps",
)


class AnomalyLog(LocalLogger):
    """nnU-Net's per-epoch log with nnood's figures: one plain value, or dict per task, per key and epoch.

    Attributes:
        loss_tells: Whether the validation loss says what was learned: not of networks that never saw an anomaly.
    """

    loss_tells = True

    def __init__(self) -> None:
        super().__init__()
        self.my_fantastic_logging: dict[str, list[Any]] = {key: [] for key in KEYS}

    def log(self, key: str, value: Any, epoch: int) -> None:
        """Store a value as plain Python, so that checkpoints hold nothing else; an epoch's second value replaces it."""
        self.my_fantastic_logging[key][epoch:] = [plain(value)]

    def log_patches(self, scores: TaskScores, tasks: Sequence[str], training: Sequence[str], epoch: int) -> None:
        """Store what patches say of an epoch.

        Args:
            scores: Of the patches.
            tasks: Names of the validation tasks.
            training: Names of the training tasks, if they are to be followed too.
            epoch: Number of the epoch.
        """
        voxel_ap = scores.voxel_ap(tasks)
        self.log("val_losses", scores.loss(tasks) if self.loss_tells else None, epoch)
        self.log("prior_entropy", entropy(scores.prior(tasks)) if self.loss_tells else None, epoch)
        self.log("voxel_ap", voxel_ap, epoch)
        self.log("sample_ap", scores.sample_ap(tasks), epoch)
        self.log("mean_voxel_ap", _mean(voxel_ap), epoch)
        self.log("mean_chance", _mean(scores.chance(tasks)), epoch)
        self.log("mean_training_voxel_ap", _mean(scores.voxel_ap(training)) if training else None, epoch)

    def log_whole(self, scores: TaskScores | None, tasks: Sequence[str], epoch: int) -> None:
        """Store what whole cases say of an epoch; None in the epochs without them."""
        voxel_ap = None if scores is None else scores.voxel_ap(tasks)
        self.log("whole_voxel_ap", voxel_ap, epoch)
        self.log("whole_sample_ap", None if scores is None else scores.sample_ap(tasks), epoch)
        self.log("mean_whole_voxel_ap", None if voxel_ap is None else _mean(voxel_ap), epoch)

    @property
    def figure(self) -> tuple[int, float]:
        """By which the newest epoch is compared with others, the greater the better: whole cases beat patches."""
        whole = self.get_value("mean_whole_voxel_ap", -1)
        return (0, self.get_value("mean_voxel_ap", -1)) if whole is None else (1, whole)

    def summary(self) -> dict[str, Any]:
        """The newest epoch's figures."""
        return {"has_learned": self.has_learned, **{key: self.get_value(key, -1) for key in SUMMARY_KEYS}}

    @property
    def has_learned(self) -> bool:
        """Whether the newest validation loss has left the entropy of the prior, or voxels are ranked well.

        True where the loss does not tell.
        """
        if not self.loss_tells:
            return True
        is_surer = self.get_value("val_losses", -1) < LEARNED * self.get_value("prior_entropy", -1)
        return bool(is_surer or self.get_value("mean_voxel_ap", -1) > TIMES_CHANCE * self.get_value("mean_chance", -1))

    def describe_epoch(self, epochs: int) -> str:
        """The newest epoch in one line for the user.

        Args:
            epochs: How many there will be.
        """
        newest = {key: values[-1] for key, values in self.my_fantastic_logging.items()}
        tasks = _show(newest["voxel_ap"], newest["sample_ap"])
        known = newest["whole_voxel_ap"] is not None
        whole = f"; whole cases: {_show(newest['whole_voxel_ap'], newest['whole_sample_ap'])}" if known else ""
        failed = f"; {newest['failed']} of the anomalies could not be planted" if newest["failed"] else ""
        seconds = newest["epoch_end_timestamps"] - newest["epoch_start_timestamps"]
        validation = (
            f", validation {newest['val_losses']:.4f} (nothing learned: {newest['prior_entropy']:.4f})"
            if self.loss_tells
            else ""
        )
        return (
            f"Epoch {len(self.my_fantastic_logging['val_losses'])}/{epochs} ({seconds:.0f} s): "
            f"loss {newest['train_losses']:.4f}{validation}; voxel/sample AP: {tasks}{whole}{failed}"
        )

    def plot_progress_png(self, output_folder: str) -> None:
        """Draw losses, average precision per task, and time and learning rate into `progress.png`."""
        log = self.my_fantastic_logging
        epochs = np.arange(min(len(values) for values in log.values()))
        figure = Figure(figsize=(9, 11), layout="constrained")
        loss_axis, score_axis, time_axis = figure.subplots(3, 1)
        lines = [
            ("train_losses", "-", "training (all resolutions, several anomalies per image)"),
            ("val_losses", "-", "validation (cross-entropy)"),
            ("prior_entropy", ":", "entropy of the prior: nothing learned"),
        ]
        for key, style, name in lines if self.loss_tells else [("train_losses", "-", "training")]:
            loss_axis.plot(epochs, log[key][: len(epochs)], style, label=name)
        self._plot_tasks(score_axis, epochs, "voxel_ap", "-")
        self._plot_tasks(score_axis, epochs, "sample_ap", ":")
        self._plot_tasks(score_axis, epochs, "whole_voxel_ap", "o")
        self._plot_tasks(score_axis, epochs, "whole_sample_ap", "x")
        seconds = np.subtract(log["epoch_end_timestamps"][: len(epochs)], log["epoch_start_timestamps"][: len(epochs)])
        time_axis.plot(epochs, seconds, color="black", label="seconds per epoch")
        rate_axis = time_axis.twinx()
        rate_axis.plot(epochs, log["lrs"][: len(epochs)], color="tab:gray", linestyle=":", label="learning rate")
        loss_axis.set_ylabel("loss")
        if min(log["train_losses"], default=0) >= 0:  # Dice is below
            loss_axis.set_ylim(bottom=0)
        score_axis.set_ylabel(
            "average precision on fixed held-out patches\n(solid: voxels, dotted: samples)\n"
            "and whole cases (o: voxels, x: samples)"
        )
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
        """One line per task; solid for voxels, dotted for samples, marks for whole cases, one colour for each task."""
        values = [entry or {} for entry in self.my_fantastic_logging[key][: len(epochs)]]
        tasks = sorted({task for entry in values for task in entry})
        colours = colormaps["tab10" if len(tasks) <= 10 else "tab20"]
        for number, task in enumerate(tasks):
            line = [entry.get(task) for entry in values]
            numbers = [np.nan if value is None else value for value in line]
            axis.plot(epochs, numbers, style, color=colours(number % 20), label=task if style == "-" else None)


def _mean(figures: dict[str, float]) -> float:
    """The mean of those that are defined; 0 if none is."""
    known = [value for value in figures.values() if np.isfinite(value)]
    return float(np.mean(known)) if known else 0.0


def _show(voxel_ap: dict[str, float | None], sample_ap: dict[str, float | None]) -> str:
    """Both figures of each task, for the user to read; of many tasks the means, the lowest and the highest."""

    def shown(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.3f}"

    def told(task: str) -> str:
        return f"{task} {shown(voxel_ap[task])}/{shown(sample_ap[task])}"

    known = {task: value for task, value in voxel_ap.items() if value is not None}
    if len(voxel_ap) <= MOST_TOLD or not known:
        return ", ".join(map(told, voxel_ap))
    samples = {task: value for task, value in sample_ap.items() if value is not None}
    low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    means = f"{shown(_mean(known))}/{shown(_mean(samples))}"
    return f"{means}, mean of {len(voxel_ap)} tasks from {told(low)} to {told(high)}"
