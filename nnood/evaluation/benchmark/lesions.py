"""Shapes of real lesions, from the user's masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from nnood.errors import UserError
from nnood.images import read_image

# Fewer voxels than this have no form of their own.
MIN_LESION_VOXELS = 27
READING_TRIES = 20


@dataclass(frozen=True, eq=False)
class Lesion:
    """The largest connected piece of a mask.

    Attributes:
        inside: Boolean (z, y, x), cut to the piece.
        spacing: Millimetres per voxel (z, y, x).
    """

    inside: np.ndarray
    spacing: tuple[float, ...]

    def fitted(self, axes: Sequence[int]) -> "Lesion":
        """As an image that extends along `axes` needs it.

        Along any other axis, the largest section is taken; a flat mask for a volume is made half as thick as wide.
        """
        inside, spacing = self.inside, list(self.spacing)
        for axis in range(3):
            if axis not in axes:
                others = tuple(other for other in range(3) if other != axis)
                inside = inside.take([inside.sum(axis=others).argmax()], axis=axis)
                inside = inside[_box(inside)]
            elif inside.shape[axis] == 1:
                wide = max(n * edge for n, edge in zip(inside.shape, spacing, strict=True))
                inside, spacing[axis] = np.repeat(inside, 3, axis=axis), wide / 6
        return Lesion(inside, tuple(spacing))

    def sample(self, positions: np.ndarray, steps: Sequence[float]) -> np.ndarray:
        """How much of the lesion lies at positions.

        Args:
            positions: (3, ...) relative to the middle of its box, in longest extents of the lesion: -0.5 to 0.5.
            steps: Distance of neighbouring positions (z, y, x), in the same unit.

        Returns:
            Values in [0, 1], in the shape of a single coordinate; never all 0.
        """
        longest = max(n * edge for n, edge in zip(self.inside.shape, self.spacing, strict=True))
        edges = np.array(self.spacing) / longest
        # Half a step wide, so that thin parts leave a trace in a coarse grid.
        sigmas = np.where(np.array(self.inside.shape) > 1, np.maximum(np.array(steps) / edges - 1, 0) / 2, 0)
        margin = np.ceil(2 * sigmas).astype(int) + 1
        smoothed = ndimage.gaussian_filter(
            np.pad(self.inside.astype(float), [(n, n) for n in margin]), sigmas, mode="nearest"
        )
        middle = (np.array(smoothed.shape) - 1) / 2
        spread = (3, *[1] * (positions.ndim - 1))
        values = ndimage.map_coordinates(smoothed, positions / edges.reshape(spread) + middle.reshape(spread), order=1)
        if not values.any():  # a ring whose rim the few positions miss
            values[tuple(n // 2 for n in values.shape)] = 1
        return values


def _box(inside: np.ndarray) -> tuple[slice, ...]:
    return ndimage.find_objects(inside.astype(np.uint8))[0]


def largest_piece(inside: np.ndarray) -> np.ndarray:
    """The largest connected piece, corners included."""
    pieces, count = ndimage.label(inside, np.ones((3, 3, 3)))
    return inside if count < 2 else pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()


def read_lesion(file: Path) -> Lesion | None:
    """The lesion of one mask; None if it is too small to have a form.

    Raises:
        UserError: If the file is broken.
    """
    values, geometry = read_image(file)
    mask: np.ndarray = np.any(values > 0, axis=0)
    spacing = geometry.spacing[::-1]
    if geometry.dimensions == 2:
        mask, spacing = mask[None], (1.0, *spacing)
    piece = largest_piece(mask)
    return Lesion(piece[_box(piece)], spacing) if piece.sum() >= MIN_LESION_VOXELS else None


def draw_lesion(files: Sequence[Path], seed: int) -> Lesion:
    """Read the lesion that belongs to a case's seed; those too small are passed over.

    Raises:
        UserError: If a file is broken, or twenty in a row are too small.
    """
    order = np.random.default_rng(seed).permutation(len(files))[:READING_TRIES]
    for index in order:
        found = read_lesion(files[index])
        if found is not None:
            return found
    raise UserError(
        f"{files[0].parent}: none of {len(order)} masks has a lesion of at least {MIN_LESION_VOXELS} connected voxels; "
        "give masks of larger lesions."
    )
