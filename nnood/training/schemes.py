"""Schemes: the rules that make folds, that is which cases and tasks each network trains and validates on."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any

from nnood.errors import UserError
from nnood.training.case_folds import CaseFold, name_list

MOST_PAIRED = 9  # of 10 pairs; half of 10 is 252 networks already


@dataclass(frozen=True)
class Fold:
    """One entry of the cross-validation.

    Attributes:
        train_cases: Cases to train on.
        val_cases: Held-out cases.
        train_tasks: Tasks to train on; none for networks that never see an anomaly.
        val_tasks: Tasks to validate with.
    """

    train_cases: tuple[str, ...]
    val_cases: tuple[str, ...]
    train_tasks: tuple[str, ...]
    val_tasks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Fold":
        """Read an entry back.

        Raises:
            KeyError: If a key is missing.
            TypeError: If an entry is no list of names.
        """
        return cls(**{key: name_list(content, key) for key in cls.__dataclass_fields__})


Scheme = Callable[[Sequence[CaseFold], tuple[str, ...]], list[Fold]]


def per_task(case_folds: Sequence[CaseFold], tasks: tuple[str, ...]) -> list[Fold]:
    """Classic folds over cases; the same tasks in training and validation.

    Args:
        case_folds: The data set's folds over cases.
        tasks: The recipe's tasks.
    """
    return [Fold(fold.train, fold.val, tasks, tasks) for fold in case_folds]


def single_task(case_folds: Sequence[CaseFold], tasks: tuple[str, ...]) -> list[Fold]:
    """Classic folds over cases for each task in turn, as `per_task` for that task alone.

    Args:
        case_folds: The data set's folds over cases.
        tasks: The recipe's tasks.

    Source: the ensemble of Naval Marimont, Siomos, Tarroni 2023, five folds with hard and five with smooth edges.
    """
    return [fold for task in tasks for fold in per_task(case_folds, (task,))]


def leave_task_out(case_folds: Sequence[CaseFold], tasks: tuple[str, ...]) -> list[Fold]:
    """Folds over cases, each of which holds out one task, in turn, and trains on all others.

    Args:
        case_folds: The data set's folds over cases.
        tasks: The recipe's tasks, 2 or more.

    Raises:
        UserError: If there is one task only.
    """
    if len(tasks) < 2:
        raise UserError(f"The scheme leave_task_out needs 2 tasks or more, but there is {len(tasks)}; add tasks (-t).")
    folds = []
    for number, fold in enumerate(case_folds):
        left_out = tasks[number % len(tasks)]
        rest = tuple(task for task in tasks if task != left_out)
        folds.append(Fold(fold.train, fold.val, rest, (left_out,)))
    return folds


def paired(case_folds: Sequence[CaseFold], tasks: tuple[str, ...], *, trained: int) -> list[Fold]:
    """Pair the held-out cases of case fold i with task i; train on every choice of some pairs, validate on the rest.

    Args:
        case_folds: The data set's folds over cases.
        tasks: As many tasks, n.
        trained: Number of pairs to train on, from 1 to n - 1.

    Returns:
        n-choose-`trained` folds, in the order of `itertools.combinations`.

    Raises:
        UserError: If the numbers do not fit.

    Source:
        Baugh et al., "Many tasks make light work", MICCAI 2023.
    """
    if len(tasks) != len(case_folds):
        raise UserError(
            f"The scheme paired({trained}) needs as many tasks as case folds, but there are {len(tasks)} task(s) and "
            f"{len(case_folds)} case folds; change the recipe's tasks or scheme, or make another number of case folds "
            "(nnood_cross_validation --folds N)."
        )
    if trained >= len(tasks):
        raise UserError(
            f"The scheme paired({trained}) leaves none of {len(tasks)} tasks to validate with; "
            f"expected paired(1) to paired({len(tasks) - 1})."
        )
    pairs = [(fold.val, task) for fold, task in zip(case_folds, tasks, strict=True)]
    folds = []
    for chosen in combinations(range(len(pairs)), trained):
        sides = [pairs[i] for i in chosen], [pair for i, pair in enumerate(pairs) if i not in chosen]
        train_cases, val_cases = (tuple(case for cases, _ in side for case in cases) for side in sides)
        train_tasks, val_tasks = (tuple(task for _, task in side) for side in sides)
        folds.append(Fold(train_cases, val_cases, train_tasks, val_tasks))
    return folds


def unseen_tasks(case_folds: Sequence[CaseFold], tasks: tuple[str, ...]) -> list[Fold]:
    """Classic folds over cases; nothing is planted in training, and all tasks in validation.

    Args:
        case_folds: The data set's folds over cases.
        tasks: The recipe's tasks.
    """
    return [Fold(fold.train, fold.val, (), tasks) for fold in case_folds]


UNSEEN_TASKS = "unseen_tasks"

SCHEMES: dict[str, Scheme] = {
    "per_task": per_task,
    "single_task": single_task,
    "leave_task_out": leave_task_out,
    UNSEEN_TASKS: unseen_tasks,
    **{f"paired({number})": partial(paired, trained=number) for number in range(1, MOST_PAIRED + 1)},
}


def refuse_unknown_scheme(scheme: str) -> None:
    """Check the name of a scheme.

    Raises:
        UserError: If there is none of that name.
    """
    if scheme not in SCHEMES:
        raise UserError(f"There is no scheme {scheme!r}; known are {', '.join(SCHEMES)}.")


def make_folds(scheme: str, case_folds: Sequence[CaseFold], tasks: Sequence[str]) -> list[Fold]:
    """The folds of a scheme.

    Args:
        scheme: A key of `SCHEMES`.
        case_folds: The data set's folds over cases; no case is held out twice.
        tasks: The recipe's tasks.

    Raises:
        UserError: If there is no such scheme, or it does not fit the numbers of tasks and folds.
    """
    refuse_unknown_scheme(scheme)
    return SCHEMES[scheme](case_folds, tuple(tasks))
