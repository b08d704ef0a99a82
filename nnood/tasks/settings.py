"""What a task must know of the data."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class TaskSettings:
    """Comes from the plan, but for `label` and `repeat`, which a recipe may choose.

    Attributes:
        extent: Voxels of a whole object's foreground box, per spatial axis.
        fractions: Smallest and largest anomaly, as fractions of `extent`.
        label_sigma: Per channel, half the typical difference of two foreground voxels, in normalised intensity.
        spacing: Size of a voxel per spatial axis, in mm.
        label: Name of the label, from `nnood.tasks.labels.LABELS`.
        label_saturation: Per channel, the change at which the logistic label is full; follows from `label_sigma` if
            empty, as if intensities were normally distributed.
        repeat: Probability of one more anomaly after each; as the task's paper has it if None.
        lesions: Shapes of real lesions, see `nnood.tasks.lesions`, or None.
    """

    extent: tuple[int, ...]
    fractions: tuple[float, float]
    label_sigma: tuple[float, ...]
    spacing: tuple[float, ...] = ()
    label: str = "flipped_gaussian"
    label_saturation: tuple[float, ...] = ()
    repeat: float | None = None
    lesions: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if not self.spacing:
            object.__setattr__(self, "spacing", (1.0,) * len(self.extent))
        if len(self.spacing) != len(self.extent):
            raise ValueError(f"Expected a spacing per axis of {self.extent}, but got {self.spacing}.")
