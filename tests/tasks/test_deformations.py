"""Sinks and sources in closed form; reflections and shuffles as permutations."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from nnood.tasks.deformations import Radial, reflection, shuffled_slices
from nnood.tasks.donors import Donors
from nnood.tasks.random_shapes import Stroke
from nnood.tasks.shapes import CUBOID, ELLIPSOID, ROTATED_CUBOID, ROTATED_ELLIPSOID, Convex, SoftEdge

CPU = torch.device("cpu")
CONVEX = [CUBOID, ELLIPSOID, ROTATED_CUBOID, ROTATED_ELLIPSOID]
# Size of the box and a place in it that is not its middle.
PLACES = [((31, 40), (11, 25)), ((13, 16, 18), (5, 9, 11))]


@pytest.fixture
def deform(make_region, seeded, monkeypatch):
    """Applies a deformation about a given centre to an image that is all box."""

    def compute(texture, image: torch.Tensor, shape: Convex, centre=None) -> np.ndarray:
        if centre is not None:
            monkeypatch.setattr("nnood.tasks.deformations.draw_centre", lambda *_: list(centre))
        outline = shape(image.shape[1:], seeded(3), CPU)
        return texture(make_region(image, outline=outline), Donors(), seeded(0)).numpy()

    return compute


def mask_of(shape: Convex, size: tuple[int, ...]) -> np.ndarray:
    return (shape(size, torch.Generator().manual_seed(3), CPU).depth > 0).numpy()


def share_of_ray(size: tuple[int, ...], centre: tuple[int, ...], euclidean: bool) -> np.ndarray:
    """How far each voxel lies from the centre towards the faces of the box, or of the ellipsoid in it.

    For the ellipsoid |c + t q| = 1 has the positive solution t by the quadratic formula.
    """
    u = np.stack([(np.indices(size)[axis] + 0.5) * 2 / n - 1 for axis, n in enumerate(size)])
    c = np.array([(v + 0.5) * 2 / n - 1 for v, n in zip(centre, size, strict=True)]).reshape(-1, *[1] * len(size))
    q = u - c
    if not euclidean:
        return np.maximum(q / (1 - c), -q / (1 + c)).max(axis=0)
    a, b, rest = (q**2).sum(axis=0), 2 * (c * q).sum(axis=0), (c**2).sum() - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (-b + np.sqrt(b**2 - 4 * a * rest)) / (2 * a)
    return np.where(a == 0, 0, 1 / t)


@pytest.mark.parametrize(("size", "centre"), PLACES)
@pytest.mark.parametrize("shape", [CUBOID, ELLIPSOID])
@pytest.mark.parametrize("factor", [2.0, 3.5])
@pytest.mark.parametrize("inwards", [True, False])
def test_in_closed_form(deform, positions_image, size, centre, shape, factor, inwards):
    """On an image of positions: every voxel shows the one at 1 - (1 - u)^f, or u^f, of its ray."""
    read = deform(Radial(inwards, (factor, factor)), positions_image(size), shape, centre)
    u = share_of_ray(size, centre, shape.euclidean)
    wanted = 1 - (1 - u.clip(0, 1)) ** factor if inwards else u**factor
    middle = np.array(centre).reshape(-1, *[1] * len(size))
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = middle + np.where(u > 0, wanted / u, 0) * (np.indices(size) - middle)
    # Half a voxel at the faces is beyond the middles of the outermost voxels, where values repeat.
    expected = expected.clip(0, np.array(size).reshape(middle.shape) - 1)
    inside = mask_of(shape, size)
    np.testing.assert_allclose(read[:, inside], expected[:, inside], atol=5e-3)


@pytest.mark.parametrize(("inwards", "shown"), [(True, 0.75), (False, 0.25)])
@pytest.mark.parametrize("shape", [CUBOID, ELLIPSOID])
def test_half_way_to_the_border(deform, positions_image, shape, inwards, shown):
    """With a factor of 2, half-way lies what was at three or one quarters of the way: along both arms of an axis."""
    size, centre = (41, 60), (20, 24)
    read = deform(Radial(inwards, (2.0, 2.0)), positions_image(size), shape, centre)
    for border in (-0.5, 59.5):
        way = border - 24
        row, column = (np.interp(24 + way / 2, np.arange(60), read[axis, 20]) for axis in (0, 1))
        assert column == pytest.approx(24 + shown * way, abs=0.02)
        assert row == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize(("size", "centre"), PLACES)
@pytest.mark.parametrize("shape", CONVEX)
@pytest.mark.parametrize("inwards", [True, False])
def test_the_border_and_the_centre_stay_and_all_else_moves_the_right_way(
    deform, positions_image, size, centre, shape, inwards
):
    image = positions_image(size)
    read = deform(Radial(inwards, (2.0, 2.0)), image, shape, centre)
    middle = np.array(centre).reshape(-1, *[1] * len(size))
    before, after = (np.linalg.norm(values - middle, axis=0) for values in (image.numpy(), read))
    np.testing.assert_allclose(read[(slice(None), *centre)], centre, atol=1e-3)
    outline = shape(size, torch.Generator().manual_seed(3), CPU)
    u = outline.frame.gauge(centre).expand(size).numpy()
    inside = u < 1
    assert (after[inside] >= before[inside] - 1e-2).all() if inwards else (after[inside] <= before[inside] + 1e-2).all()
    halfway = (u > 0.4) & (u < 0.6) & (before > 2)
    assert (np.abs(after - before)[halfway] > 0.15 * before[halfway]).all()
    # At u near 1, |1 - (1 - u)^2 - u| and |u^2 - u| are u (1 - u).
    border = (u > 0.95) & inside
    assert border.any()
    assert (np.abs(after - before)[border] <= 0.06 * before[border] + 0.51).all()


@pytest.mark.parametrize(("size", "centre"), PLACES)
@pytest.mark.parametrize("shape", CONVEX)
@pytest.mark.parametrize("inwards", [True, False])
def test_nothing_comes_from_outside_of_the_shape(deform, size, centre, shape, inwards):
    """But for interpolation between the last voxels inside and their neighbours."""
    mask = mask_of(shape, size)
    near = ndimage.binary_dilation(mask, np.ones((3,) * len(size)))
    if shape is CUBOID:
        mask = near = np.ones(size, dtype=bool)
    image = np.random.default_rng(0).uniform(1, 2, size=size).astype(np.float32)
    image[~near] = 1e6
    for factor in (1.5, 4.0):
        read = deform(Radial(inwards, (factor, factor)), torch.from_numpy(image)[None], shape, centre)[0]
        assert read[mask].min() >= 1 - 1e-3
        assert read[mask].max() <= 2 + 1e-3


def test_a_centre_close_to_the_border_makes_no_trouble(deform, positions_image):
    for shape in (CUBOID, ELLIPSOID):
        size = (21, 21)
        inside = mask_of(shape, size)
        row, column = np.argwhere(inside)[0]
        for inwards in (True, False):
            read = deform(Radial(inwards, (4.0, 4.0)), positions_image(size), shape, (row, column))
            assert np.isfinite(read).all()
            # What is read lies inside, up to one voxel.
            where = np.round(read[:, inside]).astype(int)
            assert ndimage.binary_dilation(inside, np.ones((3, 3)))[tuple(where)].all()


def test_centres_and_factors_are_drawn(make_region, seeded, positions_image):
    """A source is flattest at its centre; u^f, half-way to the farther border, gives away the factor."""
    size = (1, 401)
    region = make_region(positions_image(size), outline=CUBOID(size, seeded(0), CPU))
    centres, factors = [], []
    for seed in range(300):
        read = Radial(inwards=False)(region, Donors(), seeded(seed))[1, 0].double().numpy()
        # The flattest place is the centre.
        centre = int(np.argmin(np.abs(read[2:] - read[:-2]))) + 1
        right = centre < 200
        way = (400.5 - centre) if right else (centre + 0.5)
        half = centre + (1 if right else -1) * round(way / 2)
        u = abs(half - centre) / way
        factors.append(np.log(abs(read[half] - centre) / way) / np.log(u))
        centres.append(centre)
    assert stats.kstest(centres, stats.uniform(0, 401).cdf).pvalue > 1e-3
    assert stats.kstest(factors, stats.uniform(1.5, 2.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [SoftEdge(ELLIPSOID), Stroke()])
def test_shapes_that_are_not_convex_are_not_deformed(make_region, seeded, shape):
    image = torch.randn(1, 20, 20, generator=seeded(0))
    region = make_region(image, outline=shape((20, 20), seeded(0), CPU))
    assert Radial(inwards=True)(region, Donors(), seeded(0)) is None


@pytest.mark.parametrize("size", [(7, 9), (5, 6, 7), (1, 7, 9)])
@pytest.mark.parametrize("texture", [reflection, shuffled_slices])
def test_each_axis_of_more_than_one_voxel_is_permuted(make_region, seeded, positions_image, texture, size):
    """On an image of positions: one axis is permuted, the same in all lines, the others are as they were."""
    image = positions_image(size)
    region = make_region(image)
    counts = dict.fromkeys((axis for axis, n in enumerate(size) if n > 1), 0)
    for seed in range(60):
        read = texture(region, Donors(), seeded(seed)).numpy()
        moved = [axis for axis in range(len(size)) if not np.array_equal(read[axis], image[axis].numpy())]
        if not moved:
            continue
        (axis,) = moved
        counts[axis] += 1
        order = np.moveaxis(read[axis], axis, 0).reshape(size[axis], -1)
        assert (order == order[:, :1]).all()
        assert sorted(order[:, 0]) == list(range(size[axis]))
        if texture is reflection:
            assert list(order[:, 0]) == list(range(size[axis]))[::-1]
    assert min(counts.values()) >= 60 / len(counts) / 3
    assert sum(counts.values()) >= 58


def test_shuffles_are_not_always_the_same(make_region, seeded):
    region = make_region(torch.arange(6.0).reshape(1, 1, 6))
    orders = {tuple(shuffled_slices(region, Donors(), seeded(seed)).flatten().tolist()) for seed in range(50)}
    assert len(orders) > 40


@pytest.mark.parametrize("texture", [reflection, shuffled_slices, Radial(inwards=True)])
def test_a_single_voxel_cannot_be_moved(make_region, seeded, texture):
    region = make_region(torch.ones(1, 1, 1), outline=CUBOID((1, 1), seeded(0), CPU))
    assert texture(region, Donors(), seeded(0)) is None
