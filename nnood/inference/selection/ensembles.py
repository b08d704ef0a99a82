"""Which configuration, which members, and how they are combined."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnood.inference.ensembling import COMBINATIONS
from nnood.inference.selection.figures import Comparison, Judgement, Tally
from nnood.inference.selection.voxels import SampledVoxels

MOST_GREEDY = 10


@dataclass
class Ledger:
    """Every candidate that was judged, and remarks, in order.

    Attributes:
        candidates: `stage`, `name`, the figure, `gain` and `error` beside the plainer one, whether it was `chosen`.
        notes: Sentences for the user.
    """

    candidates: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def start(self, stage: str, name: str, figure: str, value: float) -> None:
        """Enter the plainest candidate of a stage, which stays unless another beats it."""
        self.candidates.append(
            {"stage": stage, "name": name, figure: _plain(value), "gain": None, "error": None, "chosen": True}
        )

    def add(self, stage: str, name: str, figure: str, comparison: Comparison) -> None:
        """Enter a candidate beside the plainer one it was compared with."""
        self.candidates.append(
            {
                "stage": stage,
                "name": name,
                figure: _plain(comparison.value),
                "gain": _plain(comparison.gain),
                "error": _plain(comparison.error),
                "chosen": False,
            }
        )

    def choose(self, stage: str, name: str) -> None:
        """Mark one candidate of a stage as the chosen one."""
        for entry in self.candidates:
            if entry["stage"] == stage:
                entry["chosen"] = entry["name"] == name


def _plain(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


@dataclass(frozen=True)
class Chosen:
    """An ensemble.

    Attributes:
        members: Their numbers.
        combination: One of `COMBINATIONS`.
    """

    members: tuple[int, ...]
    combination: str


def choose_ensemble(
    sampled: SampledVoxels,
    judgement: Judgement,
    groups: dict[str, tuple[int, ...]],
    names: Sequence[str],
    ledger: Ledger,
) -> Chosen:
    """Go from the plainest to the most elaborate; each must beat the one before by more than its error.

    Args:
        sampled: Scores of all judges.
        judgement: Of the same images.
        groups: Members per recipe and configuration, the plainest group first.
        names: Of the members, for the table.
        ledger: Gets all candidates.
    """
    group = _choose_group(sampled, judgement, groups, ledger)
    members = _choose_members(sampled, judgement, group, names, ledger)
    return Chosen(members, _choose_combination(sampled, judgement, members, ledger))


def _choose_group(
    sampled: SampledVoxels, judgement: Judgement, groups: dict[str, tuple[int, ...]], ledger: Ledger
) -> tuple[int, ...]:
    """One group's members, or those of all groups."""
    stage = "configuration"
    everyone = tuple(sorted(number for members in groups.values() for number in members))
    candidates = dict(groups)
    if len(groups) > 1:
        candidates["all of them"] = everyone
    (best, chosen), *others = candidates.items()
    current = sampled.tally(chosen, "mean")
    ledger.start(stage, best, "voxel_ap", judgement.voxel_ap(current))
    for name, members in others:
        tally = sampled.tally(members, "mean")
        comparison = judgement.compare(tally, current)
        ledger.add(stage, name, "voxel_ap", comparison)
        if comparison.wins:
            best, chosen, current = name, members, tally
    ledger.choose(stage, best)
    return chosen


