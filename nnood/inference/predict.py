"""Predict a folder of images, case by case, going on where an earlier, killed call stopped."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from nnood.case_files import list_cases
from nnood.datasets import DATASET_NAME, find_dataset_name
from nnood.errors import UserError, one_error
from nnood.evaluation.folders import NOTE, read_note
from nnood.geometry import Geometry
from nnood.images import read_case
from nnood.inference.export import prediction_files, write_prediction
from nnood.inference.predictor import Model, ScorePredictor
from nnood.paths import Roots
from nnood.safety import plain, read_json, read_receipt, remove_leftovers, sha256, write_json, write_receipt
from nnood.training.checkpoints import BEST
from nnood.training.settings import SETTINGS_FILE, TrainingSettings
from nnood.training.train import member_folder

logger = logging.getLogger(__name__)

RECEIPTS = ".receipts"


def find_model(
    roots: Roots,
    *,
    dataset: str | None,
    recipe: str | None,
    configuration: str | None,
    folds: Sequence[str],
    checkpoint: str = BEST,
) -> Model:
    """Choose the members to predict with; what is not named must be unique.

    Args:
        roots: The three root folders.
        dataset: Id or name; may be left out if one data set has results.
        recipe: May be left out if one recipe was trained.
        configuration: May be left out if one was trained, or the default one was.
        folds: Fold numbers or `all`; every finished fold if empty.
        checkpoint: File name of the checkpoint.

    Raises:
        UserError: If nothing or too much fits.
    """
    names = sorted(
        p.name for p in roots.results.glob("Dataset*") if DATASET_NAME.match(p.name) and any(p.glob("*__*__*"))
    )
    if dataset is None:
        if len(names) != 1:
            there = f"there are {', '.join(names)}" if names else f"{roots.results} holds none, train with nnood_train"
            raise UserError(f"Name the data set whose networks shall predict (-d); {there}.")
        name = names[0]
    else:
        name = find_dataset_name(dataset, roots)
    if recipe is not None and configuration is not None:
        return Model.load(member_folder(roots, name, recipe, configuration), folds, checkpoint)
    candidates = sorted((roots.results / name).glob(f"*__{recipe or '*'}__{configuration or '*'}"))
    candidates = [folder for folder in candidates if any(folder.glob(f"fold_*/{checkpoint}"))]
    if not candidates:
        raise UserError(f"{roots.results / name} has no trained fold that fits; train one with nnood_train {name} 0.")
    if len(candidates) > 1:
        default = [
            folder
            for folder in candidates
            if folder.name.endswith(f"__{read_json(folder / 'plans.json')['nnood']['default_configuration']}")
        ]
        candidates = default if len(default) == 1 else candidates
    if len(candidates) > 1:
        raise UserError(
            f"{name} has several trained models ({', '.join(folder.name for folder in candidates)}); "
            "choose with -r RECIPE and -c CONFIGURATION."
        )
    return Model.load(candidates[0], folds, checkpoint)


def predict(inputs: Path, output: Path, model: Model, *, device: torch.device) -> dict[str, float]:
    """Write a score map and a sample score for every case of a folder.

    Args:
        inputs: Images, named nnU-Net's way (`CASE_0000.nii.gz`) or plainly.
        output: Gets `CASE.nii.gz` (float32 in [0, 1], geometry of the input) and `CASE.nii.gz.txt` per case, and
            `prediction.json`, which says what was predicted with what.
        model: The members.
        device: Where to compute.

    Returns:
        Sample score by case.

    Raises:
        UserError: If cases are broken; the others are finished, and all broken ones are listed.
    """
    if output.resolve() == inputs.resolve():
        raise UserError(f"{output} holds the images, which score maps would overwrite; choose another folder (-o).")
    cases = list_cases(inputs, model.channels)
    settings = {"plans": model.plans, "members": [sha256(file) for file in model.checkpoints]}
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    remove_leftovers(output / RECEIPTS)
    _write_note(output, {**_describe(inputs, model), "cases": sorted(cases)})
    scores: dict[str, float] = {}
    faults: list[str] = []
    predictor = None
    for name, files in tqdm(cases.items(), desc="Predicting", unit="case", disable=None):
        receipt = output / RECEIPTS / f"{name}.json"
        outputs = prediction_files(output, name)
        known = read_receipt(receipt, settings=settings, inputs=files, outputs=outputs)
        if known is not None:
            scores[name] = known["sample_score"]
            continue
        try:
            image, geometry = read_case(files, model.channels)
            _refuse_flat(files[0], geometry, model)
        except UserError as error:
            faults.append(str(error))
            continue
        predictor = predictor or ScorePredictor(model, device)
        scores[name] = write_prediction(predictor(image, geometry), geometry, output, name)
        write_receipt(receipt, settings=settings, inputs=files, outputs=outputs, result={"sample_score": scores[name]})
    one_error(faults)
    return scores


def _write_note(output: Path, note: dict[str, Any]) -> None:
    """Note what is predicted with what, in a folder that holds nothing else.

    Raises:
        UserError: If there are predictions of other networks that this run does not replace.
    """
    note = plain(note)
    before = read_note(output)
    if before == note:
        return
    others = sorted(set(before.get("cases", ())) - set(note["cases"]))
    if others and before["members"] != note["members"]:
        raise UserError(
            f"{output} holds {others[0]} and more, predicted by other networks; choose another folder (-o)."
        )
    write_json(output / NOTE, note)


def _describe(inputs: Path, model: Model) -> dict[str, Any]:
    """What an evaluation or a report of these predictions wants to know."""
    records = [file.parent / SETTINGS_FILE for file in model.checkpoints]
    folds = [TrainingSettings.from_dict(read_json(file)).fold for file in records if file.is_file()]
    known = len(folds) == len(records)
    return {
        "dataset": model.folder.parent.name,
        "images": inputs.absolute(),
        "members": model.checkpoints,
        "tasks": sorted({task for fold in folds for task in fold.train_tasks}) if known else None,
    }


def _refuse_flat(file: Path, geometry: Geometry, model: Model) -> None:
    """Keep a 2D image from networks for volumes, which would see a thousand copies of it, one per millimetre."""
    if geometry.dimensions == 2 and len(model.plans["configurations"][model.configuration]["spacing"]) == 3:
        raise UserError(f"{file} is a 2D image, but {model.configuration} was trained on volumes; leave the image out.")
