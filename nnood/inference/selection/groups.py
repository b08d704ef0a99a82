"""Which members are judged, by recipe and configuration."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from nnood.errors import UserError
from nnood.inference.members import ALL_CASES, Member, members_in, settings_of
from nnood.plan import NnoodPlan
from nnood.training.checkpoints import FINAL
from nnood.training.recipes import DEFAULT_RECIPE


def find_groups(
    results: Path, recipes: Sequence[str], configurations: Sequence[str], folds: Sequence[str], checkpoint: str
) -> dict[str, list[Member]]:
    """Members per recipe, configuration and, if there are several, voxel score.

    The plainest come first: the default recipe, the default configuration, the recipe's own voxel score.

    Raises:
        UserError: If there are none.
    """
    found: dict[str, list[Member]] = {}
    for folder in sorted(results.glob("*__*__*")):
        parts = folder.name.split("__")
        if len(parts) != 3:  # not one of ours
            continue
        recipe, configuration = parts[1:]
        wanted = (not recipes or recipe in recipes) and (not configurations or configuration in configurations)
        if wanted and any(folder.glob(f"fold_*/{FINAL}")):
            members = members_in(folder, folds, checkpoint)
            kept = [member for member in members if not member.fold.startswith(ALL_CASES)]
            for score in _voxel_scores(kept):
                name = " ".join(filter(None, (recipe, configuration, score)))
                found[name] = [dataclasses.replace(member, voxel_score=score) for member in kept]
    found = {name: members for name, members in found.items() if members}
    if not found:
        raise UserError(
            f"{results} holds no finished fold that fits and leaves cases out; train with nnood_train "
            f"{results.name} every."
        )

    order = list(found)

    def plainness(name: str) -> tuple[bool, bool, str, int]:
        recipe, configuration = name.split()[:2]
        default = NnoodPlan.from_dict(found[name][0].plans["nnood"]).default_configuration
        return recipe != DEFAULT_RECIPE, configuration != default, recipe, order.index(name)

    return {name: found[name] for name in sorted(found, key=plainness)}


def _voxel_scores(members: Sequence[Member]) -> tuple[str, ...]:
    """What networks of one recipe can put out, their own first; empty where there is but one thing."""
    settings = settings_of(members[0]).recipe.reconstruction if members else None
    if settings is None:
        return ("",)
    return tuple(dict.fromkeys((settings.voxel_score, *settings.voxel_scores)))


def member_numbers(groups: dict[str, list[Member]]) -> dict[str, tuple[int, ...]]:
    """Members of each group by their number in the order of all."""
    numbers = iter(range(sum(map(len, groups.values()))))
    return {name: tuple(next(numbers) for _ in found) for name, found in groups.items()}
