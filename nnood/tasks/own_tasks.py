"""Published tasks that change what is there: intensities, or where things lie."""

from nnood.tasks.blending import paste
from nnood.tasks.deformations import Radial
from nnood.tasks.foreign_tasks import MANY_TASKS_SHAPES
from nnood.tasks.intensities import Contrast, GaussianNoise, Shift, SmoothOffset
from nnood.tasks.random_shapes import Stroke
from nnood.tasks.settings import TaskSettings
from nnood.tasks.task import ComposedTask
from nnood.tasks.textures import Clipped, OneOf


def smooth_intensity(settings: TaskSettings) -> ComposedTask:
    """A region brighter or darker than it should be, fading out towards its border.

    Source: Baugh, Tan, Müller, Dombrowski, Batten, Kainz 2023, "Many tasks make light work".
    """
    return ComposedTask(MANY_TASKS_SHAPES, SmoothOffset(), paste, settings, repeat=0.5)


def sink(settings: TaskSettings) -> ComposedTask:
    """A region drawn together towards a point in it.

    Source: Baugh et al. 2023, "Many tasks make light work", equation 1.
    """
    return ComposedTask(MANY_TASKS_SHAPES, Radial(inwards=True), paste, settings, repeat=0.5)


def source(settings: TaskSettings) -> ComposedTask:
    """A region pushed apart from a point in it.

    Source: Baugh et al. 2023, "Many tasks make light work", equation 2.
    """
    return ComposedTask(MANY_TASKS_SHAPES, Radial(inwards=False), paste, settings, repeat=0.5)


def random_shape(settings: TaskSettings) -> ComposedTask:
    """Brush strokes of noise, another brightness or another contrast, within the image's range.

    Source: Cho, Kang, Park 2021, "Self-supervised 3D out-of-distribution detection via pseudoanomaly generation".
    """
    texture = Clipped(OneOf((GaussianNoise(), Shift(), Contrast())))
    return ComposedTask((Stroke(),), texture, paste, settings)
