"""Validation on whole held-out cases by nnU-Net's sliding window: as at prediction, on the preprocessed grid."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from nnood.planning.storage import CaseStore
from nnood.tasks import TaskSettings
from nnood.training.fixed_anomalies import fit_to, measure_stored, plant_in_case, seed_of
from nnood.training.recipe import Recipe
from nnood.training.validation import NORMAL, TaskScores, cases_for, donor_of, spread_evenly

MOST_CASES = 12
MOST_IMAGES = 60
FEWEST_TIMES = 4


def is_due(recipe: Recipe, epoch: int, *, last: bool) -> bool:
    """Whether an epoch ends with whole cases: every so often, a few times in a short run too, and in the last one.

    Args:
        recipe: Says how often.
        epoch: Number of the epoch, from 0.
        last: Whether training ends with this epoch.
    """
    if recipe.validate_whole_every == 0:
        return False
    interval = min(recipe.validate_whole_every, max(1, recipe.epochs // FEWEST_TIMES))
    return last or (epoch + 1) % interval == 0


class WholeCases:
    """Held-out cases as a whole, each once normal and once with an anomaly of each validation task.

    They are made anew for each validation, from seeds of data set, case and task: the same images for every member.
    """

    def __init__(
        self,
        store: CaseStore,
        tasks: Sequence[str],
        settings: TaskSettings,
        *,
        dataset: str,
        donors: Sequence[str],
        first_spacing: float,
    ) -> None:
        """Choose the cases.

        Args:
            store: The held-out cases.
            tasks: Names of the validation tasks.
            settings: Of the configuration; what can be measured on a case itself is not taken from here.
            dataset: Name of the data set, part of every seed.
            donors: Cases of the same store's folder that lend patches.
            first_spacing: Of the stored cases' first axis, in mm, if the configuration's patches lack that axis.
        """
        self._store = store
        self._tasks = tuple(tasks)
        self._settings = settings
        self._first_spacing = first_spacing
        self._dataset = dataset
        self._donors = list(donors)
        self.cases = spread_evenly(store.identifiers, cases_for(tasks, MOST_CASES, MOST_IMAGES))

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, str]]:
        """On the CPU: image (C, Z, Y, X), foreground (Z, Y, X) bool, label (Z, Y, X) in [0, 1], task or `NORMAL`."""
        for case in self.cases:
            image, foreground = self._load(case)
            inside = torch.from_numpy(foreground)
            yield torch.from_numpy(image), inside, torch.zeros(foreground.shape), NORMAL
            settings = measure_stored(image, foreground, self._first_spacing, self._settings)
            for task in self._tasks:
                planted, label = self._plant(image, foreground, case, task, settings)
                yield planted, inside, label, task

    def _plant(
        self, image: np.ndarray, foreground: np.ndarray, case: str, task: str, settings: TaskSettings
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One anomaly in a whole case."""
        seed = seed_of(self._dataset, case, task)
        donor = fit_to(*self._load(donor_of(case, self._donors, seed)), foreground.shape)
        return plant_in_case(image, foreground, donor, task, settings, seed)

    def _load(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        """Image (C, Z, Y, X) and foreground (Z, Y, X)."""
        return self._store.load_whole(case)


def score_whole_cases(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], cases: WholeCases, check: Callable[[], None]
) -> TaskScores:
    """Scores of whole cases.

    Args:
        predict: From an image (C, Z, Y, X) and its foreground (Z, Y, X) to logits (1, Z, Y, X).
        cases: The cases.
        check: Called before each image; may raise to end it here.
    """
    scores = TaskScores()
    for image, foreground, label, task in cases:
        check()
        logits = predict(image, foreground).float()
        scores.add(torch.sigmoid(logits)[None].cpu(), label[None, None], [task])
    return scores
