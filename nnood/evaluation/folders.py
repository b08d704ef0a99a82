"""Which cases there are: the files of predictions, masks and sample labels, and whether their names fit together."""

import csv
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nnood.case_files import CHANNEL_SUFFIX, stem
from nnood.errors import UserError, one_error
from nnood.image_readers import ENDINGS
from nnood.images import image_ending
from nnood.safety import read_json

MAP_ENDING = ".nii.gz"
SCORE_ENDING = ".nii.gz.txt"
NOTE = "prediction.json"
NOTE_ENDINGS = (".json", ".txt", ".csv", ".md")


def read_sample_scores(folder: Path) -> dict[str, float]:
    """Read the sample score of every prediction, and check that each has its score map beside it."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that nnood_predict wrote.")
    files = {path.name: path for path in _visible_files(folder)}
    names = {file.removesuffix(".txt").removesuffix(MAP_ENDING) for file in files if _is_prediction(file)}
    if not names:
        raise UserError(f"{folder} holds no predictions (NAME{MAP_ENDING} and NAME{SCORE_ENDING}); run nnood_predict.")
    scores, faults = {}, []
    for name in sorted(names):
        lacking = [name + ending for ending in (MAP_ENDING, SCORE_ENDING) if name + ending not in files]
        if lacking:
            faults.append(f"{folder / lacking[0]} is missing; predict the case {name} again.")
            continue
        try:
            scores[name] = _read_sample_score(files[name + SCORE_ENDING])
        except UserError as error:
            faults.append(str(error))
    one_error(faults)
    return scores


def read_note(folder: Path) -> dict[str, Any]:
    """What nnood_predict noted beside its predictions; empty where predictions come from elsewhere.

    Returns:
        `dataset` (its name), `images` (the folder), `cases` (all that there are to predict), `members` (their
        checkpoints), `tasks` (those they trained on; None if unknown), and `plan` (steps and thresholds of the
        inference plan that was followed; None without one).

    Raises:
        UserError: If the note is no JSON or lacks something.
    """
    file = folder / NOTE
    if not file.is_file():
        return {}
    note = read_json(file)
    if not isinstance(note, dict) or not {"dataset", "images", "members", "tasks", "cases"} <= set(note):
        raise UserError(f"{file} lacks what nnood_predict writes into it; predict again or delete the file.")
    return note


def planned_threshold(folder: Path) -> float | None:
    """The score from which the inference plan that was followed calls a voxel anomalous, at 1 % false positives.

    Raises:
        UserError: If the note is no JSON or lacks something.
    """
    plan = read_note(folder).get("plan")
    thresholds = plan.get("thresholds", []) if isinstance(plan, dict) else []
    wanted = [one["value"] for one in thresholds if (one["level"], one["rate"]) == ("voxel", 0.01)]
    return float(wanted[0]) if wanted else None


def _read_sample_score(path: Path) -> float:
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise UserError(f"{path}: Expected one finite number, but got {text[:40]!r}; predict the case again.")
    return score


def full_path(labels: Path) -> Path:
    """The labels' path with a name and a parent of its own, also for `.` and `..`.

    Not `Path.absolute`, which keeps `..`; nor `Path.resolve`, which leaves the folder of a linked one.
    """
    return Path(os.path.abspath(labels))  # noqa: PTH100


def _is_prediction(file: str) -> bool:
    return file.endswith((MAP_ENDING, SCORE_ENDING))


def _visible_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def read_sample_labels(table: Path) -> dict[str, bool]:
    """Read `case,label` rows."""
    listed: dict[str, bool] = {}
    faults = []
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"{table} is no CSV file in UTF-8 ({error}); save it as one, or give a folder of masks."
        ) from error
    if not rows or rows[0] != ["case", "label"]:
        raise UserError(
            f"{table}: Expected the header case,label, but got {repr(','.join(rows[0])) if rows else 'nothing'}; "
            "correct it, or give a folder of masks."
        )
    for line, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        if len(row) != 2 or not row[0] or row[1] not in ("0", "1"):
            faults.append(f"{table}, row {line}: Expected a case and 0 or 1, but got {','.join(row)!r}; correct it.")
        elif row[0] in listed:
            faults.append(f"{table}, row {line}: The case {row[0]} was listed before; remove one of the rows.")
        else:
            listed[row[0]] = row[1] == "1"
    one_error(faults)
    return listed


def find_masks(folder: Path) -> dict[str, Path]:
    """Find the mask of each case that has one."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} does not exist, nor does {folder.name}.csv beside it; give a folder of masks or a CSV."
        )
    masks: dict[str, Path] = {}
    faults = []
    for path in _visible_files(folder):
        ending = image_ending(path)
        if ending is None and path.name.lower().endswith(NOTE_ENDINGS):
            continue
        name = path.name[: -len(ending)] if ending else ""
        if not ending:
            # A mask that is overlooked would turn its case into a normal one.
            faults.append(f"{path} is no mask; expected one of {', '.join(ENDINGS)}, convert it or move it elsewhere.")
        elif name in masks:
            faults.append(f"{path} and {masks[name].name} are masks of the same case; remove one of them.")
        else:
            masks[name] = path
    one_error(faults)
    return masks


def find_images(folder: Path, predicted: Collection[str]) -> dict[str, Path]:
    """Find one image of each case; none if there is no such folder."""
    images: dict[str, Path] = {}
    for path in _visible_files(folder) if folder.is_dir() else []:
        if image_ending(path) is None:
            continue
        plain = stem(path)
        # A plain name may end as a channel does, as scan_2021 does; the prediction then bears the whole name.
        match = CHANNEL_SUFFIX.match(plain)
        images.setdefault(match["case"] if match and plain not in predicted else plain, path)
    return images


def compare_names(
    predictions: Path, predicted: Collection[str], wanted: dict[str, Path], *, whole: Path | None
) -> list[str]:
    """Compare the names of predictions and cases.

    Args:
        predictions: The folder of predictions.
        predicted: The cases in it.
        wanted: Case that must be predicted to the file that says so.
        whole: The file or folder that names all cases there are; None if nothing does.

    Returns:
        One sentence per fault.
    """
    faults = [
        f"{predictions / name}{MAP_ENDING} is missing, but {wanted[name]} has the case {name}; predict this case."
        for name in sorted(wanted.keys() - set(predicted))
    ]
    if whole is not None:
        faults += [
            f"{predictions / name}{MAP_ENDING} is of no case in {whole}; add the case there or remove the prediction."
            for name in sorted(set(predicted) - wanted.keys())
        ]
    return faults
