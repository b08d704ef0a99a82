"""Validation on fixed images: the same held-out patches with the same anomalies in every epoch and every member."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from nnood.evaluation.histogram import ScoreHistogram, count_bins
from nnood.evaluation.metrics import average_precision, count_scores
from nnood.planning.storage import CaseStore
from nnood.scores import sample_score
from nnood.tasks import TaskSettings
from nnood.training.fixed_anomalies import plant_fixed, seed_of
from nnood.training.loading import load_patch

NORMAL = "normal"
MAX_CASES = 40


class FixedPatches:
    """Held-out patches, each once normal and once with an anomaly of each validation task.

    The patches are made anew in every epoch, from seeds of data set, case and task, rather than kept: memory stays
    bounded whatever the number of cases.
    """

    def __init__(
        self,
        store: CaseStore,
        tasks: Sequence[str],
        settings: TaskSettings,
        *,
        dataset: str,
        donors: Sequence[str],
        patch_size: Sequence[int],
        batch_size: int,
        device: torch.device,
    ) -> None:
        """Choose the cases.

        Args:
            store: The held-out cases.
            tasks: Names of the validation tasks.
            settings: What the plan knows of the data.
            dataset: Name of the data set, part of every seed.
            donors: Cases of the same store's folder that lend patches: the training cases.
            patch_size: Of the configuration.
            batch_size: Images per batch; decides nothing else.
            device: Where to plant the anomalies.
        """
        self._store = store
        self._donors = list(donors)
        self._settings = settings
        self._dataset = dataset
        self._patch_size = tuple(patch_size)
        self._batch_size = batch_size
        self._device = device
        count = min(len(store.identifiers), MAX_CASES)
        chosen = np.linspace(0, len(store.identifiers) - 1, count).round().astype(int)
        self._items = [(store.identifiers[i], task) for i in chosen for task in (NORMAL, *tasks)]

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._items) // self._batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches `data` (B, C, *S), `target` (B, 1, *S) and `tasks`, a name per image."""
        for start in range(0, len(self._items), self._batch_size):
            items = self._items[start : start + self._batch_size]
            made = [self._make(case, task) for case, task in items]
            yield {
                "data": torch.cat([image for image, _ in made]),
                "target": torch.cat([label for _, label in made]),
                "tasks": [task for _, task in items],
            }

    def endless(self) -> Iterator[dict[str, Any]]:
        """The same batches over and over."""
        while True:
            yield from self

    def _make(self, case: str, task: str) -> tuple[torch.Tensor, torch.Tensor]:
        """One image (1, C, *S) and its label (1, 1, *S)."""
        image, foreground = self._load(case)
        if task == NORMAL:
            return image, torch.zeros(1, 1, *image.shape[2:], device=self._device)
        seed = seed_of(self._dataset, case, task)
        others = [donor for donor in self._donors if donor != case] or [case]
        other = others[seed % len(others)]
        planted, label = plant_fixed(image[0], foreground[0], self._load(other)[0][0], task, self._settings, seed)
        return planted[None], label[None, None]

    def _load(self, case: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The patch around the middle of the foreground: image (1, C, *S), foreground (1, *S)."""
        image, mask = load_patch(self._store, case, self._patch_size)
        return image[None].to(self._device), mask[None].to(self._device)


class TaskScores:
    """Gathers scores over the fixed patches and turns them into average precisions per task."""

    def __init__(self) -> None:
        self._voxels: dict[str, ScoreHistogram] = {}
        self._samples: dict[str, list[tuple[float, bool]]] = {}
        self.label_sum = 0.0
        self.label_count = 0

    def add(self, scores: torch.Tensor, labels: torch.Tensor, tasks: Sequence[str]) -> None:
        """Add a batch.

        Args:
            scores: (B, 1, *S) in [0, 1].
            labels: (B, 1, *S) in [0, 1]; anomalous is what is above 0.
            tasks: A name per image.
        """
        self.label_sum += float(labels.sum(dtype=torch.float64))
        self.label_count += labels.numel()
        for score, label, task in zip(scores.float().cpu().numpy(), labels.cpu().numpy(), tasks, strict=True):
            truth = label > 0
            self._voxels.setdefault(task, ScoreHistogram()).add(count_bins(score, truth))
            self._samples.setdefault(task, []).append((sample_score(score), bool(truth.any())))

    @property
    def prior(self) -> float:
        """Mean label."""
        return self.label_sum / max(1, self.label_count)

    def voxel_ap(self) -> dict[str, float]:
        """Per task, over its images and the normal ones."""
        result = {}
        for task, histogram in self._voxels.items():
            if task != NORMAL:
                pooled = ScoreHistogram()
                pooled.merge(histogram)
                if NORMAL in self._voxels:
                    pooled.merge(self._voxels[NORMAL])
                result[task] = float(average_precision(pooled.counts()))
        return result

    def sample_ap(self) -> dict[str, float]:
        """Per task, its images against the normal ones."""
        result = {}
        for task, samples in self._samples.items():
            if task != NORMAL:
                scores, truth = zip(*samples, *self._samples.get(NORMAL, []), strict=True)
                result[task] = float(average_precision(count_scores(np.array(scores), np.array(truth))))
        return result
