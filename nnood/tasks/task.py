"""A self-supervised task: plants anomalies in a batch of normal images and labels them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from nnood.tasks.blending import Blend
from nnood.tasks.donors import Donors
from nnood.tasks.draws import choice, integer, uniform
from nnood.tasks.labels import LABELS, Label
from nnood.tasks.placement import place
from nnood.tasks.settings import TaskSettings
from nnood.tasks.shapes import Shape
from nnood.tasks.textures import Region, Texture

ATTEMPTS = 3
MOST_ANOMALIES = 4


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
class ComposedTask:
    """A task made of parts, working in the anomaly's box only.

    Attributes:
        shapes: One of them is drawn for each anomaly.
        texture: What goes in.
        blend: How it goes in.
        settings: What the plan knows of the data; says which label.
        repeat: Probability of one more anomaly after each, up to four (Baugh et al. 2023: 0.5).
        foreground_only: Nothing is planted outside of the foreground.
    """

    shapes: tuple[Shape, ...]
    texture: Texture
    blend: Blend
    settings: TaskSettings
    repeat: float = 0.0
    foreground_only: bool = False

    def __call__(
        self, image: torch.Tensor, foreground: torch.Tensor, donors: Donors, generator: torch.Generator
    ) -> Corrupted:
        """See `AnomalyTask`."""
        result = _nothing(image)
        self.corrupt(range(len(image)), result, foreground, donors, generator)
        return result

    @functools.cached_property
    def _label(self) -> Label:
        return LABELS[self.settings.label](self.settings)

    @torch.inference_mode()  # small operations are a tenth faster; the result's tensors were made outside of it
    def corrupt(
        self,
        targets: Sequence[int],
        result: Corrupted,
        foreground: torch.Tensor,
        donors: Donors,
        generator: torch.Generator,
    ) -> None:
        """Plant anomalies in the `targets` of a batch, in place."""
        for target in targets:
            planted = self._plant(target, result, foreground[target], donors, generator)
            result.failed[target] = not planted
            for _ in range(MOST_ANOMALIES - 1):
                if not planted or not self.repeat or uniform(generator, 0, 1) >= self.repeat:
                    break
                self._plant(target, result, foreground[target], donors, generator)

    def _plant(
        self, target: int, result: Corrupted, foreground: torch.Tensor, donors: Donors, generator: torch.Generator
    ) -> bool:
        """Plant one anomaly; drawn anew, a few times at most, where it could not be seen."""
        image = result.image[target]
        # Two differences of sigma make the typical difference of two foreground voxels (see ConfigurationPlan).
        scale = 2 * torch.tensor(self.settings.label_sigma, device=image.device)
        for _ in range(ATTEMPTS):
            shape = self.shapes[integer(generator, 0, len(self.shapes))]
            placement = place(shape, foreground, self.settings, generator, foreground_only=self.foreground_only)
            if placement is None:
                return False
            before = image[(slice(None), *placement.box)]
            old = before.float()
            region = Region(image, old, placement, target, scale, self.settings.spacing)
            new = self.texture(region, donors, generator)
            if new is None:
                return False
            after, weight = self.blend(old, new, placement.outline.depth, generator)
            after = after.to(image.dtype)
            label = self._label(old, after.float(), weight)
            if label.amax() > 0:
                before.copy_(after)
                planted = result.label[target, 0][placement.box]
                torch.maximum(planted, label, out=planted)
                return True
        return False


@dataclass(frozen=True)
class Mixture:
    """For each image one task is drawn, or none: then it stays normal.

    Attributes:
        tasks: The tasks.
        weights: Their shares, non-negative.
        normal: Share of images left normal on purpose, relative to the same sum.
    """

    tasks: tuple[ComposedTask, ...]
    weights: tuple[float, ...]
    normal: float = 0.0

    def __call__(
        self, image: torch.Tensor, foreground: torch.Tensor, donors: Donors, generator: torch.Generator
    ) -> Corrupted:
        """See `AnomalyTask`."""
        result = _nothing(image)
        drawn = choice(generator, (*self.weights, self.normal), len(image))
        for number, task in enumerate(self.tasks):
            targets = [index for index, picked in enumerate(drawn) if picked == number]
            task.corrupt(targets, result, foreground, donors, generator)
        return result


def _nothing(image: torch.Tensor) -> Corrupted:
    """A copy of a batch, without anomalies."""
    label = torch.zeros(len(image), 1, *image.shape[2:], device=image.device)
    return Corrupted(image.clone(), label, torch.zeros(len(image), dtype=torch.bool, device=image.device))
