"""Evaluation of a folder of predictions against voxel masks or sample labels."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnood.errors import UserError, one_error
from nnood.evaluation.folders import (
    MAP_ENDING,
    compare_names,
    find_images,
    find_masks,
    read_sample_labels,
    read_sample_scores,
)
from nnood.evaluation.metrics import (
    ScoreHistogram,
    auroc,
    average_precision,
    exact_auroc,
    exact_average_precision,
)
from nnood.image_readers import PICTURE_ENDINGS, TIFF_ENDINGS
from nnood.images import image_ending, read_image

EIGHT_BIT_ENDINGS = PICTURE_ENDINGS + TIFF_ENDINGS
UNDEFINED = "undefined"


@dataclass(frozen=True)
class CaseResult:
    """The figures of one case.

    Attributes:
        name: Name of the case.
        anomalous: Whether its mask has an anomalous voxel, or its sample label is 1.
        sample_score: The predicted score of the case.
        voxel_ap: Average precision over its voxels; None where undefined: normal case, or sample labels only.
        voxel_auroc: AUROC over its voxels; None where undefined: as voxel_ap, or every voxel anomalous.
    """

    name: str
    anomalous: bool
    sample_score: float
    voxel_ap: float | None
    voxel_auroc: float | None


@dataclass(frozen=True)
class Evaluation:
    """All figures of a folder of predictions. AP is average precision; its chance level is the prevalence.

    Attributes:
        voxel_ap: AP over the voxels of all cases together; None without an anomalous voxel or with sample labels only.
        voxel_auroc: AUROC over the voxels of all cases together; None as voxel_ap, or if every voxel is anomalous.
        voxel_prevalence: Fraction of anomalous voxels, the chance level of voxel_ap; None with sample labels only.
        sample_ap: AP of the sample scores; None without an anomalous case.
        sample_auroc: AUROC of the sample scores; None unless there are both normal and anomalous cases.
        sample_prevalence: Fraction of anomalous cases, the chance level of sample_ap.
        normal_cases: Number of normal cases.
        anomalous_cases: Number of anomalous cases.
        cases: One entry per case, sorted by name.
    """

    voxel_ap: float | None
    voxel_auroc: float | None
    voxel_prevalence: float | None
    sample_ap: float | None
    sample_auroc: float | None
    sample_prevalence: float
    normal_cases: int
    anomalous_cases: int
    cases: tuple[CaseResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON, where undefined figures become null."""
        return asdict(self) | {"cases": [asdict(case) for case in self.cases]}


def evaluate(predictions: Path, labels: Path, *, progress: bool = True) -> Evaluation:
    """Compare predictions with labels, one case in memory at a time.

    Args:
        predictions: Folder with `NAME.nii.gz` (score map in [0, 1]) and `NAME.nii.gz.txt` (sample score) per case.
        labels: One of two. A folder with one mask `NAME.<ending>` per anomalous case, 1 (in PNG, JPEG, BMP or TIFF
            also 255) where anomalous, else 0; a case without a mask, or with an empty one, is normal; if `imagesTs`
            lies beside it, the cases are the ones in there. Or a file of sample labels with the header `case,label`
            and labels 0 and 1; score maps are then not opened. If there is no such folder, `<folder>.csv` is tried.
        progress: Whether to show a progress bar, where there is a terminal.

    Returns:
        Pooled figures and those of each case.

    Raises:
        UserError: If names don't fit together, or files are broken, differ in geometry or hold values out of range.
            All faults are listed, those of contents once the names fit.
    """
    scores = read_sample_scores(predictions)
    table = labels if labels.is_file() else labels.with_name(f"{labels.name}.csv")
    if not labels.is_dir() and table.is_file():
        listed = read_sample_labels(table)
        one_error(compare_names(predictions, scores, dict.fromkeys(listed, table), whole=table))
        cases = [CaseResult(name, listed[name], scores[name], None, None) for name in sorted(scores)]
        return _summarise(cases, None)
    masks = find_masks(labels)
    images = labels.absolute().parent / "imagesTs"
    wanted = find_images(images, scores) | masks
    one_error(compare_names(predictions, scores, wanted, whole=images if images.is_dir() else None))
    pooled = ScoreHistogram()
    cases, faults = [], []
    for name in tqdm(sorted(scores), desc="Evaluating", unit="case", disable=None if progress else True):
        try:
            histogram = _count_voxels(predictions / f"{name}{MAP_ENDING}", masks.get(name))
        except UserError as error:
            faults.append(str(error))
            continue
        pooled.merge(histogram)
        voxel_ap, voxel_auroc = _or_none(average_precision(histogram)), _or_none(auroc(histogram))
        cases.append(CaseResult(name, bool(histogram.positives.any()), scores[name], voxel_ap, voxel_auroc))
    one_error(faults)
    return _summarise(cases, pooled)


