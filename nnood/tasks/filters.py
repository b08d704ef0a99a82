"""Separable filters by shifted sums and maxima: on a CPU, in 3D, far faster than convolution and pooling layers."""

import math
from collections.abc import Callable, Sequence

import torch


def shifted_maximum(
    values: torch.Tensor, radius: int, extreme: Callable[..., torch.Tensor] = torch.maximum
) -> torch.Tensor:
    """Maximum over a cube of edge 2 radius + 1 within (*S); what lies beyond the border does not count.

    Args:
        values: (*S).
        radius: Half of the edge.
        extreme: `torch.minimum` makes it the minimum.
    """
    for axis in range(values.ndim):
        reach = min(radius, values.shape[axis] - 1)
        result = values.clone()
        for shift in range(1, reach + 1):
            ahead = values.narrow(axis, shift, values.shape[axis] - shift)
            behind = values.narrow(axis, 0, values.shape[axis] - shift)
            lower = result.narrow(axis, 0, values.shape[axis] - shift)
            upper = result.narrow(axis, shift, values.shape[axis] - shift)
            extreme(lower, ahead, out=lower)
            extreme(upper, behind, out=upper)
        values = result
    return values


def gaussian_weights(sigma: float, radius: int) -> list[float]:
    """Weights of a discrete Gaussian at distances 0 to `radius`; both sides together sum to 1."""
    half = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(radius + 1)]
    total = half[0] + 2 * sum(half[1:])
    return [weight / total for weight in half]


def smooth(values: torch.Tensor, axes: Sequence[int], weights: Sequence[float], *, repeat_border: bool) -> torch.Tensor:
    """Symmetric separable smoothing.

    Args:
        values: Any floating tensor.
        axes: Which to smooth along; those of one element are left out.
        weights: At distances 0, 1, ...
        repeat_border: What lies beyond the border counts as the border's value, otherwise as 0.
    """
    for axis in axes:
        n = values.shape[axis]
        if n == 1:
            continue
        result = weights[0] * values
        for shift, weight in enumerate(weights[1:], start=1):
            for low, high, edge in ((shift, 0, n - 1), (0, shift, 0)):
                kept = max(0, n - shift)
                if kept:
                    result.narrow(axis, high, kept).add_(values.narrow(axis, low, kept), alpha=weight)
                if repeat_border:
                    beyond = min(shift, n)
                    start = n - beyond if edge else 0
                    result.narrow(axis, start, beyond).add_(values.narrow(axis, edge, 1), alpha=weight)
        values = result
    return values
