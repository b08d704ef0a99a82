"""What the network must say: a target in [0, 1] per voxel, as a function of before, after and weight."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

Label = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

MIN_LABEL = 0.05


def _shifted_maximum(values: torch.Tensor, radius: int) -> torch.Tensor:
    """Maximum over a cube of edge 2 radius + 1, by shifts along each axis (faster on a CPU than pooling in 3D)."""
    for axis in range(values.ndim):
        reach = min(radius, values.shape[axis] - 1)
        result = values.clone()
        for shift in range(1, reach + 1):
            ahead = values.narrow(axis, shift, values.shape[axis] - shift)
            behind = values.narrow(axis, 0, values.shape[axis] - shift)
            lower = result.narrow(axis, 0, values.shape[axis] - shift)
            upper = result.narrow(axis, shift, values.shape[axis] - shift)
            torch.maximum(lower, ahead, out=lower)
            torch.maximum(upper, behind, out=upper)
        values = result
    return values


def close_holes(values: torch.Tensor, radius: int = 1) -> torch.Tensor:
    """Grey-scale closing of (*S): dilation, then erosion. Beyond the border counts as neutral, so nothing is erased."""
    return -_shifted_maximum(-_shifted_maximum(values, radius), radius)


@dataclass(frozen=True)
class FlippedGaussian:
    """1 - p(d) / p(0), d ~ N(0, sigma^2): 0 where nothing changed, near 1 beyond two sigma.

    Source: Baugh et al. 2023, "Many tasks make light work"; sigma comes from the data
    (`ConfigurationPlan.label_sigma`), which makes the label independent of the unit of the intensities.

    Attributes:
        sigma: Per channel, in normalised intensity.
    """

    sigma: tuple[float, ...]

    def __call__(self, before: torch.Tensor, after: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Compute the label.

        Args:
            before: The box before, (C, *box).
            after: The box after, (C, *box).
            weight: The blend's weight, (*box); the label is 0 where it is 0.

        Returns:
            (*box) in [0, 1]; changes too small to be seen (label below `MIN_LABEL`) count as none.
        """
        sigma = torch.tensor(self.sigma, device=before.device, dtype=torch.float32).reshape(-1, *[1] * weight.ndim)
        distance = (((after - before).float() / sigma) ** 2).amax(dim=0)
        label = close_holes(-torch.expm1(-0.5 * distance))
        return torch.where((weight > 0) & (label >= MIN_LABEL), label, 0.0)
