"""Steps that a combined score map goes through, one after the other."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from scipy import ndimage

from nnood.geometry import Geometry

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class StepKind:
    """What a kind of step does.

    Attributes:
        apply: Takes scores (Z, Y, X), the parameters, the foreground and the spacing; returns new scores.
        least: Parameters and the lowest value of each.
        needs_foreground: Whether it cannot do without.
    """

    apply: Callable[[np.ndarray, dict[str, float], np.ndarray | None, Spacing], np.ndarray]
    least: dict[str, float]
    needs_foreground: bool = False


def restrict_to_foreground(
    scores: np.ndarray, parameters: dict[str, float], foreground: np.ndarray | None, spacing: Spacing
) -> np.ndarray:
    """Set scores to 0 that lie more than `dilation_mm` outside of the foreground."""
    if foreground is None:
        raise ValueError("Expected a foreground to restrict scores to, but got none.")
    return np.where(dilated(foreground, parameters["dilation_mm"], spacing), scores, np.float32(0))


def smooth(
    scores: np.ndarray, parameters: dict[str, float], foreground: np.ndarray | None, spacing: Spacing
) -> np.ndarray:
    """Blur by a Gaussian of `sigma_mm`; the border's values go on outside of the image."""
    sigma = [parameters["sigma_mm"] / mm if n > 1 else 0.0 for n, mm in zip(scores.shape, spacing, strict=True)]
    return ndimage.gaussian_filter(scores, sigma, mode="nearest", output=np.float32)


def remove_small(
    scores: np.ndarray, parameters: dict[str, float], foreground: np.ndarray | None, spacing: Spacing
) -> np.ndarray:
    """Lower regions that reach the threshold but are smaller than `volume_mm3` to just below the threshold."""
    threshold = np.float32(parameters["threshold"])
    regions = cc3d.connected_components(scores >= threshold, connectivity=26)
    small = np.bincount(regions.ravel()) * math.prod(spacing) < parameters["volume_mm3"]
    small[0] = False  # what is below the threshold
    return np.where(small[regions], np.nextafter(threshold, np.float32(0)), scores)


STEPS: dict[str, StepKind] = {
    "restrict_to_foreground": StepKind(restrict_to_foreground, {"dilation_mm": 0.0}, needs_foreground=True),
    "smooth": StepKind(smooth, {"sigma_mm": 0.0}),
    "remove_small": StepKind(remove_small, {"threshold": 1e-30, "volume_mm3": 0.0}),
}


@dataclass(frozen=True)
class Step:
    """One step of post-processing.

    Attributes:
        kind: One of `STEPS`.
        parameters: Those of the kind, by name.
    """

    kind: str
    parameters: dict[str, float]

    def __post_init__(self) -> None:
        if self.kind not in STEPS:
            raise ValueError(f"Expected one of {', '.join(STEPS)}, but got the step {self.kind!r}.")
        least = STEPS[self.kind].least
        if sorted(self.parameters) != sorted(least):
            raise ValueError(
                f"Expected the parameters {', '.join(least)} of the step {self.kind}, but got "
                f"{', '.join(self.parameters) or 'none'}."
            )
        for name, value in self.parameters.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"Expected a number for {name} of the step {self.kind}, but got {value!r}.")
            if value < least[name]:
                raise ValueError(f"Expected {name} of the step {self.kind} >= {least[name]:g}, but got {value}.")

    @property
    def needs_foreground(self) -> bool:
        """Whether the step cannot be taken without the foreground."""
        return STEPS[self.kind].needs_foreground

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return {"kind": self.kind, "parameters": dict(self.parameters)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Step":
        """Read a step back.

        Raises:
            ValueError: If it is none.
        """
        if not isinstance(content, dict) or sorted(content) != ["kind", "parameters"]:
            raise ValueError(f"Expected a step with kind and parameters, but got {content!r}.")
        if not isinstance(content["kind"], str) or not isinstance(content["parameters"], dict):
            raise ValueError(f"Expected a step with the name of its kind and named parameters, but got {content!r}.")
        return cls(content["kind"], dict(content["parameters"]))

    def describe(self) -> str:
        """For the user: kind and parameters."""
        return f"{self.kind} ({', '.join(f'{name} {value:.3g}' for name, value in self.parameters.items())})"


def apply_steps(
    scores: np.ndarray, steps: Sequence[Step], *, foreground: np.ndarray | None, spacing: Spacing
) -> np.ndarray:
    """Take all steps.

    Args:
        scores: (Z, Y, X) float32 in [0, 1]; never modified.
        steps: In their order.
        foreground: Bool (Z, Y, X); None if no step needs it.
        spacing: In mm, (z, y, x). A single slice counts as 1 mm thick; nothing is smoothed or dilated across it.

    Returns:
        New scores, float32 in [0, 1].

    Raises:
        ValueError: If a step needs the foreground and there is none.
    """
    thickness = spacing[0] if scores.shape[0] > 1 else 1.0
    result = np.array(scores, dtype=np.float32)
    for step in steps:
        result = STEPS[step.kind].apply(result, step.parameters, foreground, (thickness, *spacing[1:]))
    return np.clip(result, 0, 1).astype(np.float32, copy=False)


def spacing_of(geometry: Geometry) -> Spacing:
    """Spacing (z, y, x) in mm of an image; a 2D image counts as 1 mm thick."""
    mm = tuple(reversed(geometry.spacing))
    return (1.0, mm[0], mm[1]) if len(mm) == 2 else (mm[0], mm[1], mm[2])


def dilated(foreground: np.ndarray, distance: float, spacing: Spacing) -> np.ndarray:
    """All voxels within a distance of the foreground.

    Args:
        foreground: Bool (Z, Y, X).
        distance: In mm, between centres of voxels.
        spacing: In mm, (z, y, x).

    Returns:
        Bool (Z, Y, X).
    """
    if distance <= 0 or not foreground.any():
        return foreground
    # Distances are found in the foreground's box and its neighbourhood only.
    box = []
    for axis, (n, mm) in enumerate(zip(foreground.shape, spacing, strict=True)):
        used = np.flatnonzero(foreground.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = math.ceil(distance / mm)
        box.append(slice(max(0, int(used[0]) - margin), min(n, int(used[-1]) + 1 + margin)))
    where = tuple(box)
    result = np.zeros(foreground.shape, dtype=bool)
    # Hardly more, so that a distance that is a multiple of the spacing reaches the voxel there.
    result[where] = ndimage.distance_transform_edt(~foreground[where], sampling=spacing) <= distance * (1 + 1e-6)
    return result
