"""Train the folds of a recipe on a preprocessed data set."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nnood.datasets import find_dataset_name
from nnood.errors import UserError, one_error
from nnood.paths import Roots, get_roots, set_nnunet_roots
from nnood.plan import CASE_LIST_FILE, NnoodPlan
from nnood.planning.preprocessor import stored_case_faults
from nnood.precision import choose_device
from nnood.safety import read_json
from nnood.tasks import build_task
from nnood.training.checkpoints import Found
from nnood.training.choices import choose_configuration, load_plans, with_donors, with_lengths, with_tasks
from nnood.training.cross_validation import Fold, fold_for_all, load_folds
from nnood.training.distributed import refuse_team
from nnood.training.fold_folder import claim_folder, fold_name, refuse_other_plans, refuse_other_recipe, where_to_start
from nnood.training.fold_run import FoldRun, train_fold, trainer_of
from nnood.training.pretrained import check_pretrained
from nnood.training.progress import DONE, RUNNING, TakenError, fold_states, format_states, mark_running
from nnood.training.recipes import DEFAULT_RECIPE, Recipe, get_recipe
from nnood.training.settings import TrainingSettings
from nnood.training.signals import StopRequest, listen
from nnood.training.task_settings import task_settings

logger = logging.getLogger(__name__)

ALL, EVERY = "all", "every"


@dataclass(frozen=True)
class _Job:
    """What all wanted folds have in common."""

    plans: dict[str, Any]
    configuration: str
    recipe: Recipe
    preprocessed: Path
    folder: Path
    go_on: bool
    device: torch.device
    ranks: int
    pretrained: Path | None
    digest: str


def member_folder(roots: Roots, dataset_name: str, recipe: Recipe, configuration: str) -> Path:
    """Where the members of a recipe and configuration live; folds are its sub-folders."""
    return roots.results / dataset_name / f"{trainer_of(recipe).__name__}__{recipe.name}__{configuration}"


def train(
    dataset: str | int,
    folds: Sequence[str | int] | str | int,
    roots: Roots | None = None,
    *,
    configuration: str | None = None,
    recipe: str = DEFAULT_RECIPE,
    tasks: Sequence[str] = (),
    donors: str | None = None,
    epochs: int | None = None,
    iterations: int | None = None,
    whole_every: int | None = None,
    go_on: bool = False,
    device: torch.device | str = "auto",
    seeds: Sequence[int] = (0,),
    num_gpus: int = 1,
    pretrained: Path | None = None,
) -> list[Path]:
    """Train one or more folds, one after the other, each once per seed.

    Args:
        dataset: Id or name.
        folds: One or more of: fold numbers, `all`, or `every`: each fold in turn, but those that are finished or being
            trained.
        roots: The three root folders; as the commands have them (`nnood.paths.get_roots`) if None.
        configuration: The recipe's if None, or else the plan's default.
        recipe: Name of a recipe, or a JSON file that holds one.
        tasks: In the place of the recipe's, in equal shares; the name of the members' folder says so.
        donors: Id or name of another preprocessed data set that lends all foreign patches; so does this.
        epochs: In the place of the recipe's.
        iterations: Per epoch, in the place of the recipe's.
        whole_every: Epochs from one validation on whole cases to the next, in the place of the recipe's; 0: never.
        go_on: Resume an unfinished run where it stopped.
        device: `auto` (the fastest there is), `cpu`, `cuda`, `cuda:1` or `mps`, or a device.
        seeds: Of augmentation, anomalies and initial weights. The folders of others than 0 say so.
        num_gpus: How many devices share the batch of one training.
        pretrained: Checkpoint of nnU-Net v2, nnssl or nnood whose encoder the networks start with, as far as it fits.

    Returns:
        The folders of the folds.

    Raises:
        UserError: If the data set, fold, configuration or recipe does not exist, preprocessed cases are missing or
            changed, the fold was trained already or is being trained, or there are not as many devices.
        Stopped: If SIGTERM came; the latest checkpoint holds all that was done. Uncaught, the process ends with 143.
    """
    roots, device = roots or get_roots(), choose_device(device)
    set_nnunet_roots(roots)
    name = find_dataset_name(str(dataset), roots)
    plans = load_plans(roots, name)
    chosen = with_lengths(with_tasks(get_recipe(recipe), tasks), epochs, iterations, whole_every)
    configuration = choose_configuration(plans, configuration, chosen)
    chosen = with_donors(chosen, donors, roots, plans, configuration)
    refuse_team(num_gpus, device, plans["configurations"][configuration]["batch_size"])
    digest = "" if pretrained is None else check_pretrained(pretrained, chosen)
    preprocessed = roots.preprocessed / name
    cases = read_json(preprocessed / CASE_LIST_FILE)
    known = load_folds(preprocessed, chosen, cases, raw=roots.raw / name)
    wanted = [str(folds)] if isinstance(folds, str | int) else [str(fold) for fold in folds]
    is_every = EVERY in wanted
    job = _Job(
        plans=plans,
        configuration=configuration,
        recipe=chosen,
        preprocessed=preprocessed,
        folder=member_folder(roots, name, chosen, configuration),
        go_on=go_on or is_every,
        device=device,
        ranks=num_gpus,
        pretrained=pretrained,
        digest=digest,
    )
    runs = {
        fold_name(number, seed): (fold_for_all(chosen, cases) if number == ALL else known[int(number)], seed)
        for number, seed in itertools.product(_fold_numbers(wanted, len(known)), dict.fromkeys(seeds))
    }
    with listen() as stop:
        (_train_missing if is_every else _train_all)(job, runs, stop)
    return [job.folder / f"fold_{run}" for run in runs]


def _fold_numbers(folds: Sequence[str], count: int) -> list[str]:
    """Check and list the wanted folds; `every` stands for all numbers."""
    wanted = [str(n) for n in range(count)] if EVERY in folds else list(dict.fromkeys(folds))
    known = [ALL, *map(str, range(count))]  # spelled as in the folders' names: "00" is none of them
    unknown = [fold for fold in wanted if fold not in known]
    if unknown:
        raise UserError(f"There is no fold {unknown[0]!r}; expected 0 to {count - 1}, every or all.")
    return wanted


def _train_all(job: _Job, runs: dict[str, tuple[Fold, int]], stop: StopRequest) -> None:
    """Train each of the runs, by name."""
    for name, (fold, seed) in runs.items():
        _train_fold(job, name, TrainingSettings(job.recipe, fold, seed, job.digest), stop)


def _train_missing(job: _Job, runs: dict[str, tuple[Fold, int]], stop: StopRequest) -> None:
    """Train what is not finished and nobody trains; tell what is done before and afterwards."""
    before = format_states(job.folder, list(runs))
    logger.info(before)
    for name, run in runs.items():
        state = fold_states(job.folder, [name])[name]
        if state in (DONE, RUNNING):
            logger.info("Fold %s is %s: %s", name, "finished" if state == DONE else "being trained", job.folder)
            continue
        try:
            _train_all(job, {name: run}, stop)
        except TakenError:  # by one that started at the same moment
            logger.info("Fold %s is being trained: %s", name, job.folder)
    after = format_states(job.folder, list(runs))
    if after != before:
        logger.info(after)


def _train_fold(job: _Job, name: str, settings: TrainingSettings, stop: StopRequest) -> None:
    """Train one fold from the start or from its newest checkpoint."""
    folder = job.folder / f"fold_{name}"
    start = where_to_start(folder, settings, go_on=job.go_on)
    if start.is_finished:
        logger.info("%s is finished already, there is nothing to do.", folder)
        return
    cases = sorted({*settings.fold.train_cases, *settings.fold.val_cases})
    one_error(stored_case_faults(job.preprocessed, job.plans, job.configuration, cases))
    _refuse_incomplete(job, settings)
    refuse_other_plans(folder, job.plans, job.configuration)
    refuse_other_recipe(folder, settings.recipe)
    logger.info("Training fold %s of %s (%s): %s", name, job.plans["dataset_name"], job.configuration, folder)
    if start.checkpoint is not None:
        logger.info(_describe(start.checkpoint))
    run = FoldRun(
        plans=job.plans,
        configuration=job.configuration,
        name=name,
        dataset_json=read_json(job.preprocessed / "dataset.json"),
        settings=settings,
        checkpoint=start.checkpoint.path if start.checkpoint is not None else None,
        device=job.device,
        pretrained=job.pretrained,
    )
    with mark_running(folder):
        claim_folder(folder, job.plans, settings)
        stop.check()
        train_fold(run, stop, ranks=job.ranks)
    stop.check()


def _describe(found: Found) -> str:
    """Where a run goes on, for the user to read."""
    within = f", step {found.step} of the next" if found.step else ""
    return f"Going on after epoch {found.epoch}{within}."


def _refuse_incomplete(job: _Job, settings: TrainingSettings) -> None:
    """Refuse tasks that lack something, such as masks of lesions."""
    spacing = job.plans["configurations"][job.configuration]["spacing"]
    known = task_settings(NnoodPlan.from_dict(job.plans["nnood"]), job.configuration, spacing, job.preprocessed)
    for task in {*settings.fold.train_tasks, *settings.fold.val_tasks}:
        try:
            build_task(task, known)
        except ValueError as error:
            raise UserError(str(error)) from error
