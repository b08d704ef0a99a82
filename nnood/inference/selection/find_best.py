"""Find the best configuration, ensemble, post-processing, sample score and calibration without a real anomaly."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nnood.datasets import find_dataset_name, load_dataset
from nnood.errors import UserError
from nnood.images import read_case
from nnood.inference.inference_plan import PLAN_FILE, InferencePlan, PlannedMember
from nnood.inference.members import Member, plans_digest
from nnood.inference.selection.cache import Cache
from nnood.inference.selection.combined import Combined
from nnood.inference.selection.ensembles import Ledger, choose_ensemble
from nnood.inference.selection.figures import Judgement
from nnood.inference.selection.groups import find_groups, member_numbers
from nnood.inference.selection.images import Image, ImageMaker, clean_images, fold_of, list_images
from nnood.inference.selection.predictions import COMPUTED_METHODS, predict_images, typical_edge
from nnood.inference.selection.report import draw_plan, format_plan
from nnood.inference.selection.scoring import choose_scoring
from nnood.inference.selection.steps import choose_steps
from nnood.inference.selection.voxels import sample_voxels
from nnood.paths import Roots, set_roots
from nnood.plan import NnoodPlan
from nnood.safety import read_json, sha256, write_json, write_text
from nnood.training.checkpoints import BEST
from nnood.training.cross_validation import Fold

logger = logging.getLogger(__name__)

FOLDER = "selection"
# Says what the plan looked like when it was made, so that one edited by hand is not overwritten.
RECORD = "inference_plan.sha256.json"
MAX_CASES = 40
# More clean cases than planted ones: a threshold at 1 % false positives needs at least a hundred.
MAX_CLEAN = 200
MAX_BYTES = 8 * 2**30  # of score maps on the disk
FEWEST_CASES = 5


def find_best_configuration(
    dataset: str,
    roots: Roots,
    *,
    recipes: Sequence[str] = (),
    configurations: Sequence[str] = (),
    folds: Sequence[str] = (),
    checkpoint: str = BEST,
    max_cases: int = MAX_CASES,
    processes: int = 1,
    device: torch.device | None = None,
) -> InferencePlan:
    """Judge all trained members on what they were kept from, and write the inference plan. Goes on where it stopped.

    Args:
        dataset: Id or name.
        roots: The three root folders.
        recipes: Only members of these; all if empty.
        configurations: Only members of these; all if empty.
        folds: Only these folds; every finished one if empty.
        checkpoint: File name of the checkpoint of each member.
        max_cases: At most this many held-out cases get anomalies; fewer, where score maps would fill the disk.
        processes: Worker processes for whatever is not prediction.
        device: Where to predict; CPU if None.

    Returns:
        The plan; also in `inference_plan.json`, with a readable page and a picture beside it.

    Raises:
        UserError: If there is nothing to judge or to judge on, or the plan was edited by hand since it was made.
    """
    set_roots(roots)
    name = find_dataset_name(dataset, roots)
    results = roots.results / name
    groups = find_groups(results, recipes, configurations, folds, checkpoint)
    members = [member for group in groups.values() for member in group]
    _refuse_edited(results)
    folds_of = [fold_of(member) for member in members]
    maker = _image_maker(members[0], name, roots)
    images = tuple(list_images(folds_of, max_cases=_affordable(maker, folds_of, max_cases)))
    _refuse_unknown(images, maker)
    clean = tuple(clean_images(folds_of, images, max_cases=MAX_CLEAN))
    hashes = tuple(sha256(member.file) for member in members)
    logger.info("Judging %d members on %d images of held-out cases.", len(members), len(images) + len(clean))
    files = {image.case: maker.files[image.case] for image in (*images, *clean)}
    cache = Cache.of(results / FOLDER, files, hashes)
    method = _foreground_method(members[0])
    predict_images(members, maker, (*images, *clean), cache, method, device or torch.device("cpu"))
    judgement, ledger = Judgement(images), Ledger()
    sampled = sample_voxels(cache, images, len(members))
    names = [f"{group} fold {member.fold}" for group, found in groups.items() for member in found]
    chosen = choose_ensemble(sampled, judgement, member_numbers(groups), names, ledger)
    combined = Combined(cache, images, chosen, sampled.quantiles, processes)
    has_foreground = method in COMPUTED_METHODS
    voxel_mm = typical_edge(cache, images)
    steps = choose_steps(combined, judgement, ledger, voxel_mm=voxel_mm, has_foreground=has_foreground)
    scoring = choose_scoring(combined, steps, judgement, ledger, clean=clean, within_foreground=has_foreground)
    selected = [members[number] for number in chosen.members]
    ranked = chosen.combination == "rank_mean"
    plan = InferencePlan(
        dataset=name,
        members=tuple(
            PlannedMember(
                members[number].folder.name,
                members[number].fold,
                checkpoint,
                hashes[number],
                sampled.quantiles[number] if ranked else (),
            )
            for number in chosen.members
        ),
        combination=chosen.combination,
        steps=steps,
        sample_score=scoring.sample_score,
        within_foreground=has_foreground,
        calibration=scoring.calibration,
        thresholds=scoring.thresholds,
        plans={member.folder.name: plans_digest(member.plans, member.configuration) for member in selected},
        candidates=ledger.candidates,
        notes=ledger.notes,
    )
    _write(plan, images, scoring.samples, results)
    shutil.rmtree(results / FOLDER)
    return plan


def _refuse_edited(results: Path) -> None:
    """Keep a plan that somebody edited from being overwritten."""
    file, record = results / PLAN_FILE, results / RECORD
    if file.is_file() and not (record.is_file() and read_json(record)["sha256"] == sha256(file)):
        raise UserError(f"{file} was edited or put there by hand; move it away to have a new one made.")


def _foreground_method(member: Member) -> str:
    return NnoodPlan.from_dict(member.plans["nnood"]).foreground_method


def _image_maker(member: Member, name: str, roots: Roots) -> ImageMaker:
    raw = load_dataset(name, roots)
    fractions = NnoodPlan.from_dict(member.plans["nnood"]).anomaly_size
    return ImageMaker(name, raw.training, raw.channels, roots.preprocessed / name, fractions)


def _affordable(maker: ImageMaker, folds: Sequence[Fold], max_cases: int) -> int:
    """So many cases that their score maps fit on the disk."""
    planned = list_images(folds, max_cases=max_cases)
    known = [image for image in planned if image.case in maker.files]
    if not known:
        return max_cases
    cases = len({image.case for image in known})
    voxels = float(np.prod(read_case(maker.files[known[0].case], maker.channels)[1].size))
    bytes_per_case = 2 * voxels * sum(len(image.judges) for image in known) / cases
    affordable = max(FEWEST_CASES, int(MAX_BYTES / bytes_per_case))
    if affordable < cases:
        logger.info("Only %d of %d cases get anomalies: score maps may take %d GB.", affordable, cases, MAX_BYTES >> 30)
    return min(max_cases, affordable)


def _refuse_unknown(images: Sequence[Image], maker: ImageMaker) -> None:
    """Refuse members that were trained on another state of the data set, or leave nothing out."""
    if not images:
        raise UserError(f"No trained member of {maker.dataset} leaves cases out to be judged on; train another fold.")
    unknown = sorted({image.case for image in images} - set(maker.files))
    if unknown:
        raise UserError(
            f"{maker.dataset} has no training case {unknown[0]} any more, which members were kept from; bring it back "
            "or train them anew."
        )


def _write(plan: InferencePlan, images: Sequence[Image], samples: np.ndarray, results: Path) -> None:
    """The plan, a page and a picture."""
    write_text(results / "inference_plan.md", format_plan(plan))
    draw_plan(plan, images, samples, results / "inference_plan.png")
    write_json(results / PLAN_FILE, plan.to_dict())
    write_json(results / RECORD, {"sha256": sha256(results / PLAN_FILE)})
