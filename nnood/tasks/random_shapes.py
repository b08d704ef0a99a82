"""Irregular shapes: brush strokes, polygons and polyhedra with curved edges, real lesions.

They are computed on a coarse grid and interpolated: their depth is smooth, and a fine grid would cost many times more.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator

from nnood.tasks.draws import gaussian, integer, rotation, sign, uniform, uniforms
from nnood.tasks.placement import draw_centre
from nnood.tasks.sampling import sample
from nnood.tasks.shapes import Outline, box_coordinates

# Voxels of the coarse grid per axis, for one, two and three axes.
COARSE = (32, 32, 24)
INTERPOLATION = ("linear", "bilinear", "trilinear")
CPU = torch.device("cpu")
# Smallest and largest radius of one of several polyhedra, relative to half of the box.
PIECES = (0.25, 0.5)

# Depths (N,) of points (N, D) of the box [-1, 1]^D.
Form = Callable[[np.ndarray, torch.Generator], np.ndarray]


@functools.lru_cache(maxsize=64)
def _grid(size: tuple[int, ...]) -> np.ndarray:
    """The voxels of a box as points (N, D); shared, so never to be modified."""
    axes = np.broadcast_arrays(*[axis.numpy() for axis in box_coordinates(size, CPU)])
    return np.stack([axis.ravel() for axis in axes], axis=1)


def _draw(form: Form, size: Sequence[int], generator: torch.Generator, device: torch.device) -> Outline:
    """Evaluate a form on the coarse grid and interpolate it to the box."""
    thick = [n for n in size if n > 1]
    if not thick:
        return Outline(torch.ones(tuple(size), device=device))
    coarse = tuple(min(n, COARSE[len(thick) - 1]) for n in thick)
    depth = torch.from_numpy(form(_grid(coarse), generator).astype(np.float32)).reshape(1, 1, *coarse).to(device)
    if coarse != tuple(thick):
        mode = INTERPOLATION[len(thick) - 1]
        depth = torch.nn.functional.interpolate(depth, size=thick, mode=mode, align_corners=False)
    return Outline.of(depth.reshape(tuple(size)))


@dataclass(frozen=True)
class Stroke:
    """A brush stroke: a random walk that bends to and fro, drawn with a round brush; depth 1 at the walk.

    Source: Cho, Kang, Park 2021, "Self-supervised 3D out-of-distribution detection via pseudoanomaly generation", after
    the free-form masks of Yu et al. 2019: lengths for an image of 128 x 128. Here the box is half as wide as that, the
    walk is turned at random and reflected at the box's faces. In 3D each bend goes into a random direction.

    Attributes:
        points: Fewest and most points.
        width: Of the brush.
        length: Of a step.
        bend: Largest angle of a step to the walk's direction, in degrees.
        window: Edge of the box.
        isotropic: See `Shape`: the brush is round in mm.
        grain: See `Shape`.
    """

    points: tuple[int, int] = (8, 32)
    width: tuple[float, float] = (4.0, 16.0)
    length: tuple[float, float] = (8.0, 24.0)
    bend: float = 72.0
    window: float = 64.0
    isotropic: bool = True
    grain: float = 0.25

    def __call__(self, size: Sequence[int], generator: torch.Generator, device: torch.device) -> Outline:
        """See `Shape`."""
        return _draw(self._form, size, generator, device)

    def walk(self, dimensions: int, generator: torch.Generator) -> np.ndarray:
        """The walk's points (N, D), in pixels of an image of 128 x 128."""
        count = integer(generator, self.points[0], self.points[1] + 1) - 1
        angles = np.radians(uniforms(generator, 0, self.bend, count))
        lengths = np.array(uniforms(generator, *self.length, count))
        steps = np.zeros((count, dimensions))
        steps[:, 0] = np.cos(angles)
        if dimensions > 1:
            aside = np.abs(gaussian(generator, (count, dimensions - 1), CPU).numpy())
            aside /= np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-6)
            steps[:, 1:] = np.sin(angles)[:, None] * aside
            steps[1::2, 1:] *= -1
        steps = steps * lengths[:, None] @ rotation(generator, dimensions, 180).T
        return np.concatenate([np.zeros((1, dimensions)), np.cumsum(steps, axis=0)])

    def _form(self, points: np.ndarray, generator: torch.Generator) -> np.ndarray:
        walk = self.walk(points.shape[1], generator)
        radius = uniform(generator, *self.width) / self.window
        start = np.array(uniforms(generator, 0, 1, points.shape[1]))
        room = 2 * (1 - radius)
        # Folding at the faces, as between two mirrors.
        folded = np.abs((2 * walk / self.window + start * room) % (2 * room) - room) - room / 2
        return 1 - _distance_to_path(points, folded.astype(np.float32)) / radius


