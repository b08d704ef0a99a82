"""What is reached without any training: the floor that every figure is compared with."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage, stats
from tqdm import tqdm

from nnood.case_files import Cases, list_cases
from nnood.datasets import DATASET_NAME, find_dataset_name, load_dataset
from nnood.errors import UserError
from nnood.evaluation.benchmark.sources import foreground_method
from nnood.evaluation.benchmark.table import DESCRIPTION
from nnood.evaluation.evaluate import Evaluator, ScoredCase, run_evaluators
from nnood.evaluation.folders import full_path, read_sample_scores
from nnood.evaluation.results import Evaluation
from nnood.evaluation.truth import Truth, find_truth, read_mask
from nnood.images import read_case
from nnood.paths import Roots
from nnood.planning.foreground import foreground_mask
from nnood.safety import read_json
from nnood.scores import sample_score

MAX_TRAINING_CASES = 100
# A place's deviation is never taken for less than this share of the foreground's: otherwise a place where all images
# happen to be alike would be the most anomalous one of every image.
MIN_DEVIATION = 0.1

Baseline = Callable[[np.ndarray, np.ndarray], np.ndarray]


def score_at_random(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Uniform noise, the same for the same image.

    Args:
        image: Values (C, Z, Y, X).
        foreground: Bool (Z, Y, X); not used.

    Returns:
        Scores (Z, Y, X) in [0, 1], as of all baselines.
    """
    # Of all values: the first ones are background in every image.
    seed = np.frombuffer(hashlib.sha256(image.tobytes()).digest(), dtype=np.uint32)
    return np.random.default_rng(seed).random(image.shape[1:], dtype=np.float32)


