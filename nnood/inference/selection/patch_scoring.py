"""Sample scores that autoencoders read from patches: which there are to choose from, and what they say."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nnood.errors import UserError
from nnood.inference.members import Member, settings_of
from nnood.inference.selection.cache import Cache
from nnood.inference.selection.ensembles import Ledger
from nnood.inference.selection.images import Image
from nnood.reconstruction.network import PatchValues
from nnood.reconstruction.patch_scores import OWN_SCORES, PATCH_COMBINATIONS, PATCH_SCORES, PatchScorer
from nnood.training.checkpoints import load_checkpoint


def numbers_of_networks(members: Sequence[Member]) -> dict[int, str]:
    """One member per autoencoder, whichever voxel score it stands for: its number, and recipe and configuration."""
    found: dict[Path, tuple[int, str]] = {}
    for number, member in enumerate(members):
        if member.file not in found and settings_of(member).recipe.reconstruction is not None:
            found[member.file] = number, " ".join(member.folder.name.split("__")[1:])
    return dict(found.values())


@dataclass(frozen=True)
class PatchChoice:
    """A sample score of patches.

    Attributes:
        group: Recipe and configuration of the networks.
        members: Their numbers.
        score: One of `PATCH_SCORES`.
        combination: One of `PATCH_COMBINATIONS`.
    """

    group: str
    members: tuple[int, ...]
    score: str
    combination: str

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.score} of patches of {self.group}, {self.combination}"


class PatchJudge:
    """Scores images by what autoencoders know of their patches."""

    def __init__(self, members: Sequence[Member], cache: Cache) -> None:
        """Find the autoencoders among the members.

        Args:
            members: All that are judged.
            cache: Holds the values of the patches of all images.
        """
        self._members, self._cache = members, cache
        self._groups: dict[str, list[int]] = {}
        for number, group in numbers_of_networks(members).items():
            self._groups.setdefault(group, []).append(number)
        self._scorers: dict[int, PatchScorer] = {}
        self._scores: dict[tuple[int, str, Image], np.ndarray] = {}

    def choices(self, ledger: Ledger) -> list[PatchChoice]:
        """All that can be tried; without PyOD, or with too few codes, a note says what was left out.

        Args:
            ledger: Gets the notes.
        """
        found = []
        for group, numbers in self._groups.items():
            able: list[str] = []
            notes: list[str] = []
            for kind in tqdm(PATCH_SCORES, desc=f"Fitting detectors on codes of {group}", leave=False, disable=None):
                try:
                    notes += self._notes(kind, numbers)
                    able.append(kind)
                except UserError as error:  # without PyOD there are no detectors, without codes nothing at all
                    notes.append(str(error))
                    break
                except ValueError as error:
                    notes.append(f"{kind}: {error}")
            ledger.notes += [f"{group}: {note}" for note in dict.fromkeys(notes) if note]
            found += [PatchChoice(group, tuple(numbers), *pair) for pair in product(able, PATCH_COMBINATIONS)]
        return found

    def _notes(self, kind: str, numbers: Sequence[int]) -> list[str]:
        """What fitting a detector on each network's codes gave to say."""
        scorers = [self._scorer(number) for number in numbers]
        notes = [] if kind in OWN_SCORES else [scorer.detector(kind).note for scorer in scorers]
        return [f"{kind}: {note}." for note in notes if note]

    def _scorer(self, number: int) -> PatchScorer:
        if number not in self._scorers:
            content = load_checkpoint(self._members[number].file, torch.device("cpu"))
            self._scorers[number] = PatchScorer(content["patches"])
        return self._scorers[number]

    def __call__(self, choice: PatchChoice, images: Sequence[Image]) -> np.ndarray:
        """Sample scores (I,) of images, NaN where none of the networks may judge."""
        combine = PATCH_COMBINATIONS[choice.combination]
        rows: list[list[float]] = [[] for _ in images]
        for number in choice.members:
            self._prepare(number, choice.score, [image for image in images if number in image.judges])
            for row, image in zip(rows, images, strict=True):
                if number in image.judges:
                    row.append(combine(self._scores[number, choice.score, image]))
        return np.array([np.mean(row) if row else np.nan for row in rows])

    def _prepare(self, number: int, kind: str, images: Sequence[Image]) -> None:
        """Score the patches of many images at once: detectors are slow to start."""
        missing = [image for image in images if (number, kind, image) not in self._scores]
        if not missing:
            return
        values = [self._cache.read_patches(image, number) for image in missing]
        together = PatchValues(*(torch.cat(part) for part in zip(*values, strict=True)))
        ends = np.cumsum([len(one.error) for one in values])[:-1]
        parts = np.split(self._scorer(number)(kind, together), ends)
        self._scores.update({(number, kind, image): part for image, part in zip(missing, parts, strict=True)})
