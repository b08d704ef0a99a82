"""Predict a folder of images, case by case, going on where an earlier, killed call stopped."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nnood.case_files import list_cases
from nnood.errors import UserError, one_error
from nnood.geometry import Geometry
from nnood.images import read_case, read_image, write_image
from nnood.inference.ensembling import Combiner
from nnood.inference.export import prediction_files, write_prediction
from nnood.inference.finishing import finish, foreground_of, refuse_users_masks
from nnood.inference.inference_plan import PLAN_FILE, InferencePlan, default_plan, load_plan
from nnood.inference.members import Member, dataset_with_results, find_members, members_of_plan
from nnood.inference.notes import describe_members, describe_plan, write_note
from nnood.inference.predictor import MapPredictor
from nnood.paths import Roots
from nnood.plan import NnoodPlan
from nnood.precision import choose_device
from nnood.safety import read_receipt, remove_leftovers, write_receipt
from nnood.training.checkpoints import BEST

logger = logging.getLogger(__name__)

RECEIPTS = ".receipts"
MASKS = "masks"
MASK_RATE = 0.01


@dataclass(frozen=True)
class Planned:
    """Who predicts, and how.

    Attributes:
        plan: The inference plan.
        members: Those it names, in its order; after them, those of its sample score if it names any.
        file: Where the plan was read from; None if there was none, and members are simply averaged.
        archive: That all of it was unpacked from for now; None if it is there to stay.
    """

    plan: InferencePlan
    members: tuple[Member, ...]
    file: Path | None = None
    archive: Path | None = None

    @property
    def channels(self) -> int:
        """Input channels."""
        return self.members[0].channels

    @property
    def foreground_method(self) -> str:
        """How the data set's foreground was found."""
        return NnoodPlan.from_dict(self.members[0].plans["nnood"]).foreground_method


def find_model(
    roots: Roots,
    *,
    dataset: str | None,
    recipe: str | None = None,
    configuration: str | None = None,
    folds: Sequence[str] = (),
    checkpoint: str | None = None,
    plan: Path | None = None,
) -> Planned:
    """Choose what to predict with: the data set's inference plan if it has one, unless members are named.

    Args:
        roots: The three root folders.
        dataset: Id or name; may be left out if one data set has results.
        recipe: Of the members.
        configuration: Of the members.
        folds: Fold numbers or `all`; every finished fold if empty.
        checkpoint: File name of the checkpoint; the best one's if None.
        plan: Another inference plan.

    Raises:
        UserError: If nothing or too much fits, the plan is broken, or its members are not as they were.
    """
    named = bool(recipe or configuration or folds or checkpoint)
    if plan is not None:
        if named:
            raise UserError(f"{plan} names the members already; leave out --plan, or -f, -c, -r and --checkpoint.")
        return follow_plan(plan, roots, dataset=dataset)
    name = dataset_with_results(roots, dataset)
    file = roots.results / name / PLAN_FILE
    if file.is_file() and not named:
        return follow_plan(file, roots, dataset=name)
    members = find_members(
        roots,
        dataset=name,
        recipe=recipe,
        configuration=configuration,
        folds=folds,
        checkpoint=checkpoint or BEST,
    )
    return Planned(default_plan(members), tuple(members))


def follow_plan(file: Path, roots: Roots, *, dataset: str | None = None) -> Planned:
    """Read an inference plan and find its members.

    Args:
        file: The plan.
        roots: The three root folders.
        dataset: Id or name of the data set that it must be of; any if None.

    Raises:
        UserError: If the plan is broken or of another data set, or its members are not as they were.
    """
    plan = load_plan(file)
    if dataset is not None and dataset_with_results(roots, dataset) != plan.dataset:
        raise UserError(f"{file} is an inference plan of {plan.dataset}, not of {dataset}; correct -d or --plan.")
    return Planned(plan, tuple(members_of_plan(plan, roots)), file)


