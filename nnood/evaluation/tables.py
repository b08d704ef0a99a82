"""An evaluation as text."""

from collections.abc import Mapping, Sequence

from nnood.evaluation.mood import MoodFigures
from nnood.evaluation.results import FIGURES, NORMAL, Evaluation, Figure, Group

UNDEFINED = "undefined"
CLOSE = "*"
GROUP_FIGURES = ("voxel_ap", "voxel_best_dice", "aupro", "object_recall", "sample_ap", "sample_auroc")
CASE_FIGURES = ("voxel_ap", "voxel_auroc", "voxel_best_dice")

Row = tuple[str, ...]


def format_table(evaluation: Evaluation, baselines: Mapping[str, Evaluation] | None = None) -> str:
    """Lay the figures out: pooled ones, those of each kind and size, then one row per case.

    Args:
        evaluation: What `evaluate` returned.
        baselines: Name to evaluation of what was reached without training, for columns beside it.

    Returns:
        Aligned lines. An undefined figure is written so, and a sentence says why; what such labels can't give at all is
        left out.
    """
    return "\n".join(
        [
            f"{evaluation.anomalous_cases} anomalous and {evaluation.normal_cases} normal cases",
            "",
            *_align(_pooled(evaluation, baselines or {})),
            *(["", *evaluation.notes] if evaluation.notes else []),
            *_groups(evaluation, "kind", "kind of anomaly"),
            *_groups(evaluation, "size", "size of anomaly"),
            "",
            *_align(_cases(evaluation)),
        ]
    )


def format_comparison(results: Mapping[str, Evaluation]) -> str:
    """A table of the four figures that matter most, one line per method, and chance.

    Args:
        results: Name to evaluation, all on the same cases.
    """
    keys = ("voxel_ap", "sample_ap", "voxel_auroc", "sample_auroc")
    rows: list[Row] = [("", *(FIGURES[key] for key in keys))]
    rows += [(name, *(figure(result.figures[key].value) for key in keys)) for name, result in results.items()]
    first = next(iter(results.values()))
    rows.append(("chance", *(figure(first.figures[key].chance) for key in keys)))
    return "\n".join(_align(rows))


def format_mood(figures: MoodFigures) -> str:
    """The MOOD challenge's figures, in full."""
    shown = [UNDEFINED if value is None else f"{value:.6f}" for value in (figures.pixel, figures.sample)]
    reason = f"\n{UNDEFINED.capitalize()}: there is nothing anomalous in these labels at that level." * (
        UNDEFINED in shown
    )
    return f"MOOD pixel-level AP {shown[0]}, sample-level AP {shown[1]}{reason}"


def figure(value: float | None) -> str:
    """A figure as text."""
    return UNDEFINED if value is None else f"{value:#.3g}"


def _interval(value: Figure) -> str:
    return "" if value.low is None else f"{figure(value.low)} to {figure(value.high)}"


def _pooled(evaluation: Evaluation, baselines: Mapping[str, Evaluation]) -> list[Row]:
    rows: list[Row] = [("all cases", "value", "95 % interval", "chance level", *baselines)]
    for key, name in FIGURES.items():
        found = evaluation.figures[key]
        if key == "voxel_dice":
            if evaluation.threshold is None:
                continue
            name = f"Dice at the threshold {evaluation.threshold:g}"
        if key == "voxel_best_dice" and evaluation.best_threshold is not None:
            name = f"best Dice (at the threshold {evaluation.best_threshold:.3g})"
        # A Dice has no chance level; whether there can be one is told by the other figures of voxels.
        judge = evaluation.figures["voxel_ap"] if key == "voxel_dice" else found
        if judge.value is None and judge.chance is None:
            continue  # cannot be had from such labels at all
        chance = "" if found.chance is None else figure(found.chance)
        others = [figure(other.figures[key].value) for other in baselines.values()]
        rows.append((name, figure(found.value), _interval(found), chance, *others))
    return rows


def _groups(evaluation: Evaluation, by: str, title: str) -> list[str]:
    groups = [group for group in evaluation.groups if group.by == by]
    if not groups:
        return []
    rows: list[Row] = [(title, "cases", *(FIGURES[key] for key in GROUP_FIGURES))]
    rows[0] = tuple(_short(name) for name in rows[0])
    rows += [(group.name + CLOSE * bool(group.close_to), str(group.cases), *_group_figures(group)) for group in groups]
    marked = any(group.close_to for group in groups)
    return [
        "",
        *_align(rows),
        *([f"{CLOSE} close to a task that the networks trained on (to any task, where that is unknown)"] * marked),
    ]


def _short(name: str) -> str:
    return {
        FIGURES["object_recall"]: "objects found",
        FIGURES["aupro"]: "AUPRO",
    }.get(name, name)


def _group_figures(group: Group) -> list[str]:
    return [figure(group.figures[key].value) if key in group.figures else UNDEFINED for key in GROUP_FIGURES]


def _cases(evaluation: Evaluation) -> list[Row]:
    kinds = any(case.kind not in ("", NORMAL) for case in evaluation.cases)
    keys = [key for key in CASE_FIGURES if any(case.figures.get(key) is not None for case in evaluation.cases)]
    rows: list[Row] = [("case", *(["kind"] if kinds else []), "label", "sample score", *(FIGURES[key] for key in keys))]
    for case in evaluation.cases:
        rows.append(
            (
                case.name,
                *([case.kind] if kinds else []),
                "anomalous" if case.anomalous else "normal",
                f"{case.sample_score:.6g}",
                *(figure(case.figures.get(key)) for key in keys),
            )
        )
    return rows


def _align(rows: Sequence[Row]) -> list[str]:
    """Pad cells to the widest of their column: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
