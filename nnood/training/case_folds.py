"""Folds over cases: made once per data set and shared by all recipes, so that their networks are comparable."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnood.errors import UserError, one_error
from nnood.safety import read_json, write_json

CASE_FOLDS_FILE = "case_folds.json"
FOLDS = 5
SEED = 12345  # nnU-Net's
ANEW = (
    "delete it and the folder cross_validation beside it to have both made anew, "
    "but networks trained on the old folds cannot be compared with later ones"
)


@dataclass(frozen=True)
class CaseFold:
    """One fold over cases.

    Attributes:
        train: Cases to train on.
        val: Held-out cases.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class CaseFolds:
    """All folds over the cases of a data set.

    Attributes:
        folds: The folds; no case is held out twice.
        groups: Case to its group, such as a patient, whose cases stay together; empty if every case stands alone.
    """

    folds: tuple[CaseFold, ...]
    groups: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return {
            "folds": [{"train": list(fold.train), "val": list(fold.val)} for fold in self.folds],
            "groups": self.groups,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "CaseFolds":
        """Read the folds back.

        Raises:
            KeyError: If a key is missing.
            TypeError: If something is not of the right form.
        """
        if not isinstance(content, dict):
            raise TypeError(f"it is a {type(content).__name__}")
        groups = content["groups"]
        if not isinstance(groups, dict) or not all(isinstance(group, str) for group in groups.values()):
            raise TypeError("groups does not give each case a name")
        if not isinstance(content["folds"], list):
            raise TypeError("folds is no list")
        folds = [CaseFold(name_list(fold, "train"), name_list(fold, "val")) for fold in content["folds"]]
        return cls(tuple(folds), dict(groups))


def name_list(entry: Any, key: str) -> tuple[str, ...]:
    """The list of names under a key.

    Raises:
        KeyError: If there is no such key.
        TypeError: If there is no list of names.
    """
    if not isinstance(entry, dict):
        raise TypeError(f"a fold is {entry!r}")
    names = entry[key]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{key} is {names!r}, expected a list of names")
    return tuple(names)


def case_folds(
    folder: Path, cases: Sequence[str], *, number: int | None = None, groups: Mapping[str, str] | None = None
) -> CaseFolds:
    """The data set's folds over cases: those that are there, or new ones, which `write_case_folds` writes.

    Args:
        folder: The preprocessed data set.
        cases: All of its training cases.
        number: Of folds; None: as many as there are already, or else five, fewer if there are fewer cases or groups.
        groups: Case to group; None: as in the file, or else every case alone.

    Raises:
        UserError: If there are too few cases or groups, the file is faulty, or holds other folds than wanted.
    """
    file = folder / CASE_FOLDS_FILE
    if not file.exists():
        return make_case_folds(folder.name, cases, number=number, groups=groups or {})
    present = read_case_folds(folder, cases)
    if number is None and groups is None:
        return present
    kept = present.groups if groups is None else groups
    wanted = make_case_folds(folder.name, cases, number=number or len(present.folds), groups=kept)
    if wanted != present:
        raise UserError(f"{file} holds other folds than --folds or --groups would make; leave these out, or {ANEW}.")
    return present


def write_case_folds(folder: Path, folds: CaseFolds) -> None:
    """Write the folds of `case_folds`, unless they are there already."""
    if not (folder / CASE_FOLDS_FILE).exists():
        write_json(folder / CASE_FOLDS_FILE, folds.to_dict())


def make_case_folds(
    dataset: str, cases: Sequence[str], *, number: int | None = None, groups: Mapping[str, str]
) -> CaseFolds:
    """Distribute cases over folds; the same cases and groups give the same folds.

    Args:
        dataset: Name of the data set, for errors.
        cases: All training cases.
        number: Of folds, 2 or more; None: five, or as many as there are cases or groups if fewer.
        groups: Case to group, for all cases; empty: every case alone, distributed as nnU-Net does it.

    Raises:
        UserError: If there are fewer than two cases or groups, or fewer of them than folds.
    """
    count = len({groups[case] for case in cases}) if groups else len(cases)
    what = ("group" if groups else "training case") + ("" if count == 1 else "s")
    if count < 2:
        raise UserError(f"{dataset} has {count} {what}; cross-validation needs at least 2.")
    chosen = min(FOLDS, count) if number is None else number
    if not 2 <= chosen <= count:
        raise UserError(f"--folds is {chosen}, but {dataset} has {count} {what}; expected a number from 2 to {count}.")
    if groups:
        held_out = _distribute(cases, groups, chosen)
        folds = [CaseFold(tuple(sorted(set(cases) - set(val))), tuple(sorted(val))) for val in held_out]
        return CaseFolds(tuple(folds), {case: groups[case] for case in sorted(cases)})
    splits = generate_crossval_split(sorted(cases), seed=SEED, n_splits=chosen)
    return CaseFolds(tuple(CaseFold(tuple(map(str, s["train"])), tuple(map(str, s["val"]))) for s in splits), {})


def _distribute(cases: Sequence[str], groups: Mapping[str, str], number: int) -> list[list[str]]:
    """Give each group, the largest first and otherwise in random order, to the fold that has the fewest cases."""
    members = defaultdict(list)
    for case in sorted(cases):
        members[groups[case]].append(case)
    shuffled = map(str, np.random.default_rng(SEED).permutation(sorted(members)))
    held_out: list[list[str]] = [[] for _ in range(number)]
    for name in sorted(shuffled, key=lambda name: -len(members[name])):
        min(held_out, key=len).extend(members[name])
    return held_out


def read_case_folds(folder: Path, cases: Sequence[str]) -> CaseFolds:
    """Read `case_folds.json` and check it against the data set.

    Raises:
        UserError: If it has another form, or its cases or groups do not fit the data set or each other.
    """
    file = folder / CASE_FOLDS_FILE
    content = read_json(file)
    try:
        found = CaseFolds.from_dict(content)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{file} must hold folds, a list of train and val, and groups ({error}); correct it, or {ANEW}."
        ) from error
    faults = [] if found.folds else [f"{file} holds no fold; {ANEW}."]
    for number, fold in enumerate(found.folds):
        where = f"{file}, fold {number}"
        faults += split_faults(where, fold.train, fold.val, found.groups)
        faults += [f"{where}: {key} is empty." for key in ("train", "val") if not getattr(fold, key)]
    faults += _faults_of_all(file, found, cases)
    one_error(faults)
    return found


