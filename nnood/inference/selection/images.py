"""The images that members are judged on: held-out cases, clean and with anomalies of tasks they never trained on."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import read_case, read_image
from nnood.inference.members import Member, settings_of
from nnood.planning.storage import foreground_file
from nnood.safety import digest_of
from nnood.training.cross_validation import Fold
from nnood.training.fixed_anomalies import fit_to, plant_in_case, seed_of, settings_from_image
from nnood.training.validation import NORMAL, donor_of, spread_evenly

# Planted where a recipe validates on the very tasks it trains on: the first few that its members have not seen. They
# differ as much as tasks can: a deformation, foreign tissue, a random texture, a hole, a blurred foreign patch.
UNSEEN = (
    *("sink", "poisson_inter", "random_shape", "cutout", "source", "nsa", "fpi", "smooth_intensity", "autoseg"),
    *("dag", "poisson_intra", "nsa_mixed", "cutpaste"),  # what the default recipe leaves out
)
UNSEEN_COUNT = 4
# nnU-Net's normalisations of channels whose unit means nothing: those of a donor are matched first.
RELATIVE = ("ZScoreNormalization", "RescaleTo01Normalization")


@dataclass(frozen=True)
class Image:
    """A held-out case, clean or with an anomaly.

    Attributes:
        case: Its name.
        task: What was planted, or `NORMAL`.
        judges: Numbers of the members that saw neither the case nor the task.
    """

    case: str
    task: str
    judges: tuple[int, ...]


def fold_of(member: Member) -> Fold:
    """The cases and tasks that a member was trained on and kept from."""
    return settings_of(member).fold


def unseen_tasks(folds: Sequence[Fold]) -> list[str]:
    """Tasks to plant: those that folds validate on and did not train on; for the others, tasks outside their recipe.

    Args:
        folds: Of all members.
    """
    chosen = {task for fold in folds for task in fold.val_tasks if task not in fold.train_tasks}
    blind = [set(fold.train_tasks) for fold in folds if not set(fold.val_tasks) - set(fold.train_tasks)]
    common = _outside(set().union(*blind))
    # Where all of them together have seen everything, each is judged on what it has not seen itself.
    for seen in blind:
        chosen |= set(common or _outside(seen))
    return sorted(chosen)


def _outside(seen: set[str]) -> list[str]:
    return [task for task in UNSEEN if task not in seen][:UNSEEN_COUNT]


def list_images(folds: Sequence[Fold], *, max_cases: int) -> list[Image]:
    """All images with at least one member that may judge them.

    Args:
        folds: Of all members.
        max_cases: At most this many cases, spread evenly over those held out.
    """
    held_out = [set(fold.val_cases) - set(fold.train_cases) for fold in folds]
    tasks = unseen_tasks(folds)
    images = []
    for case in spread_evenly(sorted(set().union(*held_out)), max_cases):
        for task in (NORMAL, *tasks):
            judges = tuple(
                number for number, fold in enumerate(folds) if case in held_out[number] and task not in fold.train_tasks
            )
            if judges:
                images.append(Image(case, task, judges))
    return images


def clean_images(folds: Sequence[Fold], judged: Sequence[Image], *, max_cases: int) -> list[Image]:
    """Clean images of held-out cases beyond those that are judged.

    Args:
        folds: Of all members.
        judged: The judged images.
        max_cases: At most so many cases, those of the judged images included.
    """
    cases = {image.case for image in judged}
    more = [image for image in list_images(folds, max_cases=max_cases) if image.task == NORMAL]
    return [image for image in more if image.case not in cases][: max(0, max_cases - len(cases))]


@dataclass(frozen=True)
class ImageMaker:
    """Reads held-out cases and plants anomalies in them, on the grid of their files.

    Members of all configurations therefore see the same images, in the same way as a user's.

    Attributes:
        dataset: Name of the data set, part of every seed.
        files: Per case, one file per channel, or one that holds them all.
        channels: Of each case.
        preprocessed: The preprocessed data set, which holds the foreground.
        fractions: Smallest and largest anomaly, as fractions of the foreground's box.
        relative: Channels whose unit differs from case to case, so that a donor's must be matched.
        lesions: Shapes of real lesions, or None.
    """

    dataset: str
    files: dict[str, list[Path]]
    channels: int
    preprocessed: Path
    fractions: tuple[float, float]
    relative: tuple[int, ...] = ()
    lesions: torch.Tensor | None = None

    def donor(self, case: str, task: str) -> str:
        """The case that lends foreign patches; the case itself if there is no other."""
        return donor_of(case, sorted(self.files), seed_of(self.dataset, case, task))

    def sources(self, case: str, task: str) -> list[Path]:
        """The files that an image is made of."""
        cases = (case,) if task == NORMAL else (case, self.donor(case, task))
        return [path for name in cases for path in (*self.files[name], foreground_file(self.preprocessed, name))]

    def settings(self) -> dict[str, Any]:
        """All that decides images besides their files, JSON-ready."""
        lesions = None if self.lesions is None else digest_of(self.lesions.tolist())
        relative = list(self.relative)
        return {"dataset": self.dataset, "fractions": self.fractions, "relative": relative, "lesions": lesions}

    def __call__(self, case: str, task: str) -> tuple[np.ndarray, Geometry, np.ndarray, np.ndarray]:
        """Make one image.

        Args:
            case: A training case of the data set.
            task: What to plant, or `NORMAL`.

        Returns:
            Values (C, Z, Y, X), their geometry, what is anomalous (Z, Y, X), bool, and the foreground of the case as it
            was before, bool (Z, Y, X).

        Raises:
            UserError: If a file is broken, or of another shape than when the data set was planned.
        """
        image, geometry, foreground = self._read(case)
        if task == NORMAL:
            return image, geometry, np.zeros(image.shape[1:], dtype=bool), foreground
        seed = seed_of(self.dataset, case, task)
        donor, _, donor_foreground = self._read(self.donor(case, task))
        for channel in self.relative:
            donor[channel] = _matched(donor[channel], donor_foreground, image[channel], foreground)
        values, body = (image[:, 0], foreground[0]) if geometry.dimensions == 2 else (image, foreground)
        measured = settings_from_image(values, body, geometry.spacing[::-1], self.fractions)
        settings = dataclasses.replace(measured, lesions=self.lesions)
        donor = fit_to(donor, donor_foreground, image.shape[1:])
        planted, label = plant_in_case(image, foreground, donor, task, settings, seed)
        return planted.numpy(), geometry, label.numpy() > 0, foreground

    def _read(self, case: str) -> tuple[np.ndarray, Geometry, np.ndarray]:
        """Values, geometry and foreground (Z, Y, X) of a case."""
        image, geometry = read_case(self.files[case], self.channels)
        file = foreground_file(self.preprocessed, case)
        mask, mask_geometry = read_image(file)
        if not geometry.matches(mask_geometry):
            raise UserError(
                f"{self.files[case][0]} does not fit its foreground {file}; it was changed after planning, bring it "
                "back or plan and train anew."
            )
        return image.astype(np.float32, copy=False), geometry, mask.reshape(image.shape[1:]) > 0


def _matched(donor: np.ndarray, donor_foreground: np.ndarray, image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """A donor's values (Z, Y, X) with the mean and the spread that an image's foreground has."""
    theirs, ours = (
        values[mask] if mask.any() else values for values, mask in ((donor, donor_foreground), (image, foreground))
    )
    (mean, spread), (wanted_mean, wanted_spread) = (
        (part.mean(dtype=np.float64), part.std(dtype=np.float64)) for part in (theirs, ours)
    )
    if spread == 0:
        return donor
    return ((donor - mean) * (wanted_spread / spread) + wanted_mean).astype(np.float32)
