"""Train the folds of a recipe on a preprocessed data set."""

import contextlib
import copy
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nnood.datasets import find_dataset_name
from nnood.errors import UserError, one_error
from nnood.paths import Roots, set_roots
from nnood.plan import CASE_LIST_FILE, NnoodPlan
from nnood.planning.preprocessor import stored_case_faults
from nnood.safety import digest_of, read_json, remove_leftovers, write_json
from nnood.tasks import build_task
from nnood.training.checkpoints import BEST, FINAL, LATEST
from nnood.training.choices import choose_configuration, load_plans, with_donors, with_lengths, with_tasks
from nnood.training.cross_validation import fold_for_all, load_folds
from nnood.training.recipes import DEFAULT_RECIPE, get_recipe
from nnood.training.settings import SETTINGS_FILE, TrainingSettings
from nnood.training.task_settings import task_settings
from nnood.training.trainer import NnoodTrainer

logger = logging.getLogger(__name__)


def member_folder(roots: Roots, dataset_name: str, recipe: str, configuration: str) -> Path:
    """Where the members of a recipe and configuration live; folds are its sub-folders."""
    return roots.results / dataset_name / f"{NnoodTrainer.__name__}__{recipe}__{configuration}"


def train(
    dataset: str,
    folds: Sequence[str],
    roots: Roots,
    *,
    configuration: str | None = None,
    recipe: str = DEFAULT_RECIPE,
    tasks: Sequence[str] = (),
    donors: str | None = None,
    epochs: int | None = None,
    iterations: int | None = None,
    go_on: bool = False,
    device: torch.device | None = None,
    seed: int = 0,
) -> list[Path]:
    """Train one or more folds, one after the other.

    Args:
        dataset: Id or name.
        folds: Fold numbers, `all`, or `every` (each fold in turn; finished ones are skipped).
        roots: The three root folders.
        configuration: The plan's default if None.
        recipe: Name of a recipe.
        tasks: In the place of the recipe's, in equal shares; the name of the members' folder says so.
        donors: Id or name of another preprocessed data set that lends all foreign patches; so does this.
        epochs: In the place of the recipe's.
        iterations: Per epoch, in the place of the recipe's.
        go_on: Resume an unfinished run where it stopped.
        device: CPU if None.
        seed: Of augmentation, anomalies and initial weights.

    Returns:
        The folds' folders.

    Raises:
        UserError: If the data set, fold, configuration or recipe does not exist, preprocessed cases are missing or
            changed, or the fold was trained already.
    """
    set_roots(roots)
    name = find_dataset_name(dataset, roots)
    plans = load_plans(roots, name)
    configuration = choose_configuration(plans, configuration)
    chosen = with_lengths(with_tasks(get_recipe(recipe), tasks), epochs, iterations)
    if donors is not None:
        chosen = with_donors(chosen, donors, roots, plans, configuration)
    cases = read_json(roots.preprocessed / name / CASE_LIST_FILE)
    known = load_folds(roots.preprocessed / name, chosen, cases)
    numbers = _fold_numbers(folds, len(known))
    skip_finished = "every" in folds
    trained = []
    for number in numbers:
        fold = fold_for_all(chosen, cases) if number == "all" else known[int(number)]
        settings = TrainingSettings(chosen, fold, seed)
        folder = member_folder(roots, name, chosen.name, configuration) / f"fold_{number}"
        trained.append(folder)
        if skip_finished and (folder / FINAL).exists():
            logger.info("Fold %s is finished: %s", number, folder)
            continue
        _train_fold(plans, configuration, number, settings, folder, roots, go_on=go_on or skip_finished, device=device)
    return trained


def _fold_numbers(folds: Sequence[str], count: int) -> list[str]:
    """Check and list the wanted folds; `every` stands for all numbers."""
    wanted = [str(n) for n in range(count)] if "every" in folds else list(dict.fromkeys(folds))
    known = ["all", *map(str, range(count))]  # spelled as in the folders' names: "00" is none of them
    unknown = [fold for fold in wanted if fold not in known]
    if unknown:
        raise UserError(f"There is no fold {unknown[0]!r}; expected 0 to {count - 1}, every or all.")
    return wanted


