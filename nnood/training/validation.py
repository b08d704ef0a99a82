"""Validation on fixed images: the same held-out patches with the same anomalies in every epoch and every member."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nnood.evaluation.histogram import ScoreHistogram, count_bins
from nnood.evaluation.metrics import Counts, average_precision, count_scores
from nnood.planning.storage import CaseStore
from nnood.scores import sample_score
from nnood.tasks import TaskSettings
from nnood.training.fixed_anomalies import plant_fixed, seed_of
from nnood.training.loading import load_seen
from nnood.training.losses import SoftBinaryCrossEntropy
from nnood.views import View

NORMAL = "normal"
MAX_CASES = 40
MOST_PATCHES = 200  # of all tasks together: many tasks shall not cost more than training does


def cases_for(tasks: Sequence[str], most_cases: int, most_images: int) -> int:
    """How many cases to take, each once normal and once with each task, so that there are not too many images.

    Args:
        tasks: Names of the tasks.
        most_cases: At most so many cases.
        most_images: At most so many images, as long as there is a case.
    """
    return max(1, min(most_cases, most_images // (1 + len(tasks))))


def spread_evenly(cases: Sequence[str], most: int) -> list[str]:
    """At most so many of the cases, evenly spread over their list."""
    return [cases[index] for index in np.linspace(0, len(cases) - 1, min(len(cases), most)).round().astype(int)]


def donor_of(case: str, donors: Sequence[str], seed: int) -> str:
    """Another case that lends patches to a case; itself if there is no other."""
    others = [donor for donor in donors if donor != case] or [case]
    return others[seed % len(others)]


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
        views: Sequence[View],
        device: torch.device,
    ) -> None:
        """Choose the cases.

        Args:
            store: The held-out cases.
            tasks: Names of the tasks to validate on.
            settings: What the plan knows of the data, as it is stored.
            dataset: Name of the data set, part of every seed.
            donors: Cases of the same store's folder that lend patches; the same for every member.
            patch_size: Of the configuration.
            batch_size: Images per batch; decides nothing else.
            views: From where networks see cases; each image is seen from one.
            device: Where to plant the anomalies.
        """
        self._store = store
        self._donors = list(donors)
        self._views = tuple(views)
        self._settings = [view.settings(settings) for view in self._views]
        self._dataset = dataset
        self._patch_size = tuple(patch_size)
        self._batch_size = batch_size
        self._device = device
        chosen = spread_evenly(store.identifiers, cases_for(tasks, MAX_CASES, MOST_PATCHES))
        self._items = [(case, task) for case in chosen for task in (NORMAL, *tasks)]

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._items) // self._batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches `data` (B, C, *S), `target` (B, 1, *S), `foreground` (B, *S) bool and `tasks`, a name per image."""
        for start in range(0, len(self._items), self._batch_size):
            items = self._items[start : start + self._batch_size]
            made = [self._make(case, task) for case, task in items]
            images, labels, foregrounds = (torch.cat(part) for part in zip(*made, strict=True))
            yield {
                "data": images,
                "target": labels,
                "foreground": foregrounds,
                "tasks": [task for _, task in items],
            }

    def _make(self, case: str, task: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One image (1, C, *S), its label (1, 1, *S) and the foreground before anything was planted (1, *S)."""
        seed = seed_of(self._dataset, case, task)
        # Of a seed of its own: the task's chooses the donor, of whom one side would meet a few only.
        number = seed_of(self._dataset, case, task, "view") % len(self._views)
        view, settings = self._views[number], self._settings[number]
        image, foreground = self._load(case, view)
        if task == NORMAL:
            return image, torch.zeros(1, 1, *image.shape[2:], device=self._device), foreground
        other, _ = self._load(donor_of(case, self._donors, seed), view)
        planted, label = plant_fixed(image[0], foreground[0], other[0], task, settings, seed)
        return planted[None], label[None, None], foreground

    def _load(self, case: str, view: View) -> tuple[torch.Tensor, torch.Tensor]:
        """The patch around the middle of the foreground: image (1, C, *S), foreground (1, *S)."""
        image, mask = load_seen(self._store, case, self._patch_size, view)
        return image[None].to(self._device), mask[None].to(self._device)


class TaskScores:
    """Gathers scores over fixed images and turns them into average precisions per task."""

    def __init__(self) -> None:
        self._voxels: dict[str, ScoreHistogram] = {}
        self._samples: dict[str, list[tuple[float, bool]]] = {}
        self._labels: dict[str, list[float]] = {}
        self._losses: dict[str, list[float]] = {}

    def add(
        self, scores: torch.Tensor, labels: torch.Tensor, tasks: Sequence[str], losses: Sequence[float] = ()
    ) -> None:
        """Add a batch.

        Args:
            scores: (B, 1, *S) in [0, 1].
            labels: (B, 1, *S) in [0, 1]; anomalous is what is above 0.
            tasks: A name per image.
            losses: A value per image, or none at all.
        """
        for score, label, task in zip(scores.float().cpu().numpy(), labels.cpu().numpy(), tasks, strict=True):
            truth = label > 0
            self._voxels.setdefault(task, ScoreHistogram()).add(count_bins(score, truth))
            self._samples.setdefault(task, []).append((sample_score(score), bool(truth.any())))
            self._labels.setdefault(task, []).append(float(label.mean(dtype=np.float64)))
        for loss, task in zip(losses, tasks, strict=False):
            self._losses.setdefault(task, []).append(loss)

    def prior(self, tasks: Sequence[str]) -> float:
        """Mean label of images of these tasks and normal ones; 0 without images."""
        return _mean_over(self._labels, tasks)

    def loss(self, tasks: Sequence[str]) -> float:
        """Mean loss of images of these tasks and normal ones; 0 without images."""
        return _mean_over(self._losses, tasks)

    def voxel_ap(self, tasks: Sequence[str]) -> dict[str, float]:
        """Per task, over its images and the normal ones."""
        return {task: float(average_precision(self._pooled(task).counts())) for task in tasks}

    def chance(self, tasks: Sequence[str]) -> dict[str, float]:
        """Per task, the voxel average precision of random scores: the share of anomalous voxels."""
        return {task: prevalence(self._pooled(task).counts()) for task in tasks}

    def _pooled(self, task: str) -> ScoreHistogram:
        """Of a task's images and the normal ones."""
        pooled = ScoreHistogram()
        for name in (task, NORMAL):
            if name in self._voxels:
                pooled.merge(self._voxels[name])
        return pooled

    def sample_ap(self, tasks: Sequence[str]) -> dict[str, float]:
        """Per task, its images against the normal ones."""
        result = {}
        for task in tasks:
            samples = [*self._samples.get(task, []), *self._samples.get(NORMAL, [])]
            scores = np.array([score for score, _ in samples])
            truth = np.array([is_anomalous for _, is_anomalous in samples], dtype=bool)
            result[task] = float(average_precision(count_scores(scores, truth)))
        return result


def prevalence(counts: Counts) -> float:
    """Share of the anomalous among all; 0 if there are none at all."""
    anomalous, normal = float(counts.positives.sum()), float(counts.negatives.sum())
    return anomalous / (anomalous + normal) if anomalous else 0.0


def _mean_over(values: Mapping[str, Sequence[float]], tasks: Sequence[str]) -> float:
    chosen = [value for task in dict.fromkeys((NORMAL, *tasks)) for value in values.get(task, ())]
    return float(np.mean(chosen)) if chosen else 0.0


@torch.no_grad()
def score_patches(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], patches: FixedPatches, check: Callable[[], None]
) -> TaskScores:
    """Scores and losses of fixed patches.

    Args:
        predict: From images (B, C, *S) and their foreground (B, *S) to logits (B, 1, *S).
        patches: The patches.
        check: Called before each batch; may raise to end it here.
    """
    loss, scores = SoftBinaryCrossEntropy(), TaskScores()
    for batch in patches:
        check()
        logits, target = predict(batch["data"], batch["foreground"]).float(), batch["target"]
        losses = [float(loss(one, label)) for one, label in zip(logits, target, strict=True)]
        scores.add(torch.sigmoid(logits), target, batch["tasks"], losses)
    return scores
