"""What a fold validates on: fixed patches after each epoch, whole cases now and then."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nnood.planning.storage import CaseStore
from nnood.tasks import TaskSettings
from nnood.training.settings import TrainingSettings
from nnood.training.validation import FixedPatches
from nnood.training.whole_cases import WholeCases
from nnood.views import View


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out cases of a fold and what is planted in them.

    Attributes:
        store: The held-out cases.
        training: Says fold and recipe.
        settings: What the plan knows of the data, as it is stored.
        dataset: Name of the data set.
        patch_size: Of the configuration.
        batch_size: Patches per batch; decides nothing else.
        first_spacing: Of the stored cases' first axis, in mm, if the configuration's patches lack that axis.
        views: From where networks see cases.
        device: Where to plant anomalies in patches.
    """

    store: CaseStore
    training: TrainingSettings
    settings: TaskSettings
    dataset: str
    patch_size: Sequence[int]
    batch_size: int
    first_spacing: float
    views: Sequence[View]
    device: torch.device

    @property
    def tasks(self) -> tuple[str, ...]:
        """By which networks are chosen: the fold's validation tasks."""
        return self.training.fold.val_tasks

    @property
    def followed(self) -> tuple[str, ...]:
        """Training tasks whose figures say when to stop; none if nothing does."""
        return () if self.training.recipe.stop_at is None else self.training.fold.train_tasks

    def patches(self) -> FixedPatches:
        """Patches with the validation tasks, and those that are followed."""
        return FixedPatches(
            self.store,
            tuple(dict.fromkeys((*self.tasks, *self.followed))),
            # The images are the same whatever the label; the loss is of what the network was taught to say.
            dataclasses.replace(self.settings, label=self.training.recipe.label),
            dataset=self.dataset,
            donors=self._donors(),
            patch_size=self.patch_size,
            batch_size=self.batch_size,
            views=self.views,
            device=self.device,
        )

    def whole_cases(self) -> WholeCases:
        """Whole cases with the validation tasks."""
        return WholeCases(
            self.store,
            self.tasks,
            self.settings,
            dataset=self.dataset,
            donors=self._donors(),
            first_spacing=self.first_spacing,
        )

    def _donors(self) -> list[str]:
        """Who lends patches: all of the fold's cases, so that an image is the same for all members."""
        return sorted({*self.training.fold.train_cases, *self.training.fold.val_cases})
