"""The figures of the MOOD challenge's own scorer, to the last digit."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnood.errors import UserError, one_error
from nnood.evaluation.folders import MAP_ENDING, read_sample_scores
from nnood.evaluation.metrics import Counts, average_precision, count_scores
from nnood.evaluation.truth import Truth, find_truth, read_mask, read_score_map

_PATTERNS = int(np.float16(1).view(np.uint16)) + 1


@dataclass(frozen=True)
class MoodFigures:
    """What the challenge ranks by.

    Attributes:
        pixel: Average precision of all voxels of all cases; None with sample labels only or without anomalous voxels.
        sample: Average precision of the sample scores; None without an anomalous case.
    """

    pixel: float | None
    sample: float | None


def evaluate_mood(predictions: Path, labels: Path, *, progress: bool = True) -> MoodFigures:
    """Score a folder as the challenge does: values become float16, are clipped to [0, 1], and all cases are pooled.

    Voxels of one float16 value are tied, so a map that crowds near 1 loses its order here. Source: the scorer that the
    organisers publish (github.com/MIC-DKFZ/mood, scripts/evalresults.py). It gives a missing prediction the score 0;
    here, that is refused.

    Args:
        predictions: As for `nnood.evaluation.evaluate.evaluate`.
        labels: Likewise.
        progress: Whether to show a progress bar, where there is a terminal.

    Raises:
        UserError: If names don't fit together or files are broken; all faults are listed.
    """
    scores = read_sample_scores(predictions)
    truth = find_truth(labels, predictions, scores)
    positives, negatives = np.zeros(_PATTERNS, dtype=np.int64), np.zeros(_PATTERNS, dtype=np.int64)
    anomalous = dict(truth.sample_labels or {})
    faults = []
    names = sorted(scores) if truth.sample_labels is None else []
    for name in tqdm(names, desc="Evaluating", unit="case", disable=None if progress else True):
        try:
            voxels, mask = _read(predictions / f"{name}{MAP_ENDING}", truth, name)
        except UserError as error:
            faults.append(str(error))
            continue
        anomalous[name] = bool(mask.any())
        patterns = _float16_patterns(voxels)
        positives += np.bincount(patterns[mask], minlength=_PATTERNS)
        negatives += np.bincount(patterns[~mask], minlength=_PATTERNS)
    one_error(faults)
    order = sorted(scores)
    samples = count_scores(
        np.clip([scores[name] for name in order], 0, 1), np.array([anomalous[name] for name in order], dtype=bool)
    )
    pixels = Counts(np.arange(_PATTERNS, dtype=np.uint16).view(np.float16), positives, negatives)
    return MoodFigures(_defined(average_precision(pixels)), _defined(average_precision(samples)))


def _read(score_map: Path, truth: Truth, name: str) -> tuple[np.ndarray, np.ndarray]:
    scores, geometry = read_score_map(score_map)
    mask = truth.masks.get(name)
    return scores, np.zeros(scores.shape, dtype=bool) if mask is None else read_mask(mask, score_map, geometry)


def _float16_patterns(values: np.ndarray) -> np.ndarray:
    """Bit patterns of the values as float16 in [0, 1]; they are ordered as the values are."""
    with np.errstate(over="ignore"):  # beyond float16's range is beyond 1
        clipped = np.clip(values.astype(np.float16), np.float16(0), np.float16(1))
    return (clipped + np.float16(0)).view(np.uint16)  # adding 0 turns -0.0 into 0.0


def _defined(value: np.ndarray) -> float | None:
    return None if np.isnan(value) else float(value)
