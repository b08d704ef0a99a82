"""What goes into an anomaly: new values for a box of the image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from nnood.tasks.donors import Donors
from nnood.tasks.draws import integer, rotation, shear, uniforms
from nnood.tasks.placement import Placement
from nnood.tasks.sampling import combine, positions_in, sample


@dataclass(frozen=True, eq=False)
class Region:
    """The part of one image that a texture may replace.

    Attributes:
        image: The whole image, (C, *S).
        values: The image's values in the box, (C, *box), float32.
        placement: Box and outline.
        target: Index of the image in the batch, by which donors know whom to leave out.
        scale: Per channel, the typical difference of two foreground voxels in normalised intensity, (C,).
        spacing: Size of a voxel per spatial axis, in mm.
    """

    image: torch.Tensor
    values: torch.Tensor
    placement: Placement
    target: int
    scale: torch.Tensor
    spacing: tuple[float, ...]

    def per_channel(self, numbers: torch.Tensor) -> torch.Tensor:
        """Give numbers (C,) the dimensions of `values`."""
        return numbers.reshape(-1, *[1] * (self.values.ndim - 1))


def channel_ranges(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest value of each channel of (C, *S), each (C,) float32."""
    # Channel by channel: along the other axes, torch is many times slower.
    low, high = zip(*[channel.aminmax() for channel in image], strict=True)
    return torch.stack(low).float(), torch.stack(high).float()


Texture = Callable[[Region, Donors, torch.Generator], torch.Tensor | None]


@dataclass(frozen=True)
class Chain:
    """One texture after the other, each working on the values of the one before.

    Attributes:
        textures: In their order.
    """

    textures: tuple[Texture, ...]

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor | None:
        """Return the last texture's values, or None if one of them had none."""
        for texture in self.textures:
            values = texture(region, donors, generator)
            if values is None:
                return None
            region = replace(region, values=values)
        return region.values


@dataclass(frozen=True)
class OneOf:
    """One of several textures, all equally likely.

    Attributes:
        textures: Which.
    """

    textures: tuple[Texture, ...]

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor | None:
        """Return the drawn texture's values."""
        return self.textures[integer(generator, 0, len(self.textures))](region, donors, generator)


@dataclass(frozen=True)
class Clipped:
    """Another texture's values, clipped to the range of the image's own.

    Attributes:
        texture: Which.
    """

    texture: Texture

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor | None:
        """Return the clipped values."""
        values = self.texture(region, donors, generator)
        if values is None:
            return None
        low, high = map(region.per_channel, channel_ranges(region.image))
        return torch.clamp(values, low, high)


@dataclass(frozen=True)
class Warp:
    """How a patch is resized, turned, sheared and mirrored on its way.

    Attributes:
        scale: Smallest and largest magnification, drawn per axis.
        degrees: Largest rotation about each pair of axes.
        shear: Largest shear.
        flip: Mirror each axis with a probability of one half.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    degrees: float = 0.0
    shear: float = 0.0
    flip: bool = False

    def matrix(self, spacing: Sequence[float], generator: torch.Generator) -> np.ndarray:
        """From an offset in the patch to that in the donor, both in voxels, (D, D). Axes of spacing 0 take no part."""
        thick = [axis for axis, edge in enumerate(spacing) if edge > 0]
        edges = np.array([spacing[axis] for axis in thick])
        magnification = np.array(uniforms(generator, *self.scale, len(thick)))
        if self.flip:
            magnification *= np.sign(uniforms(generator, -1, 1, len(thick)))
        turn = rotation(generator, len(thick), self.degrees) if self.degrees else np.eye(len(thick))
        bend = shear(generator, len(thick), self.shear) if self.shear else np.eye(len(thick))
        result = np.eye(len(spacing))
        result[np.ix_(thick, thick)] = turn @ bend / magnification * edges / edges[:, None]
        return result


@dataclass(frozen=True)
class Patch:
    """A patch from somewhere else: of another case, or of the image itself.

    Attributes:
        own: From the image itself; otherwise from a donor.
        free: From a random position; otherwise from the same.
        warp: How it is changed on its way, or None.
    """

    own: bool = False
    free: bool = False
    warp: Warp | None = None

    def __call__(self, region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor | None:
        """Return the patch (C, *box), or None without a donor.

        An own patch from the very same place, as it must be when the box fills the image, is mirrored.
        """
        image = region.image if self.own else donors.image(region.target, generator)
        if image is None:
            return None
        sizes = region.values.shape[1:]
        box = region.placement.box
        if self.free:
            starts = [integer(generator, 0, n - size + 1) for n, size in zip(image.shape[1:], sizes, strict=True)]
            box = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        if self.warp is not None:
            return self._warped(image, box, region, self.warp, generator)
        patch = image[(slice(None), *box)].float()
        if self.own and box == region.placement.box:
            return patch.flip(1 + max(range(len(sizes)), key=lambda axis: sizes[axis]))
        return patch

    @staticmethod
    def _warped(
        image: torch.Tensor, box: tuple[slice, ...], region: Region, warp: Warp, generator: torch.Generator
    ) -> torch.Tensor:
        """The patch seen through the warp."""
        spacing = [edge if n > 1 else 0 for edge, n in zip(region.spacing, image.shape[1:], strict=True)]
        size = region.values.shape[1:]
        offsets = [p - (n - 1) / 2 for p, n in zip(positions_in(size, region.values.device), size, strict=True)]
        moved = combine(warp.matrix(spacing, generator).tolist(), offsets)
        return sample(image, [p + (part.start + part.stop - 1) / 2 for p, part in zip(moved, box, strict=True)])


def image_mean(region: Region, donors: Donors, generator: torch.Generator) -> torch.Tensor:
    """The mean of the image per channel: nothing to be seen (DeVries and Taylor 2017, Cutout)."""
    return region.per_channel(region.image.float().flatten(1).mean(dim=1)).expand_as(region.values)