def _faults_of_all(file: Path, found: CaseFolds, cases: Sequence[str]) -> list[str]:
    """What is wrong with all folds together, in sentences."""
    faults = []
    named = {case for fold in found.folds for case in (*fold.train, *fold.val)}
    unknown = sorted({*named, *found.groups} - set(cases))
    if unknown:
        faults.append(
            f"{file} names the unknown case {unknown[0]}; correct the name or, if the data set changed, {ANEW}."
        )
    lacking = sorted(set(cases) - named)
    if lacking:
        faults.append(f"{file} lacks the case {lacking[0]}, so the data set changed after the folds were made; {ANEW}.")
    alone = sorted(set(cases) - set(found.groups) - set(lacking)) if found.groups else []
    if alone:
        faults.append(f"{file}: groups lacks the case {alone[0]}; add it.")
    held_out: dict[str, int] = {}
    kind = "group" if found.groups else "case"
    for number, fold in enumerate(found.folds):
        for name in sorted({found.groups.get(case, case) for case in fold.val}):
            first = held_out.setdefault(name, number)
            if first != number:
                faults.append(f"{file}: {kind} {name} is held out by folds {first} and {number}; remove it from one.")
    return faults


def split_faults(where: str, train: Collection[str], val: Collection[str], groups: Mapping[str, str]) -> list[str]:
    """What is wrong between training and validation of one fold, in sentences.

    Args:
        where: File and fold.
        train: Cases to train on.
        val: Held-out cases.
        groups: Case to group; cases without one stand alone.
    """
    faults = []
    twice = sorted(case for names in (train, val) for case, count in Counter(names).items() if count > 1)
    if twice:
        faults.append(f"{where}: case {twice[0]} is named twice; remove one.")
    both = sorted(set(train) & set(val))
    if both:
        faults.append(f"{where}: case {both[0]} is in both training and validation; remove it from one.")
    trained, held_out = ({groups[case] for case in names if case in groups} for names in (train, val))
    split = sorted((trained & held_out) - {groups[case] for case in both if case in groups})
    if split:
        faults.append(f"{where}: group {split[0]} is in both training and validation; remove its cases from one.")
    return faults