def predict(
    inputs: Path, output: Path, planned: Planned, *, device: torch.device | str = "auto", save_mask: bool = False
) -> dict[str, float]:
    """Write a score map and a sample score for every case of a folder.

    Args:
        inputs: Images, named nnU-Net's way (`CASE_0000.nii.gz`) or plainly.
        output: Gets `CASE.nii.gz` (float32 in [0, 1], geometry of the input) and `CASE.nii.gz.txt` per case, and
            `prediction.json`, which says what was predicted with what.
        planned: Members and plan.
        device: Where to compute: `auto` (the fastest there is), `cpu`, `cuda`, `cuda:1` or `mps`, or a device.
        save_mask: Whether to write `masks/CASE.nii.gz` too: 1 where the score reaches the plan's threshold at 1 %
            false positives, 0 elsewhere.

    Returns:
        Sample score by case.

    Raises:
        UserError: If the plan cannot be followed, or cases are broken; the others are finished, and all broken ones
            are listed.
    """
    if output.resolve() == inputs.resolve():
        raise UserError(f"{output} holds the images, which score maps would overwrite; choose another folder (-o).")
    refuse_users_masks(planned.plan, planned.foreground_method)
    device = choose_device(device)
    threshold = _mask_threshold(planned) if save_mask else None
    cases = list_cases(inputs, planned.channels)
    settings = planned.plan.decisive()
    output.mkdir(parents=True, exist_ok=True)
    for folder in (output, output / RECEIPTS, output / MASKS, output / MASKS / RECEIPTS):
        remove_leftovers(folder)
    origin = {"images": inputs.absolute(), "plan": describe_plan(planned.plan, planned.file, planned.archive)}
    write_note(output, {**describe_members(planned.members, planned.archive), **origin, "cases": sorted(cases)})
    scores: dict[str, float] = {}
    faults: list[str] = []
    predictor = None
    for name, files in tqdm(cases.items(), desc="Predicting", unit="case", disable=None):
        receipt = output / RECEIPTS / f"{name}.json"
        outputs = prediction_files(output, name)
        known = read_receipt(receipt, settings=settings, inputs=files, outputs=outputs)
        if known is not None:
            scores[name] = known["sample_score"]
        else:
            try:
                image, geometry = read_case(files, planned.channels)
                refuse_flat(files[0], geometry, planned.members)
            except UserError as error:
                faults.append(str(error))
                continue
            predictor = predictor or MapPredictor(planned.members, device)
            score_map, score = score_image(predictor, planned, image, geometry)
            (output / MASKS / f"{name}.nii.gz").unlink(missing_ok=True)  # of another score map
            write_prediction(score_map, score, geometry, output, name)
            write_receipt(receipt, settings=settings, inputs=files, outputs=outputs, result={"sample_score": score})
            scores[name] = score
        if threshold is not None:
            _write_mask(output, name, threshold)
    one_error(faults)
    return scores


def score_image(
    predictor: MapPredictor, planned: Planned, image: np.ndarray, geometry: Geometry
) -> tuple[np.ndarray, float]:
    """Score one image as the plan says.

    Args:
        predictor: Of the plan's members.
        planned: Members and plan.
        image: Values (C, Z, Y, X), Z = 1 for 2D images.
        geometry: Of the image.

    Returns:
        The score map (Z, Y, X) float32 in [0, 1], and the sample score in [0, 1].
    """
    combined = _combined(predictor, planned.plan, image, geometry)
    foreground = foreground_of(image, planned.plan, planned.foreground_method)
    score_map, score = finish(combined, planned.plan, foreground=foreground, geometry=geometry)
    of_patches = _patch_score(predictor, planned.plan, image, geometry)
    return score_map, score if of_patches is None else of_patches


def _combined(predictor: MapPredictor, plan: InferencePlan, image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The members' score maps in one, (Z, Y, X) float32 in [0, 1]."""
    if plan.combination == "mean":
        return predictor.mean(image, geometry, range(len(plan.members)))
    combiner = Combiner(plan.combination, count=len(plan.members))
    for number, score_map in predictor.maps(image, geometry, range(len(plan.members))):
        combiner.add(score_map, plan.members[number].quantiles)
    return combiner.result()


def _patch_score(predictor: MapPredictor, plan: InferencePlan, image: np.ndarray, geometry: Geometry) -> float | None:
    """The sample score of patches; None where it is that of the score map."""
    if plan.sample_patches is None:
        return None
    first = len(plan.members)
    numbers = range(first, first + len(plan.sample_members))
    return predictor.patch_score(image, geometry, numbers, plan.sample_patches.score, plan.sample_patches.combination)


def _mask_threshold(planned: Planned) -> float:
    """The score from which on a voxel is in the mask."""
    if planned.file is None:
        raise UserError(
            "Masks need the threshold of an inference plan (--save_mask); run nnood_find_best_configuration, and "
            "leave out -f, -c, -r and --checkpoint."
        )
    threshold = planned.plan.threshold("voxel", MASK_RATE)
    if threshold is None:
        raise UserError(
            f"{planned.archive or planned.file} has no threshold of voxels at a rate of {MASK_RATE}, which --save_mask "
            "needs; run nnood_find_best_configuration again."
        )
    return threshold.value


def _write_mask(output: Path, name: str, threshold: float) -> None:
    """Write the mask of a finished case, unless that is done already."""
    score_map, mask = prediction_files(output, name)[0], output / MASKS / f"{name}.nii.gz"
    receipt, settings = output / MASKS / RECEIPTS / f"{name}.json", {"threshold": threshold}
    if read_receipt(receipt, settings=settings, inputs=[score_map], outputs=[mask]) is None:
        values, geometry = read_image(score_map)
        write_image((values[0] >= np.float32(threshold)).astype(np.uint8), geometry, mask)
        write_receipt(receipt, settings=settings, inputs=[score_map], outputs=[mask], result={})


def refuse_flat(file: Path | str, geometry: Geometry, members: Sequence[Member]) -> None:
    """Keep a 2D image from networks for volumes, which would see a thousand copies of it, one per millimetre."""
    for member in members:
        if geometry.dimensions == 2 and len(member.plans["configurations"][member.configuration]["spacing"]) == 3:
            raise UserError(
                f"{file} is a 2D image, but {member.configuration} was trained on volumes; leave the image out."
            )
