"""The folder of one fold: whether training may start there, from what, and what must lie beside the members."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnood.errors import UserError
from nnood.plan import BUDGET_KEY
from nnood.safety import digest_of, read_json, remove_leftovers, write_json
from nnood.training.checkpoints import BEST, FINAL, LATEST, PREVIOUS, Found, agrees, find_newest
from nnood.training.recipe import PROSE, Recipe, decisive
from nnood.training.settings import SETTINGS_FILE, TrainingSettings

logger = logging.getLogger(__name__)

FIRST_SEED = 0
# Among members of one recipe: how long each was trained, and what people read.
MAY_DIFFER = ("epochs", "iterations", "validate_whole_every", *PROSE)


@dataclass(frozen=True)
class Start:
    """Where a training begins.

    Attributes:
        is_finished: There is nothing left to do.
        checkpoint: What to go on from; None: from the very start.
    """

    is_finished: bool = False
    checkpoint: Found | None = None


def fold_name(number: str, seed: int) -> str:
    """What follows `fold_` in the name of a fold's folder.

    Args:
        number: Of the fold, or `all`.
        seed: Of the run; the first one needs no mention.
    """
    return number if seed == FIRST_SEED else f"{number}_seed{seed}"


def where_to_start(folder: Path, settings: TrainingSettings, *, go_on: bool) -> Start:
    """Look for a run in a fold's folder.

    Args:
        folder: Of the fold.
        settings: Of the wanted run.
        go_on: Whether the user asked to go on with what is there.

    Raises:
        UserError: If there is a run already and the user did not ask to go on, or asks for other settings, or all its
            checkpoints are damaged.
    """
    present = [name for name in (FINAL, LATEST, PREVIOUS, BEST) if (folder / name).exists()]
    if not present:
        return Start()
    if not go_on:
        state = "a finished network" if FINAL in present else "an unfinished run"
        raise UserError(f"{folder} holds {state}; add --continue to go on, or move the folder away to train anew.")
    if not (folder / SETTINGS_FILE).exists():
        raise UserError(f"{folder / SETTINGS_FILE} is missing; bring it back, or move the folder away to train anew.")
    if digest_of(_without_prose(read_json(folder / SETTINGS_FILE))) != digest_of(_without_prose(settings.to_dict())):
        raise UserError(
            f"{folder} was started with other settings (see settings.json in it); repeat the command with the same "
            "ones, or move the folder away to train anew."
        )
    if agrees(folder / FINAL):
        return Start(is_finished=True)
    if FINAL in present:
        logger.warning("%s does not agree with its recorded hash, it is made anew.", folder / FINAL)
    return Start(checkpoint=_newest(folder))


def _without_prose(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as far as they decide a training."""
    return {**settings, "recipe": decisive(settings.get("recipe", {}))}


def _newest(folder: Path) -> Found:
    found = find_newest(folder)
    if found is None:
        raise UserError(f"{folder / FINAL} is damaged and nothing else is left; move the folder away to train it anew.")
    return found


def refuse_other_plans(folder: Path, plans: dict[str, Any], configuration: str) -> None:
    """Check that a fold may join the members that are there.

    Args:
        folder: Of the fold.
        plans: Of the data set.
        configuration: To train.

    Raises:
        UserError: If the members have other plans.
    """
    file = folder.parent / "plans.json"
    own = _without_others(plans, configuration)
    if file.exists() and digest_of(_without_others(read_json(file), configuration)) != digest_of(own):
        raise UserError(
            f"{folder.parent} holds members of other plans; move it away, or bring back the plans that made it."
        )


def refuse_other_recipe(folder: Path, recipe: Recipe) -> None:
    """Check that the members beside a fold are of the same recipe, but for how long they were trained.

    Args:
        folder: Of the fold.
        recipe: Of the wanted run.

    Raises:
        UserError: If one was trained with another recipe of the same name.
    """
    own = recipe.to_dict()
    for file in sorted(folder.parent.glob(f"fold_*/{SETTINGS_FILE}")):
        other = read_json(file)["recipe"]
        differing = [key for key in own if key not in MAY_DIFFER and other.get(key) != own[key]]
        if differing:
            raise UserError(
                f"{file.parent} was trained with another recipe {recipe.name!r}, of another {differing[0]}; give yours "
                "another name, or move the folder away."
            )


def claim_folder(folder: Path, plans: dict[str, Any], settings: TrainingSettings) -> None:
    """Write plans and settings beside the members.

    Args:
        folder: Of the fold.
        plans: Of the data set.
        settings: Of the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    if not (folder.parent / "plans.json").exists():
        write_json(folder.parent / "plans.json", plans)
    write_json(folder / SETTINGS_FILE, settings.to_dict())


def _without_others(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    """The plans as far as they decide a configuration: another one may be preprocessed, lesions added, at any time."""
    own = {**plans, "nnood": dict(plans["nnood"])}
    for block in (own, own["nnood"]):
        block["configurations"] = {configuration: block["configurations"].get(configuration)}
    own["nnood"].pop("lesions", None)
    own.pop(BUDGET_KEY, None)
    return own
