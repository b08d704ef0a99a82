"""A self-supervised task: plants anomalies in a batch of normal images and labels them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from nnood.tasks.blending import Blend
from nnood.tasks.donors import Donors
from nnood.tasks.draws import choice, integer, uniform
from nnood.tasks.labels import Label
from nnood.tasks.shapes import Shape, place
from nnood.tasks.textures import Region, Texture


@dataclass(frozen=True)
class Corrupted:
    """A batch with planted anomalies.

    Attributes:
        image: (B, C, *S), in the input's type.
        label: (B, 1, *S) float32 in [0, 1].
        failed: (B,) boolean: an anomaly was wanted but none could be planted; the image is unchanged and its label 0.
    """

    image: torch.Tensor
    label: torch.Tensor
    failed: torch.Tensor


class AnomalyTask(Protocol):
    """What every task is: a function of a batch."""

    def __call__(
        self, image: torch.Tensor, foreground: torch.Tensor, donors: Donors, generator: torch.Generator
    ) -> Corrupted:
        """Plant anomalies.

        Args:
            image: Normal images (B, C, *S), floating point; not modified.
            foreground: Boolean (B, *S).
            donors: Its current batch is this one.
            generator: All randomness.
        """


@dataclass(frozen=True)
class TaskSettings:
    """What a task must know of the data; comes from the plan.

    Attributes:
        extent: Voxels of a whole object's foreground box, per spatial axis.
        fractions: Smallest and largest anomaly, as fractions of `extent`.
        label_sigma: Scale of the flipped-Gaussian label per channel, in normalised intensity.
    """

    extent: tuple[int, ...]
    fractions: tuple[float, float]
    label_sigma: tuple[float, ...]


@dataclass(frozen=True)
class ComposedTask:
    """A task made of four parts, working in the anomaly's box only.

    Attributes:
        shapes: One of them is drawn for each anomaly.
        texture: What goes in.
        blend: How it goes in.
        label: What the network must say.
        settings: What the plan knows of the data.
    """

    shapes: tuple[Shape, ...]
    texture: Texture
    blend: Blend
    label: Label
    settings: TaskSettings

    def __call__(
        self, image: torch.Tensor, foreground: torch.Tensor, donors: Donors, generator: torch.Generator
    ) -> Corrupted:
        """See `AnomalyTask`."""
        every = range(len(image))
        return self.corrupt(every, Corrupted(image.clone(), *_nothing(image)), foreground, donors, generator)

    def corrupt(
        self,
        targets: Sequence[int],
        result: Corrupted,
        foreground: torch.Tensor,
        donors: Donors,
        generator: torch.Generator,
    ) -> Corrupted:
        """Plant one anomaly in each of the `targets` of a batch, in place; `result.image` must be a copy already."""
        # Two differences of sigma make the typical difference of two foreground voxels (see ConfigurationPlan).
        scale = 2 * torch.tensor(self.settings.label_sigma, device=result.image.device, dtype=result.image.dtype)
        for target in targets:
            result.failed[target] = not result.label[target].any()
            shape = self.shapes[integer(generator, 0, len(self.shapes))]
            placement = place(shape, foreground[target], self.settings.extent, self.settings.fractions, generator)
            if placement is None:
                continue
            before = result.image[target][(slice(None), *placement.box)]
            new = self.texture(Region(result.image[target], before, placement, target, scale), donors, generator)
            if new is None:
                continue
            after, weight = self.blend(before, new, placement.depth, generator)
            label = self.label(before, after, weight)
            if not label.any():
                continue
            planted = result.label[target, 0][placement.box]
            torch.maximum(planted, label, out=planted)
            before.copy_(after)
            result.failed[target] = False
        return result


@dataclass(frozen=True)
class Mixture:
    """For each image one task is drawn, or none: then it stays normal. Further anomalies may follow.

    Attributes:
        tasks: The tasks.
        weights: Their shares, non-negative.
        normal: Share of images left normal on purpose, relative to the same sum.
        repeat: Probability of one more anomaly, of a task drawn anew, after each (Baugh et al. 2023: 0.5).
        most: Most anomalies in an image (Baugh et al. 2023: 4).
    """

    tasks: tuple[ComposedTask, ...]
    weights: tuple[float, ...]
    normal: float = 0.0
    repeat: float = 0.0
    most: int = 4

    def __call__(
        self, image: torch.Tensor, foreground: torch.Tensor, donors: Donors, generator: torch.Generator
    ) -> Corrupted:
        """See `AnomalyTask`."""
        result = Corrupted(image.clone(), *_nothing(image))
        drawn = dict(enumerate(choice(generator, (*self.weights, self.normal), len(image))))
        for _ in range(self.most):
            for number, task in enumerate(self.tasks):
                targets = [index for index, picked in drawn.items() if picked == number]
                result = task.corrupt(targets, result, foreground, donors, generator)
            again = [i for i, k in drawn.items() if k < len(self.tasks) and uniform(generator, 0, 1) < self.repeat]
            if not again:
                break
            drawn = dict(zip(again, choice(generator, self.weights, len(again)), strict=True))
        return result


def _nothing(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Label and `failed` of a batch without anomalies."""
    label = torch.zeros(len(image), 1, *image.shape[2:], device=image.device)
    return label, torch.zeros(len(image), dtype=torch.bool, device=image.device)
