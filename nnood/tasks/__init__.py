"""Synthetic anomalies. A task composes a shape, a texture, a blend and a label; `TASKS` names all there are."""

from collections.abc import Callable, Mapping

from nnood.tasks.blending import Interpolate, paste
from nnood.tasks.labels import FlippedGaussian
from nnood.tasks.poisson import Poisson
from nnood.tasks.shapes import cuboid, ellipsoid
from nnood.tasks.task import ComposedTask, Mixture, TaskSettings
from nnood.tasks.textures import SmoothOffset, foreign_patch, image_mean, own_patch


def fpi(settings: TaskSettings) -> ComposedTask:
    """Foreign patch interpolation.

    Source: Tan, Hou, Batten, Qiu, Kainz 2020, "Detecting outliers with foreign patch interpolation": a cuboid of
    another case, at the same place, interpolated with a factor from 0.05 to 0.95.
    """
    return ComposedTask(
        shapes=(cuboid,),
        texture=foreign_patch,
        blend=Interpolate((0.05, 0.95)),
        label=FlippedGaussian(settings.label_sigma),
        settings=settings,
    )


def smooth_intensity(settings: TaskSettings) -> ComposedTask:
    """A region brighter or darker than it should be, fading out towards its border.

    Source: Baugh, Tan, Müller, Dombrowski, Batten, Kainz 2023, "Many tasks make light work".
    """
    return ComposedTask(
        shapes=(ellipsoid, cuboid),
        texture=SmoothOffset(),
        blend=paste,
        label=FlippedGaussian(settings.label_sigma),
        settings=settings,
    )


def cutpaste(settings: TaskSettings) -> ComposedTask:
    """A patch of the image, pasted elsewhere in it.

    Source: Li, Sohn, Yoon, Pfister 2021, "CutPaste: self-supervised learning for anomaly detection and localization".
    """
    return ComposedTask(
        shapes=(cuboid,),
        texture=own_patch,
        blend=paste,
        label=FlippedGaussian(settings.label_sigma),
        settings=settings,
    )


def cutout(settings: TaskSettings) -> ComposedTask:
    """A patch replaced by the image's mean.

    Source: DeVries, Taylor 2017, "Improved regularization of convolutional neural networks with cutout".
    """
    return ComposedTask(
        shapes=(cuboid,),
        texture=image_mean,
        blend=paste,
        label=FlippedGaussian(settings.label_sigma),
        settings=settings,
    )


def pii(settings: TaskSettings) -> ComposedTask:
    """Poisson image interpolation: a foreign patch whose gradients are interpolated, so that no edge betrays it.

    Source: Tan, Hou, Day, Simpson, Rueckert, Kainz 2021, "Detecting outliers with Poisson image interpolation".
    """
    return ComposedTask(
        shapes=(cuboid,),
        texture=foreign_patch,
        blend=Poisson(factor=(0.05, 0.95)),
        label=FlippedGaussian(settings.label_sigma),
        settings=settings,
    )


def poisson_inter(settings: TaskSettings) -> ComposedTask:
    """A patch of another case, Poisson-blended with mixed gradients.

    Source: Baugh et al. 2023, "Many tasks make light work".
    """
    return ComposedTask(
        shapes=(ellipsoid, cuboid),
        texture=foreign_patch,
        blend=Poisson(mixed=True),
        label=FlippedGaussian(settings.label_sigma),
        settings=settings,
    )


def poisson_intra(settings: TaskSettings) -> ComposedTask:
    """A patch of the same image from elsewhere, Poisson-blended with mixed gradients.

    Source: Baugh et al. 2023, "Many tasks make light work".
    """
    return ComposedTask(
        shapes=(ellipsoid, cuboid),
        texture=own_patch,
        blend=Poisson(mixed=True),
        label=FlippedGaussian(settings.label_sigma),
        settings=settings,
    )


TASKS: dict[str, Callable[[TaskSettings], ComposedTask]] = {
    "fpi": fpi,
    "smooth_intensity": smooth_intensity,
    "cutpaste": cutpaste,
    "cutout": cutout,
    "pii": pii,
    "poisson_inter": poisson_inter,
    "poisson_intra": poisson_intra,
}


def build_task(name: str, settings: TaskSettings) -> ComposedTask:
    """Build a task by its name.

    Raises:
        ValueError: If there is none of that name; the message lists the known ones.
    """
    if name not in TASKS:
        raise ValueError(f"There is no task {name!r}; known are {', '.join(TASKS)}.")
    return TASKS[name](settings)


def build_mixture(
    weights: Mapping[str, float], settings: TaskSettings, *, normal: float = 0.0, repeat: float = 0.0
) -> Mixture:
    """Build a mixture of tasks, given as names with weights.

    Args:
        weights: Task name to its share.
        settings: What the plan knows of the data.
        normal: Share of images left normal, relative to the same sum.
        repeat: Probability of one more anomaly after each.

    Raises:
        ValueError: If a name is unknown, a weight negative, or all are 0.
    """
    if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise ValueError(f"Expected task weights >= 0 that are not all 0, but got {dict(weights)}.")
    return Mixture(tuple(build_task(name, settings) for name in weights), tuple(weights.values()), normal, repeat)
