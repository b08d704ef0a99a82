"""What a user chose to train: which configuration, which tasks, whose tissue, how long."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnood.datasets import find_dataset_name
from nnood.errors import UserError, one_error
from nnood.paths import Roots
from nnood.plan import CASE_LIST_FILE, PLANS_FILE, NnoodPlan
from nnood.planning.preprocessor import stored_case_faults
from nnood.safety import read_json
from nnood.tasks import TASKS
from nnood.training.recipe import Recipe
from nnood.views import refuse_slabs_of_images, stored_as, views_of


def load_plans(roots: Roots, dataset_name: str) -> dict[str, Any]:
    """Read a data set's plans.

    Raises:
        UserError: If it has not been planned.
    """
    file = roots.preprocessed / dataset_name / PLANS_FILE
    if not file.exists():
        raise UserError(f"{dataset_name} has not been planned; run nnood_plan_and_preprocess -d {dataset_name} first.")
    return read_json(file)


def choose_configuration(plans: dict[str, Any], wanted: str | None, recipe: Recipe | None = None) -> str:
    """The wanted configuration, or else the recipe's, or else the plan's default.

    Raises:
        UserError: If it has not been preprocessed, is 2.5d and the images are 2D, or was changed to what cannot be.
    """
    plan = NnoodPlan.from_dict(plans["nnood"])
    asker = ""
    if recipe is not None and recipe.configuration and not wanted:
        wanted, asker = recipe.configuration, f", which the recipe {recipe.name} asks for (its key configuration)"
    chosen = wanted or plan.default_configuration
    if chosen not in plan.configurations:
        name = plans["dataset_name"]
        refuse_slabs_of_images(plans, chosen, asker)
        raise UserError(
            f"{name} has no preprocessed configuration {chosen!r}{asker}; there are {', '.join(plan.configurations)}. "
            f"Make it with nnood_plan_and_preprocess -d {name} -c {chosen} if it is planned."
        )
    views_of(PlansManager(plans).get_configuration(chosen))  # before anything is written
    return chosen


def refuse_unknown(tasks: Sequence[str]) -> None:
    """Check names of tasks.

    Raises:
        UserError: If there is none of one of these names.
    """
    unknown = [task for task in tasks if task not in TASKS]
    if unknown:
        raise UserError(f"There is no task {unknown[0]!r}; known are {', '.join(TASKS)}.")


def with_tasks(recipe: Recipe, tasks: Sequence[str]) -> Recipe:
    """The recipe with other tasks, under a name of its own; the recipe itself if none are given.

    Raises:
        UserError: If a task does not exist.
    """
    if not tasks:
        return recipe
    refuse_unknown(tasks)
    return dataclasses.replace(recipe, name=f"{recipe.name}-{'+'.join(tasks)}", tasks=dict.fromkeys(tasks, 1.0))


def with_donors(recipe: Recipe, donors: str | None, roots: Roots, plans: dict[str, Any], configuration: str) -> Recipe:
    """The recipe with foreign patches from another data set, under a name of its own unless the recipe says so itself.

    Args:
        recipe: The recipe.
        donors: Id or name of the other data set; the recipe's own, if it has any, where None.
        roots: The three root folders.
        plans: Of the data set to train on.
        configuration: To train.

    Raises:
        UserError: If the other data set does not exist, is the same one, is not preprocessed for the configuration,
            or has other channels.
    """
    asker = "--donors" if donors is not None else f"the key donors of the recipe {recipe.name}"
    if donors is None and not recipe.donors:
        return recipe
    name = find_dataset_name(recipe.donors if donors is None else donors, roots)
    if name == plans["dataset_name"]:
        raise UserError(f"{asker} is {name} itself, whose cases lend patches anyway; name another data set.")
    lenders = load_plans(roots, name)
    is_known = configuration in NnoodPlan.from_dict(lenders["nnood"]).configurations
    lent = choose_configuration(lenders, configuration if is_known else stored_as(configuration))
    cases = read_json(roots.preprocessed / name / CASE_LIST_FILE)
    one_error(stored_case_faults(roots.preprocessed / name, lenders, lent, cases))
    channels = [
        read_json(roots.preprocessed / n / "dataset.json")["channel_names"] for n in (plans["dataset_name"], name)
    ]
    if len(channels[0]) != len(channels[1]):
        raise UserError(
            f"{name} has {len(channels[1])} channels but {plans['dataset_name']} has {len(channels[0])}; "
            f"name another data set as {asker}."
        )
    own_name = recipe.name if donors is None else f"{recipe.name}@{name.split('_')[0]}"
    return dataclasses.replace(recipe, name=own_name, donors=name)


def with_lengths(recipe: Recipe, epochs: int | None, iterations: int | None, whole_every: int | None = None) -> Recipe:
    """The recipe with other numbers of epochs, iterations and epochs between whole cases, where given."""
    return dataclasses.replace(
        recipe,
        epochs=epochs or recipe.epochs,
        iterations=iterations or recipe.iterations,
        validate_whole_every=recipe.validate_whole_every if whole_every is None else whole_every,
    )
