"""The loss on soft labels, and what it would be for a network that has learned nothing."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional


class SoftBinaryCrossEntropy(nn.Module):
    """Binary cross-entropy of logits (B, 1, *S) with soft labels (B, 1, *S), computed in float32."""

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Mean over all voxels."""
        return functional.binary_cross_entropy_with_logits(logits.float(), label.float())


def downsample_label(label: torch.Tensor, shapes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """The label at each of the network's resolutions, by averaging.

    Args:
        label: (B, 1, *S).
        shapes: Spatial shapes, the full one first.

    Returns:
        One tensor per shape.
    """
    pool: Callable[..., torch.Tensor] = (
        functional.adaptive_avg_pool2d if label.ndim == 4 else functional.adaptive_avg_pool3d
    )
    return [label if tuple(shape) == tuple(label.shape[2:]) else pool(label, tuple(shape)) for shape in shapes]


def entropy(prior: float) -> float:
    """Cross-entropy of the best constant prediction for labels of this mean: -p ln p - (1 - p) ln(1 - p)."""
    if not 0 < prior < 1:
        return 0.0
    return -prior * math.log(prior) - (1 - prior) * math.log(1 - prior)
