"""Take the steps of an inference plan on plain predictions, case by case."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnood.case_files import Cases, list_cases
from nnood.datasets import find_dataset_name
from nnood.errors import UserError, one_error
from nnood.evaluation.folders import read_note, read_sample_scores
from nnood.evaluation.report.image_folder import find_image_folder
from nnood.geometry import Geometry
from nnood.images import read_case
from nnood.inference.combine_folders import RECEIPTS, read_score_map
from nnood.inference.export import prediction_files, write_prediction
from nnood.inference.finishing import finish, foreground_of, refuse_users_masks
from nnood.inference.inference_plan import PLAN_FILE, InferencePlan, load_plan
from nnood.inference.members import FOLD_PREFIX
from nnood.inference.notes import describe_plan, write_note
from nnood.paths import Roots
from nnood.plan import NnoodPlan
from nnood.safety import read_json, read_receipt, remove_leftovers, sha256, write_receipt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Sources:
    """Where the foreground comes from.

    Attributes:
        method: That finds it; empty if it is not needed.
        channels: Of the images.
        files: One file per channel, by case.
    """

    method: str
    channels: int
    files: Cases


def find_plan_file(predictions: Path, roots: Roots, *, dataset: str | None, plan: Path | None) -> Path:
    """Which plan to apply to predictions.

    Args:
        predictions: As nnood_predict wrote them.
        roots: The three root folders.
        dataset: Id or name; what nnood_predict noted if None.
        plan: File of a plan, instead.

    Raises:
        UserError: If both are given, or nothing leads to a plan.
    """
    if plan is not None:
        if dataset is not None:
            raise UserError(f"{plan} names its data set already; leave out -d or --plan.")
        return plan
    noted = read_note(predictions).get("dataset") if dataset is None else find_dataset_name(dataset, roots)
    if noted is None:
        raise UserError(f"{predictions} does not say which data set's networks predicted; name it with -d.")
    file = roots.results / noted / PLAN_FILE
    if not file.is_file():
        raise UserError(f"{file} does not exist; run nnood_find_best_configuration, or name a plan with --plan.")
    return file


def apply_postprocessing(
    predictions: Path, output: Path, plan_file: Path, roots: Roots, *, images: Path | None = None
) -> dict[str, float]:
    """Take a plan's steps, calibration and sample score on predictions that went through no plan.

    Args:
        predictions: Score maps of plain members, as `nnood_predict -f` and nnood_ensemble write them.
        output: Gets the result, in the same layout.
        plan_file: The inference plan.
        roots: The three root folders.
        images: The predicted images, needed for plans that regard the foreground; where nnood_predict noted them if
            None.

    Returns:
        Sample score by case.

    Raises:
        UserError: If the predictions went through a plan already, images are needed and missing, or a file is broken;
            in the latter case the other cases are finished.
    """
    if output.resolve() == predictions.resolve():
        raise UserError(f"{output} holds the predictions, which would be overwritten; choose another folder (-o).")
    plan = load_plan(plan_file)
    names = sorted(read_sample_scores(predictions))
    note = read_note(predictions)
    if note.get("plan"):
        raise UserError(
            f"{predictions} went through an inference plan already ({note['plan']['file']}); predict plainly first, "
            "with nnood_predict -f."
        )
    if plan.sample_patches is not None:
        logger.warning(
            "The sample score of %s (%s) needs the networks; that of the score map is taken (%s).",
            plan_file,
            plan.sample_patches.describe(),
            plan.sample_score,
        )
    sources = _foreground_sources(plan, predictions, names, roots, images)
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    remove_leftovers(output / RECEIPTS)
    _note(output, plan, plan_file, note, names)
    settings = {"plan": plan.decisive(), "foreground": sources.method}
    scores: dict[str, float] = {}
    faults: list[str] = []
    for name in tqdm(names, desc="Post-processing", unit="case", disable=None):
        source = prediction_files(predictions, name)[0]
        receipt, outputs = output / RECEIPTS / f"{name}.json", prediction_files(output, name)
        own, inputs = {**settings, "map": sha256(source)}, sources.files.get(name, [])
        known = read_receipt(receipt, settings=own, inputs=inputs, outputs=outputs)
        if known is None:
            try:
                score_map, geometry = read_score_map(source)
                foreground = _foreground(plan, sources, name, source, geometry)
            except UserError as error:
                faults.append(str(error))
                continue
            finished, score = finish(score_map, plan, foreground=foreground, geometry=geometry)
            known = {"sample_score": score}
            write_prediction(finished, score, geometry, output, name)
            write_receipt(receipt, settings=own, inputs=inputs, outputs=outputs, result=known)
        scores[name] = known["sample_score"]
    one_error(faults)
    return scores


def _foreground_sources(
    plan: InferencePlan, predictions: Path, names: list[str], roots: Roots, images: Path | None
) -> _Sources:
    """Where the foreground comes from; nothing where the plan needs none."""
    if not plan.needs_foreground:
        return _Sources("", 0, {})
    folder = roots.results / plan.dataset / plan.members[0].folder
    method = NnoodPlan.from_dict(read_json(folder / "plans.json")["nnood"]).foreground_method
    refuse_users_masks(plan, method)
    where = find_image_folder(predictions, names, images=images)
    if where is None:
        raise UserError(f"The plan regards the foreground, but the images of {predictions} are gone; name --images.")
    channels = len(read_json(folder / "dataset.json")["channel_names"])
    cases = list_cases(where, channels)
    one_error(
        [f"{where} has no image of the case {name}, whose foreground is needed." for name in names if name not in cases]
    )
    return _Sources(method, channels, {name: cases[name] for name in names})


def _foreground(
    plan: InferencePlan, sources: _Sources, name: str, source: Path, geometry: Geometry
) -> np.ndarray | None:
    """The foreground of a case, if the plan needs it."""
    if not sources.files:
        return None
    files = sources.files[name]
    image, own = read_case(files, sources.channels)
    if not own.matches(geometry):
        raise UserError(f"{source} does not fit {files[0]} ({geometry.describe()} and {own.describe()}).")
    return foreground_of(image, plan, sources.method)


def _note(output: Path, plan: InferencePlan, plan_file: Path, note: dict[str, Any], names: list[str]) -> None:
    """Note what was done, and warn where the plan was fitted to other networks than predicted here."""
    known: dict[str, Any] = {key: note.get(key) for key in ("images", "tasks", "ensemble") if key in note}
    members = note.get("members", [])
    planned = [f"{member.folder}/{FOLD_PREFIX}{member.fold}/{member.checkpoint}" for member in plan.members]
    if sorted("/".join(Path(member).parts[-3:]) for member in members) != sorted(planned):
        logger.warning(
            "These predictions are not of the members that %s was fitted to; its calibration may be off.", plan_file
        )
    write_note(
        output,
        {
            "images": None,
            "tasks": None,
            **known,
            "dataset": plan.dataset,
            "members": members,
            "cases": names,
            "plan": describe_plan(plan, plan_file),
        },
    )
