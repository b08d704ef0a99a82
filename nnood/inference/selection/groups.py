"""Which members are judged, by recipe and configuration."""

from collections.abc import Sequence
from pathlib import Path

from nnood.errors import UserError
from nnood.inference.members import ALL_CASES, Member, members_in
from nnood.plan import NnoodPlan
from nnood.training.checkpoints import FINAL
from nnood.training.recipes import DEFAULT_RECIPE


def find_groups(
    results: Path, recipes: Sequence[str], configurations: Sequence[str], folds: Sequence[str], checkpoint: str
) -> dict[str, list[Member]]:
    """Members per recipe and configuration, the plainest first: the default recipe, the default configuration.

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
            found[f"{recipe} {configuration}"] = [
                member for member in members_in(folder, folds, checkpoint) if not member.fold.startswith(ALL_CASES)
            ]
    found = {name: members for name, members in found.items() if members}
    if not found:
        raise UserError(
            f"{results} holds no finished fold that fits and leaves cases out; train with nnood_train "
            f"{results.name} every."
        )

    def plainness(name: str) -> tuple[bool, bool, str]:
        recipe, configuration = name.split()
        default = NnoodPlan.from_dict(found[name][0].plans["nnood"]).default_configuration
        return recipe != DEFAULT_RECIPE, configuration != default, name

    return {name: found[name] for name in sorted(found, key=plainness)}


def member_numbers(groups: dict[str, list[Member]]) -> dict[str, tuple[int, ...]]:
    """Members of each group by their number in the order of all."""
    numbers = iter(range(sum(map(len, groups.values()))))
    return {name: tuple(next(numbers) for _ in found) for name, found in groups.items()}
