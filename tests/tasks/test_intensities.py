"""Textures that change intensities: closed forms, and statistics over many voxels or many seeds."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from scipy.interpolate import RegularGridInterpolator

from nnood.tasks.donors import Donors
from nnood.tasks.intensities import (
    BiasField,
    Blur,
    Contrast,
    GaussianNoise,
    ProportionalShift,
    Shift,
    SmoothOffset,
    uniform_noise,
)
from nnood.tasks.shapes import Outline

SCALE = (0.5, 4.0)
BOX = (slice(2, 42), slice(5, 55))
SEEDS = range(100)


@pytest.fixture
def region(make_region, seeded):
    """Two channels, in a box of a larger image."""
    image = torch.randn(2, 60, 60, generator=seeded(0)) * 3 + 1
    return make_region(image, BOX, scale=SCALE)


@pytest.fixture
def changes(region, seeded):
    """What textures add to the region for 100 seeds: (seeds, C, *box), in typical differences of each channel."""

    def compute(texture) -> np.ndarray:
        drawn = np.stack([(texture(region, Donors(), seeded(seed)) - region.values).numpy() for seed in SEEDS])
        return drawn / np.array(SCALE).reshape(1, 2, 1, 1)

    return compute


def assert_uniform(numbers: np.ndarray, low: float, high: float) -> None:
    assert stats.kstest(numbers, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_noise_is_normal_of_the_wanted_deviation(region, seeded):
    noise = (GaussianNoise((1.5, 1.5))(region, Donors(), seeded(0)) - region.values).numpy()
    for channel, scale in zip(noise, SCALE, strict=True):
        assert stats.kstest(channel.ravel(), stats.norm(0, 1.5 * scale).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(noise.reshape(2, -1))[0, 1]) < 0.1


def test_strength_of_noise_is_drawn_from_its_range(changes):
    deviations = changes(GaussianNoise()).std(axis=(2, 3))
    assert_uniform(deviations[:, 0], 0.5, 2.0)
    np.testing.assert_allclose(deviations[:, 0], deviations[:, 1], rtol=0.1)


def test_uniform_noise_takes_the_regions_range_and_none_of_its_values(region, seeded):
    noise = uniform_noise(region, Donors(), seeded(0)).numpy()
    for channel, old in zip(noise, region.values.numpy(), strict=True):
        assert_uniform(channel.ravel(), old.min(), old.max())
        assert abs(np.corrcoef(channel.ravel(), old.ravel())[0, 1]) < 0.1


def test_a_shift_is_the_same_everywhere(changes, assert_share):
    offsets = changes(Shift())
    first = offsets[:, :1, :1, :1]
    np.testing.assert_allclose(offsets, np.broadcast_to(first, offsets.shape), atol=1e-4)
    assert_uniform(np.abs(first.ravel()), 0.5, 2.5)
    assert_share(int((first > 0).sum()), len(first), 1 / 2)


def test_a_proportional_shift_leaves_the_images_darkest_alone(region, seeded, assert_share):
    darkest = region.image.amin(dim=(1, 2)).reshape(2, 1, 1)
    assert (region.values.amin(dim=(1, 2)) > darkest.flatten()).any()
    shares = []
    for seed in SEEDS:
        after = ProportionalShift()(region, Donors(), seeded(seed))
        share = (after - region.values) / (region.values - darkest).clamp(min=1e-2)
        clear = region.values - darkest > 1
        shares.append(share[clear].median().item())
        torch.testing.assert_close(after, region.values + shares[-1] * (region.values - darkest), atol=1e-4, rtol=1e-4)
    assert_uniform(np.abs(shares), 0.2, 0.8)
    assert_share(int((np.array(shares) > 0).sum()), len(shares), 1 / 2)


def test_a_proportional_shift_of_darkness_is_nothing(make_region, seeded):
    image = torch.rand(1, 20, 20, generator=seeded(0))
    image[:, :5, :5] = -1
    region = make_region(image, (slice(0, 5), slice(0, 5)))
    assert torch.equal(ProportionalShift()(region, Donors(), seeded(0)), region.values)


def test_contrast_keeps_the_mean_and_magnifies_the_deviation(region, seeded, assert_share):
    factors = []
    old = region.values.double().numpy()
    means, deviations = old.mean(axis=(1, 2)), old.std(axis=(1, 2))
    for seed in SEEDS:
        after = Contrast()(region, Donors(), seeded(seed)).double().numpy()
        np.testing.assert_allclose(after.mean(axis=(1, 2)), means, atol=1e-4)
        ratios = after.std(axis=(1, 2)) / deviations
        assert ratios[0] == pytest.approx(ratios[1], rel=1e-4)
        factors.append(ratios[0])
        expected = means[:, None, None] + ratios[0] * (old - means[:, None, None])
        np.testing.assert_allclose(after, expected, atol=1e-4)
    factors = np.array(factors)
    assert_uniform(np.maximum(factors, 1 / factors), 1.5, 3.0)
    assert_share(int((factors > 1).sum()), len(factors), 1 / 2)


class TestSmoothOffset:
    @pytest.fixture
    def sloped(self, make_region, seeded):
        """A shape whose depth rises along a line."""
        depth = torch.linspace(-0.5, 1, 31)[None]
        image = torch.randn(2, 1, 31, generator=seeded(0))
        return make_region(image, outline=Outline(depth), scale=SCALE)

    @pytest.mark.parametrize("plateau", [0.2, 1.0])
    def test_in_closed_form(self, sloped, seeded, plateau):
        texture = SmoothOffset(strength=(1.5, 1.5), plateau=(plateau, plateau))
        depth = sloped.placement.outline.depth
        signs = set()
        for seed in range(20):
            offset = texture(sloped, Donors(), seeded(seed)) - sloped.values
            sign = offset[0, 0, -1].sign()
            signs.add(sign.item())
            t = (depth / plateau).clamp(0, 1)
            for channel, scale in enumerate(SCALE):
                expected = sign * 1.5 * scale * (3 * t**2 - 2 * t**3)
                torch.testing.assert_close(offset[channel], expected, atol=1e-5, rtol=1e-5)
            assert (offset[:, depth <= 0] == 0).all()
        assert signs == {-1.0, 1.0}

    def test_strength_and_plateau_are_drawn_from_their_ranges(self, sloped, seeded):
        depth = sloped.placement.outline.depth[0]
        strengths, plateaus = [], []
        for seed in range(200):
            offset = (SmoothOffset()(sloped, Donors(), seeded(seed)) - sloped.values)[0, 0].abs()
            strengths.append(offset[-1].item() / SCALE[0])
            # Where half of the offset is reached, t is one half.
            plateaus.append(2 * np.interp(offset[-1].item() / 2, offset.numpy(), depth.numpy()))
        assert_uniform(np.array(strengths), 0.5, 2.5)
        assert_uniform(np.array(plateaus), 0.1, 0.8)


class TestBiasField:
    def test_the_field_is_normal_at_the_points_of_its_grid(self, make_region, seeded):
        """A box of as many voxels as points shows the numbers themselves."""
        region = make_region(torch.zeros(1, 3, 3), scale=(2.0,))
        fields = np.stack([BiasField((1.5, 1.5))(region, Donors(), seeded(seed)).numpy() for seed in range(300)])
        assert stats.kstest(fields.ravel(), stats.norm(0, 3.0).cdf).pvalue > 1e-3
        assert np.abs(np.corrcoef(fields.reshape(300, 9).T) - np.eye(9)).max() < 0.3

    @pytest.mark.parametrize("size", [(21, 31), (9, 15, 11), (1, 21, 13)])
    def test_in_between_it_is_interpolated_linearly(self, make_region, seeded, size):
        region = make_region(torch.randn(1, *size, generator=seeded(0)))
        field = (BiasField()(region, Donors(), seeded(1)) - region.values)[0].double().numpy()
        points = [np.linspace(0, n - 1, min(n, 3)) for n in size]
        known = field[np.ix_(*[axis.astype(int) for axis in points])]
        thick = [axis for axis, n in enumerate(size) if n > 1]
        interpolate = RegularGridInterpolator([points[axis] for axis in thick], known.squeeze())
        expected = interpolate(np.moveaxis(np.indices([size[axis] for axis in thick]), 0, -1))
        np.testing.assert_allclose(field.squeeze(), expected, atol=1e-4)
        assert np.ptp(field) > 0.1

    def test_channels_differ_by_their_scale_only(self, changes):
        fields = changes(BiasField())
        np.testing.assert_allclose(fields[:, 0], fields[:, 1], atol=1e-4)

    def test_strength_is_drawn_from_its_range(self, changes, seeded, make_region):
        region = make_region(torch.zeros(1, 2, 2))
        one, two = (
            [BiasField(strength)(region, Donors(), seeded(seed))[0, 0, 0].item() for seed in SEEDS]
            for strength in ((1.0, 1.0), (0.5, 2.0))
        )
        assert_uniform(np.array(two) / np.array(one), 0.5, 2.0)


class TestBlur:
    @pytest.mark.parametrize("size", [(40, 30), (15, 12, 9), (1, 20, 6)])
    @pytest.mark.parametrize(("sigma", "radius"), [(1.1, 3), (2.1, 5)])
    def test_it_is_scipys_gaussian_filter(self, make_region, seeded, size, sigma, radius):
        image = torch.randn(2, *size, generator=seeded(0))
        blurred = Blur((sigma, sigma))(make_region(image), Donors(), seeded(0))
        for channel, expected in zip(blurred.numpy(), image.numpy(), strict=True):
            reference = ndimage.gaussian_filter(expected, sigma, mode="nearest", radius=radius)
            np.testing.assert_allclose(channel, reference, atol=1e-5)

    def test_sigma_is_drawn_from_its_range(self, make_region, seeded):
        """The spread of a blurred point is sigma; cut off at 2.5 sigma, a little less."""
        image = torch.zeros(1, 1, 61)
        image[..., 30] = 1
        region = make_region(image)
        place = np.arange(61) - 30
        sigmas = [np.sqrt((Blur()(region, Donors(), seeded(seed))[0, 0].numpy() * place**2).sum()) for seed in SEEDS]
        assert 0.9 < min(sigmas) < 1.2
        assert 2.5 < max(sigmas) < 3.0
        assert np.mean(sigmas) == pytest.approx(1.9, abs=0.25)
