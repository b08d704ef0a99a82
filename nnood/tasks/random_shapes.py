"""Irregular shapes: brush strokes, polygons and polyhedra with curved edges, real lesions.

They are computed on a coarse grid and interpolated: their depth is smooth, and a fine grid would cost many times more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator

from nnood.tasks.draws import gaussian, integer, rotation, sign, uniform
from nnood.tasks.sampling import sample
from nnood.tasks.shapes import Outline, box_coordinates

# Voxels of the coarse grid per axis, for one, two and three axes.
COARSE = (64, 32, 24)
INTERPOLATION = ("linear", "bilinear", "trilinear")
CPU = torch.device("cpu")

# Depths (N,) of points (N, D) of the box [-1, 1]^D.
Form = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def _draw(form: Form, size: Sequence[int], generator: torch.Generator, device: torch.device) -> Outline:
    """Evaluate a form on the coarse grid and interpolate it to the box."""
    thick = [n for n in size if n > 1]
    if not thick:
        return Outline(torch.ones(tuple(size), device=device))
    coarse = [min(n, COARSE[len(thick) - 1]) for n in thick]
    axes = torch.broadcast_tensors(*box_coordinates(coarse, CPU)) if len(thick) > 1 else box_coordinates(coarse, CPU)
    depth = form(torch.stack([axis.flatten() for axis in axes], dim=1), generator).reshape(1, 1, *coarse).to(device)
    if coarse != thick:
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

    def walk(self, dimensions: int, generator: torch.Generator) -> torch.Tensor:
        """The walk's points (N, D), in pixels of an image of 128 x 128."""
        count = integer(generator, self.points[0], self.points[1] + 1)
        steps = torch.zeros(count - 1, dimensions)
        draws = torch.rand(count - 1, 2, generator=generator, device=generator.device).cpu()
        angles = torch.deg2rad(self.bend * draws[:, 0])
        lengths = self.length[0] + (self.length[1] - self.length[0]) * draws[:, 1]
        steps[:, 0] = angles.cos()
        if dimensions > 1:
            aside = gaussian(generator, (count - 1, dimensions - 1), CPU).abs()
            aside = aside / aside.norm(dim=1, keepdim=True).clamp(min=1e-6)
            steps[:, 1:] = angles.sin()[:, None] * aside
            steps[1::2, 1:] *= -1
        steps = steps * lengths[:, None] @ torch.from_numpy(rotation(generator, dimensions, 180)).float().T
        return torch.cat([torch.zeros(1, dimensions), steps.cumsum(dim=0)])

    def _form(self, points: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        walk = self.walk(points.shape[1], generator)
        radius = uniform(generator, *self.width) / self.window
        start = torch.rand(points.shape[1], generator=generator, device=generator.device).cpu()
        room = 2 * (1 - radius)
        # Folding at the faces, as between two mirrors.
        folded = ((2 * walk / self.window + start * room) % (2 * room) - room).abs() - room / 2
        return 1 - _distance_to_path(points, folded) / radius


def _distance_to_path(points: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
    """Distance (N,) of each point (N, D) to a path through the points (M, D)."""
    start, step = path[:-1], path.diff(dim=0)
    length = (step**2).sum(dim=1)
    along = points @ step.T - (start * step).sum(dim=1)
    square = (points**2).sum(dim=1, keepdim=True) - 2 * points @ start.T + (start**2).sum(dim=1)
    share = (along / length).clamp(0, 1)
    return (square - share * (2 * along - share * length)).amin(dim=1).clamp(min=0).sqrt()


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

    def _form(self, points: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        count = integer(generator, self.count[0], self.count[1] + 1)
        if count == 1:
            return self._single(points, generator)
        depths = []
        for _ in range(count):
            radius = uniform(generator, 0.25, 0.5)
            middle = torch.tensor([uniform(generator, radius - 1, 1 - radius) for _ in range(points.shape[1])])
            depths.append(self._single((points - middle) / radius, generator))
        return torch.stack(depths).amax(dim=0)

    def _single(self, points: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        distance = points.norm(dim=1)
        if points.shape[1] == 1:
            return 1 - distance
        vertices = gaussian(generator, (self.vertices, points.shape[1]), CPU)
        vertices = vertices / vertices.norm(dim=1, keepdim=True)
        reach = torch.rand(self.vertices, generator=generator, device=generator.device).cpu()
        reach = self.distance[0] + (self.distance[1] - self.distance[0]) * reach
        # Only what may lie inside needs the spline.
        inside = distance < 1
        directions = points[inside] / distance[inside, None].clamp(min=1e-6)
        spline = RBFInterpolator(vertices.double().numpy(), reach.double().numpy(), kernel="cubic", degree=1)
        border = torch.from_numpy(spline(directions.double().numpy()).astype(np.float32))
        depth = 1 - distance
        depth[inside] = 1 - distance[inside] / border.clamp(0.1, 1)
        return depth.clamp(max=1)


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

    def _form(self, points: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        template = self.templates[integer(generator, 0, len(self.templates))].float() / 255
        edge = template.shape[0]
        turn = torch.from_numpy(rotation(generator, 3, 180)).float()
        positions = points @ turn[: points.shape[1]] * sign(generator)
        if points.shape[1] < 3:
            # Shifted across itself, the section passes through a random voxel of the lesion.
            inside = (template > 0.5).nonzero()
            voxel = (inside[integer(generator, 0, len(inside))] + 0.5) * (2 / edge) - 1
            across = turn[points.shape[1] :]
            positions = positions + across @ voxel @ across
        return 2 * sample(template[None], list(((positions + 1) * (edge / 2) - 0.5).T))[0] - 1
