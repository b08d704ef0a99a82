"""Shapes in millimetres, and where they go."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from nnood.evaluation.benchmark.lesions import largest_piece
from nnood.evaluation.benchmark.subjects import Draw, Subject

# Diameters, in shortest extents of the foreground.
FRACTIONS = (0.15, 0.5)
MIN_VOXELS = 3
# What the rule of three voxels may cost in a volume of few slices, in shortest extents.
MAX_FRACTION = 0.7
PLACEMENT_TRIES = 12
MIN_OVERLAP = 0.5
# A cube of edge 1 holds as much as a ball of this diameter; about the same for square and disc.
CUBE_DIAMETER = (6 / np.pi) ** (1 / 3)


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape in a box of its own.

    Attributes:
        weight: (z, y, x) in [0, 1]: how much of the new values goes in; above 0 is inside.
        anchor: A voxel inside, which will lie in the foreground.
        size_mm: Diameter.
    """

    weight: np.ndarray
    anchor: tuple[int, ...]
    size_mm: float


@dataclass(frozen=True, eq=False)
class Region:
    """A shape at its place, cut to image and foreground.

    Attributes:
        box: Where it lies in the image (z, y, x).
        weight: In [0, 1], 0 outside of shape and foreground; the box's shape.
        centre: The anchor's voxel in the image.
        size_mm: Diameter.
    """

    box: tuple[slice, ...]
    weight: np.ndarray
    centre: tuple[int, ...]
    size_mm: float

    def values(self, subject: Subject) -> np.ndarray:
        """The image's own values in the box, float64 (C, z, y, x)."""
        return subject.image[(slice(None), *self.box)].astype(np.float64)

    def offsets(self) -> np.ndarray:
        """Position of each voxel of the box relative to the centre, in voxels (3, z, y, x)."""
        starts = np.array([part.start for part in self.box])
        return np.indices(self.weight.shape) + (starts - self.centre)[:, None, None, None]


def diameters(subject: Subject, fractions: tuple[float, float] = FRACTIONS) -> tuple[float, float]:
    """The smallest and largest diameter in mm.

    Fractions of the foreground's shortest extent; but at least three voxels, of the coarsest axis where the object is
    large enough for it, and then half as much again for the largest.
    """
    spacings = [subject.spacing[axis] for axis in subject.axes]
    coarse = min(MIN_VOXELS * max(spacings), MAX_FRACTION * subject.extent_mm)
    smallest = max(fractions[0] * subject.extent_mm, coarse, MIN_VOXELS * min(spacings))
    return smallest, max(fractions[1] * subject.extent_mm, 1.5 * smallest)


def draw_diameter(subject: Subject, draw: Draw, fractions: tuple[float, float] = FRACTIONS) -> float:
    """Draw a diameter in mm from the range that `diameters` gives."""
    return float(draw.rng.uniform(*diameters(subject, fractions)))


def _offsets_mm(subject: Subject, reach_mm: float, *, least: int = 0) -> np.ndarray:
    """Positions (3, z, y, x) in mm of the voxels of a box around 0 that reaches at least so far along each axis."""
    halves = [
        max(least, int(reach_mm / subject.spacing[axis] + 1e-9)) if axis in subject.axes else 0 for axis in range(3)
    ]
    grid = np.meshgrid(*[np.arange(-half, half + 1.0) for half in halves], indexing="ij")
    return np.stack(grid) * np.reshape(subject.spacing, (3, 1, 1, 1))


def ball(subject: Subject, draw: Draw, fractions: tuple[float, float] = FRACTIONS) -> Shape:
    """A ball, in 2D a disc."""
    return ball_of(subject, draw_diameter(subject, draw, fractions))


def ball_of(subject: Subject, diameter: float) -> Shape:
    """A ball of a given diameter in mm."""
    offsets = _offsets_mm(subject, diameter / 2)
    inside = np.square(offsets).sum(axis=0) <= (diameter / 2) ** 2 * (1 + 1e-9)
    return Shape(inside.astype(float), _middle(inside), diameter)


def soft_ball(subject: Subject, draw: Draw) -> Shape:
    """A ball whose edge is smoothed by a Gaussian of 0.1 to 0.3 radii."""
    shape = ball(subject, draw)
    sigma_mm = draw.rng.uniform(0.1, 0.3) * shape.size_mm / 2
    smoothed = _smoothed(subject, shape.weight, sigma_mm)
    # Half at the surface of a flat edge: from there, weights rise from 0 without a step.
    weight = np.clip(2 * smoothed - 1, 0, 1) * (shape.weight > 0)
    return replace(shape, weight=weight / weight.max()) if weight[shape.anchor] > 0 else shape


