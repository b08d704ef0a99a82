"""Textures that change intensities in place, by strengths in typical tissue differences: the unit does not matter."""

from dataclasses import dataclass

import torch

from nnood.tasks.donors import Donors
from nnood.tasks.draws import gaussian, sign, uniform
from nnood.tasks.filters import gaussian_weights, smooth
from nnood.tasks.textures import Region, channel_ranges


@dataclass(frozen=True)
class GaussianNoise:
    """Normally distributed noise on top of the values.

    Attributes:
        strength: Smallest and largest standard deviation, in typical differences of two foreground voxels.
    """

    strength: tuple[float, float] = (0.5, 2.0)

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
        """Return the noisy values."""
        noise = gaussian(generator, region.values.shape, region.values.device)
        return region.values + uniform(generator, *self.strength) * region.per_channel(region.scale) * noise


def uniform_noise(region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
    """Values drawn evenly from the range of the region's own, per channel, in place of them."""
    low, high = channel_ranges(region.values)
    draws = torch.rand(region.values.shape, generator=generator, device=generator.device).to(region.values.device)
    return region.per_channel(low) + region.per_channel(high - low) * draws


@dataclass(frozen=True)
class Shift:
    """Brighter or darker, everywhere by the same.

    Attributes:
        strength: Smallest and largest offset, in typical differences of two foreground voxels.
    """

    strength: tuple[float, float] = (0.5, 2.5)

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
        """Return the shifted values."""
        return region.values + sign(generator) * uniform(generator, *self.strength) * region.per_channel(region.scale)


@dataclass(frozen=True)
class ProportionalShift:
    """Brighter or darker in proportion to how far a value lies above the image's darkest.

    Attributes:
        share: Smallest and largest share by which that distance grows or shrinks.
    """

    share: tuple[float, float] = (0.2, 0.8)

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
        """Return the scaled values."""
        darkest = region.per_channel(channel_ranges(region.image)[0])
        return region.values + sign(generator) * uniform(generator, *self.share) * (region.values - darkest)


@dataclass(frozen=True)
class Contrast:
    """Differences to the region's mean, magnified or lessened.

    Attributes:
        factor: Smallest and largest magnification; its reciprocal is as likely.
    """

    factor: tuple[float, float] = (1.5, 3.0)

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
        """Return values of another contrast."""
        mean = region.per_channel(region.values.flatten(1).mean(dim=1))
        return mean + uniform(generator, *self.factor) ** sign(generator) * (region.values - mean)


@dataclass(frozen=True)
class SmoothOffset:
    """Brighter or darker by an offset that rises smoothly from the shape's border to its core.

    Source: the smooth intensity task of Baugh et al. 2023, "Many tasks make light work"; here the offset is measured in
    typical tissue differences of the data, so that it does not depend on the unit of the intensities.

    Attributes:
        strength: Smallest and largest offset, in typical differences of two foreground voxels.
        plateau: Depth at which the full offset is reached; 1 is the core only.
    """

    strength: tuple[float, float] = (0.5, 2.5)
    plateau: tuple[float, float] = (0.1, 0.8)

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
        """Return the region's values plus the offset."""
        profile = (region.placement.outline.depth / uniform(generator, *self.plateau)).clamp(0, 1)
        profile = profile * profile * (3 - 2 * profile)
        offset = sign(generator) * uniform(generator, *self.strength) * region.scale
        return region.values + region.per_channel(offset) * profile


@dataclass(frozen=True)
class BiasField:
    """A smooth random offset: normal numbers on a grid of a few points, interpolated in between.

    Attributes:
        strength: Smallest and largest standard deviation of those numbers, in typical differences.
        points: Of the grid, per axis.
    """

    strength: tuple[float, float] = (0.5, 2.0)
    points: int = 3

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
        """Return the values plus the field, which is the same for all channels but for their scale."""
        size = region.values.shape[1:]
        grid = [1 if n == 1 else self.points for n in size]
        field = gaussian(generator, (1, 1, *grid), region.values.device)
        mode = "trilinear" if len(size) == 3 else "bilinear"
        field = torch.nn.functional.interpolate(field, size=tuple(size), mode=mode, align_corners=True)[0]
        return region.values + uniform(generator, *self.strength) * region.per_channel(region.scale) * field


@dataclass(frozen=True)
class Blur:
    """Smoothed by a Gaussian.

    Attributes:
        sigma: Smallest and largest standard deviation, in voxels.
    """

    sigma: tuple[float, float] = (1.0, 3.0)

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
        """Return the blurred values."""
        sigma = uniform(generator, *self.sigma)
        weights = gaussian_weights(sigma, round(2.5 * sigma))
        return smooth(region.values, range(1, region.values.ndim), weights, repeat_border=True)
