"""What the published tasks do to an image, seen from the image alone."""

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from nnood.tasks import TaskSettings, build_task
from nnood.tasks.donors import Donors
from nnood.tasks.task import Corrupted

SHAPES = [(30, 26), (14, 20, 16)]
MEAN = 1.0


class Planted:
    """A task's work on one image of two channels, with one donor."""

    def __init__(self, name: str, shape: tuple[int, ...], seed: int, **settings) -> None:
        generator = torch.Generator().manual_seed(1)
        self.image, self.donor = torch.randn(2, 1, 2, *shape, generator=generator) + MEAN
        donors = Donors()
        donors.begin_batch(["donor"], self.donor)
        donors.begin_batch(["target"], self.image)
        settings = TaskSettings(shape, (0.3, 0.6), (0.3, 0.3), repeat=0.0, **settings)
        foreground = torch.ones(1, *shape, dtype=torch.bool)
        foreground[:, :3] = False
        task = build_task(name, settings)
        self.result: Corrupted = task(self.image, foreground, donors, torch.Generator().manual_seed(seed))
        self.changed = (self.result.image != self.image)[0].any(dim=0)

    def box(self) -> tuple[slice, ...]:
        """Around what has changed."""
        where = self.changed.nonzero()
        return tuple(slice(a, b + 1) for a, b in zip(where.amin(0).tolist(), where.amax(0).tolist(), strict=True))

    def crops(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the image before, of the donor and of the image after."""
        parts = (self.image, self.donor, self.result.image)
        before, donor, after = (part[0][(slice(None), *self.box())].numpy() for part in parts)
        return before, donor, after


@pytest.mark.parametrize("shape", SHAPES)
def test_fpi_is_a_convex_combination_in_a_cuboid(shape: tuple[int, ...]) -> None:
    factors = []
    for seed in range(20):
        planted = Planted("fpi", shape, seed)
        if planted.result.failed[0]:
            continue
        x, d, y = planted.crops()
        a = np.median((y - x) / (d - x))
        np.testing.assert_allclose(y, (1 - a) * x + a * d, atol=1e-4)
        assert planted.changed[planted.box()].float().mean() > 0.999
        factors.append(a)
    assert len(factors) >= 15
    assert 0.05 <= min(factors) < 0.35
    assert 0.65 < max(factors) <= 0.95


@pytest.mark.parametrize("shape", SHAPES)
def test_cutout_is_a_cuboid_of_the_mean(shape: tuple[int, ...]) -> None:
    for seed in range(5):
        planted = Planted("cutout", shape, seed)
        _, _, after = planted.crops()
        means = planted.image[0].flatten(1).mean(dim=1).numpy()
        np.testing.assert_allclose(after, np.broadcast_to(means.reshape(-1, *[1] * len(shape)), after.shape), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_cutpaste_copies_from_elsewhere_in_the_image(shape: tuple[int, ...]) -> None:
    origins = set()
    for seed in range(5):
        planted = Planted("cutpaste", shape, seed)
        _, _, after = planted.crops()
        windows = sliding_window_view(planted.image[0].numpy(), after.shape)[0]
        found = np.argwhere((windows == after).reshape(*windows.shape[: len(shape)], -1).all(axis=-1))
        assert len(found) == 1
        assert tuple(found[0]) != tuple(part.start for part in planted.box())
        origins.add(tuple(found[0]))
    assert len(origins) > 2


@pytest.mark.parametrize("name", ["mood22_hard", "mood22_smooth"])
@pytest.mark.parametrize("shape", SHAPES)
def test_mood22_keeps_to_the_foreground(name: str, shape: tuple[int, ...]) -> None:
    planted = [Planted(name, shape, seed) for seed in range(25)]
    for each in planted:
        assert not each.changed[:3].any()
        assert not each.result.label[0, 0, :3].any()
    assert sum(bool(each.changed.any()) for each in planted) >= 20
    assert any(bool(each.changed[3].any()) for each in planted)


@pytest.mark.parametrize("shape", SHAPES)
def test_random_shape_stays_within_the_images_range(shape: tuple[int, ...]) -> None:
    for seed in range(10):
        planted = Planted("random_shape", shape, seed)
        for before, after in zip(planted.image[0], planted.result.image[0], strict=True):
            assert after.min() >= before.min()
            assert after.max() <= before.max()


@pytest.mark.parametrize("name", ["sink", "source"])
@pytest.mark.parametrize("shape", SHAPES)
def test_deformations_bring_in_nothing_new(name: str, shape: tuple[int, ...]) -> None:
    for seed in range(10):
        planted = Planted(name, shape, seed)
        # One voxel more, for interpolation at the shape's border.
        wider = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in planted.box())
        for old, new in zip(planted.image[0], planted.result.image[0], strict=True):
            assert new[wider].min() >= old[wider].min() - 1e-5
            assert new[wider].max() <= old[wider].max() + 1e-5


@pytest.mark.parametrize("name", ["sink", "source"])
@pytest.mark.parametrize("shape", SHAPES)
def test_sinks_stretch_their_middle_and_sources_their_border(name: str, shape: tuple[int, ...]) -> None:
    """On an image of positions, steps between neighbours tell how much is stretched where."""
    image = torch.from_numpy(np.indices(shape).astype(np.float32))[None]
    foreground = torch.ones(1, *shape, dtype=torch.bool)
    task = build_task(name, TaskSettings(shape, (0.5, 0.8), (0.3,) * len(shape), repeat=0.0))
    correlations = []
    for seed in range(20):
        result = task(image, foreground, Donors(), torch.Generator().manual_seed(seed))
        assert not result.failed.any()
        changed = (result.image != image)[0].any(dim=0).numpy()
        steps = np.array(np.gradient(result.image[0].numpy(), axis=tuple(range(1, image.ndim - 1))))
        depth = ndimage.distance_transform_edt(changed)
        correlations.append(np.corrcoef((steps**2).sum(axis=(0, 1))[changed], depth[changed])[0, 1])
    assert np.mean(correlations) > 0.1 if name == "sink" else np.mean(correlations) < -0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_smooth_intensity_changes_all_channels_in_one_direction(shape: tuple[int, ...]) -> None:
    signs = set()
    for seed in range(10):
        planted = Planted("smooth_intensity", shape, seed)
        before, _, after = planted.crops()
        change = after - before
        np.testing.assert_allclose(change[0], change[1], atol=1e-5)
        signs.update(np.sign(change[np.abs(change) > 1e-4]))
        assert len(np.unique(np.sign(change[np.abs(change) > 1e-4]))) == 1
        # Twice sigma times at most 2.5.
        assert 0.3 < np.abs(change).max() <= 1.5 + 1e-5
    assert signs == {-1.0, 1.0}


@pytest.mark.parametrize("shape", SHAPES)
def test_lesions_are_filled_with_the_images_own_tissue_brighter_or_darker(shape: tuple[int, ...]) -> None:
    lesions = torch.zeros(1, 32, 32, 32, dtype=torch.uint8)
    lesions[0, 6:26, 8:24, 8:24] = 255
    darker = 0
    for seed in range(30):
        planted = Planted("lesion_shapes", shape, seed, lesions=lesions)
        before, _, after = planted.crops()
        core = planted.result.label[0, 0][planted.box()].numpy() > 0.5
        darker += np.mean((after - before)[:, core]) < 0
    assert 6 <= darker <= 24
