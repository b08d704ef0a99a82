"""From tallies to an evaluation: pooled figures with intervals, groups, cases, curves, and what has to be said."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nnood.evaluation.histogram import bin_start, coarse_scores
from nnood.evaluation.metrics import (
    Counts,
    best_dice,
    count_scores,
    precision_recall_points,
    roc_points,
)
from nnood.evaluation.results import FIGURES, CaseResult, Evaluation, Figure, Group
from nnood.evaluation.tally import (
    CaseTally,
    Figures,
    Tallies,
    VoxelTally,
    resample,
    voxel_figures,
)
from nnood.evaluation.truth import Truth

LEVEL = 95
GROUP_ROUNDS = 0.2
SIZES = ("small", "medium", "large")
MAX_FALSE_ALARMS = 10.0
FEW_SUBJECTS = 10


def case_figures(counts: Counts, tally: VoxelTally, threshold: float | None) -> dict[str, float | None]:
    """The voxel figures of one case; None where undefined, as in a normal case.

    Args:
        counts: Its voxels, finely binned.
        tally: What is kept of it.
        threshold: For the Dice at a threshold.
    """
    positives, overlap, negatives = (array.toarray()[0] for array in (tally.positives, tally.overlap, tally.negatives))
    found = _fine_figures(counts, Counts(coarse_scores(), overlap, negatives), threshold)
    return {key: _plain(value) if positives.any() else None for key, value in found.items()}


def summarise(
    tallies: Mapping[str, CaseTally],
    figures: Mapping[str, dict[str, float | None]],
    truth: Truth,
    counts: Counts,
    *,
    threshold: float | None,
    rounds: int,
) -> Evaluation:
    """Put an evaluation together.

    Args:
        tallies: Per case, sorted by name.
        figures: Voxel figures of the cases that have any.
        truth: The labels.
        counts: All voxels, finely binned; they replace the coarse ones where they can.
        threshold: For the Dice at a threshold.
        rounds: Bootstrap resamples.
    """
    names = list(tallies)
    arranged = Tallies([tallies[name] for name in names], threshold)
    one = np.ones((1, len(names)))
    coarse = arranged.figures(one)
    values = {key: _plain(value[0]) for key, value in coarse.items()}
    if counts.scores.size:
        # AUPRO is left to the coarse bins: overlaps are counted in those only.
        fine = _fine_figures(counts, counts, threshold)
        values |= {key: _plain(value) for key, value in fine.items() if key != "aupro"}
    units = [truth.source(name) for name in names]
    spread = _intervals(arranged, resample(units, rounds)) if len(set(units)) > 1 and rounds else {}
    chance = arranged.chance(np.ones(len(names), dtype=bool))
    pooled = {key: Figure(values.get(key), chance.get(key), *spread.get(key, (None, None))) for key in FIGURES}
    kinds = {name: truth.kind(name, anomalous=tallies[name].anomalous) for name in names}
    cases = tuple(_case(name, kinds[name], tallies[name], figures.get(name, {})) for name in names)
    groups = _Groups(arranged, cases, truth, units, round(GROUP_ROUNDS * rounds))
    best = _plain(best_dice(counts)[1]) if counts.scores.size else None
    return Evaluation(
        normal_cases=sum(not tally.anomalous for tally in tallies.values()),
        anomalous_cases=sum(tally.anomalous for tally in tallies.values()),
        figures=pooled,
        groups=(*groups.kinds(), *groups.sizes()),
        cases=cases,
        curves=_curves(arranged, list(tallies.values()), counts),
        dimensions=arranged.dimensions,
        threshold=threshold,
        best_threshold=best,
        notes=tuple(_notes(list(tallies.values()), truth, names) + _notes_on_intervals(units, rounds)),
    )


def _fine_figures(counts: Counts, overlap: Counts, threshold: float | None) -> Figures:
    return voxel_figures(counts, overlap, None if threshold is None else bin_start(threshold))


def _plain(value: np.ndarray | float) -> float | None:
    return None if math.isnan(value) else float(value)


def _case(name: str, kind: str, tally: CaseTally, figures: dict[str, float | None]) -> CaseResult:
    size = float(tally.voxels.object_sizes.sum()) if tally.voxels else None
    return CaseResult(name, kind, tally.anomalous, tally.sample_score, size, figures)


def _intervals(tallies: Tallies, weights: np.ndarray) -> dict[str, tuple[float | None, float | None]]:
    """Percentile intervals over the rows of `weights`; resamples in which a figure is undefined don't count."""
    return {key: _percentiles(values) for key, values in tallies.figures(weights).items()}


def _percentiles(values: np.ndarray) -> tuple[float | None, float | None]:
    defined = values[~np.isnan(values)]
    if not defined.size:
        return None, None
    low, high = np.percentile(defined, ((100 - LEVEL) / 2, (100 + LEVEL) / 2))
    return float(low), float(high)


