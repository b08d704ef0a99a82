"""Calibration, sample score and thresholds of the chosen, post-processed ensemble."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from nnood.inference.calibration import Calibration, Threshold, fit_calibration, fit_thresholds
from nnood.inference.postprocessing import apply_steps
from nnood.inference.selection.combined import Combined, Steps
from nnood.inference.selection.ensembles import Ledger
from nnood.inference.selection.figures import BINS, Judgement, bins_of, normal_counts
from nnood.inference.selection.images import Image
from nnood.inference.selection.patch_scoring import PatchChoice, PatchJudge
from nnood.scores import DEFAULT_SAMPLE_SCORE, SAMPLE_SCORES, sample_score
from nnood.training.validation import NORMAL

STAGE = "sample score"


@dataclass(frozen=True, eq=False)
class Scoring:
    """What turns processed maps into calibrated ones, and those into one score per case.

    Attributes:
        calibration: Of voxel scores.
        sample_score: One of `SAMPLE_SCORES`.
        within_foreground: Whether it regards the foreground only.
        patches: A sample score of patches in the place of both, or None.
        thresholds: At given false-positive rates.
        samples: The judged images' sample scores (I,), NaN where no member may judge.
    """

    calibration: Calibration
    sample_score: str
    within_foreground: bool
    patches: PatchChoice | None
    thresholds: tuple[Threshold, ...]
    samples: np.ndarray


def choose_scoring(
    combined: Combined,
    steps: Steps,
    judgement: Judgement,
    ledger: Ledger,
    *,
    clean: tuple[Image, ...],
    has_foreground: bool,
    patches: PatchJudge,
) -> Scoring:
    """Calibrate on clean images, choose the sample score on all, and find thresholds on clean ones again.

    Args:
        combined: The chosen ensemble.
        steps: Its post-processing.
        judgement: Of its images.
        ledger: Gets all candidates.
        clean: Clean images of more cases than are judged.
        has_foreground: Whether a foreground can be found in new images and is not simply all of them.
        patches: Sample scores of patches, which must beat those of the score map.
    """
    everything = combined.images + clean
    counts = combined.normal_counts(steps, clean, title="Calibrating")
    calibration = fit_calibration(counts)
    table = combined.over(everything, _sample_scores, steps, calibration, title="Scoring samples")
    # The whole map first: where the anomaly hides the foreground, as a picture of something else does, it still counts.
    kinds = [(kind, within) for within in (False, True)[: 1 + has_foreground] for kind in SAMPLE_SCORES]
    scores = {kind: np.array([np.nan if row is None else row[0][kind] for row in table]) for kind in kinds}
    judged = slice(0, len(combined.images))
    best = (DEFAULT_SAMPLE_SCORE, False)
    ledger.start(STAGE, _name(*best), "sample_ap", judgement.sample_ap(scores[best][judged]))
    for kind in kinds:
        if kind != (DEFAULT_SAMPLE_SCORE, False):
            comparison = judgement.compare_samples(scores[kind][judged], scores[best][judged])
            ledger.add(STAGE, _name(*kind), "sample_ap", comparison)
            if comparison.wins:
                best = kind
    chosen, samples = _choose_patches(patches, everything, scores[best], judgement, ledger, count=len(combined.images))
    ledger.choose(STAGE, _name(*best) if chosen is None else chosen.name)
    normal = [number for number, row in enumerate(table) if row is not None and everything[number].task == NORMAL]
    known = samples[normal][np.isfinite(samples[normal])]
    thresholds = fit_thresholds(known.tolist(), [normal_counts(table[number][1]) for number in normal])
    return Scoring(calibration, *best, chosen, thresholds, samples[judged])


def _choose_patches(
    patches: PatchJudge,
    everything: tuple[Image, ...],
    samples: np.ndarray,
    judgement: Judgement,
    ledger: Ledger,
    *,
    count: int,
) -> tuple[PatchChoice | None, np.ndarray]:
    """The best sample score of patches, and what it says of all images; None if that of the score map stays.

    Args:
        patches: The sample scores.
        everything: The judged images, and clean ones after them.
        samples: What the score map says of all of them.
        judgement: Of the judged images.
        ledger: Gets all candidates.
        count: Number of judged images.
    """
    best, current, before = None, samples[:count], samples[:0]
    for choice in tqdm(patches.choices(ledger), desc="Scoring patches", unit="score", leave=False, disable=None):
        scores = patches(choice, everything[:count])
        if np.array_equal(scores, before, equal_nan=True):  # images of one patch each have nothing to combine
            continue
        before = scores
        comparison = judgement.compare_samples(scores, current)
        ledger.add(STAGE, choice.name, "sample_ap", comparison)
        if comparison.wins:
            best, current = choice, scores
    return best, samples if best is None else patches(best, everything)


def _name(kind: str, within_foreground: bool) -> str:
    return f"{kind}, within the foreground" if within_foreground else kind


def _sample_scores(
    combined: Combined, image: Image, steps: Steps, calibration: Calibration
) -> tuple[dict[tuple[str, bool], float], np.ndarray]:
    """Sample scores and voxels.

    Returns:
        Every kind of sample score, of the whole map and within the foreground; and how many voxels of the foreground
        have a calibrated score in each bin (BINS,).
    """
    scores, judged = combined.read(image)
    processed = apply_steps(scores, steps, foreground=judged.foreground, spacing=judged.spacing)
    calibrated = calibration(processed)
    regions = (None, judged.foreground if judged.foreground.any() else None)
    samples = {
        (kind, within): sample_score(calibrated, kind, regions[within])
        for kind in SAMPLE_SCORES
        for within in (False, True)
    }
    return samples, np.bincount(bins_of(calibrated[judged.foreground]), minlength=BINS)
