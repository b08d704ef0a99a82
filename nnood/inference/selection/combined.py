"""The chosen ensemble's whole score maps of the judged images, gone through in worker processes."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np

from nnood.errors import one_error
from nnood.evaluation.metrics import Counts
from nnood.inference.ensembling import Combiner
from nnood.inference.postprocessing import Step, apply_steps
from nnood.inference.selection.cache import Cache, JudgedImage
from nnood.inference.selection.ensembles import Chosen
from nnood.inference.selection.figures import BINS, Tally, bins_of, count, normal_counts
from nnood.inference.selection.images import Image
from nnood.parallel import map_cases
from nnood.training.validation import NORMAL

Steps = tuple[Step, ...]

MOST_VALUES = 2**27  # of all members' scores in memory at once


@dataclass(frozen=True)
class Combined:
    """An ensemble whose members' score maps are in the cache.

    Attributes:
        cache: Holds them.
        images: The judged images.
        chosen: The ensemble.
        quantiles: Of all members.
        processes: Worker processes.
    """

    cache: Cache
    images: tuple[Image, ...]
    chosen: Chosen
    quantiles: tuple[tuple[float, ...], ...]
    processes: int

    def judges(self, image: Image) -> list[int]:
        """Those of the ensemble's members that may judge an image."""
        return [judge for judge in image.judges if judge in self.chosen.members]

    def read(self, image: Image) -> tuple[np.ndarray, JudgedImage]:
        """The combined score map (Z, Y, X), and the image's truth and foreground."""
        judged = self.cache.read_image(image)
        # The median keeps all maps it is made of, so it is made a few slices at a time.
        depth = max(1, MOST_VALUES // (len(self.judges(image)) * judged.truth[0].size))
        parts = [self._combine(image, slice(start, start + depth)) for start in range(0, len(judged.truth), depth)]
        return np.concatenate(parts), judged

    def _combine(self, image: Image, slices: slice) -> np.ndarray:
        judges = self.judges(image)
        combiner = Combiner(self.chosen.combination, count=len(judges))
        for judge in judges:
            combiner.add(self.cache.read_map(image, judge, slices), self.quantiles[judge])
        return combiner.result()

    def over(self, images: Sequence[Image], function: Callable[..., Any], *arguments: Any, title: str) -> list[Any]:
        """Call a function of a module with this ensemble and each image; None where no member may judge it."""
        able = {str(number): image for number, image in enumerate(images) if self.judges(image)}
        # Each call is sent to a worker process, which needs to know of its own image only.
        lean = dataclasses.replace(self, images=())
        calls = {key: (lean, image, *arguments) for key, image in able.items()}
        results, faults = map_cases(function, calls, processes=self.processes, description=title)
        one_error(faults)
        return [results.get(str(number)) for number in range(len(images))]

    def tallies(self, candidates: Sequence[Steps], *, title: str) -> list[Tally]:
        """Count what each candidate's steps leave of the scores."""
        counted = self.over(self.images, _count_steps, tuple(candidates), title=title)
        empty = np.zeros((len(candidates), 2, BINS), dtype=np.float32)
        voxels = np.stack([empty if table is None else table for table in counted], axis=1)
        defined = np.array([table is not None for table in counted])
        return [Tally(table, defined) for table in voxels]

    def clean(self, more: Sequence[Image] = ()) -> list[Image]:
        """The judged images without anomaly, and more of them."""
        return [image for image in (*self.images, *more) if image.task == NORMAL]

    def normal_counts(self, steps: Steps, more: Sequence[Image] = (), *, title: str) -> Counts:
        """Scores in the foreground of the clean images and more of them."""
        clean = self.clean(more)
        counted = [table for table in self.over(clean, _count_normal, steps, title=title) if table is not None]
        return normal_counts(np.sum(counted, axis=0) if counted else np.zeros(BINS))

    def false_volumes(self, steps: Steps, thresholds: Sequence[float], *, title: str) -> list[np.ndarray]:
        """Volumes in mm3 of the regions of clean images that reach each threshold."""
        found = [
            row for row in self.over(self.clean(), _volumes, steps, tuple(thresholds), title=title) if row is not None
        ]
        return [np.concatenate([row[number] for row in found]) for number in range(len(thresholds))]


def voxel_volume(judged: JudgedImage) -> float:
    """In mm3; a 2D image is taken as 1 mm thick."""
    return float(np.prod(judged.spacing[1:] if judged.truth.shape[0] == 1 else judged.spacing))


def _count_steps(combined: Combined, image: Image, candidates: Sequence[Steps]) -> np.ndarray:
    """(candidates, 2, BINS)."""
    scores, judged = combined.read(image)
    processed = (
        apply_steps(scores, steps, foreground=judged.foreground, spacing=judged.spacing) for steps in candidates
    )
    return np.stack([count(values, judged.truth) for values in processed])


def _count_normal(combined: Combined, image: Image, steps: Steps) -> np.ndarray:
    """(BINS,)."""
    scores, judged = combined.read(image)
    scores = apply_steps(scores, steps, foreground=judged.foreground, spacing=judged.spacing)
    return np.bincount(bins_of(scores[judged.foreground]), minlength=BINS)


def _volumes(combined: Combined, image: Image, steps: Steps, thresholds: Sequence[float]) -> list[np.ndarray]:
    """Per threshold."""
    scores, judged = combined.read(image)
    scores = apply_steps(scores, steps, foreground=judged.foreground, spacing=judged.spacing)
    labelled = (cc3d.connected_components(scores >= threshold, connectivity=26) for threshold in thresholds)
    return [np.bincount(objects.ravel())[1:] * voxel_volume(judged) for objects in labelled]