def score_by_intensity(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """The rank of a voxel's intensity in the foreground of its image, 0 outside; the brightest channel counts.

    A threshold on it is the intensity threshold on histogram-equalised FLAIR images of Meissen et al., Challenging
    current semi-supervised anomaly segmentation methods for brain MRI, MICCAI BrainLes 2021.
    """
    scores = np.zeros(image.shape[1:], dtype=np.float32)
    ranks = stats.rankdata(image[:, foreground], axis=1) / max(1, foreground.sum())
    scores[foreground] = ranks.max(axis=0)
    return scores


@dataclass(frozen=True)
class NormalDistribution:
    """Mean and deviation of normal images, each image standardised over its own foreground.

    Attributes:
        mean: Per channel and voxel of a common grid, (C, Z, Y, X).
        deviation: Likewise; at least `MIN_DEVIATION`.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, images: Iterable[np.ndarray]) -> "NormalDistribution":
        """Fit to standardised images (C, Z, Y, X), one in memory at a time, all stretched to the first one's shape.

        Raises:
            ValueError: If there are no images.
        """
        moments: list[np.ndarray] = []
        number = 0
        for image in images:
            fitted = _stretch(image, moments[0].shape[1:] if moments else image.shape[1:])
            moments = [old + new for old, new in zip(moments or (0, 0), (fitted, fitted**2), strict=True)]
            number += 1
        if not number:
            raise ValueError("Expected at least one image, but got none.")
        mean = moments[0] / number
        deviation = np.sqrt(np.maximum(moments[1] / number - mean**2, 0))
        return cls(mean, np.maximum(deviation, MIN_DEVIATION))

    def score_by_voxel(self, image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
        """z-score against the normal images' values at the same place, without any registration; as |z| / (1 + |z|)."""
        shape = image.shape[1:]
        difference = _standardise(image, foreground) - _stretch(self.mean, shape)
        return _from_z(difference / _stretch(self.deviation, shape), foreground)


def score_by_value(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """z-score against all values of the foreground, as |z| / (1 + |z|), 0 outside."""
    return _from_z(_standardise(image, foreground), foreground)


def _standardise(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    values = image[:, foreground].astype(np.float64)
    mean, deviation = (statistic[:, None, None, None] for statistic in (values.mean(axis=1), values.std(axis=1)))
    return np.divide(image - mean, deviation, out=np.zeros(image.shape), where=deviation > 0)


def _stretch(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resample (C, Z, Y, X) linearly to another shape."""
    factors = [1, *(new / old for new, old in zip(shape, image.shape[1:], strict=True))]
    return image if image.shape[1:] == shape else ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True)


def _from_z(z: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    size = np.abs(z).max(axis=0)
    return np.where(foreground, size / (1 + size), 0).astype(np.float32)


def fit_baselines(training: Cases, channels: int, method: str, *, progress: bool = True) -> dict[str, Baseline]:
    """All baselines, by name.

    Args:
        training: Normal cases; of many, `MAX_TRAINING_CASES` that are spread over the list.
        channels: Channels per case.
        method: How the foreground is found.
        progress: Whether to show a progress bar, where there is a terminal.

    Raises:
        UserError: If a training image is broken.
    """
    chosen = np.unique(np.linspace(0, len(training) - 1, MAX_TRAINING_CASES).round().astype(int))
    files = list(training.values())

    def images() -> Iterator[np.ndarray]:
        for index in tqdm(chosen, desc="Normal distribution", unit="case", disable=None if progress else True):
            image, _ = read_case(files[index], channels)
            yield _standardise(image, foreground_mask(image, method))

    return {
        "random": score_at_random,
        "intensity": score_by_intensity,
        "z-score by value": score_by_value,
        "z-score by voxel": NormalDistribution.of(images()).score_by_voxel,
    }


def evaluate_baselines(
    images: Cases,
    truth: Truth,
    baselines: dict[str, Baseline],
    channels: int,
    method: str,
    *,
    threshold: float | None = None,
    rounds: int = 1000,
    progress: bool = True,
) -> dict[str, Evaluation]:
    """Evaluate baselines on test images; the scores are not written.

    Args:
        images: Case to files.
        truth: The labels of these cases.
        baselines: As `fit_baselines` gives them.
        channels: Channels per case.
        method: How the foreground is found.
        threshold: As for `nnood.evaluation.evaluate.evaluate`.
        rounds: Likewise.
        progress: Likewise.

    Raises:
        UserError: If images or masks are broken; all are listed.
    """

    def load(name: str) -> list[ScoredCase]:
        image, geometry = read_case(images[name], channels)
        mask = truth.masks.get(name)
        shape = geometry.size[::-1]
        anomalous = np.zeros(shape, dtype=bool) if mask is None else read_mask(mask, images[name][0], geometry)
        foreground = foreground_mask(image, method)
        maps = [score(image, foreground).reshape(shape) for score in baselines.values()]
        samples = [sample_score(scores) for scores in maps]
        if "random" in baselines:  # the mean of the highest of many random scores would tell how large an image is
            random = list(baselines).index("random")
            samples[random] = float(maps[random].flat[0])
        return [ScoredCase(scores, anomalous, geometry, sample) for scores, sample in zip(maps, samples, strict=True)]

    evaluators = [Evaluator(truth, threshold) for _ in baselines]
    run_evaluators(load, evaluators, sorted(images), progress=progress)
    return {name: evaluator.result(rounds) for name, evaluator in zip(baselines, evaluators, strict=True)}


def baselines_beside(
    predictions: Path,
    labels: Path,
    roots: Roots,
    *,
    dataset: str | None = None,
    images: Path | None = None,
    threshold: float | None = None,
) -> dict[str, Evaluation]:
    """Evaluate all baselines on the cases of a folder of predictions.

    Args:
        predictions: Says which cases; its score maps are not opened.
        labels: As for `nnood.evaluation.evaluate.evaluate`.
        roots: The three root folders.
        dataset: Id or name of the data set whose training images say what is normal; if None, what `benchmark.json`
            beside the labels says, or the raw data set that the labels lie in.
        images: The test images; `imagesTs` beside the labels if None.
        threshold: As for `nnood.evaluation.evaluate.evaluate`.

    Raises:
        UserError: If the data set or images cannot be found, or are broken.
    """
    names = sorted(read_sample_scores(predictions))
    truth = find_truth(labels, predictions, names)
    beside = full_path(labels).parent
    normal = load_dataset(_choose_dataset(dataset, beside, roots), roots)
    folder = images or beside / "imagesTs"
    found = list_cases(folder, normal.channels)
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{folder} has no image of the case {missing[0]}; name the folder of the test images with -i.")
    method = foreground_method(normal, roots, normal.training, processes=1)
    # A benchmark set may be made of training images that one fold left out; they must not say what is normal.
    tested = {truth.source(name) for name in names}
    training = {case: files for case, files in normal.training.items() if case not in tested}
    if not training:
        raise UserError(f"{normal.name} has no training image that is not tested here, so no normal values can be had.")
    baselines = fit_baselines(training, normal.channels, method)
    cases = {name: found[name] for name in names}
    return evaluate_baselines(cases, truth, baselines, normal.channels, method, threshold=threshold)


def _choose_dataset(dataset: str | None, folder: Path, roots: Roots) -> str:
    """The user's data set, or the one that the folder of the test set names; they must not contradict each other."""
    note = folder / DESCRIPTION
    noted = str(read_json(note).get("dataset")) if note.is_file() else None
    if dataset is None and noted is None and not DATASET_NAME.match(folder.name):
        raise UserError(f"{folder} does not say which data set its images are of; name it with -d.")
    name = find_dataset_name(dataset or noted or folder.name, roots)
    if noted is not None and name != noted:
        raise UserError(f"{folder} was made of {noted}, not of {name}; leave out -d.")
    return name