def cube(subject: Subject, draw: Draw, fractions: tuple[float, float] = FRACTIONS) -> Shape:
    """A cube of at least three slices per axis, as large as a ball of the drawn diameter."""
    diameter = draw_diameter(subject, draw, fractions)
    offsets = _offsets_mm(subject, diameter / CUBE_DIAMETER / 2, least=1)
    inside = np.ones(offsets.shape[1:], dtype=bool)
    return Shape(inside.astype(float), _middle(inside), diameter)


def blob(subject: Subject, draw: Draw, fractions: tuple[float, float] = FRACTIONS) -> Shape:
    """A smooth random shape: a ball whose radius is bent by a random field."""
    diameter = draw_diameter(subject, draw, fractions)
    radius = diameter / 2
    offsets = _offsets_mm(subject, 1.6 * radius)
    field = _smoothed(subject, draw.rng.normal(size=offsets.shape[1:]), 0.35 * radius)
    field = (field - field.mean()) / max(field.std(), np.finfo(float).tiny)
    inside = np.sqrt(np.square(offsets).sum(axis=0)) / radius + 0.4 * np.clip(field, -2, 2) < 1
    inside = largest_piece(inside) if inside.any() else offsets.any(axis=0) == 0
    return Shape(inside.astype(float), _middle(inside), diameter)


def lesion(subject: Subject, draw: Draw) -> Shape:
    """A real lesion, brought to the drawn size and flipped at random; in 2D its largest section. Edges are soft."""
    if draw.lesion is None:
        raise ValueError("Expected a lesion for its shape, but got none; read one with read_lesion.")
    form = draw.lesion.fitted(subject.axes)
    diameter = draw_diameter(subject, draw)
    offsets = _offsets_mm(subject, diameter / 2, least=1)
    flips = draw.rng.choice([-1.0, 1.0], size=3)
    values = form.sample(offsets * flips[:, None, None, None] / diameter, [edge / diameter for edge in subject.spacing])
    inside = largest_piece(values >= 0.5 * values.max())
    weight = np.where(inside, np.maximum(_smoothed(subject, inside.astype(float), 0.7 * min(subject.spacing)), 0.1), 0)
    return Shape(weight, _middle(inside), diameter)


def _middle(inside: np.ndarray) -> tuple[int, ...]:
    """The voxel inside that is nearest to the middle of the box."""
    voxels = np.argwhere(inside)
    middle = (np.array(inside.shape) - 1) / 2
    return tuple(int(n) for n in voxels[np.square(voxels - middle).sum(axis=1).argmin()])


def _smoothed(subject: Subject, values: np.ndarray, sigma_mm: float) -> np.ndarray:
    """Gaussian smoothing in mm; axes of one voxel stay as they are, and beyond the box lies 0."""
    sigmas = [sigma_mm / subject.spacing[axis] if n > 1 else 0 for axis, n in enumerate(values.shape)]
    return ndimage.gaussian_filter(values, sigmas, mode="constant", truncate=3)


def place(subject: Subject, shape: Shape, draw: Draw) -> Region:
    """Put a shape into the foreground: at least half of it where that can be had, else the best of a dozen places."""
    inside = shape.weight > 0
    best, most = None, 0
    for _ in range(PLACEMENT_TRIES):
        voxel = draw.rng.choice(subject.foreground_voxels)
        centre = tuple(int(n) for n in np.unravel_index(voxel, subject.foreground.shape))
        box, own = _cut(shape, centre, subject.foreground.shape)
        overlap = int((inside[own] & subject.foreground[box]).sum())
        if best is None or overlap > most:
            best, most = (centre, box, own), overlap
        if overlap >= MIN_OVERLAP * inside.sum():
            break
    if best is None:
        raise ValueError("Expected at least one try to place a shape.")
    centre, box, own = best
    return Region(box, shape.weight[own] * subject.foreground[box], centre, shape.size_mm)


def _cut(shape: Shape, centre: tuple[int, ...], size: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of the shape's box that lies in an image of that size: in the image, and in the shape."""
    box, own = [], []
    for middle, anchor, width, n in zip(centre, shape.anchor, shape.weight.shape, size, strict=True):
        start = middle - anchor
        first, last = max(start, 0), min(start + width, n)
        box.append(slice(first, last))
        own.append(slice(first - start, last - start))
    return tuple(box), tuple(own)
