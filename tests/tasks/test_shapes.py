import itertools
import math

import numpy as np
import pytest
import torch

from nnood.tasks.shapes import MIN_OVERLAP, cuboid, draw_centre, ellipsoid, place

CPU = torch.device("cpu")
SIZES = [*itertools.product((1, 2, 3, 7), repeat=2), *itertools.product((1, 2, 5), repeat=3)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [cuboid, ellipsoid])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_an_inside_and_is_symmetric(shape, size):
    depth = shape(size, CPU)
    assert depth.shape == size
    assert depth.max() <= 1
    assert (depth > 0).any()
    for axis in range(len(size)):
        torch.testing.assert_close(depth, depth.flip(axis))


@pytest.mark.parametrize("size", [(9, 12), (8, 11, 14)])
def test_depths_in_closed_form(size):
    r = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * 2 / n - 1 for n in size], indexing="ij"))
    np.testing.assert_allclose(cuboid(size, CPU).numpy(), 1 - np.abs(r).max(axis=0), atol=1e-6)
    np.testing.assert_allclose(ellipsoid(size, CPU).numpy(), 1 - np.sqrt((r**2).sum(axis=0)), atol=1e-6)


def test_cuboid_fills_its_box_and_ellipsoid_has_its_volume():
    size = (40, 50, 60)
    assert (cuboid(size, CPU) > 0).all()
    assert (ellipsoid(size, CPU) > 0).float().mean().item() == pytest.approx(math.pi / 6, rel=0.01)


def test_a_flat_ellipsoid_is_an_ellipse():
    torch.testing.assert_close(ellipsoid((1, 9, 12), CPU)[0], ellipsoid((9, 12), CPU))


@pytest.mark.parametrize("voxels", [1, 5000])
def test_centres_lie_in_the_foreground(voxels):
    foreground = torch.zeros(30, 40, 50, dtype=torch.bool)
    foreground.view(-1)[7000 : 7000 + voxels] = True
    for seed in range(20):
        centre = draw_centre(foreground, generator(seed))
        assert centre is not None
        assert foreground[tuple(centre)]


def test_without_foreground_there_is_no_place():
    foreground = torch.zeros(10, 10, dtype=torch.bool)
    assert draw_centre(foreground, generator()) is None
    assert place(cuboid, foreground, (10, 10), (0.2, 0.5), generator()) is None


@pytest.mark.parametrize("shape", [cuboid, ellipsoid])
def test_places_are_inside_of_the_wanted_size_and_overlap_the_foreground(shape):
    foreground = torch.zeros(30, 40, 20, dtype=torch.bool)
    foreground[5:25, 5:35, 4:16] = True
    starts = set()
    for seed in range(50):
        found = place(shape, foreground, (20, 30, 12), (0.25, 0.5), generator(seed))
        assert found is not None
        for box, total, whole in zip(found.box, foreground.shape, (20, 30, 12), strict=True):
            assert 0 <= box.start < box.stop <= total
            assert math.floor(0.25 * whole) <= box.stop - box.start <= math.ceil(0.5 * whole)
        mask = found.depth > 0
        assert (mask & foreground[found.box]).sum() >= MIN_OVERLAP * mask.sum()
        starts.add(tuple(box.start for box in found.box))
    assert len(starts) > 40