def format_table(evaluation: Evaluation) -> str:
    """Lay the figures out as text: pooled ones beside their chance level, then one row per case.

    Args:
        evaluation: What `evaluate` returned.

    Returns:
        Aligned lines. An undefined figure is written so, and a sentence says why.
    """
    balanced = 0.5
    pooled: list[tuple[str, float | None, float | None]] = [
        ("voxel AP", evaluation.voxel_ap, evaluation.voxel_prevalence),
        ("voxel AUROC", evaluation.voxel_auroc, balanced),
        ("sample AP", evaluation.sample_ap, evaluation.sample_prevalence),
        ("sample AUROC", evaluation.sample_auroc, balanced),
    ]
    rows = [(name, _figure(value), _figure(chance)) for name, value, chance in pooled]
    cases = [
        (
            case.name,
            "anomalous" if case.anomalous else "normal",
            f"{case.sample_score:.6g}",
            _figure(case.voxel_ap),
            _figure(case.voxel_auroc),
        )
        for case in evaluation.cases
    ]
    return "\n".join(
        [
            f"{evaluation.anomalous_cases} anomalous and {evaluation.normal_cases} normal cases",
            "",
            *_align([("all cases", "value", "chance level"), *rows]),
            *_reasons(evaluation),
            "",
            *_align([("case", "label", "sample score", "voxel AP", "voxel AUROC"), *cases]),
        ]
    )


def _count_voxels(score_map: Path, mask: Path | None) -> ScoreHistogram:
    """Count the voxels of one case; without a mask all are normal."""
    scores, geometry = read_image(score_map)
    if len(scores) != 1:
        raise UserError(
            f"{score_map}: Expected a score map of 1 channel, but got {len(scores)}; predict the case again."
        )
    if mask is None:
        truth = np.zeros(scores.shape, dtype=bool)
    else:
        values, mask_geometry = read_image(mask)
        if not geometry.matches(mask_geometry):
            raise UserError(
                f"{score_map}: Expected the geometry of {mask} ({mask_geometry.describe()}), but got "
                f"{geometry.describe()}; predict the image that the mask was drawn on."
            )
        truth = _as_truth(values, mask)
    histogram = ScoreHistogram()
    try:
        histogram.add(scores, truth)
    except ValueError as error:
        raise UserError(f"{score_map}: {error}; predict the case again.") from error
    return histogram


def _as_truth(values: np.ndarray, mask: Path) -> np.ndarray:
    if len(values) != 1:
        raise UserError(f"{mask}: Expected a mask of 1 channel, but got {len(values)}; save it as a greyscale image.")
    truth = values != 0
    allowed = (1, 255) if image_ending(mask) in EIGHT_BIT_ENDINGS else (1,)
    if not any(np.array_equal(truth, values == one) for one in allowed):
        found = ", ".join(f"{value:g}" for value in np.unique(values)[:5])
        expected = " or ".join(f"0 and {one}" for one in allowed)
        raise UserError(f"{mask}: Expected the values {expected}, but got {found} (the five lowest); correct the mask.")
    return truth


def _or_none(figure: float) -> float | None:
    return None if math.isnan(figure) else figure


def _summarise(cases: list[CaseResult], pooled: ScoreHistogram | None) -> Evaluation:
    scores = np.array([case.sample_score for case in cases])
    truth = np.array([case.anomalous for case in cases], dtype=bool)
    voxel_ap = voxel_auroc = voxel_prevalence = None
    if pooled is not None:
        voxel_ap, voxel_auroc = _or_none(average_precision(pooled)), _or_none(auroc(pooled))
        positives, negatives = int(pooled.positives.sum()), int(pooled.negatives.sum())
        voxel_prevalence = positives / (positives + negatives)
    return Evaluation(
        voxel_ap=voxel_ap,
        voxel_auroc=voxel_auroc,
        voxel_prevalence=voxel_prevalence,
        sample_ap=_or_none(exact_average_precision(scores, truth)),
        sample_auroc=_or_none(exact_auroc(scores, truth)),
        sample_prevalence=float(truth.mean()),
        normal_cases=int((~truth).sum()),
        anomalous_cases=int(truth.sum()),
        cases=tuple(cases),
    )


def _figure(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.4g}"


def _reasons(evaluation: Evaluation) -> list[str]:
    """Say why figures are undefined, one sentence each."""
    reasons = []
    if evaluation.voxel_prevalence is None:
        reasons.append("Voxel figures are undefined: the labels are per case, there are no masks.")
    elif any(not case.anomalous for case in evaluation.cases):
        reasons.append("Voxel figures of a normal case are undefined: it has no anomalous voxel.")
    if not evaluation.anomalous_cases:
        reasons.append("AP and AUROC are undefined: there is no anomalous case.")
    elif not evaluation.normal_cases:
        reasons.append("Sample AUROC is undefined: there is no normal case.")
    if any(case.voxel_ap is not None and case.voxel_auroc is None for case in evaluation.cases):
        reasons.append("Voxel AUROC is undefined where every voxel is anomalous.")
    return ["", *reasons] if reasons else []


def _align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Pad cells to the widest of their column: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
