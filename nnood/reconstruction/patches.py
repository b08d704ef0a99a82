"""Images as autoencoders want them: with their foreground, and with noise around it."""

from typing import Any

import torch

from nnood.planning.foreground import COMPUTED_METHODS
from nnood.reconstruction.settings import Reconstruction
from nnood.views import View


def knows_foreground(method: str) -> bool:
    """Whether the foreground of any image can be found, and is not simply all of it.

    Args:
        method: How the data set's foreground was found. Where it was given as masks, new images have none.
    """
    return method in COMPUTED_METHODS


def with_foreground(
    image: torch.Tensor,
    foreground: torch.Tensor | None,
    settings: Reconstruction,
    *,
    slices: int = 1,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Append the foreground to images, and put noise of mean 0 and spread 1 outside of it if the settings want it.

    Args:
        image: Values (B, C * k, *S).
        foreground: Boolean (B, *S), the same for all slices of a slab, or (B, k, *S); everything is inside if None.
        settings: Of the network.
        slices: k, of slabs.
        generator: Draws noise for each image; if None, it is the same for all images of this shape.

    Returns:
        (B, (C + 1) * k, *S).
    """
    slabs = image.unflatten(1, (-1, slices))
    shape = (len(image), 1, *slabs.shape[2:])
    if foreground is None:
        return torch.cat([slabs, slabs.new_ones(shape)], 1).flatten(1, 2)
    of_slices = foreground if foreground.ndim == image.ndim else foreground[:, None]
    inside = of_slices[:, None].expand(shape)
    if settings.background == "noise":
        drawn = slabs.shape if generator is not None else (1, *slabs.shape[1:])
        noise = torch.randn(drawn, generator=generator or torch.Generator().manual_seed(0)).to(slabs)
        slabs = torch.where(inside, slabs, noise)
    return torch.cat([slabs, inside.to(slabs)], 1).flatten(1, 2)


class Preparer:
    """Makes a network's patches of nnU-Net's batches; where others plant anomalies, nothing is planted.

    Attributes:
        failed: Anomalies that could not be planted: none.
    """

    failed = 0

    def __init__(self, settings: Reconstruction, views: tuple[View, ...], *, has_foreground: bool, device: Any) -> None:
        """Take over what is known.

        Args:
            settings: Of the network.
            views: From where it sees cases.
            has_foreground: Whether the foreground of any image can be found, and is not simply all of it.
            device: Where to prepare patches.
        """
        self._settings, self._views, self._device = settings, views, device
        self._has_foreground = has_foreground
        self._generator = torch.Generator()

    def start_epoch(self, seed: int) -> None:
        """Nothing is kept from one step to the next."""

    def start_step(self, seed: int) -> None:
        """Make all that follows depend on a seed."""
        self._generator.manual_seed(seed)

    def state(self) -> dict[str, Any]:
        """What an epoch has left so far."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""

    def __call__(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of the loader as patches (B, (C + 1) * k, *S), and their foreground (B, 1, *S)."""
        view = self._views[batch["view"]]
        image = view.fold(batch["data"].to(self._device, non_blocking=True))
        foreground = batch["target"][:, 0].to(self._device, non_blocking=True) == 1
        patches = self.patches(image, foreground, self._generator)
        return patches, view.middle(foreground)[:, None].float()

    def patches(
        self, image: torch.Tensor, foreground: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Patches (B, (C + 1) * k, *S) of images (B, C * k, *S) and their foreground.

        Args:
            image: As networks of the task family see it.
            foreground: Boolean; of slabs, that of the middle slice (B, *S) or of all slices (B, k, *S).
            generator: As for `with_foreground`.
        """
        known = foreground if self._has_foreground else None
        slices = max(1, self._views[0].slices)
        return with_foreground(image, known, self._settings, slices=slices, generator=generator)

    def case(self, image: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        """A whole case (C + 1, Z, Y, X) for the sliding window, from its values and foreground (Z, Y, X)."""
        known = foreground[None] if self._has_foreground else None
        return with_foreground(image[None], known, self._settings)[0]