def _train_fold(
    plans: dict[str, Any],
    configuration: str,
    number: str,
    settings: TrainingSettings,
    folder: Path,
    roots: Roots,
    *,
    go_on: bool,
    device: torch.device | None,
) -> None:
    """Train one fold from the start or from its newest checkpoint."""
    start = _where_to_start(folder, settings, go_on=go_on)
    if start == FINAL:
        logger.info("%s is finished already, there is nothing to do.", folder)
        return
    preprocessed = roots.preprocessed / plans["dataset_name"]
    cases = sorted({*settings.fold.train_cases, *settings.fold.val_cases})
    one_error(stored_case_faults(preprocessed, plans, configuration, cases))
    _refuse_incomplete(plans, configuration, settings, preprocessed)
    _claim_folder(folder, plans, configuration, settings)
    logger.info("Training fold %s of %s (%s): %s", number, plans["dataset_name"], configuration, folder)
    own = copy.deepcopy(plans)
    own["nnood"]["training"] = settings.to_dict()
    own["plans_name"] = settings.recipe.name  # nnU-Net builds the folder's name from it
    own["continue_training"] = start is not None
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = NnoodTrainer(
            own,
            configuration,
            number if number == "all" else int(number),
            read_json(preprocessed / "dataset.json"),
            device or torch.device("cpu"),
        )
    if start is not None:
        trainer.load_checkpoint(str(folder / start))
        logger.info("Going on after epoch %d.", trainer.current_epoch)
    trainer.run_training()


def _refuse_incomplete(
    plans: dict[str, Any], configuration: str, settings: TrainingSettings, preprocessed: Path
) -> None:
    """Refuse tasks that lack something, such as masks of lesions."""
    spacing = plans["configurations"][configuration]["spacing"]
    known = task_settings(NnoodPlan.from_dict(plans["nnood"]), configuration, spacing, preprocessed)
    for task in {*settings.fold.train_tasks, *settings.fold.val_tasks}:
        try:
            build_task(task, known)
        except ValueError as error:
            raise UserError(str(error)) from error


def _where_to_start(folder: Path, settings: TrainingSettings, *, go_on: bool) -> str | None:
    """The checkpoint to start from, None for a fresh run, or `FINAL` for a finished one.

    Raises:
        UserError: If there is a run already and the user did not ask to go on, or asks for other settings.
    """
    record = folder / SETTINGS_FILE
    present = [name for name in (FINAL, LATEST, BEST) if (folder / name).exists()]
    if not present:
        return None
    if not go_on:
        state = "a finished network" if FINAL in present else "an unfinished run"
        raise UserError(f"{folder} holds {state}; add --continue to go on, or move the folder away to train anew.")
    if digest_of(read_json(record)) != digest_of(settings.to_dict()):
        raise UserError(
            f"{folder} was started with other settings (see settings.json in it); repeat the command with the same "
            "ones, or move the folder away to train anew."
        )
    return present[0]


def _claim_folder(folder: Path, plans: dict[str, Any], configuration: str, settings: TrainingSettings) -> None:
    """Write plans and settings beside the members; members of different plans cannot share a folder."""
    file = folder.parent / "plans.json"
    own = _without_others(plans, configuration)
    if file.exists() and digest_of(_without_others(read_json(file), configuration)) != digest_of(own):
        raise UserError(
            f"{folder.parent} holds members of other plans; move it away, or bring back the plans that made it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    if not file.exists():
        write_json(file, plans)
    write_json(folder / SETTINGS_FILE, settings.to_dict())


def _without_others(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    """The plans as far as they decide a configuration: another one may be preprocessed, lesions added, at any time."""
    own = {**plans, "nnood": dict(plans["nnood"])}
    for block in (own, own["nnood"]):
        block["configurations"] = {configuration: block["configurations"].get(configuration)}
    own["nnood"].pop("lesions", None)
    return own
