"""Which trained members there are, chosen by the user or by an inference plan."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnood.datasets import DATASET_NAME, find_dataset_name
from nnood.errors import UserError
from nnood.paths import Roots
from nnood.plan import BUDGET_KEY, NnoodPlan
from nnood.safety import digest_of, read_json, sha256
from nnood.training.checkpoints import BEST, FINAL
from nnood.training.settings import SETTINGS_FILE, TrainingSettings

if TYPE_CHECKING:
    from nnood.inference.inference_plan import InferencePlan

ALL_CASES = "all"
FOLD_PREFIX = "fold_"


@dataclass(frozen=True)
class Member:
    """One trained network.

    Attributes:
        file: Its checkpoint.
        folder: `TRAINER__RECIPE__CONFIGURATION`.
        fold: What follows `fold_` in the name of the checkpoint's folder.
        plans: nnU-Net's plans with nnood's block.
        configuration: Name of the configuration.
        dataset_json: In nnU-Net's keys.
        voxel_score: Which of several that its network has; the recipe's if empty.
    """

    file: Path
    folder: Path
    fold: str
    plans: dict[str, Any]
    configuration: str
    dataset_json: dict[str, Any]
    voxel_score: str = ""

    @property
    def channels(self) -> int:
        """Input channels."""
        return len(self.dataset_json["channel_names"])


def find_members(
    roots: Roots,
    *,
    dataset: str | None,
    recipe: str | None,
    configuration: str | None,
    folds: Sequence[str] = (),
    checkpoint: str = BEST,
) -> list[Member]:
    """Choose members of one recipe and configuration; what is not named must be unique.

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
    name = dataset_with_results(roots, dataset)
    pattern = f"*__{recipe or '*'}__{configuration or '*'}"
    candidates = sorted((roots.results / name).glob(pattern))
    if recipe is not None and configuration is not None:
        return members_in(candidates[0] if candidates else roots.results / name / pattern, folds, checkpoint)
    candidates = [folder for folder in candidates if any(folder.glob(f"{FOLD_PREFIX}*/{checkpoint}"))]
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
    return members_in(candidates[0], folds, checkpoint)


def dataset_with_results(roots: Roots, dataset: str | None) -> str:
    """The name of the data set whose networks predict.

    Args:
        roots: The three root folders.
        dataset: Id or name; may be left out if one data set has results.

    Raises:
        UserError: If there is none, or several to choose from.
    """
    if dataset is not None:
        return find_dataset_name(dataset, roots)
    names = sorted(
        p.name for p in roots.results.glob("Dataset*") if DATASET_NAME.match(p.name) and any(p.glob("*__*__*"))
    )
    if len(names) != 1:
        there = f"there are {', '.join(names)}" if names else f"{roots.results} holds none, train with nnood_train"
        raise UserError(f"Name the data set whose networks shall predict (-d); {there}.")
    return names[0]


def members_in(folder: Path, folds: Sequence[str], checkpoint: str) -> list[Member]:
    """The members of one folder.

    Args:
        folder: `TRAINER__RECIPE__CONFIGURATION`.
        folds: Fold numbers or `all`; every finished fold if empty.
        checkpoint: File name of the checkpoint in each fold.

    Raises:
        UserError: If there is no trained fold, or not the wanted ones.
    """
    found = sorted(path.parent.name.removeprefix(FOLD_PREFIX) for path in folder.glob(f"{FOLD_PREFIX}*/{checkpoint}"))
    finished = [fold for fold in found if (folder / f"{FOLD_PREFIX}{fold}" / FINAL).exists()]
    # The network on all cases is no sixth member of an ensemble; it is used when asked for or alone.
    wanted = list(dict.fromkeys(folds)) or [fold for fold in finished if fold.split("_")[0] != ALL_CASES] or finished
    missing = [fold for fold in wanted if fold not in found]
    if missing:
        has = f"trained are {', '.join(found)}" if found else "no fold has been trained"
        raise UserError(f"{folder} has no trained fold {missing[0]}; {has}, use nnood_train.")
    if not wanted:
        raise UserError(
            f"{folder} has no finished fold; go on with nnood_train --continue, or name an unfinished one with -f."
        )
    return [_load(folder, fold, checkpoint) for fold in wanted]


def members_of_plan(plan: "InferencePlan", roots: Roots) -> list[Member]:
    """The members that an inference plan names, exactly as they were when it was made; then those of the sample score.

    Raises:
        UserError: If a fold is missing, a checkpoint changed, or its folder holds other plans.
    """
    results = roots.results / plan.dataset
    members = []
    for planned in (*plan.members, *plan.sample_members):
        folder = results / planned.folder
        file = folder / f"{FOLD_PREFIX}{planned.fold}" / planned.checkpoint
        if not file.is_file():
            raise UserError(
                f"{file} does not exist, but the inference plan counts on it; train the fold with nnood_train, or run "
                "nnood_find_best_configuration again."
            )
        if sha256(file) != planned.sha256:
            raise UserError(
                f"{file} is not the checkpoint that the inference plan was made with; bring that one back, or run "
                "nnood_find_best_configuration again."
            )
        member = dataclasses.replace(_load(folder, planned.fold, planned.checkpoint), voxel_score=planned.voxel_score)
        if plans_digest(member.plans, member.configuration) != plan.plans[planned.folder]:
            raise UserError(
                f"{folder / 'plans.json'} holds other plans than when the inference plan was made; bring those back, "
                "or run nnood_find_best_configuration again."
            )
        members.append(member)
    return members


def settings_of(member: Member) -> TrainingSettings:
    """What a member was trained with.

    Raises:
        UserError: If the file that says so is missing or not valid.
    """
    file = member.file.parent / SETTINGS_FILE
    try:
        return TrainingSettings.from_dict(read_json(file))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not of this version of nnood or was changed ({error}); bring it back.") from error


def plans_digest(plans: dict[str, Any], configuration: str) -> str:
    """The digest of plans as far as they decide what the members of a configuration say.

    Other configurations may be preprocessed and masks of lesions added at any time, and what belongs to single runs
    says nothing about others.
    """
    run = ("training", "lesions", "configurations")
    own = {key: value for key, value in plans.items() if key not in ("plans_name", "continue_training", BUDGET_KEY)}
    own["nnood"] = {key: value for key, value in plans["nnood"].items() if key not in run}
    own["configurations"] = _with_ancestors(plans["configurations"], configuration)
    return digest_of(own)


def _with_ancestors(configurations: dict[str, Any], name: str) -> dict[str, Any]:
    """A configuration and those it inherits from."""
    chosen: dict[str, Any] = {}
    following: str | None = name
    while following is not None and following in configurations and following not in chosen:
        chosen[following] = configurations[following]
        following = chosen[following].get("inherits_from")
    return chosen


def _load(folder: Path, fold: str, checkpoint: str) -> Member:
    """Read what lies beside a member."""
    plans = read_json(folder / "plans.json")
    try:
        NnoodPlan.from_dict(plans["nnood"])
    except (UserError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'plans.json'} is not of this version of nnood or was changed ({error}); bring back the file "
            "that the members were trained with, or train them anew."
        ) from error
    configuration = folder.name.split("__")[-1]
    if configuration not in plans["configurations"]:
        raise UserError(f"{folder / 'plans.json'} has no configuration {configuration}; plan the data set again.")
    file = folder / f"{FOLD_PREFIX}{fold}" / checkpoint
    return Member(file, folder, fold, plans, configuration, read_json(folder / "dataset.json"))
