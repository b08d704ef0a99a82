"""Which normal cases of a source without anomalies are kept from training."""

from collections.abc import Collection, Mapping
from pathlib import Path

from nnood.errors import UserError

TRAINING_PERCENT = 80


def hold_out(cases: Collection[str], groups: Mapping[str, str], source: Path) -> tuple[list[str], list[str]]:
    """The first 80 % of the groups, sorted by name, for training; the last 20 % are held out.

    Args:
        cases: Names of all.
        groups: Case to its group, such as a person, who is never on both sides; empty: every case alone.
        source: Where they come from, for messages.

    Returns:
        Names of the training cases and of the held-out ones.

    Raises:
        UserError: If there are fewer than two groups.
    """
    of = {case: groups.get(case, case) for case in cases}
    names = sorted(set(of.values()))
    if len(names) < 2:
        raise UserError(f"{source} holds {len(names)} normal image(s); training needs 2 or more, add some.")
    training = set(names[: len(names) * TRAINING_PERCENT // 100])
    return sorted(c for c in of if of[c] in training), sorted(c for c in of if of[c] not in training)
