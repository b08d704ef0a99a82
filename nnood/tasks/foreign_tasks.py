"""Published tasks whose texture comes from elsewhere: another case, or another place of the image."""

from nnood.tasks.blending import Interpolate, paste
from nnood.tasks.intensities import BiasField, GaussianNoise, Shift
from nnood.tasks.poisson import Poisson
from nnood.tasks.random_shapes import Lesion, Polyhedron, Stroke
from nnood.tasks.settings import TaskSettings
from nnood.tasks.shapes import CUBOID, ROTATED_CUBOID, ROTATED_ELLIPSOID, SPHERE, SoftEdge
from nnood.tasks.task import ComposedTask
from nnood.tasks.textures import Chain, OneOf, Patch, Warp, image_mean

NSA_TEXTURE = Patch(free=True, warp=Warp(scale=(0.7, 1.3)))
MANY_TASKS_SHAPES = (ROTATED_CUBOID, ROTATED_ELLIPSOID)
MOOD22_SHAPES = (ROTATED_CUBOID, SPHERE, Polyhedron(), Stroke())
MOOD22_TEXTURE = OneOf((Chain((Patch(), GaussianNoise())), Chain((Patch(), Shift())), Patch(warp=Warp(degrees=180.0))))
ANY_WARP = Warp(scale=(0.7, 1.4), degrees=180.0, shear=0.2, flip=True)


def fpi(settings: TaskSettings) -> ComposedTask:
    """Foreign patch interpolation: a cuboid of another case at the same place, mixed in with a factor of 0.05 to 0.95.

    Source: Tan, Hou, Batten, Qiu, Kainz 2020, "Detecting outliers with foreign patch interpolation".
    """
    return ComposedTask((CUBOID,), Patch(), Interpolate((0.05, 0.95)), settings)


def cutpaste(settings: TaskSettings) -> ComposedTask:
    """A cuboid of the image, pasted elsewhere in it.

    Source: Li, Sohn, Yoon, Pfister 2021, "CutPaste: self-supervised learning for anomaly detection and localization".
    """
    return ComposedTask((CUBOID,), Patch(own=True, free=True), paste, settings)


def cutout(settings: TaskSettings) -> ComposedTask:
    """A cuboid replaced by the image's mean.

    Source: DeVries, Taylor 2017, "Improved regularization of convolutional neural networks with cutout".
    """
    return ComposedTask((CUBOID,), image_mean, paste, settings)


def pii(settings: TaskSettings) -> ComposedTask:
    """Poisson image interpolation: a foreign cuboid whose gradients are interpolated, so that no edge betrays it.

    Source: Tan, Hou, Day, Simpson, Rueckert, Kainz 2021, "Detecting outliers with Poisson image interpolation".
    """
    return ComposedTask((CUBOID,), Patch(), Poisson(factor=(0.05, 0.95)), settings)


def nsa(settings: TaskSettings) -> ComposedTask:
    """Natural synthetic anomalies: resized foreign cuboids (0.7 to 1.3) from anywhere, Poisson-blended, up to four.

    Source: Schlüter, Tan, Hou, Kainz 2022, "Natural synthetic anomalies for self-supervised anomaly detection and
    localization"; its label is the `logistic` one.
    """
    return ComposedTask((CUBOID,), NSA_TEXTURE, Poisson(), settings, repeat=0.5)


def nsa_mixed(settings: TaskSettings) -> ComposedTask:
    """Natural synthetic anomalies with mixed gradients: where the image's own gradient is larger, it stays.

    Source: Schlüter, Tan, Hou, Kainz 2022, as `nsa`.
    """
    return ComposedTask((CUBOID,), NSA_TEXTURE, Poisson(mixed=True), settings, repeat=0.5)


def poisson_inter(settings: TaskSettings) -> ComposedTask:
    """A patch of another case, Poisson-blended with mixed gradients.

    Source: Baugh, Tan, Müller, Dombrowski, Batten, Kainz 2023, "Many tasks make light work".
    """
    return ComposedTask(MANY_TASKS_SHAPES, Patch(), Poisson(mixed=True), settings, repeat=0.5)


def poisson_intra(settings: TaskSettings) -> ComposedTask:
    """A patch of the same image from elsewhere, Poisson-blended with mixed gradients.

    Source: Baugh et al. 2023, as `poisson_inter`.
    """
    return ComposedTask(MANY_TASKS_SHAPES, Patch(own=True, free=True), Poisson(mixed=True), settings, repeat=0.5)


def mood22_hard(settings: TaskSettings) -> ComposedTask:
    """Foreign patches with noise, another brightness or turned, in many shapes, mixed in with a factor of 0.3 to 1.

    Source: Naval Marimont, Siomos, Tarroni 2023, "Achieving state-of-the-art performance in the Medical
    Out-of-Distribution (MOOD) challenge using plausible synthetic anomalies"; in the foreground only.
    """
    return ComposedTask(MOOD22_SHAPES, MOOD22_TEXTURE, Interpolate((0.3, 1.0)), settings, foreground_only=True)


def mood22_smooth(settings: TaskSettings) -> ComposedTask:
    """As mood22_hard, with edges smoothed by Gaussians of 1, 3, 5 or 7 voxels.

    Source: Naval Marimont, Siomos, Tarroni 2023, as `mood22_hard`.
    """
    shapes = tuple(SoftEdge(shape) for shape in MOOD22_SHAPES)
    blend = Interpolate((0.3, 1.0), edge=1.0)
    return ComposedTask(shapes, MOOD22_TEXTURE, blend, settings, foreground_only=True)


def autoseg(settings: TaskSettings) -> ComposedTask:
    """Foreign patches in polygons or polyhedra with curved edges, mixed in with a factor of 0.05 to 0.95.

    Source: Meissen, Kaissis, Rueckert 2022, "AutoSeg: steering the inductive biases for automatic pathology
    segmentation".
    """
    return ComposedTask(
        (Polyhedron(), Polyhedron(count=(2, 5), grain=0.35)), Patch(), Interpolate((0.05, 0.95)), settings
    )


def dag(settings: TaskSettings) -> ComposedTask:
    """Disentangled anomalies: shape, texture and intensity bias drawn independently of each other.

    Source: Naval Marimont, Siomos, Baugh, Tzelepis, Kainz, Tarroni 2024, "Ensembled cold-diffusion restorations for
    unsupervised anomaly detection".
    """
    shapes = (Polyhedron(), Stroke(), ROTATED_ELLIPSOID)
    texture = Chain((Patch(free=True, warp=ANY_WARP), BiasField()))
    return ComposedTask(shapes, texture, Interpolate((0.3, 1.0), edge=0.3), settings)


def lesion_shapes(settings: TaskSettings) -> ComposedTask:
    """Shapes of real lesions, filled with tissue from elsewhere, brighter or darker, soft at the edges.

    Source: nnood's own; the masks are the user's (`lesion_masks` in dataset.json).

    Raises:
        ValueError: If there are none.
    """
    if settings.lesions is None:
        raise ValueError(
            'The task lesion_shapes needs masks of lesions; name their folder as "lesion_masks" in the block "nnood" '
            "of dataset.json and run nnood_plan_and_preprocess again."
        )
    texture = Chain((Patch(own=True, free=True), Shift((0.3, 1.5))))
    return ComposedTask((Lesion(settings.lesions),), texture, Interpolate((0.4, 1.0), edge=0.5), settings)
