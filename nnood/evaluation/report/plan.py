"""The part of a report on the inference plan: what predicts, from which score on, and what else was tried."""

from typing import Any

from nnood.evaluation.report.html import Html, definitions, element, figure_text, join, number_cell, table
from nnood.inference.inference_plan import InferencePlan


def describe_plan(plan: InferencePlan) -> Html:
    """Describe a plan.

    Args:
        plan: Of the data set.
    """
    chosen = {
        "Networks": ", ".join(member.name for member in plan.members),
        "Combination": plan.combination,
        "Post-processing": ", then ".join(step.describe() for step in plan.steps) or "none",
        "Sample score": plan.describe_sample_score,
        "Notes": " ".join(plan.notes) or None,
    }
    return join((element("h3", "Inference plan"), definitions(chosen), _thresholds(plan), _candidates(plan)))


def _thresholds(plan: InferencePlan) -> Html:
    if not plan.thresholds:
        return Html()
    rows: list[list[object]] = [
        [
            threshold.level,
            number_cell(f"{threshold.rate:.0%}", threshold.rate),
            _number(threshold.value),
            f"{figure_text(threshold.low)} to {figure_text(threshold.high)}",
            "" if threshold.reliable else "too few clean cases",
        ]
        for threshold in plan.thresholds
    ]
    header = ["Of", "False positives", "Score at least", "95 % interval", "Remark"]
    return table(header, rows, caption="Thresholds on calibrated scores, from held-out clean cases")


def _candidates(plan: InferencePlan) -> Html:
    """Every candidate's figures: average precision on anomalies of tasks that the judging networks never saw."""
    rows: list[list[object]] = [
        [
            entry.get("stage", ""),
            entry.get("name", ""),
            _number(entry.get("voxel_ap", entry.get("sample_ap"))),
            _number(entry.get("gain"), signed=True),
            _number(entry.get("error")),
            "chosen" if entry.get("chosen") else "",
        ]
        for entry in plan.candidates
    ]
    if not rows:
        return Html()
    caption = "Candidates: average precision on held-out cases with anomalies that the judging networks never saw"
    return table(["Stage", "Candidate", "AP", "Gain", "Error", "Choice"], rows, caption=caption)


def _number(value: Any, *, signed: bool = False) -> Html:
    if value is None:
        return number_cell("")
    return number_cell(f"{value:+.4f}" if signed else figure_text(value), value)
