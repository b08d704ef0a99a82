"""A sample of voxels of every judged image with every judge's score: enough to compare ensembles in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnood.inference.ensembling import Combiner, reference_quantiles
from nnood.inference.selection.cache import Cache
from nnood.inference.selection.figures import BINS, Tally, bins_of, count, normal_counts
from nnood.inference.selection.images import Image
from nnood.training.fixed_anomalies import seed_of
from nnood.training.validation import NORMAL

# Anomalous voxels; normal ones with the highest scores, which decide the precision; and others, standing for the rest.
ANOMALOUS, HIGHEST, OTHERS = 10_000, 5_000, 5_000


@dataclass(frozen=True, eq=False)
class SampledImage:
    """Some voxels of an image.

    Attributes:
        image: Which one.
        scores: Per judge, in the order of `image.judges`, and voxel, float32 (J, V).
        truth: Anomalous or not, bool (V,).
        weights: How many voxels each one stands for, float32 (V,).
    """

    image: Image
    scores: np.ndarray
    truth: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class SampledVoxels:
    """The sample over all images.

    Attributes:
        images: One entry per judged image.
        quantiles: Per member, its scores at `RANK_LEVELS` in the foreground of the clean images that it may judge.
    """

    images: tuple[SampledImage, ...]
    quantiles: tuple[tuple[float, ...], ...]

    def tally(self, members: Sequence[int], combination: str) -> Tally:
        """Count what an ensemble says, each image judged by those of its members that may.

        Args:
            members: Numbers of the members.
            combination: One of `COMBINATIONS`.
        """
        voxels = np.zeros((len(self.images), 2, BINS), dtype=np.float32)
        defined = np.zeros(len(self.images), dtype=bool)
        for number, sampled in enumerate(self.images):
            rows = [row for row, judge in enumerate(sampled.image.judges) if judge in members]
            if rows:
                combiner = Combiner(combination, count=len(rows))
                for row in rows:
                    combiner.add(sampled.scores[row], self.quantiles[sampled.image.judges[row]])
                voxels[number] = count(combiner.result(), sampled.truth, sampled.weights)
                defined[number] = True
        return Tally(voxels, defined)


def sample_voxels(cache: Cache, images: Sequence[Image], members: int) -> SampledVoxels:
    """Read all score maps once.

    Args:
        cache: Holds them.
        images: The judged images.
        members: How many members there are.
    """
    normal = np.zeros((members, BINS))
    sampled = []
    for image in images:
        judged = cache.read_image(image)
        # One map at a time is in memory, which is why all are read twice.
        highest = np.zeros(judged.truth.shape, dtype=np.float32)
        for judge in image.judges:
            scores = cache.read_map(image, judge)
            np.maximum(highest, scores, out=highest)
            if image.task == NORMAL:
                normal[judge] += np.bincount(bins_of(scores[judged.foreground]), minlength=BINS)
        voxels, weights = choose_voxels(image, highest.ravel(), judged.truth.ravel())
        rows = np.stack([cache.read_voxels(image, judge, voxels) for judge in image.judges])
        sampled.append(SampledImage(image, rows, judged.truth.ravel()[voxels], weights))
    return SampledVoxels(tuple(sampled), tuple(reference_quantiles(normal_counts(row)) for row in normal))


def choose_voxels(image: Image, highest: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose voxels of an image, the same ones whenever the scores are the same.

    Args:
        image: Its case and task are the seed.
        highest: The highest score that any judge gives, per voxel (N,).
        truth: Anomalous or not, bool (N,).

    Returns:
        Positions of the voxels (V,), and how many voxels each one stands for, float32 (V,).
    """
    generator = np.random.default_rng(seed_of(image.case, image.task))
    anomalous, normal = np.flatnonzero(truth), np.flatnonzero(~truth)
    if len(normal) > HIGHEST:
        order = np.argpartition(highest[normal], -HIGHEST)
        top, rest = normal[order[-HIGHEST:]], normal[order[:-HIGHEST]]
    else:
        top, rest = normal, normal[:0]
    parts = [_draw(anomalous, ANOMALOUS, generator), (top, 1.0), _draw(rest, OTHERS, generator)]
    chosen = np.concatenate([voxels for voxels, _ in parts])
    weights = np.concatenate([np.full(len(voxels), weight, dtype=np.float32) for voxels, weight in parts])
    return chosen, weights


def _draw(voxels: np.ndarray, limit: int, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """At most `limit` of the voxels, and how many each stands for."""
    if len(voxels) <= limit:
        return voxels, 1.0
    return generator.choice(voxels, limit, replace=False), len(voxels) / limit
