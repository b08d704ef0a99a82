"""Find the best configuration, ensemble, post-processing, sample score and calibration without a real anomaly."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnood.datasets import find_dataset_name, load_dataset
from nnood.errors import UserError
from nnood.inference.inference_plan import PLAN_FILE, InferencePlan, PatchScoring, PlannedMember
from nnood.inference.members import Member, plans_digest
from nnood.inference.selection.budget import choose_images
from nnood.inference.selection.cache import Cache
from nnood.inference.selection.combined import Combined
from nnood.inference.selection.ensembles import Ledger, choose_ensemble
from nnood.inference.selection.figures import Judgement
from nnood.inference.selection.groups import find_groups, member_numbers
from nnood.inference.selection.images import RELATIVE, Image, ImageMaker, fold_of, unseen_tasks
from nnood.inference.selection.patch_scoring import PatchJudge
from nnood.inference.selection.predictions import predict_images, typical_edge, with_something_to_find
from nnood.inference.selection.report import draw_plan, format_plan
from nnood.inference.selection.scoring import choose_scoring
from nnood.inference.selection.steps import choose_steps
from nnood.inference.selection.voxels import sample_voxels
from nnood.paths import Roots, get_roots, set_nnunet_roots
from nnood.plan import NnoodPlan
from nnood.planning.foreground import COMPUTED_METHODS
from nnood.precision import choose_device
from nnood.safety import digest_of, read_json, remove_leftovers, sha256, write_json, write_text
from nnood.training.checkpoints import BEST
from nnood.training.cross_validation import Fold, folds_file
from nnood.training.task_settings import task_settings
from nnood.training.validation import NORMAL

logger = logging.getLogger(__name__)

FOLDER = "selection"
# Says what the plan looked like when it was made, so that one edited by hand is not overwritten.
RECORD = "inference_plan.digest.json"
MAX_CASES = 40
LESIONS_TASK = "lesion_shapes"
# For fewer, starting worker processes takes longer than the work.
MANY_VOXELS = 10**8


def find_best_configuration(
    dataset: str | int,
    roots: Roots | None = None,
    *,
    recipes: Sequence[str] = (),
    configurations: Sequence[str] = (),
    folds: Sequence[str] = (),
    checkpoint: str = BEST,
    max_cases: int = MAX_CASES,
    processes: int = 1,
    device: torch.device | str = "auto",
) -> InferencePlan:
    """Judge all trained members on what they were kept from, and write the inference plan. Goes on where it stopped.

    Args:
        dataset: Id or name.
        roots: The three root folders; as the commands have them (`nnood.paths.get_roots`) if None.
        recipes: Only members of these; all if empty.
        configurations: Only members of these; all if empty.
        folds: Only these folds; every finished one if empty.
        checkpoint: File name of the checkpoint of each member.
        max_cases: At most this many held-out cases get anomalies, and five times as many are predicted clean; fewer,
            where score maps would fill the disk.
        processes: Worker processes for whatever is not prediction.
        device: Where to predict: `auto` (the fastest there is), `cpu`, `cuda`, `cuda:1` or `mps`, or a device.

    Returns:
        The plan; also in `inference_plan.json`, with a readable page and a picture beside it.

    Raises:
        UserError: If there is nothing to judge or to judge on, or the plan was edited by hand since it was made.
    """
    roots, device = roots or get_roots(), choose_device(device)
    set_nnunet_roots(roots)
    name = find_dataset_name(str(dataset), roots)
    results = roots.results / name
    groups = find_groups(results, recipes, configurations, folds, checkpoint)
    members = [member for group in groups.values() for member in group]
    remove_leftovers(results)
    previous = _known_plan(results)
    folds_of = [fold_of(member) for member in members]
    method = _foreground_method(members)
    maker = _image_maker(members[0], name, roots, folds_of)
    images, clean = choose_images(folds_of, maker.files, max_cases=max_cases)
    _refuse_unknown((*images, *clean), maker)
    # One file may stand for several members, each with another voxel score.
    files = {file: sha256(file) for file in {member.file for member in members}}
    hashes = tuple(files[member.file] for member in members)
    logger.info("Members: %d. Images of held-out cases to judge them on: %d.", len(members), len(images) + len(clean))
    networks = [
        digest_of([digest, member.voxel_score]) if member.voxel_score else digest
        for digest, member in zip(hashes, members, strict=True)
    ]
    cache = Cache.of(results / FOLDER, maker, (*images, *clean), networks, method)
    predict_images(members, maker, (*images, *clean), cache, method, device)
    images = with_something_to_find(cache, images)
    judgement, ledger = Judgement(images), Ledger()
    _note_extent(ledger, images, groups, roots.preprocessed / name)
    logger.info("Comparing members and their ensembles.")
    sampled = sample_voxels(cache, images, len(members))
    names = [f"{group} fold {member.fold}" for group, found in groups.items() for member in found]
    chosen = choose_ensemble(sampled, judgement, member_numbers(groups), names, ledger)
    few = cache.read_image(images[0]).truth.size * len(images) < MANY_VOXELS
    combined = Combined(cache, images, chosen, sampled.quantiles, 1 if few else processes)
    has_foreground = method in COMPUTED_METHODS
    voxel_mm = typical_edge(cache, images)
    logger.info("Trying post-processing.")
    steps = choose_steps(combined, judgement, ledger, voxel_mm=voxel_mm, has_foreground=has_foreground)
    logger.info("Calibrating and scoring samples.")
    scoring = choose_scoring(
        combined,
        steps,
        judgement,
        ledger,
        clean=clean,
        has_foreground=has_foreground,
        patches=PatchJudge(members, cache),
    )
    ranked = chosen.combination == "rank_mean"

    def planned(number: int, quantiles: tuple[float, ...] = ()) -> PlannedMember:
        member = members[number]
        names = member.folder.name, member.fold, checkpoint, hashes[number]
        return PlannedMember(*names, quantiles, member.voxel_score)

    patches, of_patches, used = scoring.patches, None, chosen.members
    if patches is not None:
        of_patches = PatchScoring(tuple(map(planned, patches.members)), patches.score, patches.combination)
        used = (*used, *patches.members)
    selected = [members[number] for number in used]
    plan = InferencePlan(
        dataset=name,
        members=tuple(planned(number, sampled.quantiles[number] if ranked else ()) for number in chosen.members),
        combination=chosen.combination,
        steps=steps,
        sample_score=scoring.sample_score,
        within_foreground=scoring.within_foreground,
        sample_patches=of_patches,
        calibration=scoring.calibration,
        thresholds=scoring.thresholds,
        plans={member.folder.name: plans_digest(member.plans, member.configuration) for member in selected},
        candidates=ledger.candidates,
        notes=ledger.notes,
    )
    _write(plan, images, scoring.samples, results, previous)
    shutil.rmtree(results / FOLDER)
    return plan


def _note_extent(ledger: Ledger, images: Sequence[Image], groups: dict[str, list[Member]], preprocessed: Path) -> None:
    """Note on how many cases the figures rest, and which folds were not there to be judged."""
    cases, anomalous = {image.case for image in images}, [image for image in images if image.task != NORMAL]
    ledger.notes.append(f"Judged on {len(cases)} held-out cases, with {len(anomalous)} images that have an anomaly.")
    # Of networks with several voxel scores, one group for all of them.
    distinct = {" ".join(group.split()[:2]): members for group, members in groups.items()}
    for group, members in distinct.items():
        file = folds_file(preprocessed, group.split()[0])
        wanted = len(read_json(file)) if file.is_file() else 0
        finished = len({member.fold.split("_")[0] for member in members})
        if finished < wanted:
            ledger.notes.append(f"{group}: only {finished} of {wanted} folds are finished or were asked for.")


def _known_plan(results: Path) -> list[str]:
    """The digest of the plan that is there, if any. Keeps one that somebody edited from being overwritten."""
    file, record = results / PLAN_FILE, results / RECORD
    if not file.is_file():
        return []
    digest = digest_of(read_json(file))
    if not record.is_file() or digest not in read_json(record):
        raise UserError(f"{file} was edited or put there by hand; move it away to have a new one made.")
    return [digest]


def _foreground_method(members: Sequence[Member]) -> str:
    methods = {NnoodPlan.from_dict(member.plans["nnood"]).foreground_method: member for member in members}
    if len(methods) > 1:
        (one, first), (other, second) = list(methods.items())[:2]
        raise UserError(
            f"{first.folder} was trained with the foreground method {one} but {second.folder} with {other}; choose "
            "members that belong together with -r and -c."
        )
    return next(iter(methods))


def _image_maker(member: Member, name: str, roots: Roots, folds: Sequence[Fold]) -> ImageMaker:
    raw = load_dataset(name, roots)
    if raw.channels != member.channels:
        raise UserError(
            f"{raw.folder} has {raw.channels} channels but {member.folder} was trained on {member.channels}; bring the "
            "data set back or train anew."
        )
    plan = NnoodPlan.from_dict(member.plans["nnood"])
    preprocessed = roots.preprocessed / name
    configuration = PlansManager(member.plans).get_configuration(member.configuration)
    schemes = configuration.normalization_schemes
    lesions = None
    if LESIONS_TASK in unseen_tasks(folds):
        lesions = task_settings(plan, member.configuration, configuration.spacing, preprocessed).lesions
    return ImageMaker(
        name,
        raw.training,
        raw.channels,
        preprocessed,
        plan.anomaly_size,
        relative=tuple(channel for channel, scheme in enumerate(schemes) if scheme in RELATIVE),
        lesions=lesions,
    )


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
    sources = {path for image in images for path in maker.sources(image.case, image.task)}
    missing = sorted(path for path in sources if not path.is_file())
    if missing:
        raise UserError(f"{missing[0]} does not exist; run nnood_plan_and_preprocess -d {maker.dataset} again.")


def _write(
    plan: InferencePlan, images: Sequence[Image], samples: np.ndarray, results: Path, previous: Sequence[str]
) -> None:
    """The plan, a page and a picture."""
    write_text(results / "inference_plan.md", format_plan(plan))
    draw_plan(plan, images, samples, results / "inference_plan.png")
    content = plan.to_dict()
    # Before the plan itself: whenever the process dies, the plan that is there is known to be ours.
    write_json(results / RECORD, [*previous, digest_of(content)])
    write_json(results / PLAN_FILE, content)
