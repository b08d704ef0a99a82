"""Patches from elsewhere: what they read is told by images whose values are their own positions."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from nnood.tasks.donors import Donors
from nnood.tasks.intensities import Shift
from nnood.tasks.textures import Chain, Clipped, OneOf, Patch, Warp, image_mean

BOX = (slice(10, 21), slice(14, 23))


def lender(donor: torch.Tensor) -> Donors:
    """Donors of one image for target 0."""
    donors = Donors()
    donors.begin_batch(["target", "donor"], torch.stack([torch.zeros_like(donor), donor]))
    return donors


def jacobian(read: torch.Tensor) -> np.ndarray:
    """How the position read (D, *box) moves with the voxel, (D, D): its mean differences."""
    axes = range(1, read.ndim)
    return np.stack([read.diff(dim=axis).flatten(1).mean(dim=1).double().numpy() for axis in axes], axis=1)


def adding(amount: float):
    return lambda region, donors, generator: region.values + amount


def doubling(region, donors, generator):
    return 2 * region.values


def nothing(region, donors, generator):
    return None


class TestPatch:
    def test_the_same_place_of_a_donor(self, make_region, seeded):
        target, donor = torch.randn(2, 3, 30, 40, generator=seeded(0))
        patch = Patch()(make_region(target, BOX), lender(donor), seeded(1))
        assert torch.equal(patch, donor[(slice(None), *BOX)])

    @pytest.mark.parametrize("own", [False, True])
    def test_a_free_place_is_anywhere_in_the_image(self, make_region, seeded, positions_image, own):
        """Every corner that a box of 11 x 9 can have in an image of 13 x 12."""
        image = positions_image((13, 12))
        region = make_region(image, (slice(1, 12), slice(2, 11)))
        corners = Counter()
        for seed in range(600):
            patch = Patch(own=own, free=True)(region, lender(image), seeded(seed))
            if own and patch[0, 0, 0] == 11:  # mirrored, see below
                patch = patch.flip(1)
            corners[tuple(patch[:, 0, 0].tolist())] += 1
            np.testing.assert_array_equal(jacobian(patch), np.eye(2))
        assert set(corners) == {(row, column) for row in (0, 1, 2) for column in (0, 1, 2, 3)}
        assert stats.chisquare(list(corners.values())).pvalue > 1e-3

    def test_the_very_same_place_of_the_image_itself_is_mirrored(self, make_region, seeded):
        image = torch.randn(2, 7, 12, generator=seeded(0))
        patch = Patch(own=True, free=True)(make_region(image), Donors(), seeded(0))
        np.testing.assert_array_equal(patch.numpy(), np.flip(image.numpy(), axis=2))

    def test_without_a_donor_there_is_none(self, make_region, seeded):
        donors = Donors()
        donors.begin_batch(["alone"], torch.zeros(1, 1, 8, 8))
        assert Patch()(make_region(torch.zeros(1, 8, 8)), donors, seeded(0)) is None
        assert Patch(free=True, warp=Warp())(make_region(torch.zeros(1, 8, 8)), donors, seeded(0)) is None

    def test_patches_are_float32(self, make_region, seeded):
        image = torch.randn(1, 8, 8, generator=seeded(0)).bfloat16()
        for patch in (Patch(), Patch(warp=Warp(degrees=10))):
            assert patch(make_region(image), lender(image), seeded(0)).dtype == torch.float32


class TestWarp:
    @staticmethod
    def read(warp, make_region, generator, image, *, box=BOX, spacing=(1.0, 1.0)):
        """The positions that a patch reads."""
        return Patch(warp=warp)(make_region(image, box, spacing=spacing), lender(image), generator)

    def test_no_warp_changes_nothing(self, make_region, seeded, positions_image):
        image = positions_image((30, 40))
        read = self.read(Warp(), make_region, seeded(0), image)
        torch.testing.assert_close(read, image[(slice(None), *BOX)])

    def test_flips_are_numpys_and_each_axis_has_its_own(self, make_region, seeded):
        donor = torch.randn(1, 30, 40, generator=seeded(0))
        patch = donor[(slice(None), *BOX)].numpy()
        variants = [np.flip(patch, axes) for axes in ((), (1,), (2,), (1, 2))]
        counts = Counter()
        for seed in range(200):
            read = self.read(Warp(flip=True), make_region, seeded(seed), donor).numpy()
            matches = [np.allclose(read, variant, atol=1e-4) for variant in variants]
            assert sum(matches) == 1
            counts[matches.index(True)] += 1
        assert stats.chisquare([counts[variant] for variant in range(4)]).pvalue > 1e-3

    @pytest.mark.parametrize("scale", [2.0, 0.8])
    @pytest.mark.parametrize("shape", [(30, 40), (20, 24, 22)])
    def test_magnified_about_the_middle_of_the_box(self, make_region, seeded, scale, shape):
        donor = torch.randn(2, *shape, generator=seeded(0))
        box = tuple(slice(7, 7 + n) for n in (9, 6, 5)[: len(shape)])
        read = self.read(
            Warp(scale=(scale, scale)), make_region, seeded(0), donor, box=box, spacing=(1.0,) * len(shape)
        )
        middles = np.array([(part.start + part.stop - 1) / 2 for part in box]).reshape(-1, *[1] * len(shape))
        size = [part.stop - part.start for part in box]
        where = middles + (np.indices(size) - (np.array(size).reshape(middles.shape) - 1) / 2) / scale
        expected = [ndimage.map_coordinates(channel, where, order=1, mode="nearest") for channel in donor.numpy()]
        np.testing.assert_allclose(read.numpy(), np.stack(expected), atol=1e-4)

    def test_scales_are_uniform_and_differ_by_axis(self, make_region, seeded, positions_image):
        image = positions_image((30, 40))
        drawn = []
        for seed in range(300):
            matrix = jacobian(self.read(Warp(scale=(0.7, 1.4)), make_region, seeded(seed), image))
            np.testing.assert_allclose(matrix, np.diag(np.diag(matrix)), atol=1e-5)
            drawn.append(1 / np.diag(matrix))
        for scales in np.array(drawn).T:
            assert stats.kstest(scales, stats.uniform(0.7, 0.7).cdf).pvalue > 1e-3
        assert abs(np.corrcoef(np.array(drawn).T)[0, 1]) < 0.25

    def test_rotations_are_uniform_within_their_limit(self, make_region, seeded, positions_image):
        image = positions_image((30, 40))
        angles = []
        for seed in range(300):
            read = self.read(Warp(degrees=40), make_region, seeded(seed), image)
            matrix = jacobian(read)
            np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-4)
            np.testing.assert_allclose(read[:, 5, 4], [15, 18], atol=1e-4)
            angles.append(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])))
        assert stats.kstest(angles, stats.uniform(-40, 80).cdf).pvalue > 1e-3

    def test_a_quarter_turn_is_numpys(self, make_region, seeded, monkeypatch):
        monkeypatch.setattr("nnood.tasks.textures.rotation", lambda *_: np.array([[0.0, -1.0], [1.0, 0.0]]))
        donor = torch.randn(1, 30, 30, generator=seeded(0))
        box = (slice(8, 17), slice(12, 21))
        read = self.read(Warp(degrees=90), make_region, seeded(0), donor, box=box)[0].numpy()
        patch = donor[(0, *box)].numpy()
        assert any(np.allclose(read, np.rot90(patch, turns), atol=1e-4) for turns in (1, 3))

    @pytest.mark.parametrize("spacing", [(3.0, 1.0), (0.5, 2.0)])
    def test_rotations_are_rigid_in_millimetres(self, make_region, seeded, positions_image, spacing):
        image = positions_image((120, 120))
        box = (slice(56, 65), slice(57, 62))
        edges = np.diag(spacing)
        turned = 0.0
        for seed in range(20):
            read = self.read(Warp(degrees=180), make_region, seeded(seed), image, box=box, spacing=spacing)
            matrix = edges @ jacobian(read) @ np.linalg.inv(edges)
            np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-3)
            turned = max(turned, abs(matrix[0, 1]))
        assert turned > 0.9

    def test_shears_keep_the_area_and_stay_within_their_limit(self, make_region, seeded, positions_image):
        image = positions_image((30, 40))
        sheared = []
        for seed in range(200):
            matrix = jacobian(self.read(Warp(shear=0.2), make_region, seeded(seed), image))
            assert np.linalg.det(matrix) == pytest.approx(1, abs=1e-4)
            np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-4)
            sheared.append(matrix[0, 1] + matrix[1, 0])
        assert stats.kstest(sheared, stats.uniform(-0.2, 0.4).cdf).pvalue > 1e-3

    def test_all_together_in_space(self, make_region, seeded, positions_image):
        """Volume is that of the scales alone, however it is turned, sheared and mirrored."""
        warp = Warp(scale=(0.7, 1.4), degrees=180, shear=0.2, flip=True)
        image = positions_image((40, 40, 40))
        box = (slice(18, 23), slice(17, 22), slice(18, 21))
        determinants = []
        for seed in range(60):
            read = self.read(warp, make_region, seeded(seed), image, box=box, spacing=(2.0, 1.5, 1.0))
            determinants.append(np.linalg.det(jacobian(read)))
        assert all(1.4**-3 <= abs(determinant) <= 0.7**-3 for determinant in determinants)
        assert 15 < sum(determinant > 0 for determinant in determinants) < 45
        assert np.ptp(np.abs(determinants)) > 0.5

    def test_a_flat_axis_takes_no_part(self, make_region, seeded, positions_image):
        image = positions_image((1, 30, 40))
        box = (slice(0, 1), *BOX)
        for seed in range(10):
            generator = seeded(seed)
            warp = Warp(degrees=180, shear=0.2, flip=True)
            read = self.read(warp, make_region, generator, image, box=box, spacing=(5.0, 1.0, 1.0))
            assert (read[0] == 0).all()
            matrix = jacobian(read[1:, 0])
            assert abs(np.linalg.det(matrix)) == pytest.approx(1, abs=1e-4)

    def test_beyond_the_donor_its_border_goes_on(self, make_region, seeded):
        donor = torch.randn(1, 12, 12, generator=seeded(0))
        read = self.read(Warp(scale=(0.5, 0.5)), make_region, seeded(0), donor, box=(slice(0, 12), slice(0, 12)))
        where = 5.5 + (np.indices((12, 12)) - 5.5) * 2
        expected = ndimage.map_coordinates(donor[0].numpy(), where, order=1, mode="nearest")
        np.testing.assert_allclose(read[0].numpy(), expected, atol=1e-4)

    def test_a_free_patch_is_read_about_its_own_middle(self, make_region, seeded, positions_image):
        image = positions_image((30, 40))
        middles = set()
        for seed in range(30):
            patch = Patch(free=True, warp=Warp(scale=(2.0, 2.0)))(make_region(image, BOX), lender(image), seeded(seed))
            middle = patch[:, 5, 4]
            torch.testing.assert_close(middle, middle.round())
            middles.add(tuple(middle.round().tolist()))
            torch.testing.assert_close(patch[:, 7, 4] - middle, torch.tensor([1.0, 0.0]), atol=1e-4, rtol=0)
        assert len(middles) > 20
        assert all(5 <= row <= 24 and 4 <= column <= 35 for row, column in middles)


class TestCombinations:
    def test_a_chain_goes_in_order(self, make_region, seeded):
        image = torch.randn(2, 8, 8, generator=seeded(0))
        region = make_region(image)
        chained = Chain((doubling, adding(3.0)))(region, Donors(), seeded(0))
        torch.testing.assert_close(chained, 2 * image + 3)
        chained = Chain((adding(3.0), doubling))(region, Donors(), seeded(0))
        torch.testing.assert_close(chained, 2 * (image + 3))
        assert torch.equal(region.values, image)

    def test_a_chain_draws_anew_for_each_link(self, make_region, seeded):
        region = make_region(torch.zeros(1, 4, 4))
        values = [Chain((Shift((1.0, 2.0)),) * 2)(region, Donors(), seeded(seed))[0, 0, 0].item() for seed in range(50)]
        assert min(abs(value) for value in values) < 1
        assert max(abs(value) for value in values) > 2

    @pytest.mark.parametrize("textures", [(nothing, doubling), (doubling, nothing)])
    def test_a_chain_with_a_link_that_has_nothing_has_nothing(self, make_region, seeded, textures):
        assert Chain(textures)(make_region(torch.zeros(1, 4, 4)), Donors(), seeded(0)) is None
        assert Clipped(Chain(textures))(make_region(torch.zeros(1, 4, 4)), Donors(), seeded(0)) is None

    def test_all_of_several_are_equally_likely(self, make_region, seeded, assert_share):
        region = make_region(torch.zeros(1, 2, 2))
        texture = OneOf((adding(1.0), adding(2.0), adding(3.0)))
        counts = Counter(texture(region, Donors(), seeded(seed))[0, 0, 0].item() for seed in range(900))
        assert set(counts) == {1.0, 2.0, 3.0}
        for count in counts.values():
            assert_share(count, 900, 1 / 3)

    def test_clipped_to_the_whole_images_range_per_channel(self, make_region, seeded):
        image = torch.randn(2, 20, 20, generator=seeded(0)) * torch.tensor([1.0, 10.0]).reshape(2, 1, 1)
        noise = torch.randn(2, 5, 6, generator=seeded(1)) * 20
        region = make_region(image, (slice(3, 8), slice(4, 10)))
        clipped = Clipped(lambda *_: noise)(region, Donors(), seeded(0))
        low, high = (edge(image.numpy(), axis=(1, 2), keepdims=True) for edge in (np.min, np.max))
        np.testing.assert_array_equal(clipped.numpy(), np.clip(noise.numpy(), low, high))

    def test_the_mean_is_the_whole_images_per_channel(self, make_region, seeded):
        image = torch.randn(3, 20, 20, generator=seeded(0)) + torch.tensor([1.0, 10.0, -5.0]).reshape(3, 1, 1)
        values = image_mean(make_region(image, (BOX[0], slice(0, 4))), Donors(), seeded(0))
        assert values.shape == (3, 10, 4)
        expected = np.broadcast_to(image.double().numpy().mean(axis=(1, 2))[:, None, None], values.shape)
        np.testing.assert_allclose(values.numpy(), expected, rtol=1e-5)
