"""Anomalies planted in the loader's batches, on the training device."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nnood.planning.storage import CaseStore
from nnood.tasks import TaskSettings, build_mixture
from nnood.tasks.donors import BANK_SIZE, Donors
from nnood.training.loading import load_seen
from nnood.training.recipe import Recipe
from nnood.views import View


def recipe_settings(settings: TaskSettings, recipe: Recipe) -> TaskSettings:
    """What a recipe's tasks must know: label, repetition and sizes are the recipe's."""
    fractions, least = recipe.sizes or settings.fractions, settings.fractions[0]
    return dataclasses.replace(
        settings,
        label=recipe.label,
        repeat=recipe.repeat,
        fractions=(max(fractions[0], least), max(fractions[1], least)),
    )


def recipe_shares(recipe: Recipe, tasks: Sequence[str]) -> tuple[dict[str, float], float]:
    """Shares of a fold's training tasks by a recipe, and that of images left normal, relative to the same sum."""
    weights = {name: recipe.tasks.get(name, 1.0) for name in tasks}
    return weights, recipe.normal / (1 - recipe.normal) * sum(weights.values())


class Planter:
    """A recipe's mixture of tasks, with its randomness and, per view, its donors.

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
        views: Sequence[View],
        device: torch.device,
    ) -> None:
        """Build the mixture.

        Args:
            recipe: Says shares, label and repetition.
            tasks: Names of the fold's training tasks.
            settings: What the plan knows of the data, as it is stored.
            lenders: Cases of another data set that lend all foreign patches, or None.
            patch_size: Of the configuration.
            views: From where its networks see cases.
            device: Where to plant.
        """
        weights, normal = recipe_shares(recipe, tasks)
        known = recipe_settings(settings, recipe)
        self._views = tuple(views)
        self._mixtures = [build_mixture(weights, view.settings(known), normal=normal) for view in self._views]
        self._lenders = lenders
        self._patch_size = tuple(patch_size)
        self._device = device
        self._donors = [Donors() for _ in self._views]
        # On the CPU, whatever the device: the draws are few, and the anomalies are the same everywhere.
        self._generator = torch.Generator()
        self.failed = 0

    def start_epoch(self, seed: int) -> None:
        """Begin anew from a seed: empty banks of donors or, if there are lenders, new patches of theirs."""
        generator = np.random.default_rng(seed)
        self._donors = [Donors(external=self._external_patches(view, generator)) for view in self._views]
        self.failed = 0

    def start_step(self, seed: int) -> None:
        """Make all that follows depend on a seed, the banks of donors, and nothing else."""
        self._generator.manual_seed(seed)

    def state(self) -> dict[str, Any]:
        """What an epoch has left so far, in tensors and plain values."""
        return {"donors": [donors.state() for donors in self._donors], "failed": self.failed}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of the same epoch, after `start_epoch`."""
        for donors, known in zip(self._donors, state["donors"], strict=True):
            donors.restore([(case, image.to(self._device)) for case, image in known])
        self.failed = state["failed"]

    def __call__(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Plant anomalies in a batch of the loader: image (B, C, *S) and label (B, 1, *S) on the device.

        A batch of slabs (B, C, k, H, W) becomes (B, C * k, H, W), in which anomalies go through all slices alike.
        """
        number = batch["view"]
        view, donors = self._views[number], self._donors[number]
        image = view.fold(batch["data"].to(self._device, non_blocking=True))
        foreground = view.middle(batch["target"][:, 0].to(self._device, non_blocking=True) == 1)
        donors.begin_batch([str(case) for case in batch["keys"]], image)
        corrupted = self._mixtures[number](image, foreground, donors, self._generator)
        self.failed += int(corrupted.failed.sum())
        return corrupted.image, corrupted.label

    def _external_patches(self, view: View, generator: np.random.Generator) -> list[torch.Tensor]:
        """Random patches of the lenders, as many as a bank holds; none without lenders."""
        if self._lenders is None:
            return []
        cases = generator.choice(self._lenders.identifiers, BANK_SIZE)
        patches = [load_seen(self._lenders, str(case), self._patch_size, view, generator) for case in cases]
        return [image.to(self._device) for image, _ in patches]
