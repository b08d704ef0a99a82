"""From a score map to one score for the sample."""

from collections.abc import Callable

import numpy as np


def _highest(count: int) -> Callable[[int], int]:
    return lambda voxels: min(count, voxels)


def _share(fraction: float) -> Callable[[int], int]:
    return lambda voxels: min(max(1, round(fraction * voxels)), voxels)


# How many of an image's voxels, the highest ones, are averaged.
SAMPLE_SCORES: dict[str, Callable[[int], int]] = {
    "mean": _share(1),
    "max": _highest(1),
    "top_100_voxels": _highest(100),
    "top_500_voxels": _highest(500),
    "top_0.1_percent": _share(0.001),
    "top_1_percent": _share(0.01),
    "top_5_percent": _share(0.05),
}
DEFAULT_SAMPLE_SCORE = "top_100_voxels"


def sample_score(
    score_map: np.ndarray, kind: str = DEFAULT_SAMPLE_SCORE, foreground: np.ndarray | None = None
) -> float:
    """Mean of the highest voxels; of all voxels where there are fewer.

    Source: the default is that of CitAI's winning entry to the MOOD challenge 2022.

    Args:
        score_map: Values in [0, 1], any shape.
        kind: One of `SAMPLE_SCORES`.
        foreground: Bool, same shape: only voxels inside count; all of them if None.

    Returns:
        A score in [0, 1].

    Raises:
        ValueError: If the kind is unknown, or the foreground is of another shape, no bool, or empty.
    """
    if kind not in SAMPLE_SCORES:
        raise ValueError(f"Expected one of {', '.join(SAMPLE_SCORES)}, but got {kind!r}.")
    values = np.asarray(score_map, dtype=np.float32)
    if foreground is not None:
        if foreground.shape != values.shape or foreground.dtype != np.bool_:
            raise ValueError(
                f"Expected a foreground of shape {values.shape} and type bool, but got {foreground.shape} and "
                f"{foreground.dtype}."
            )
        values = values[foreground]
    if not values.size:
        raise ValueError("Expected at least one voxel to score, but got none.")
    values = values.ravel()
    count = SAMPLE_SCORES[kind](values.size)
    if count < values.size:
        values = np.partition(values, values.size - count)[-count:]
    return float(np.clip(values.mean(dtype=np.float64), 0, 1))
