"""A recipe: everything that decides a training, besides the data and nnU-Net's plan."""

import re
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from nnood.json_fields import integer, number, numbers, optional, shares, typed
from nnood.reconstruction.settings import Reconstruction
from nnood.scores import DEFAULT_SAMPLE_SCORE, SAMPLE_SCORES
from nnood.tasks import TASKS
from nnood.tasks.labels import LABELS
from nnood.training.losses import LOSSES
from nnood.training.optimisation import OPTIMISERS, SCHEDULES
from nnood.training.schemes import SCHEMES, UNSEEN_TASKS

AUGMENTATIONS = ("nnunet", "none")
PLANTING = ("online", "offline")
# Folders carry the names of recipes; what a user changes of one is appended after -, + and @.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.]*(_[A-Za-z0-9.]+)*")
LONGEST_NAME = 60  # file systems allow folders 255 characters, and the names of configuration and tasks are appended
ENDING = ".json"
# Keys that people read, and nothing depends on.
PROSE = ("summary", "citation", "notes")


@dataclass(frozen=True)
class Recipe:
    """A training and how its scores are read. What nnU-Net plans from the data is in no recipe.

    That is: spacing, normalisation, patch size, topology and widths of the network, batch size, deep supervision.

    Attributes:
        name: By which a user asks for it; letters, digits, dots and single underscores.
        summary: One line on what it is.
        tasks: Task name to its share of the images with anomalies, relative to their sum.
        citation: Where it is published.
        notes: What nnood does otherwise than the publication, and why.
        scheme: How folds are made (`nnood.training.schemes.SCHEMES`).
        configuration: The one to train if the user names none; the plan's default if empty.
        normal: Share of training images left normal, from 0 to 0.99.
        repeat: Probability of one more anomaly in the image after each, up to four; None: as each task's paper has it.
        sizes: Smallest and largest anomaly in training, as fractions of the foreground's box, but none smaller than
            planned; None: as planned.
        planting: `online`: new anomalies in every batch; `offline`: in each case once, before training.
        donors: Name of another preprocessed data set that lends all foreign patches; if empty, cases of the same do.
        label: What the network must say (`nnood.tasks.labels.LABELS`).
        loss: By which it learns to (`nnood.training.losses.LOSSES`).
        augmentation: `nnunet`: nnU-Net's, with the rotation and mirroring that leave the anatomy normal; or `none`.
        foreground_share: Share of a batch's patches that surely hold foreground (nnU-Net: 0.33).
        optimiser: One of `nnood.training.optimisation.OPTIMISERS`.
        schedule: Of the learning rate, one of `nnood.training.optimisation.SCHEDULES`.
        learning_rate: Peak of the schedule.
        weight_decay: Of the optimiser.
        epochs: Number of epochs.
        iterations: Training steps per epoch.
        validate_whole_every: Epochs from one validation on whole cases to the next; 0: never.
        stop_at: Voxel average precision on patches with the training tasks at which training ends; None: it never does.
        sample_score: From score map to sample score (`nnood.scores.SAMPLE_SCORES`), as long as no inference plan has
            chosen another.
        reconstruction: How a network reconstructs that never sees an anomaly in training; None: it learns the tasks.
            Then tasks are for validation only, the scheme is `unseen_tasks`, and what says how anomalies are planted in
            training (`normal`, `repeat`, `sizes`, `planting`, `donors`) and learned (`loss`) has no meaning.
    """

    name: str
    summary: str
    tasks: dict[str, float]
    citation: str = ""
    notes: str = ""
    scheme: str = "per_task"
    configuration: str = ""
    normal: float = 0.0
    repeat: float | None = None
    sizes: tuple[float, float] | None = None
    planting: str = "online"
    donors: str = ""
    label: str = "flipped_gaussian"
    loss: str = "bce"
    augmentation: str = "nnunet"
    foreground_share: float = 0.33
    optimiser: str = "adamw"
    schedule: str = "one_cycle"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-5
    epochs: int = 1000
    iterations: int = 250
    validate_whole_every: int = 50
    stop_at: float | None = None
    sample_score: str = DEFAULT_SAMPLE_SCORE
    reconstruction: Reconstruction | None = None

    def __post_init__(self) -> None:
        _check_tasks(self.tasks)
        for key, known in _CHOICES.items():
            if getattr(self, key) not in known:
                raise ValueError(f"{key} is {getattr(self, key)!r}, expected one of {', '.join(known)}")
        for key, (low, high) in _RANGES.items():
            value = getattr(self, key)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{key} is {value}, expected {_range(low, high)}")
        if self.learning_rate == 0:
            raise ValueError("learning_rate is 0, expected a number above 0")
        if self.planting == "offline" and self.label != "binary":
            raise ValueError(f"label is {self.label!r}, but with planting 'offline' it can only be 'binary'")
        if self.sizes is not None and not 0 < self.sizes[0] <= self.sizes[1] <= 1:
            raise ValueError(f"sizes is {list(self.sizes)}, expected two fractions, 0 < smallest <= largest <= 1")
        self._check_reconstruction()

    def _check_reconstruction(self) -> None:
        if (self.reconstruction is None) == (self.scheme == UNSEEN_TASKS):
            raise ValueError(
                f"scheme is {self.scheme!r}, but {UNSEEN_TASKS!r} is for recipes with the key reconstruction, and for "
                "all of these"
            )
        if self.reconstruction is not None:
            for key, only in (("planting", "online"), ("stop_at", None)):
                if getattr(self, key) != only:
                    raise ValueError(f"{key} is {getattr(self, key)!r}, but with reconstruction no task is learned")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return asdict(self) | {
            "sizes": None if self.sizes is None else list(self.sizes),
            "reconstruction": None if self.reconstruction is None else self.reconstruction.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Recipe":
        """Read a recipe back; what is left out has the value that it has by default.

        Raises:
            KeyError: If a key is missing that has no default.
            TypeError: If a value is of another type; the message names the key.
            ValueError: If there is an unknown key, or a value that cannot be; the message names the key.
        """
        known = {entry.name: entry for entry in fields(cls)}
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no key of a recipe; {_meant(unknown[0], known)}")
        for key in ("name", "summary", "tasks"):
            if key not in content:
                raise KeyError(key)
        return cls(**{key: _READERS[known[key].type](content, key) for key in content})


def decisive(recipe: dict[str, Any]) -> dict[str, Any]:
    """The content of a recipe as far as it decides a training: all but the prose."""
    return {key: value for key, value in recipe.items() if key not in PROSE}


def _check_tasks(tasks: dict[str, float]) -> None:
    for task, share in tasks.items():
        if task not in TASKS:
            raise ValueError(f"tasks names {task!r}, which does not exist; {_meant(task, TASKS)}")
        if not 0 < share < _LARGEST:  # a fold may train on any of the tasks alone
            raise ValueError(f"tasks gives {task} the share {share}, expected a number above 0, or the task left out")
    if not tasks:
        raise ValueError("tasks is empty, expected at least one task with its share")


def _meant(name: str, known: Collection[str]) -> str:
    """What to advise for a name that does not exist."""
    close = get_close_matches(name, known, n=1)
    return f"the closest known one is {close[0]!r}" if close else f"known are {', '.join(known)}"


def check_name(name: str) -> None:
    """Check the name of a recipe of a user's.

    Raises:
        ValueError: If a folder of results could not carry it, or it would be taken for a file.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}, expected letters, digits, dots and single underscores")
    if name.endswith(ENDING):
        raise ValueError(f"name is {name!r}, expected one that does not end with {ENDING} as files do")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"name has {len(name)} characters, expected {LONGEST_NAME} at most")


_CHOICES: dict[str, Collection[str]] = {
    "scheme": SCHEMES,
    "planting": PLANTING,
    "label": LABELS,
    "loss": LOSSES,
    "augmentation": AUGMENTATIONS,
    "optimiser": OPTIMISERS,
    "schedule": SCHEDULES,
    "sample_score": SAMPLE_SCORES,
}
_LARGEST = 1e9
_RANGES = {
    "normal": (0.0, 0.99),
    "repeat": (0.0, 1.0),
    "foreground_share": (0.0, 1.0),
    "learning_rate": (0.0, _LARGEST),
    "weight_decay": (0.0, _LARGEST),
    "epochs": (1.0, _LARGEST),
    "iterations": (1.0, _LARGEST),
    "validate_whole_every": (0.0, _LARGEST),
    "stop_at": (0.0, 1.0),
}


def _range(low: float, high: float) -> str:
    return f"a number from {low:g} to {high:g}"


def _text(content: dict[str, Any], key: str) -> str:
    return typed(content, key, str)


def _pair(content: dict[str, Any], key: str) -> tuple[float, float]:
    values = numbers(content, key)
    if len(values) != 2:
        raise TypeError(f"{key} is {content[key]!r}, expected two numbers")
    return values[0], values[1]


def _reconstruction(content: dict[str, Any], key: str) -> Reconstruction:
    return Reconstruction.from_dict(typed(content, key, dict))


_READERS: dict[Any, Callable[[dict[str, Any], str], Any]] = {
    str: _text,
    int: integer,
    float: number,
    float | None: optional(number),
    dict[str, float]: shares,
    tuple[float, float] | None: optional(_pair),
    Reconstruction | None: optional(_reconstruction),
}
