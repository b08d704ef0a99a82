"""What the network must say: a target in [0, 1] per voxel, as a function of before, after and weight.

Whatever the label, it is 0 where nothing visibly changed: nobody could learn it there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nnood.tasks.filters import shifted_maximum
from nnood.tasks.settings import TaskSettings

MIN_LABEL = 0.05
# An anomaly that is nowhere stronger than this cannot be told from normal variation: it counts as none.
MIN_PEAK = 0.3
# Of |d|, d normal: the 40th percentile in terms of the median.
SATURATION_OF_MEDIAN = 0.7775


def close_holes(values: torch.Tensor, radius: int = 1) -> torch.Tensor:
    """Grey-scale closing of (*S): dilation, then erosion. Beyond the border counts as neutral, so nothing is erased."""
    return shifted_maximum(shifted_maximum(values, radius), radius, torch.minimum)


@dataclass(frozen=True)
class Label:
    """1 - p(d) / p(0), d ~ N(0, sigma^2): 0 where nothing changed, near 1 beyond two sigma.

    Source: Baugh et al. 2023, "Many tasks make light work"; sigma comes from the data
    (`ConfigurationPlan.label_sigma`), which makes the label independent of the unit of the intensities.

    Attributes:
        sigma: Per channel, in normalised intensity.
        value: What is said instead, where the above is visible: a function of before, after and weight; or None.
    """

    sigma: tuple[float, ...]
    value: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None

    def __call__(self, before: torch.Tensor, after: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Compute the label.

        Args:
            before: The box before, (C, *box).
            after: The box after, (C, *box).
            weight: The blend's weight, (*box); the label is 0 where it is 0.

        Returns:
            (*box) in [0, 1]; changes too small to be seen (below `MIN_LABEL`, or `MIN_PEAK` at most) count as none.
        """
        sigma = torch.tensor(self.sigma, device=before.device, dtype=torch.float32).reshape(-1, *[1] * weight.ndim)
        change = (after - before).div_(sigma)
        distance = change.mul_(change)
        distance = distance[0] if len(distance) == 1 else distance.amax(dim=0)
        label = close_holes(distance.mul_(-0.5).expm1_().neg_())
        # Masks as numbers: on a CPU, products are several times faster than selecting.
        visible = torch.ge(label, MIN_LABEL, out=torch.empty_like(label))
        visible *= label.amax() >= MIN_PEAK
        visible *= torch.gt(weight, 0, out=torch.empty_like(label))
        return visible * (label if self.value is None else self.value(before, after, weight))


def _binary(before: torch.Tensor, after: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(weight)


def _weight(before: torch.Tensor, after: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight


@dataclass(frozen=True)
class Logistic:
    """A logistic function of the change, 0.1 for none and 0.99 from a given change on.

    Source: Schlüter, Tan, Hou, Kainz 2022, "Natural synthetic anomalies for self-supervised anomaly detection and
    localization": lower bound 0.1, saturation at the 40th percentile of observed changes. Here, as for all that is
    calibrated on the data, those are the differences of two foreground voxels of a case.

    Attributes:
        saturation: Per channel, in normalised intensity.
    """

    saturation: tuple[float, ...]

    def __call__(self, before: torch.Tensor, after: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Of the mean change over the channels."""
        scale = torch.tensor(self.saturation, device=before.device, dtype=torch.float32).reshape(-1, *[1] * weight.ndim)
        change = ((after - before).abs() / scale).mean(dim=0)
        low, high = (math.log(p / (1 - p)) for p in (0.1, 0.99))
        return torch.sigmoid(low + (high - low) * change)


def _saturation(settings: TaskSettings) -> tuple[float, ...]:
    return settings.label_saturation or tuple(2 * SATURATION_OF_MEDIAN * sigma for sigma in settings.label_sigma)


LABELS: dict[str, Callable[[TaskSettings], Label]] = {
    "flipped_gaussian": lambda settings: Label(settings.label_sigma),
    "binary": lambda settings: Label(settings.label_sigma, _binary),
    "weight": lambda settings: Label(settings.label_sigma, _weight),
    "logistic": lambda settings: Label(settings.label_sigma, Logistic(_saturation(settings))),
}