def _choose_members(
    sampled: SampledVoxels, judgement: Judgement, group: tuple[int, ...], names: Sequence[str], ledger: Ledger
) -> tuple[int, ...]:
    """All members, unless the best few, chosen greedily, or the best single one are better.

    All of them come first: to pick one or a few of many by their figures is the more elaborate choice, and its figure
    is too good, being the best of many.
    """
    stage = "members"
    everyone = sampled.tally(group, "mean")
    all_name = f"all {len(group)}"
    comparable = _shared(sampled, everyone, group)
    if not np.isfinite(judgement.voxel_ap(comparable)):
        only = f"single: {names[group[0]]}"
        ledger.start(stage, only if len(group) == 1 else all_name, "voxel_ap", judgement.voxel_ap(everyone))
        if not np.isfinite(judgement.voxel_ap(everyone)):
            ledger.notes.append(
                "The members were trained on all tasks that could be planted, so there are no anomalies to judge them "
                "on; whatever is plainest was chosen."
            )
        elif len(group) > 1:
            ledger.notes.append(
                "Each held-out case may be judged by one member only, so members cannot be compared with their "
                "ensemble; all of them are averaged, as nnU-Net does with its folds."
            )
        return group
    ordered = _greedy(sampled, judgement, group, comparable)
    single, few = ordered[:1], _best_prefix(sampled, judgement, ordered, comparable)
    ledger.start(stage, all_name, "voxel_ap", judgement.voxel_ap(everyone))
    current_name, current = all_name, group
    if few not in (single, group):
        name = f"best {len(few)}, greedily"
        comparison = judgement.compare(sampled.tally(few, "mean"), comparable)
        ledger.add(stage, name, "voxel_ap", comparison)
        if comparison.wins:
            current_name, current = name, few
    for number in group:
        name = f"single: {names[number]}"
        # The best one must beat what stands; the others are listed beside all.
        against = sampled.tally(current, "mean") if number == single[0] else comparable
        comparison = judgement.compare(sampled.tally([number], "mean"), against)
        ledger.add(stage, name, "voxel_ap", comparison)
        if number == single[0] and comparison.wins:
            current_name, current = name, single
    ledger.choose(stage, current_name)
    return tuple(sorted(current))


def _shared(sampled: SampledVoxels, tally: Tally, members: Sequence[int]) -> Tally:
    """A tally of those images only that several of the members may judge."""
    shared = np.array([len(set(entry.image.judges) & set(members)) > 1 for entry in sampled.images])
    return Tally(tally.voxels, tally.defined & shared)


def _greedy(sampled: SampledVoxels, judgement: Judgement, group: tuple[int, ...], everyone: Tally) -> tuple[int, ...]:
    """Members in the order in which each adds most, measured as the gain over the ensemble of all.

    Different members may judge different images; beside the ensemble of all on the same images, their figures can be
    compared nevertheless.

    Source: Caruana et al. 2004, "Ensemble selection from libraries of models", without repetition.
    """
    ordered: list[int] = []
    while len(ordered) < min(len(group), MOST_GREEDY):
        gains = {
            number: judgement.gain(sampled.tally([*ordered, number], "mean"), everyone)
            for number in group
            if number not in ordered
        }
        known = {number: gain for number, gain in gains.items() if np.isfinite(gain)}
        if not known:
            break
        ordered.append(max(known, key=lambda number: known[number]))
    return tuple(ordered)


def _best_prefix(
    sampled: SampledVoxels, judgement: Judgement, ordered: tuple[int, ...], everyone: Tally
) -> tuple[int, ...]:
    """The first so many members of the greedy order that gain most over the ensemble of all."""
    prefixes = [ordered[:length] for length in range(1, len(ordered) + 1)]
    gains = [judgement.gain(sampled.tally(prefix, "mean"), everyone) for prefix in prefixes]
    return tuple(sorted(prefixes[int(np.nanargmax(gains))]))


def _choose_combination(sampled: SampledVoxels, judgement: Judgement, members: tuple[int, ...], ledger: Ledger) -> str:
    """Mean, unless another way is better where there is something to combine."""
    stage = "combination"
    best = COMBINATIONS[0]
    everything = sampled.tally(members, best)
    ledger.start(stage, best, "voxel_ap", judgement.voxel_ap(everything))
    current = _shared(sampled, everything, members)
    for name in COMBINATIONS[1:] if current.defined.any() else ():
        if name == "rank_mean" and not all(sampled.quantiles[member] for member in members):
            continue  # a member that judges no clean image has no ranks
        tally = _shared(sampled, sampled.tally(members, name), members)
        comparison = judgement.compare(tally, current)
        ledger.add(stage, name, "voxel_ap", comparison)
        if comparison.wins:
            best, current = name, tally
    ledger.choose(stage, best)
    return best
