"""Depth maps in closed form, volumes, and rays against a brute-force search."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.signal import windows

from nnood.tasks.placement import draw_centre
from nnood.tasks.random_shapes import Lesion, Polyhedron, Stroke
from nnood.tasks.shapes import (
    CUBOID,
    ELLIPSOID,
    ROTATED_CUBOID,
    ROTATED_ELLIPSOID,
    SPHERE,
    Convex,
    Outline,
    Shape,
    SoftEdge,
    box_coordinates,
)

CPU = torch.device("cpu")
SIZES = [*itertools.product((1, 2, 3, 7), repeat=2), *itertools.product((1, 2, 5), repeat=3)]
SMALL_SIZES = [(1, 1), (1, 9), (2, 2), (3, 8), (1, 1, 1), (2, 2, 2), (5, 1, 7), (1, 9, 1), (3, 4, 3)]
# A block off the middle.
BLOCK = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
BLOCK[:, 4:12, 5:12, 4:9] = 255
SHAPES: dict[str, Shape] = {
    "cuboid": CUBOID,
    "ellipsoid": ELLIPSOID,
    "sphere": SPHERE,
    "rotated cuboid": ROTATED_CUBOID,
    "rotated ellipsoid": ROTATED_ELLIPSOID,
    "soft ellipsoid": SoftEdge(ELLIPSOID),
    "stroke": Stroke(),
    "polyhedron": Polyhedron(),
    "polyhedra": Polyhedron(count=(2, 5)),
    "lesion": Lesion(BLOCK),
    "soft lesion": SoftEdge(Lesion(BLOCK), (1, 3)),
}
ROTATED = {"cuboid": ROTATED_CUBOID, "ellipsoid": ROTATED_ELLIPSOID}
FINE = [(60, 80), (40, 31, 50)]


def drawn(shape: Shape, size: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return shape(size, torch.Generator().manual_seed(seed), CPU).depth


def in_box(size: tuple[int, ...]) -> np.ndarray:
    """Positions of voxels with -1 and 1 at the faces, (D, *size)."""
    return np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * 2 / n - 1 for n in size], indexing="ij"))


@pytest.mark.parametrize("shape", [CUBOID, ELLIPSOID])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_an_inside_and_is_symmetric(shape, size):
    depth = drawn(shape, size)
    assert depth.shape == size
    assert depth.max() <= 1
    assert (depth > 0).any()
    for axis in range(len(size)):
        torch.testing.assert_close(depth, depth.flip(axis))


@pytest.mark.parametrize("size", SMALL_SIZES)
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_has_an_inside_at_every_size(name, size):
    for seed in range(20):
        depth = drawn(SHAPES[name], size, seed)
        assert depth.shape == size
        assert depth.dtype == torch.float32
        assert torch.isfinite(depth).all()
        assert depth.max() <= 1 + 1e-6
        assert (depth > 0).any()


@pytest.mark.parametrize("size", [(20, 30), (12, 15, 10)])
@pytest.mark.parametrize("name", list(SHAPES)[3:])
def test_the_seed_decides(name, size):
    first, again, other = (drawn(SHAPES[name], size, seed) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("size", [(9, 12), (8, 11, 14)])
def test_depths_in_closed_form(size):
    r = in_box(size)
    np.testing.assert_allclose(drawn(CUBOID, size).numpy(), 1 - np.abs(r).max(axis=0), atol=1e-6)
    for shape in (ELLIPSOID, SPHERE):
        np.testing.assert_allclose(drawn(shape, size).numpy(), 1 - np.sqrt((r**2).sum(axis=0)), atol=1e-6)


def test_cuboid_fills_its_box_and_ellipsoid_has_its_volume():
    size = (40, 50, 60)
    assert (drawn(CUBOID, size) > 0).all()
    assert (drawn(ELLIPSOID, size) > 0).float().mean().item() == pytest.approx(math.pi / 6, rel=0.01)


def test_a_flat_ellipsoid_is_an_ellipse():
    torch.testing.assert_close(drawn(ELLIPSOID, (1, 9, 12))[0], drawn(ELLIPSOID, (9, 12)))


def test_only_the_sphere_wants_equal_edges():
    assert [shape.isotropic for shape in (SPHERE, CUBOID, ROTATED_ELLIPSOID)] == [True, False, False]
    assert [SoftEdge(shape).isotropic for shape in (SPHERE, CUBOID)] == [True, False]


@pytest.mark.parametrize("size", FINE)
@pytest.mark.parametrize("name", ROTATED)
def test_volume_of_a_rotated_shape_is_its_determinant(name, size):
    whole = 1.0 if name == "cuboid" else {2: math.pi / 4, 3: math.pi / 6}[len(size)]
    volumes = []
    for seed in range(15):
        matrix = ROTATED[name].matrix(len(size), torch.Generator().manual_seed(seed))
        volumes.append(abs(np.linalg.det(matrix)) * whole)
        assert (drawn(ROTATED[name], size, seed) > 0).float().mean().item() == pytest.approx(volumes[-1], rel=0.02)
    assert max(volumes) > 1.05 * min(volumes)


@pytest.mark.parametrize("size", FINE)
@pytest.mark.parametrize("name", ROTATED)
def test_a_rotated_shape_touches_all_faces_of_its_box(name, size):
    for seed in range(15):
        inside = (drawn(ROTATED[name], size, seed) > 0).nonzero().numpy()
        assert (inside.min(axis=0) <= 1).all()
        assert (inside.max(axis=0) >= np.array(size) - 2).all()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_map_of_a_rotated_shape_reaches_exactly_the_faces(dimensions):
    corners = np.array(list(itertools.product((-1, 1), repeat=dimensions)))
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(200_000, dimensions))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    for seed in range(5):
        cuboid, ellipsoid = (
            shape.matrix(dimensions, torch.Generator().manual_seed(seed)) for shape in ROTATED.values()
        )
        np.testing.assert_allclose((corners @ cuboid.T).max(axis=0), 1)
        reach = (ball @ ellipsoid.T).max(axis=0)
        assert (reach <= 1 + 1e-12).all()
        assert (reach > 0.995).all()


def test_rotated_ellipses_lie_on_both_diagonals_and_are_long_and_round(seeded, assert_share):
    """One that touches all faces of a square has its axes on the diagonals; which one is the long axis is open."""
    slants, ratios = [], []
    for seed in range(300):
        matrix = ROTATED_ELLIPSOID.matrix(2, seeded(seed))
        slants.append((matrix @ matrix.T)[0, 1])
        lengths = np.linalg.svd(matrix, compute_uv=False)
        ratios.append(lengths[0] / lengths[1])
    assert_share(sum(slant > 0 for slant in slants), len(slants), 1 / 2)
    assert min(ratios) < 1.1
    assert max(ratios) > 1.6


def gauge_by_search(shape: Convex, size: tuple[int, ...], seed: int, centre: list[int]) -> np.ndarray:
    """Where voxels lie on their rays from the centre, the border being found by bisection along each ray."""
    inverse = np.eye(len(size))
    if shape.rotated:
        inverse = np.linalg.inv(shape.matrix(len(size), torch.Generator().manual_seed(seed)))
    u = np.einsum("ij,j...->i...", inverse, in_box(size))
    start = u[(slice(None), *centre)].reshape(-1, *[1] * len(size))
    low, high = np.zeros(size), np.full(size, 1e4)
    for _ in range(60):
        middle = (low + high) / 2
        point = start + middle * (u - start)
        norm = np.sqrt((point**2).sum(axis=0)) if shape.euclidean else np.abs(point).max(axis=0)
        low, high = np.where(norm < 1, middle, low), np.where(norm < 1, high, middle)
    reached = 1 / low
    reached[tuple(centre)] = 0
    return reached


@pytest.mark.parametrize("size", [(21, 26), (11, 14, 12)])
@pytest.mark.parametrize("shape", [CUBOID, ELLIPSOID, ROTATED_CUBOID, ROTATED_ELLIPSOID])
def test_gauge_is_the_share_of_the_way_to_the_border(shape, size, seeded):
    for seed in range(4):
        outline = shape(size, seeded(seed), CPU)
        assert outline.frame is not None
        # Not so near the border that a ray's length is a matter of rounding.
        centre = draw_centre(outline.depth > 0.05, seeded(seed))
        assert centre is not None
        assert centre != [n // 2 for n in size]
        gauge = outline.frame.gauge(centre).expand(size).numpy()
        assert gauge[tuple(centre)] == 0
        np.testing.assert_allclose(gauge, gauge_by_search(shape, size, seed, centre), atol=1e-4, rtol=1e-3)
        assert ((gauge < 1) == (outline.depth.numpy() > 0)).mean() > 0.999


@pytest.mark.parametrize("shape", [CUBOID, ELLIPSOID])
def test_gauge_grows_evenly_along_a_ray(shape):
    frame = shape((31, 41), torch.Generator(), CPU).frame
    gauge = frame.gauge([12, 9])
    for step in ((1, 2), (-2, 3), (0, 1), (-1, 0)):
        along = torch.stack([gauge[12 + k * step[0], 9 + k * step[1]] for k in range(1, 6)])
        torch.testing.assert_close(along, along[0] * torch.arange(1.0, 6))


def test_gauge_of_a_flat_box_is_that_of_its_slice():
    flat = ELLIPSOID((1, 12, 17), torch.Generator(), CPU).frame.gauge([0, 4, 9])
    torch.testing.assert_close(flat[0], ELLIPSOID((12, 17), torch.Generator(), CPU).frame.gauge([4, 9]))


def test_box_coordinates_leave_out_single_voxels():
    axes = box_coordinates((1, 3, 2), CPU)
    assert [tuple(axis.shape) for axis in axes] == [(1, 3, 1), (1, 1, 2)]
    np.testing.assert_allclose(axes[0].flatten(), [-2 / 3, 0, 2 / 3], atol=1e-6)
    np.testing.assert_allclose(axes[1].flatten(), [-0.5, 0.5], atol=1e-6)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [(25, 19), (14, 17, 12), (4, 20), (1, 15, 9)])
def test_soft_edges_are_a_smoothed_smaller_mask(kernel, size):
    inner = tuple(max(1, n - kernel + 1) for n in size)
    mask = drawn(ROTATED_ELLIPSOID, inner, 3) > 0
    expected = np.pad(
        mask.double().numpy(), [((n - m) // 2, n - m - (n - m) // 2) for n, m in zip(size, inner, strict=True)]
    )
    window = windows.gaussian(kernel, 0.3 * ((kernel - 1) / 2 - 1) + 0.8)
    for axis, n in enumerate(size):
        if n > 1:
            expected = ndimage.correlate1d(expected, window / window.sum(), axis=axis, mode="constant")
    depth = drawn(SoftEdge(ROTATED_ELLIPSOID, (kernel,)), size, 3).numpy()
    np.testing.assert_allclose(depth, expected / expected.max(), atol=1e-6)
    assert depth.min() >= 0
    assert depth.max() == 1


def test_an_edge_of_one_voxel_is_hard():
    soft, hard = (drawn(shape, (20, 30), 3) for shape in (SoftEdge(ROTATED_CUBOID, (1,)), ROTATED_CUBOID))
    assert torch.equal(soft, (hard > 0).float())


def test_all_kernels_are_equally_likely(assert_share):
    """A soft cuboid's value at the middle of a face tells its kernel."""
    faces = [round(drawn(SoftEdge(CUBOID), (21, 21), seed)[0, 10].item(), 4) for seed in range(1000)]
    values, counts = np.unique(faces, return_counts=True)
    assert len(values) == 4
    for count in counts:
        assert_share(int(count), 1000, 1 / 4)


def test_soft_edges_have_no_frame():
    outline = SoftEdge(ELLIPSOID)((9, 9), torch.Generator(), CPU)
    assert isinstance(outline, Outline)
    assert outline.frame is None
