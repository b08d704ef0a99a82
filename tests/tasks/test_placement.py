"""Size and position of anomalies: their distributions, and how much of them lies in the foreground."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from nnood.tasks import TASKS, TaskSettings, build_task
from nnood.tasks.placement import MIN_OVERLAP, PLACEMENT_TRIES, Placement, draw_centre, draw_size, place
from nnood.tasks.random_shapes import Polyhedron, Stroke
from nnood.tasks.shapes import CUBOID, ELLIPSOID, ROTATED_CUBOID, ROTATED_ELLIPSOID, SPHERE, Outline, SoftEdge

FRACTIONS = (0.1, 0.4)


def ball(shape: tuple[int, ...], radius: float = 0.8) -> torch.Tensor:
    """An ellipsoid that reaches this far to the faces of the image."""
    axes = torch.meshgrid(*[(torch.arange(n) + 0.5) * 2 / n - 1 for n in shape], indexing="ij")
    return sum(u**2 for u in axes) < radius**2


def overlap(found: Placement, foreground: torch.Tensor) -> float:
    mask = found.outline.depth > 0
    return ((mask & foreground[found.box]).sum() / mask.sum()).item()


def settings_for(foreground: torch.Tensor, fractions: tuple[float, float] = FRACTIONS, **others) -> TaskSettings:
    where = foreground.nonzero()
    extent = (where.amax(dim=0) - where.amin(dim=0) + 1).tolist()
    return TaskSettings(tuple(extent), fractions, (0.4,), **others)


@pytest.mark.parametrize("voxels", [1, 5000])
def test_centres_lie_in_the_foreground(voxels, seeded):
    foreground = torch.zeros(30, 40, 50, dtype=torch.bool)
    foreground.view(-1)[7000 : 7000 + voxels] = True
    for seed in range(20):
        centre = draw_centre(foreground, seeded(seed))
        assert centre is not None
        assert foreground[tuple(centre)]


@pytest.mark.parametrize("thinned", [False, True])
def test_every_foreground_voxel_is_as_likely_a_centre(seeded, thinned):
    """Whether random positions hit the foreground, or it has to be listed."""
    foreground = torch.zeros((200, 200) if thinned else (4, 5), dtype=torch.bool)
    foreground[0, :5] = foreground[1:4, 2] = True
    generator = seeded(0)
    drawn = [tuple(draw_centre(foreground, generator)) for _ in range(1600)]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 8
    assert stats.chisquare(counts).pvalue > 1e-3


def test_without_foreground_there_is_no_place(seeded):
    foreground = torch.zeros(10, 10, dtype=torch.bool)
    assert draw_centre(foreground, seeded(0)) is None
    assert place(CUBOID, foreground, TaskSettings((10, 10), (0.2, 0.5), (0.4,)), seeded(0)) is None


def test_sizes_are_uniform_and_independent(seeded):
    extent = (10_000, 5000)
    settings = TaskSettings(extent, (0.2, 0.7), (0.4,))
    generator = seeded(0)
    drawn = np.array([draw_size(CUBOID, torch.Size((20_000,) * 2), settings, generator) for _ in range(2000)])
    for sizes, whole in zip(drawn.T, extent, strict=True):
        assert stats.kstest(sizes / whole, stats.uniform(0.2, 0.5).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.1


@pytest.mark.parametrize("shape", [SPHERE, Polyhedron(isotropic=True), SoftEdge(SPHERE)])
def test_isotropic_shapes_have_equal_edges_in_millimetres(seeded, shape):
    """A fraction of the middle extent is drawn: here 500 mm of 480, 500 and 900."""
    spacing = (4.0, 1.0, 0.5)
    settings = TaskSettings((120, 500, 1800), (0.2, 0.7), (0.4,), spacing=spacing)
    generator = seeded(0)
    edges = np.array([draw_size(shape, torch.Size((9999,) * 3), settings, generator) for _ in range(1000)]) * spacing
    longest = edges[:, 2]
    assert stats.kstest(longest / 500, stats.uniform(0.2, 0.5).cdf).pvalue > 1e-3
    assert np.abs(edges[:, 1] - longest).max() <= 1
    # None is longer than the largest fraction of its axis.
    assert np.abs(edges[:, 0] - np.minimum(longest, 0.7 * 480)).max() <= 4


@pytest.mark.parametrize(
    ("shape", "low"),
    [(Stroke(), 0.4), (SoftEdge(Stroke()), 0.4), (Polyhedron(grain=0.5), 0.2), (Polyhedron(grain=0.05), 0.7)],
)
def test_shapes_of_small_pieces_get_no_small_boxes(seeded, shape, low):
    settings = TaskSettings((10_000, 10_000), (0.1, 0.7), (0.4,))
    generator = seeded(0)
    drawn = np.array([draw_size(shape, torch.Size((20_000,) * 2), settings, generator) for _ in range(500)])[:, 0]
    assert drawn.min() >= 10_000 * low
    assert drawn.max() <= 7000
    if low < 0.7:
        assert stats.kstest(drawn / 10_000, stats.uniform(low, 0.7 - low).cdf).pvalue > 1e-3


def test_no_edge_is_longer_than_the_image_or_shorter_than_a_voxel(seeded):
    settings = TaskSettings((100, 4, 100), (0.05, 0.9), (0.4,))
    for seed in range(50):
        size = draw_size(CUBOID, torch.Size((20, 10, 1)), settings, seeded(seed))
        assert all(1 <= edge <= most for edge, most in zip(size, (20, 4, 1), strict=True))


@pytest.mark.parametrize("shape", [CUBOID, ELLIPSOID])
def test_places_are_inside_of_the_wanted_size_and_overlap_the_foreground(shape, seeded):
    foreground = torch.zeros(30, 40, 20, dtype=torch.bool)
    foreground[5:25, 5:35, 4:16] = True
    starts = set()
    for seed in range(50):
        found = place(shape, foreground, TaskSettings((20, 30, 12), (0.25, 0.5), (0.4,)), seeded(seed))
        assert found is not None
        for box, total, whole in zip(found.box, foreground.shape, (20, 30, 12), strict=True):
            assert 0 <= box.start < box.stop <= total
            assert math.floor(0.25 * whole) <= box.stop - box.start <= math.ceil(0.5 * whole)
        assert found.outline.depth.shape == tuple(part.stop - part.start for part in found.box)
        assert overlap(found, foreground) >= MIN_OVERLAP
        starts.add(tuple(box.start for box in found.box))
    assert len(starts) > 40


@pytest.mark.parametrize(
    "shape", [CUBOID, SPHERE, ROTATED_CUBOID, ROTATED_ELLIPSOID, Stroke(), Polyhedron(), Polyhedron(count=(2, 5))]
)
@pytest.mark.parametrize("size", [(50, 60), (24, 30, 28)])
def test_nearly_all_places_are_at_least_half_in_the_foreground(shape, size, seeded):
    foreground = ball(size)
    settings = settings_for(foreground)
    generator = seeded(0)
    overlaps = [overlap(place(shape, foreground, settings, generator), foreground) for _ in range(200)]
    assert np.mean(np.array(overlaps) >= MIN_OVERLAP) >= 0.99
    # They are not all in the middle of it either.
    assert np.mean(np.array(overlaps) < 1) > 0.1


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("size", [(50, 60), (24, 30, 28)])
def test_every_task_is_placed_in_the_foreground(name, size, seeded):
    foreground = ball(size)
    lesions = torch.zeros(1, 32, 32, 32, dtype=torch.uint8)
    lesions[0, 6:26, 10:20, 8:24] = 255
    task = build_task(name, settings_for(foreground, lesions=lesions))
    generator = seeded(0)
    for number in range(40):
        shape = task.shapes[number % len(task.shapes)]
        found = place(shape, foreground, task.settings, generator, foreground_only=task.foreground_only)
        assert found is not None
        assert overlap(found, foreground) >= (1 if task.foreground_only else MIN_OVERLAP)


@pytest.mark.parametrize("shape", [ROTATED_CUBOID, SoftEdge(ELLIPSOID), Stroke()])
def test_in_the_foreground_only_means_nothing_outside(shape, seeded):
    foreground = ball((30, 40))
    settings = settings_for(foreground, (0.3, 0.6))
    cut = 0
    for seed in range(40):
        plain = place(shape, foreground, settings, seeded(seed))
        found = place(shape, foreground, settings, seeded(seed), foreground_only=True)
        assert found.box == plain.box
        inside = foreground[found.box]
        assert (found.outline.depth[~inside] <= 0).all()
        assert torch.equal(found.outline.depth[inside], plain.outline.depth[inside])
        cut += bool((plain.outline.depth[~inside] > 0).any())
    assert cut > 10


class Scripted:
    """A shape whose outlines cover given numbers of voxels of a box of 10 x 10, from the first row on."""

    isotropic = False
    grain = 1.0

    def __init__(self, *voxels: int) -> None:
        self.voxels = voxels
        self.calls = 0

    def __call__(self, size: list[int], generator: torch.Generator, device: torch.device) -> Outline:
        assert size == [10, 10]
        depth = torch.zeros(100)
        depth[: self.voxels[self.calls]] = 0.5
        self.calls += 1
        return Outline(depth.reshape(10, 10))


# In the foreground is a row of ten voxels: more voxels, less overlap.
@pytest.mark.parametrize(
    ("voxels", "calls", "chosen"),
    [
        ((15,), 1, 15),
        ((40, 100, 20), 3, 20),
        ((50, 80, 30, 60, 100), PLACEMENT_TRIES, 30),
        ((0, 0, 100, 0, 0), PLACEMENT_TRIES, 100),
    ],
)
def test_the_best_of_a_fixed_number_of_tries_is_taken(voxels, calls, chosen, seeded):
    foreground = torch.zeros(10, 10, dtype=torch.bool)
    foreground[0] = True
    shape = Scripted(*voxels)
    found = place(shape, foreground, TaskSettings((10, 10), (1.0, 1.0), (0.4,)), seeded(0))
    assert found is not None
    assert shape.calls == calls
    assert (found.outline.depth > 0).sum() == chosen


def test_shapes_without_an_inside_have_no_place(seeded):
    shape = Scripted(0, 0, 0, 0, 0)
    settings = TaskSettings((10, 10), (1.0, 1.0), (0.4,))
    assert place(shape, torch.ones(10, 10, dtype=torch.bool), settings, seeded(0)) is None
    assert shape.calls == PLACEMENT_TRIES


def test_the_same_seed_the_same_place(seeded):
    foreground = ball((30, 40))
    first, again = (place(ROTATED_CUBOID, foreground, settings_for(foreground), seeded(3)) for _ in range(2))
    assert first.box == again.box
    assert torch.equal(first.outline.depth, again.outline.depth)


def test_a_spacing_per_axis_is_wanted():
    assert TaskSettings((3, 4, 5), (0.1, 0.2), (1.0,)).spacing == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="spacing per axis"):
        TaskSettings((3, 4), (0.1, 0.2), (1.0,), spacing=(1.0, 1.0, 1.0))
