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

    def __init__(self, bank_size: int = BANK_SIZE) -> None:
        self._bank: deque[tuple[str, torch.Tensor]] = deque(maxlen=bank_size)
        self._batch: list[tuple[str, torch.Tensor]] = []

    def begin_batch(self, cases: Sequence[str], images: torch.Tensor) -> None:
        """Make a new batch the current one; the images (B, C, *S) of the one before go into the bank."""
        self._bank.extend(self._batch)
        self._batch = [(case, image.detach()) for case, image in zip(cases, images, strict=True)]

    def patch(self, target: int, box: tuple[slice, ...], generator: torch.Generator) -> torch.Tensor | None:
        """The same region of another case's image.

        Args:
            target: Index of the target in the current batch.
            box: One slice per spatial axis.
            generator: Randomness.

        Returns:
            Values (C, *box), or None if every known image is of the target's own case.
        """
        own, image = self._batch[target]
        others = [donor for case, donor in (*self._batch, *self._bank) if case != own and donor.shape == image.shape]
        if not others:
            return None
        return others[integer(generator, 0, len(others))][(slice(None), *box)]
