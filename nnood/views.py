"""How a network sees a preprocessed case: as it is stored, or (2.5d) as slices with neighbours, from several sides.

Source: Meissen, Kaissis, Rueckert 2022, "AutoSeg: steering the inductive biases for automatic pathology segmentation":
three adjacent slices are the channels of a 2D network, which says the label of the middle one; the maps of the axial,
coronal and sagittal direction are averaged.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnood.errors import UserError
from nnood.tasks.settings import TaskSettings

SLABS = "2.5d"
VIEWS_KEY = "views"


@dataclass(frozen=True)
class View:
    """One direction from which stored cases are seen.

    A slab is some adjacent slices along that direction. To the network, the slices of each channel are channels.

    Attributes:
        axis: Stored axis (0 to 2) that is turned to the front; the other two keep their order.
        slices: Of a slab, an odd number; 0: patches are no slabs, and the network sees them as they are.
    """

    axis: int = 0
    slices: int = 0

    def __post_init__(self) -> None:
        if type(self.axis) is not int or self.axis not in (0, 1, 2):
            raise ValueError(f"Expected an axis from 0 to 2, but got {self.axis}.")
        if self.slices and self.slices % 2 == 0:
            raise ValueError(f"Expected an odd number of slices, so that there is a middle one, but got {self.slices}.")

    @property
    def order(self) -> tuple[int, ...]:
        """The stored axes, as they are seen."""
        return self.axis, *(axis for axis in range(3) if axis != self.axis)

    @property
    def beyond(self) -> int:
        """Slices of a slab on either side of the middle one."""
        return self.slices // 2

    def turn(self, image: torch.Tensor) -> torch.Tensor:
        """Stored values (C, Z, Y, X) as they are seen; a view of them."""
        return image.movedim(1 + self.axis, 1)

    def turn_back(self, image: torch.Tensor) -> torch.Tensor:
        """Seen values as they are stored; a view of them."""
        return image.movedim(1, 1 + self.axis)

    def fold(self, patch: torch.Tensor) -> torch.Tensor:
        """A slab (..., C, k, H, W) as the network sees it, (..., C * k, H, W); another patch as it is."""
        return patch.flatten(-4, -3) if self.slices else patch

    def middle(self, mask: torch.Tensor) -> torch.Tensor:
        """The middle slice (..., H, W) of a slab's mask (..., k, H, W); another mask as it is."""
        return mask.select(-3, self.beyond) if self.slices else mask

    def seen_axes(self, stored: Iterable[int]) -> tuple[int, ...]:
        """Where stored axes are when a case is seen from here."""
        return tuple(sorted(self.order.index(axis) for axis in stored)) if self.slices else tuple(stored)

    def planar_axes(self, stored: Iterable[int]) -> tuple[int, ...]:
        """Which axes (0 or 1) of a slab's slices some stored axes are."""
        return tuple(axis - 1 for axis in self.seen_axes(stored) if axis > 0)

    def settings(self, stored: TaskSettings) -> TaskSettings:
        """What tasks must know to plant in slabs, from what they must know of stored cases."""
        if not self.slices:
            return stored
        rows, columns = self.order[1:]
        return dataclasses.replace(
            stored,
            extent=(stored.extent[rows], stored.extent[columns]),
            spacing=(stored.spacing[rows], stored.spacing[columns]),
            label_sigma=self._for_each_slice(stored.label_sigma),
            label_saturation=self._for_each_slice(stored.label_saturation),
        )

    def _for_each_slice(self, values: Sequence[float]) -> tuple[float, ...]:
        """From values per channel to values per channel of the network."""
        return tuple(value for value in values for _ in range(self.slices))


def views_of(configuration: ConfigurationManager) -> tuple[View, ...]:
    """From where the networks of a configuration see a case; a single plain view unless it is 2.5d.

    Raises:
        UserError: If somebody changed its views or number of slices to what cannot be.
    """
    axes = configuration.configuration.get(VIEWS_KEY)
    if axes is None:
        return (View(),)
    patch_size = configuration.patch_size
    try:
        if not isinstance(axes, list) or not axes or any(axes.count(axis) > 1 for axis in axes):
            raise ValueError(f"Expected a list of distinct views, but got {axes}.")
        if len(patch_size) != 3 or any(type(edge) is not int or edge < 1 for edge in patch_size):
            raise ValueError(f"Expected a patch of three edges in whole voxels, but got {patch_size}.")
        return tuple(View(axis, patch_size[0]) for axis in axes)
    except ValueError as error:
        raise UserError(
            f"The plans' configuration {SLABS} is not valid ({error}); correct its views and patch_size, or plan again."
        ) from error


def stored_as(configuration: str) -> str:
    """Name of the configuration whose preprocessed cases a configuration reads: for 2.5d, those of 3d_fullres."""
    return "3d_fullres" if configuration == SLABS else configuration


def network_channels(configuration: ConfigurationManager, channels: int) -> int:
    """Input channels of a network, for images of so many channels."""
    return channels * max(1, views_of(configuration)[0].slices)


def refuse_slabs_of_images(plans: dict[str, Any], configuration: str, asker: str = "") -> None:
    """Refuse the 2.5d configuration for 2D images.

    Args:
        plans: nnU-Net's plans.
        configuration: The wanted one.
        asker: Who wants it, if not the user: a clause such as ", which ... asks for".

    Raises:
        UserError: If it is 2.5d and the images are 2D.
    """
    if configuration == SLABS and "3d_fullres" not in plans["configurations"]:
        raise UserError(
            f"{plans['dataset_name']} has no {SLABS} configuration{asker}, because its images are 2D; use -c 2d."
        )
