"""Anomalies planted in the loader's batches, on the training device."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nnood.planning.storage import CaseStore
from nnood.tasks import TaskSettings, build_mixture
from nnood.tasks.donors import BANK_SIZE, Donors
from nnood.training.loading import load_patch
from nnood.training.recipes import Recipe


def recipe_settings(settings: TaskSettings, recipe: Recipe) -> TaskSettings:
    """What a recipe's tasks must know: label, repetition and sizes are the recipe's."""
    fractions, least = recipe.sizes or settings.fractions, settings.fractions[0]
    return dataclasses.replace(
        settings,
        label=recipe.label,
        repeat=recipe.repeat,
        fractions=(max(fractions[0], least), max(fractions[1], least)),
    )


class Planter:
    """A recipe's mixture of tasks, with its donors and its randomness.

    Attributes:
        failed: Anomalies that could not be planted since the last `start_epoch`.
    """

    def __init__(
        self,
        recipe: Recipe,
        tasks: Sequence[str],
        settings: TaskSettings,
        *,
        lenders: CaseStore | None,
        patch_size: Sequence[int],
        device: torch.device,
    ) -> None:
        """Build the mixture.

        Args:
            recipe: Says shares, label and repetition.
            tasks: Names of the fold's training tasks.
            settings: What the plan knows of the data.
            lenders: Cases of another data set that lend all foreign patches, or None.
            patch_size: Of the configuration.
            device: Where to plant.
        """
        weights = {name: recipe.tasks.get(name, 1.0) for name in tasks}
        normal = recipe.normal / (1 - recipe.normal) * sum(weights.values())
        self._mixture = build_mixture(weights, recipe_settings(settings, recipe), normal=normal)
        self._lenders = lenders
        self._patch_size = tuple(patch_size)
        self._device = device
        self._donors = Donors()
        # On the CPU, whatever the device: the draws are few, and the anomalies are the same everywhere.
        self._generator = torch.Generator()
        self.failed = 0

    def start_epoch(self, seed: int) -> None:
        """Begin anew from a seed: an empty bank of donors or, if there are lenders, new patches of theirs."""
        self._donors = Donors(external=self._external_patches(seed))
        self.failed = 0

    def start_step(self, seed: int) -> None:
        """Make all that follows depend on a seed, the bank of donors, and nothing else."""
        self._generator.manual_seed(seed)

    def state(self) -> dict[str, Any]:
        """What an epoch has left so far, in tensors and plain values."""
        return {"donors": self._donors.state(), "failed": self.failed}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of the same epoch, after `start_epoch`."""
        self._donors.restore([(case, image.to(self._device)) for case, image in state["donors"]])
        self.failed = state["failed"]

    def __call__(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Plant anomalies in a batch of nnU-Net's loader: image (B, C, *S) and label (B, 1, *S) on the device."""
        image = batch["data"].to(self._device, non_blocking=True)
        foreground = batch["target"][:, 0].to(self._device, non_blocking=True) == 1
        self._donors.begin_batch([str(case) for case in batch["keys"]], image)
        corrupted = self._mixture(image, foreground, self._donors, self._generator)
        self.failed += int(corrupted.failed.sum())
        return corrupted.image, corrupted.label

    def _external_patches(self, seed: int) -> list[torch.Tensor]:
        """Random patches of the lenders, as many as a bank holds; none without lenders."""
        if self._lenders is None:
            return []
        generator = np.random.default_rng(seed)
        cases = generator.choice(self._lenders.identifiers, BANK_SIZE)
        patches = [load_patch(self._lenders, str(case), self._patch_size, generator) for case in cases]
        return [image.to(self._device) for image, _ in patches]
