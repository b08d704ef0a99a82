"""Templates of lesions: bodies of known volume, at any spacing."""

import math

import numpy as np
import pytest

from nnood.tasks.lesions import EDGE, MIN_VOXELS, lesion_template

CUBIC = (1.0, 1.0, 1.0)


def ball(radius: float, spacing: tuple[float, ...] = CUBIC, pad: int = 3) -> np.ndarray:
    """A ball of a radius in mm, in a grid just larger than that."""
    counts = [2 * (int(radius / edge) + pad) + 1 for edge in spacing]
    axes = [(np.arange(n) - n // 2) * edge for n, edge in zip(counts, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius**2


def inside(mask: np.ndarray, spacing: tuple[float, ...] = CUBIC) -> np.ndarray:
    template = lesion_template(mask, spacing)
    assert template is not None
    assert template.shape == (EDGE,) * 3
    assert template.dtype == np.uint8
    assert template.max() == 255
    return template > 127


def test_a_ball_touches_the_cube():
    template = inside(ball(40.0))
    assert template.mean() == pytest.approx(math.pi / 6, rel=0.08)
    assert template.mean() < math.pi / 6
    where = np.argwhere(template)
    assert (where.min(axis=0) <= 1).all()
    assert (where.max(axis=0) >= EDGE - 2).all()


def test_size_does_not_matter():
    differing = inside(ball(20.0)) != inside(ball(40.0))
    assert differing.mean() < 0.06


@pytest.mark.parametrize("spacing", [(2.0, 1.0, 0.5), (0.5, 0.5, 3.0), (4.0, 1.0, 1.0)])
def test_the_spacing_is_heeded(spacing):
    cubic, stretched = inside(ball(40.0)), inside(ball(40.0, spacing), spacing)
    # Half a voxel's diagonal more or less for the enclosing ball is all the difference.
    assert (cubic != stretched).mean() < 0.06
    np.testing.assert_allclose(np.argwhere(stretched).mean(axis=0), (EDGE - 1) / 2, atol=0.3)


def test_a_cube_fits_into_its_enclosing_ball():
    template = inside(np.ones((40, 40, 40), dtype=bool))
    edge = EDGE / math.sqrt(3)
    assert template.mean() == pytest.approx((edge / EDGE) ** 3, rel=0.08)
    np.testing.assert_allclose(np.ptp(np.argwhere(template), axis=0) + 1, edge, atol=1)


def test_direction_and_proportions_are_kept():
    template = inside(np.ones((10, 20, 40), dtype=bool))
    extents = np.ptp(np.argwhere(template), axis=0) + 1
    np.testing.assert_allclose(extents / extents[2], [0.25, 0.5, 1], atol=0.06)


def test_where_the_lesion_lies_does_not_matter():
    mask = np.zeros((60, 50, 70), dtype=bool)
    mask[5:15, 20:41, 50:65] = True
    np.testing.assert_array_equal(lesion_template(mask, CUBIC), lesion_template(np.roll(mask, (9, -20, -33)), CUBIC))
    moved = np.zeros_like(mask)
    moved[40:50, 3:24, 0:15] = True
    np.testing.assert_array_equal(lesion_template(mask, CUBIC), lesion_template(moved, CUBIC))


def test_only_the_largest_piece_is_kept():
    alone = np.zeros((70, 30, 30), dtype=bool)
    alone[22:38, 5:25, 5:25] = True
    for smaller in (slice(2, 12), slice(50, 60)):
        mask = alone.copy()
        mask[smaller, 5:25, 5:25] = True
        np.testing.assert_array_equal(lesion_template(mask, CUBIC), lesion_template(alone, CUBIC))


def test_voxels_that_meet_at_a_corner_are_one_piece():
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[2:8, 2:8, 2:8] = True
    mask[8:14, 8:14, 8:14] = True
    half = EDGE // 2
    octants = inside(mask).reshape(2, half, 2, half, 2, half).mean(axis=(1, 3, 5))
    assert octants[0, 0, 0] == pytest.approx(octants[1, 1, 1], rel=0.05)
    assert octants[0, 0, 0] > 0.1
    assert octants.sum() == pytest.approx(2 * octants[0, 0, 0], rel=0.05)


def test_tiny_lesions_have_no_form():
    mask = np.zeros((10, 10, 10), dtype=bool)
    assert lesion_template(mask, CUBIC) is None
    mask.flat[: MIN_VOXELS - 1] = True
    assert lesion_template(mask, CUBIC) is None
    mask.flat[:MIN_VOXELS] = True
    assert lesion_template(mask, CUBIC) is not None


def test_many_tiny_pieces_are_no_lesion():
    mask = np.zeros((30, 30, 30), dtype=bool)
    mask[::4, ::4, ::4] = True
    assert mask.sum() > 10 * MIN_VOXELS
    assert lesion_template(mask, CUBIC) is None


@pytest.mark.parametrize(("width", "length"), [(1, 60), (1, 200), (2, 200), (3, 120)])
def test_a_thin_lesion_leaves_a_trace(width, length):
    mask = np.zeros((length, 5, 5), dtype=bool)
    mask[:, 1 : 1 + width, 1 : 1 + width] = True
    where = np.argwhere(inside(mask))
    assert np.ptp(where[:, 0]) >= EDGE - 4
    assert np.ptp(where[:, 1:], axis=0).max() <= 3


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.5, 0.5), (1.0, 0.5, 1.5)])
def test_a_disc_of_one_slice_becomes_as_thick_as_it_is_wide(spacing):
    grid = (1.0, *spacing[1:])
    disc = ball(20.0, grid)
    template = inside(disc[len(disc) // 2][None], spacing)
    # A cylinder as high as it is wide, in its enclosing ball.
    assert template.mean() == pytest.approx(math.pi / 4 / math.sqrt(2) ** 3, rel=0.15)
    extents = np.ptp(np.argwhere(template), axis=0) + 1
    np.testing.assert_allclose(extents, EDGE / math.sqrt(2), atol=2)
