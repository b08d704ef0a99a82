"""The part of a report on training: what was trained, on what, and how it validated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnood.evaluation.report.html import (
    Html,
    cell,
    definitions,
    element,
    figure_text,
    join,
    number_cell,
    paragraph,
    section,
    short,
    table,
)
from nnood.evaluation.report.plan import describe_plan
from nnood.inference.inference_plan import PLAN_FILE, load_plan
from nnood.safety import read_json
from nnood.training.checkpoints import FINAL
from nnood.training.settings import SETTINGS_FILE


@dataclass(frozen=True)
class FoldRecord:
    """What a fold's folder says.

    Attributes:
        name: Of the folder, without `fold_`.
        settings: Content of settings.json.
        summary: Content of validation/summary.json; empty before the end of the training.
        finished: Whether the final checkpoint is there.
    """

    name: str
    settings: dict[str, Any]
    summary: dict[str, Any]
    finished: bool


def describe_training(results: Path) -> Html:
    """Describe all members of a data set.

    Args:
        results: The data set's folder of results.

    Returns:
        A section; empty if nothing was trained.

    Raises:
        UserError: If a file is no JSON, or the inference plan is not valid.
    """
    members = [
        (folder, folds)
        for folder in sorted(results.glob("*__*__*"))
        if (folds := _read_folds(folder)) and folder.is_dir()
    ]
    parts = [_describe_members(folder, folds) for folder, folds in members]
    if (results / PLAN_FILE).is_file():
        parts.append(describe_plan(load_plan(results / PLAN_FILE)))
    return section("training", "What was trained", *parts) if parts else Html()


def _read_folds(folder: Path) -> list[FoldRecord]:
    return [
        FoldRecord(
            fold.name.removeprefix("fold_"),
            read_json(fold / SETTINGS_FILE),
            _read_if_there(fold / "validation" / "summary.json"),
            (fold / FINAL).is_file(),
        )
        for fold in sorted(folder.glob("fold_*"))
        if (fold / SETTINGS_FILE).is_file()
    ]


def _read_if_there(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _describe_members(folder: Path, folds: Sequence[FoldRecord]) -> Html:
    _, _, configuration = folder.name.rsplit("__", 2)
    recipe = folds[0].settings.get("recipe", {})
    name = f"Recipe {recipe.get('name', '?')}, configuration {configuration}"
    plan = _describe_configuration(_read_if_there(folder / "plans.json"), configuration)
    reconstruction = recipe.get("reconstruction")
    entries = _describe_learning(recipe) if reconstruction is None else _describe_reconstruction(recipe, reconstruction)
    return join(
        (
            element("h3", name),
            paragraph(recipe.get("summary", "")),
            definitions({**entries, **plan}),
            _validation_table(folds),
        )
    )


def _describe_learning(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Tasks (share)": ", ".join(f"{task} ({share:g})" for task, share in recipe.get("tasks", {}).items()),
        "Normal images (share)": _short_or_none(recipe.get("normal")),
        "Label": recipe.get("label"),
        "Foreign patches from": recipe.get("donors"),
    }


def _describe_reconstruction(recipe: Mapping[str, Any], reconstruction: Mapping[str, Any]) -> dict[str, Any]:
    """Of networks that never saw an anomaly in training."""
    return {
        "Validated with": ", ".join(recipe.get("tasks", {})),
        "Encoder": reconstruction.get("encoder"),
        "Latent": reconstruction.get("latent"),
        "Corruption": reconstruction.get("corruption"),
        "Background": reconstruction.get("background"),
    }


def _short_or_none(value: Any) -> str | None:
    return None if value is None else short(value)


def _describe_configuration(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    own = plans.get("configurations", {}).get(configuration, {})
    nnood = plans.get("nnood", {})
    foreground = ", ".join(str(nnood[key]) for key in ("foreground_method", "foreground_reason") if nnood.get(key))
    sizes = [f"{100 * float(value):.0f}" for value in nnood.get("anomaly_size", ())]
    return {
        "Patch": _by(own.get("patch_size"), "voxels"),
        "Patches per batch": own.get("batch_size"),
        "Spacing": _by(own.get("spacing"), "mm"),
        "Median image": _by(own.get("median_image_size_in_voxels"), "voxels"),
        "Foreground": foreground,
        "Planted anomalies": " to ".join(sizes) + " % of the foreground's box" if sizes else None,
    }


def _by(values: Sequence[float] | None, unit: str) -> str | None:
    return f"{' × '.join(short(value) for value in values)} {unit}" if values else None  # noqa: RUF001


def _validation_table(folds: Sequence[FoldRecord]) -> Html:
    """One row per fold, one column per task; the mean below where there are several."""
    tasks = list(dict.fromkeys(task for fold in folds for task in fold.summary.get("voxel_ap", {})))
    header = ["Fold", "Training cases", "Held-out cases", "Epochs × iterations", "State"]  # noqa: RUF001
    rows = [_fold_row(fold, tasks) for fold in folds]
    if not tasks:
        return table(header, rows)
    if len(folds) > 1:
        blank = [cell("")] * (len(header) - 1)
        rows.append([element("strong", "mean"), *blank, *_task_cells([fold.summary for fold in folds], tasks)])
    held_out = "Held-out cases with planted anomalies: voxel AP, sample AP below it."
    return table([*header, "All tasks", *tasks], rows, caption=held_out)


def _fold_row(fold: FoldRecord, tasks: Sequence[str]) -> list[object]:
    recipe, cases = fold.settings.get("recipe", {}), fold.settings.get("fold", {})
    return [
        fold.name,
        len(cases.get("train_cases", ())),
        len(cases.get("val_cases", ())),
        cell(f"{recipe.get('epochs', '?')} × {recipe.get('iterations', '?')}", class_="number"),  # noqa: RUF001
        "finished" if fold.finished else "not finished",
        *(_task_cells([fold.summary], tasks) if tasks else ()),
    ]


def _task_cells(summaries: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[Html]:
    """Means over folds, of all tasks together and of each."""
    per_fold = [
        (summary.get("voxel_ap", {}), summary.get("sample_ap", {})) for summary in summaries if summary.get("voxel_ap")
    ]
    cells = [_pair_cell([[_mean(list(part.values())) for part in pair] for pair in per_fold])]
    for task in tasks:
        cells.append(_pair_cell([[part.get(task) for part in pair] for pair in per_fold if task in pair[0]]))
    return cells


def _pair_cell(pairs: Sequence[Sequence[float | None]]) -> Html:
    if not pairs:
        return number_cell("–")  # noqa: RUF001
    voxel, sample = (_mean([pair[i] for pair in pairs]) for i in (0, 1))
    small = element("small", figure_text(sample)) if sample is not None else Html()
    return number_cell(join((figure_text(voxel), small)), voxel)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None