def _distance_to_path(points: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Distance (N,) of each point (N, D) to a path through the points (M, D)."""
    start, step = path[:-1], np.diff(path, axis=0)
    length = (step**2).sum(axis=1)[:, None]
    along = step @ points.T - (start * step).sum(axis=1)[:, None]
    square = (-2 * start) @ points.T + (start**2).sum(axis=1)[:, None]
    share = np.clip(along / length, 0, 1)
    square -= share * (2 * along - share * length)
    return np.sqrt(np.maximum(square.min(axis=0) + (points**2).sum(axis=1), 0))


@dataclass(frozen=True)
class Polyhedron:
    """Polygons (2D) and polyhedra (3D) with curved edges, seen whole from their middle; depth 1 - |x| / border.

    The border passes through vertices of random direction and distance; between them the distance is a cubic spline (a
    polyharmonic one, so that it is the same thing in 2D and 3D).

    Source: Meissen, Kaissis, Rueckert 2022, "AutoSeg: steering the inductive biases for automatic pathology
    segmentation": ten vertices, edges of cubic splines.

    Attributes:
        vertices: How many.
        distance: Smallest and largest distance of a vertex from the middle, relative to the largest possible.
        count: Fewest and most of them in the box: one fills it, several are smaller and lie at random places.
        isotropic: See `Shape`.
        grain: See `Shape`.
    """

    vertices: int = 10
    distance: tuple[float, float] = (0.4, 1.0)
    count: tuple[int, int] = (1, 1)
    isotropic: bool = False
    grain: float = 1.0

    def __call__(self, size: Sequence[int], generator: torch.Generator, device: torch.device) -> Outline:
        """See `Shape`."""
        return _draw(self._form, size, generator, device)

    def _form(self, points: np.ndarray, generator: torch.Generator) -> np.ndarray:
        dimensions = points.shape[1]
        count = integer(generator, self.count[0], self.count[1] + 1)
        if count == 1:
            pieces = [points]
        else:
            radii = uniforms(generator, *PIECES, count)
            middles = [np.array(uniforms(generator, radius - 1, 1 - radius, dimensions)) for radius in radii]
            pieces = [(points - middle) / radius for middle, radius in zip(middles, radii, strict=True)]
        distances = [np.linalg.norm(piece, axis=1) for piece in pieces]
        depth = np.stack([1 - distance for distance in distances])
        if dimensions > 1:
            borders = self._borders(dimensions, count, generator)
            for number, (piece, distance) in enumerate(zip(pieces, distances, strict=True)):
                inside = distance < 1  # only what may lie inside needs the spline
                near = np.maximum(distance[inside], 1e-6)
                turned = piece[inside] / near[:, None] @ rotation(generator, dimensions, 180)
                border = np.clip(borders(turned)[:, number], 0.1, 1)
                depth[number, inside] = 1 - near / border
        return depth.max(axis=0)

    def _borders(self, dimensions: int, count: int, generator: torch.Generator) -> RBFInterpolator:
        """Distances (N, count) of the borders from the middle as a function of direction (N, D)."""
        vertices = gaussian(generator, (self.vertices, dimensions), CPU).double().numpy()
        vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
        reach = np.reshape(uniforms(generator, *self.distance, self.vertices * count), (self.vertices, count))
        return RBFInterpolator(vertices, reach, kernel="cubic", degree=1)


@dataclass(frozen=True, eq=False)
class Lesion:
    """The shape of a real lesion, turned at random; in 2D a section through it.

    Attributes:
        templates: (N, n, n, n) uint8, 255 inside, see `nnood.tasks.lesions`.
        isotropic: See `Shape`: the lesion's proportions are kept.
        grain: See `Shape`: lesions are seldom round.
    """

    templates: torch.Tensor
    isotropic: bool = True
    grain: float = 0.5

    def __call__(self, size: Sequence[int], generator: torch.Generator, device: torch.device) -> Outline:
        """See `Shape`."""
        return _draw(self._form, size, generator, device)

    def _form(self, points: np.ndarray, generator: torch.Generator) -> np.ndarray:
        template = self.templates[integer(generator, 0, len(self.templates))].float() / 255
        edge = template.shape[0]
        turn = rotation(generator, 3, 180)
        positions = points @ turn[: points.shape[1]] * sign(generator)
        if points.shape[1] < 3:
            # Shifted across itself, the section passes through a random voxel of the lesion.
            voxel = (np.array(draw_centre(template > 0.5, generator)) + 0.5) * (2 / edge) - 1
            across = turn[points.shape[1] :]
            positions = positions + across @ voxel @ across
        where = torch.from_numpy((positions.T + 1) * (edge / 2) - 0.5).float()
        return 2 * sample(template[None], list(where))[0].numpy() - 1
