"""The options of nnood_train that a run was started with, as far as its settings tell."""

import dataclasses

from nnood.tasks import TASKS
from nnood.training.choices import with_lengths, with_tasks
from nnood.training.recipe import decisive
from nnood.training.recipes import DEFAULT_RECIPE, RECIPES
from nnood.training.settings import TrainingSettings

LENGTHS = {"epochs": "epochs", "iterations": "iterations", "whole_every": "validate_whole_every"}


def options_of(settings: TrainingSettings) -> list[str] | None:
    """What to type after `nnood_train DATASET FOLD` for the same run, besides `-c`.

    Args:
        settings: Of the run.

    Returns:
        The options; None if settings do not tell them: the recipe is the user's own or has changed since, or the
        network started from a checkpoint.
    """
    recipe = settings.recipe
    planned, _, lender = recipe.name.partition("@")  # as `with_donors` and `with_tasks` make the name
    known, _, joined = planned.partition("-")
    tasks = joined.split("+") if joined else []
    if known not in RECIPES or not set(tasks) <= set(TASKS) or settings.pretrained:
        return None
    base = RECIPES[known]
    same = with_lengths(with_tasks(base, tasks), recipe.epochs, recipe.iterations, recipe.validate_whole_every)
    if lender:
        same = dataclasses.replace(same, name=recipe.name, donors=recipe.donors)
    if decisive(same.to_dict()) != decisive(recipe.to_dict()):
        return None
    options = [] if known == DEFAULT_RECIPE else ["-r", known]
    options += ["-t", ",".join(tasks)] if tasks else []
    options += ["--donors", recipe.donors] if lender else []
    for option, key in LENGTHS.items():
        if getattr(recipe, key) != getattr(base, key):
            options += [f"--{option}", str(getattr(recipe, key))]
    return [*options, "--seeds", str(settings.seed)] if settings.seed else options
