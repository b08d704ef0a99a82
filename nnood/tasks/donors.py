"""Where foreign texture comes from: batch mates and a bounded bank of earlier images, never the target's own case."""

from collections import deque
from collections.abc import Sequence

import torch

from nnood.tasks.draws import integer

BANK_SIZE = 16


class Donors:
    """Images that lend patches to others.

    The bank keeps the newest `BANK_SIZE` images of earlier batches, so that a batch of one case has donors too. It is
    bounded in number; each entry is one patch of the training's size.
    """

    def __init__(self, bank_size: int = BANK_SIZE, external: Sequence[torch.Tensor] = ()) -> None:
        """Start with an empty bank.

        Args:
            bank_size: How many images it keeps.
            external: Images (C, *S) of another data set. If there are any, they lend all patches.
        """
        self._bank: deque[tuple[str, torch.Tensor]] = deque(maxlen=bank_size)
        self._batch: list[tuple[str, torch.Tensor]] = []
        self._external = list(external)

    def begin_batch(self, cases: Sequence[str], images: torch.Tensor) -> None:
        """Make a new batch the current one; the images (B, C, *S) of the one before go into the bank."""
        self._bank.extend(self._batch)
        self._batch = [(case, image.detach()) for case, image in zip(cases, images, strict=True)]

    def state(self) -> list[tuple[str, torch.Tensor]]:
        """Case and image, on the CPU, of all that later batches may borrow from: the bank and the current batch."""
        return [(case, image.clone().cpu()) for case, image in (*self._bank, *self._batch)]

    def restore(self, state: Sequence[tuple[str, torch.Tensor]]) -> None:
        """Go on from a `state`: the next `begin_batch` finds the bank as it would have been."""
        self._bank.clear()
        self._batch = list(state)

    def image(self, target: int, generator: torch.Generator) -> torch.Tensor | None:
        """Another case's image.

        Args:
            target: Index of the target in the current batch.
            generator: Randomness.

        Returns:
            Values (C, *S), or None if every known image of that size is of the target's own case.
        """
        own, image = self._batch[target]
        known = self._external or [donor for case, donor in (*self._batch, *self._bank) if case != own]
        fitting = [donor for donor in known if donor.shape == image.shape]
        return fitting[integer(generator, 0, len(fitting))].to(image.device) if fitting else None
