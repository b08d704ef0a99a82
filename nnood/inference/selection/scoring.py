"""Calibration, sample score and thresholds of the chosen, post-processed ensemble."""

from dataclasses import dataclass

import numpy as np

from nnood.inference.calibration import Calibration, Threshold, fit_calibration, fit_thresholds
from nnood.inference.postprocessing import apply_steps
from nnood.inference.selection.combined import Combined, Steps
from nnood.inference.selection.ensembles import Ledger
from nnood.inference.selection.figures import BINS, Judgement, bins_of, normal_counts
from nnood.inference.selection.images import Image
from nnood.scores import DEFAULT_SAMPLE_SCORE, SAMPLE_SCORES, sample_score
from nnood.training.validation import NORMAL

STAGE = "sample score"


@dataclass(frozen=True, eq=False)
class Scoring:
    """What turns processed maps into calibrated ones, and those into one score per case.

    Attributes:
        calibration: Of voxel scores.
        sample_score: One of `SAMPLE_SCORES`.
        thresholds: At given false-positive rates.
        samples: The judged images' sample scores (I,), NaN where no member may judge.
    """

    calibration: Calibration
    sample_score: str
    thresholds: tuple[Threshold, ...]
    samples: np.ndarray


def choose_scoring(
    combined: Combined,
    steps: Steps,
    judgement: Judgement,
    ledger: Ledger,
    *,
    clean: tuple[Image, ...],
    within_foreground: bool,
) -> Scoring:
    """Calibrate on clean images, choose the sample score on all, and find thresholds on clean ones again.

    Args:
        combined: The chosen ensemble.
        steps: Its post-processing.
        judgement: Of its images.
        ledger: Gets all candidates.
        clean: Clean images of more cases than are judged.
        within_foreground: Whether sample scores look at the foreground only.
    """
    everything = combined.images + clean
    counts = combined.normal_counts(steps, clean, title="Calibrating")
    calibration = fit_calibration(counts)
    table = combined.over(everything, _sample_scores, steps, calibration, within_foreground, title="Scoring samples")
    scores = {kind: np.array([np.nan if row is None else row[0][kind] for row in table]) for kind in SAMPLE_SCORES}
    judged = slice(0, len(combined.images))
    best = DEFAULT_SAMPLE_SCORE
    ledger.start(STAGE, best, "sample_ap", judgement.sample_ap(scores[best][judged]))
    for kind in SAMPLE_SCORES:
        if kind != DEFAULT_SAMPLE_SCORE:
            comparison = judgement.compare_samples(scores[kind][judged], scores[best][judged])
            ledger.add(STAGE, kind, "sample_ap", comparison)
            if comparison.wins:
                best = kind
    ledger.choose(STAGE, best)
    normal = [number for number, row in enumerate(table) if row is not None and everything[number].task == NORMAL]
    thresholds = fit_thresholds(scores[best][normal].tolist(), [normal_counts(table[number][1]) for number in normal])
    return Scoring(calibration, best, thresholds, scores[best][judged])


def _sample_scores(
    combined: Combined, image: Image, steps: Steps, calibration: Calibration, within_foreground: bool
) -> tuple[dict[str, float], np.ndarray]:
    """Every kind of sample score, and the calibrated scores of the foreground per bin (BINS,)."""
    scores, judged = combined.read(image)
    processed = apply_steps(scores, steps, foreground=judged.foreground, spacing=judged.spacing)
    calibrated = calibration(processed)
    region = judged.foreground if within_foreground and judged.foreground.any() else None
    samples = {kind: sample_score(calibrated, kind, region) for kind in SAMPLE_SCORES}
    return samples, np.bincount(bins_of(calibrated[judged.foreground]), minlength=BINS)