class _Groups:
    """Figures of some of the anomalous cases, always together with all normal ones."""

    def __init__(
        self, tallies: Tallies, cases: Sequence[CaseResult], truth: Truth, units: Sequence[str], rounds: int
    ) -> None:
        self._tallies, self._cases, self._truth = tallies, cases, truth
        several = len(set(units)) > 1 and rounds
        self._weights = resample(units, rounds) if several else np.zeros((0, len(cases)), dtype=np.int64)
        self._normal = np.array([not case.anomalous for case in cases])

    def kinds(self) -> list[Group]:
        """One group per kind of anomaly; none where nothing tells the kinds."""
        kinds = list(dict.fromkeys(case.kind for case in self._cases if case.anomalous and case.kind))
        groups = []
        for kind in sorted(kinds):
            chosen = np.array([case.anomalous and case.kind == kind for case in self._cases])
            close = self._truth.close_to(kind)
            groups.append(Group("kind", kind, int(chosen.sum()), close, self._figures(chosen, None)))
        return groups

    def sizes(self) -> list[Group]:
        """Thirds of the anomalous cases by size; none where all are of one size, or there are fewer than three."""
        sizes = np.array([case.size or 0.0 for case in self._cases])
        anomalous = sizes[sizes > 0]
        if anomalous.size < len(SIZES):
            return []
        edges = np.unique(np.quantile(anomalous, np.linspace(0, 1, len(SIZES) + 1)))
        if len(edges) < len(SIZES) + 1:
            return []
        groups = []
        for number, name in enumerate(SIZES):
            low, high = edges[number], edges[number + 1] if number < len(SIZES) - 1 else math.inf
            upper = f" to {self._amount(high)}" if number < len(SIZES) - 1 else " or more"
            label = f"{name}: {self._amount(low)}{upper}"
            chosen = (sizes >= low) & (sizes < high)
            # Objects may be smaller than the smallest case: several of them make up its size.
            objects = (self._tallies.object_sizes >= (low if number else 0)) & (self._tallies.object_sizes < high)
            groups.append(Group("size", label, int(chosen.sum()), (), self._figures(chosen, objects)))
        return groups

    def _amount(self, size: float) -> str:
        """A volume given in mm^3, or in 2D an area in mm^2, in words."""
        return f"{size / 1000:.3g} ml" if self._tallies.dimensions == 3 else f"{size:.3g} mm²"

    def _figures(self, chosen: np.ndarray, objects: np.ndarray | None) -> dict[str, Figure]:
        part = (chosen | self._normal).astype(np.int64)
        values = self._tallies.figures(part[None])
        spread = _intervals(self._tallies, self._weights * part) if len(self._weights) else {}
        if objects is not None:  # of all cases: an object's size need not be its case's
            everything = np.ones((1, len(part)))
            values |= self._tallies.object_figures(everything, objects)
            resampled = self._tallies.object_figures(self._weights, objects) if len(self._weights) else {}
            spread |= {key: _percentiles(found) for key, found in resampled.items()}
        chance = self._tallies.chance(chosen | self._normal)
        return {
            key: Figure(_plain(value[0]), chance.get(key), *spread.get(key, (None, None)))
            for key, value in values.items()
        }


def _curves(
    arranged: Tallies, tallies: Sequence[CaseTally], counts: Counts
) -> dict[str, tuple[tuple[float, float], ...]]:
    scores = np.array([tally.sample_score for tally in tallies])
    samples = count_scores(scores, np.array([tally.anomalous for tally in tallies], dtype=bool))
    curves = {
        "precision_recall": precision_recall_points(counts),
        "roc": roc_points(counts),
        "sample_roc": roc_points(samples),
        "froc": [],
    }
    if any(tally.voxels and tally.voxels.detections for tally in tallies):
        found, false_alarms, objects = arranged.detections(np.ones((1, len(tallies))), None)
        order = np.argsort(false_alarms[0], kind="stable")
        most = np.maximum.accumulate(found[0][order]) / objects[0]
        points = zip(false_alarms[0][order].tolist(), most.tolist(), strict=True)
        curves["froc"] = [point for point in points if point[0] <= MAX_FALSE_ALARMS]
    return {key: tuple(points) for key, points in curves.items()}


def _notes_on_intervals(units: Sequence[str], rounds: int) -> list[str]:
    subjects = len(set(units))
    if not rounds or subjects >= FEW_SUBJECTS:
        return []
    if subjects == 1:
        return ["There are no intervals: all cases are of one subject."]
    return [f"Intervals are of {subjects} subjects only, so hardly reliable."]


def _notes(tallies: Sequence[CaseTally], truth: Truth, names: Sequence[str]) -> list[str]:
    """What is undefined or left out, and why, one sentence each."""
    notes = []
    anomalous = sum(tally.anomalous for tally in tallies)
    whole = sum(truth.is_whole(name) for name in names)
    if truth.sample_labels is not None:
        notes.append("Voxel figures are undefined: the labels are per case, there are no masks.")
    elif anomalous < len(tallies):
        notes.append("Voxel figures of a normal case are undefined: it has no anomalous voxel.")
    if whole:
        notes.append(f"Cases that are anomalous as a whole count in the sample figures only; there are {whole}.")
    if not anomalous:
        notes.append("AP and AUROC are undefined: there is no anomalous case.")
    elif anomalous == len(tallies):
        notes.append("Sample AUROC and sensitivity are undefined: there is no normal case.")
    local = [tally.voxels for tally in tallies if tally.voxels]
    if any(not tally.negatives.nnz for tally in local):
        notes.append("Voxel AUROC is undefined where every voxel is anomalous.")
    if anomalous and local and all(tally.object_sizes.size == 0 for tally in local):
        notes.append("Voxel figures are undefined: no mask has an anomalous voxel.")
    return notes
