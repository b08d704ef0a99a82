"""Synthetic anomalies. A task composes a shape, a texture, a blend and a label; `TASKS` names all there are."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from nnood.tasks.foreign_tasks import (
    autoseg,
    cutout,
    cutpaste,
    dag,
    fpi,
    lesion_shapes,
    mood22_hard,
    mood22_smooth,
    nsa,
    nsa_mixed,
    pii,
    poisson_inter,
    poisson_intra,
)
from nnood.tasks.labels import LABELS
from nnood.tasks.own_tasks import random_shape, sink, smooth_intensity, source
from nnood.tasks.settings import TaskSettings
from nnood.tasks.task import ComposedTask, Mixture

Builder = Callable[[TaskSettings], ComposedTask]

TASKS: dict[str, Builder] = {}


def register(builder: Builder) -> Builder:
    """Enter a task into the table, under its builder's name.

    Raises:
        ValueError: If there is one of that name already.
    """
    if builder.__name__ in TASKS:
        raise ValueError(f"There is a task {builder.__name__!r} already; choose another name.")
    TASKS[builder.__name__] = builder
    return builder


for _builder in (
    fpi,
    cutpaste,
    cutout,
    pii,
    nsa,
    nsa_mixed,
    poisson_inter,
    poisson_intra,
    sink,
    source,
    smooth_intensity,
    mood22_hard,
    mood22_smooth,
    random_shape,
    autoseg,
    dag,
    lesion_shapes,
):
    register(_builder)


def build_task(name: str, settings: TaskSettings) -> ComposedTask:
    """Build a task by its name.

    Raises:
        ValueError: If there is no task or label of that name, the message lists the known ones; or if the task lacks
            what it needs.
    """
    if name not in TASKS:
        raise ValueError(f"There is no task {name!r}; known are {', '.join(TASKS)}.")
    if settings.label not in LABELS:
        raise ValueError(f"There is no label {settings.label!r}; known are {', '.join(LABELS)}.")
    task = TASKS[name](settings)
    return task if settings.repeat is None else replace(task, repeat=settings.repeat)


def describe_tasks() -> dict[str, str]:
    """Each task's name and the first line of its builder's docstring."""
    return {name: (builder.__doc__ or "").strip().splitlines()[0] for name, builder in TASKS.items()}


def build_mixture(weights: Mapping[str, float], settings: TaskSettings, *, normal: float = 0.0) -> Mixture:
    """Build a mixture of tasks, given as names with weights.

    Args:
        weights: Task name to its share.
        settings: What the plan knows of the data.
        normal: Share of images left normal, relative to the same sum.

    Raises:
        ValueError: If a name is unknown, a weight negative, or all are 0.
    """
    if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise ValueError(f"Expected task weights >= 0 that are not all 0, but got {dict(weights)}.")
    return Mixture(tuple(build_task(name, settings) for name in weights), tuple(weights.values()), normal)
