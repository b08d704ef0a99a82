"""The inference plan for people: a page of text with every candidate's figures, and a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import expit

from nnood.inference.inference_plan import InferencePlan
from nnood.inference.selection.images import Image
from nnood.safety import atomic_path
from nnood.training.validation import NORMAL

MOST_BARS = 45
CLEAN, ANOMALOUS, NEUTRAL = "tab:blue", "tab:orange", "tab:gray"


def format_plan(plan: InferencePlan) -> str:
    """The plan as a page of Markdown."""
    lines = [
        f"# Inference plan of {plan.dataset}",
        "",
        f"* Members, combined by {plan.combination}: " + ", ".join(member.name for member in plan.members),
        "* Post-processing: " + (", then ".join(step.describe() for step in plan.steps) or "none"),
        f"* Sample score: {plan.describe_sample_score}",
        *(f"* {note}" for note in plan.notes),
        "",
        "## Thresholds",
        "",
        "Of calibrated scores on held-out clean cases; the interval is a bootstrap over cases.",
        "",
        "| of | false positives | score at least | 95 % interval | |",
        "|---|---|---|---|---|",
    ]
    for threshold in plan.thresholds:
        remark = "" if threshold.reliable else "too few clean cases for this rate"
        interval = f"{threshold.low:.4f} to {threshold.high:.4f}"
        lines.append(f"| {threshold.level} | {threshold.rate:.0%} | {threshold.value:.4f} | {interval} | {remark} |")
    lines += [
        "",
        "## Candidates",
        "",
        "Average precision on held-out cases with anomalies of tasks that the judging members never saw. The gain is",
        "over the plainer candidate, on the images that both may judge; the error is half its 95 % bootstrap interval",
        "over cases. A candidate replaces the plainer one only if it gains more than the error.",
        "",
        "| stage | candidate | AP | gain | error | chosen |",
        "|---|---|---|---|---|---|",
    ]
    for entry in plan.candidates:
        cells = [entry["stage"], entry["name"], _number(_figure(entry)), _number(entry["gain"], signed=True)]
        lines.append(f"| {' | '.join(cells)} | {_error(entry)} | {'yes' if entry['chosen'] else ''} |")
    return "\n".join(lines) + "\n"


def format_candidates(plan: InferencePlan) -> str:
    """All candidates as a table for the console."""
    rows = [("stage", "candidate", "AP", "gain", "error", "")]
    for entry in plan.candidates:
        figures = (_number(_figure(entry)), _number(entry["gain"], signed=True), _error(entry))
        rows.append((entry["stage"], entry["name"], *figures, "chosen" if entry["chosen"] else ""))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _figure(entry: dict[str, Any]) -> float | None:
    return entry["voxel_ap"] if "voxel_ap" in entry else entry["sample_ap"]


def _error(entry: dict[str, Any]) -> str:
    """The error of a gain; with fewer than two cases to resample there is none, and the plainer candidate stays."""
    unknown = entry["gain"] is not None and entry["error"] is None
    return "too few cases" if unknown else _number(entry["error"])


def _number(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:+.4f}" if signed else f"{value:.4f}"


def draw_plan(plan: InferencePlan, images: Sequence[Image], sample_scores: np.ndarray, target: Path) -> None:
    """Draw the candidates' gains, the calibration, and the sample scores of the judged images.

    Args:
        plan: Finished.
        images: The judged images.
        sample_scores: Calibrated, one per image (I,), NaN where no member may judge it.
        target: The picture.
    """
    shown = [entry for entry in plan.candidates if entry["gain"] is not None][:MOST_BARS]
    height = max(5.0, 0.26 * len(shown) + 1.5)
    figure = Figure(figsize=(15, height), layout="constrained")
    bars, curve, strips = figure.subplots(1, 3, width_ratios=(2.2, 1, 1))
    _draw_gains(bars, shown)
    _draw_calibration(curve, plan)
    _draw_samples(strips, plan, images, sample_scores)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=100)


def _draw_gains(axes: Axes, entries: Sequence[dict[str, Any]]) -> None:
    places = np.arange(len(entries))[::-1]
    colours = [ANOMALOUS if entry["chosen"] else NEUTRAL for entry in entries]
    gains = [entry["gain"] for entry in entries]
    errors = [entry["error"] or 0.0 for entry in entries]
    axes.barh(places, gains, xerr=errors, color=colours, height=0.7, error_kw={"elinewidth": 1})
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, [f"{entry['stage']}: {_last_step(entry['name'])}" for entry in entries], fontsize=7)
    axes.set_xlabel("gain in average precision over the plainer candidate\n(orange: chosen; line: bootstrap error)")
    axes.set_title("Candidates")


def _last_step(name: str) -> str:
    """Post-processing without the steps before the last, which would leave no room for the bars."""
    *before, last = name.split(" + ")
    return f"... + {last}" if before else last


def _draw_calibration(axes: Axes, plan: InferencePlan) -> None:
    logits = np.linspace(-16, 16, 400)
    axes.plot(logits, plan.calibration(expit(logits)), color="black")
    _draw_thresholds(axes, plan, "voxel", "clean voxels")
    axes.set_xlabel("logit of the raw score")
    axes.set_ylabel("calibrated score u: 10^(-8u) of clean voxels reach it")
    axes.set_ylim(0, 1)
    axes.set_title("Calibration")


def _draw_samples(axes: Axes, plan: InferencePlan, images: Sequence[Image], scores: np.ndarray) -> None:
    tasks = sorted({image.task for image in images} - {NORMAL})
    generator = np.random.default_rng(0)
    for place, task in enumerate((NORMAL, *tasks)):
        chosen = np.array([image.task == task for image in images]) & np.isfinite(scores)
        spread = place + generator.uniform(-0.25, 0.25, int(chosen.sum()))
        axes.plot(spread, scores[chosen], ".", color=CLEAN if task == NORMAL else ANOMALOUS, markersize=4)
    _draw_thresholds(axes, plan, "sample", "clean cases")
    axes.set_xticks(range(len(tasks) + 1), ["clean", *tasks], rotation=60, ha="right", fontsize=7)
    axes.set_ylabel("sample score")
    axes.set_ylim(0, 1)
    axes.set_title("Held-out images")


def _draw_thresholds(axes: Axes, plan: InferencePlan, level: str, clean: str) -> None:
    found = [threshold for threshold in plan.thresholds if threshold.level == level]
    for threshold, style in zip(found, ("-", ":"), strict=False):
        axes.axhline(threshold.value, color=CLEAN, linestyle=style, label=f"{threshold.rate:.0%} of {clean} above")
    if found:
        axes.legend(fontsize=7)
