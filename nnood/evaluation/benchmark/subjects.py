"""What a kind of anomaly sees of a normal case, and what it hands back."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnood.evaluation.benchmark.lesions import Lesion

# A voxel counts as changed from this share of the case's robust intensity range on.
VISIBLE = 0.05
PERCENTILES = (1, 99)


@dataclass(frozen=True, eq=False)
class Subject:
    """A normal case.

    Attributes:
        image: float32 (C, Z, Y, X), Z = 1 for 2D images; never modified.
        foreground: Boolean (Z, Y, X), not empty.
        spacing: Millimetres per voxel (z, y, x); 1 for the missing axis of 2D images.
        low: Per channel (C, 1, 1, 1), the 1st percentile within the foreground.
        scale: Per channel (C, 1, 1, 1), the robust range: 1st to 99th percentile; 0 for a constant channel.
    """

    image: np.ndarray
    foreground: np.ndarray
    spacing: tuple[float, ...]
    low: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, foreground: np.ndarray, spacing: Sequence[float]) -> "Subject":
        """Measure the robust range of each channel.

        A channel without spread in the foreground is measured by the extremes of the whole image.
        """
        low, high = np.percentile(image[:, foreground].astype(np.float64), PERCENTILES, axis=1)
        flat = high <= low
        low = np.where(flat, image.min(axis=(1, 2, 3)), low)
        high = np.where(flat, image.max(axis=(1, 2, 3)), high)
        per_channel = (-1, 1, 1, 1)
        return cls(image, foreground, tuple(spacing), low.reshape(per_channel), (high - low).reshape(per_channel))

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes (0 = z, 1 = y, 2 = x) of more than one voxel; all of them for a single voxel."""
        return tuple(axis for axis, n in enumerate(self.foreground.shape) if n > 1) or (0, 1, 2)

    @cached_property
    def foreground_voxels(self) -> np.ndarray:
        """Flat indices of the foreground."""
        return np.flatnonzero(self.foreground)

    @cached_property
    def foreground_box(self) -> tuple[slice, ...]:
        """The smallest box around the foreground."""
        found = []
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            indices = np.flatnonzero(self.foreground.any(axis=others))
            found.append(slice(int(indices[0]), int(indices[-1]) + 1))
        return tuple(found)

    @property
    def extent_mm(self) -> float:
        """The shortest extent of the foreground, of axes with more than one voxel."""
        return min(self.foreground[self.foreground_box].shape[axis] * self.spacing[axis] for axis in self.axes)

    @property
    def voxel_volume(self) -> float:
        """In mm^3, in 2D mm^2."""
        return float(np.prod(self.spacing))


@dataclass(frozen=True, eq=False)
class Draw:
    """What decides how an anomaly turns out.

    Attributes:
        rng: Source of all randomness.
        variant: 0 to 19, for kinds that go through combinations instead of drawing them.
        lesion: A real lesion, for the kind that needs one.
    """

    rng: np.random.Generator
    variant: int = 0
    lesion: Lesion | None = None


@dataclass(frozen=True, eq=False)
class Planted:
    """A case with its anomaly.

    Attributes:
        image: float32 (C, Z, Y, X); another grid than the subject's only where the whole image was turned.
        mask: Boolean (Z, Y, X), not empty.
        spacing: Millimetres per voxel (z, y, x).
        size_mm: Diameter of the anomaly; None for a whole image.
        strength: Its meaning is the kind's.
        changed: Share of the mask's foreground voxels that changed visibly in any channel.
    """

    image: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, ...]
    size_mm: float | None
    strength: float
    changed: float


def finish(
    subject: Subject, values: np.ndarray, mask: np.ndarray, *, size_mm: float | None, strength: float
) -> Planted:
    """Put new values into a copy of the image, inside the mask only.

    Args:
        subject: The normal case.
        values: (C, Z, Y, X), any floating-point type.
        mask: Boolean (Z, Y, X).
        size_mm: As in `Planted`.
        strength: As in `Planted`.
    """
    limit = float(np.finfo(np.float32).max)
    image = np.where(mask, np.clip(values, -limit, limit).astype(np.float32), subject.image)
    return Planted(image, mask, subject.spacing, size_mm, strength, changed_share(subject, image, mask))


def changed_share(subject: Subject, image: np.ndarray, mask: np.ndarray) -> float:
    """The share of the mask's foreground voxels that changed visibly; of all of its voxels if none is foreground."""
    judged = mask & subject.foreground if (mask & subject.foreground).any() else mask
    change = np.abs(image[:, judged].astype(np.float64) - subject.image[:, judged])
    return float((change > VISIBLE * subject.scale.reshape(-1, 1)).any(axis=0).mean())
