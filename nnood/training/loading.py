"""How images reach the training: which variation is normal for them, and who prepares them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnood.plan import NnoodPlan


def normal_variation(
    plan: NnoodPlan, transpose_forward: Sequence[int], dimensions: int
) -> tuple[tuple[float, float], tuple[int, ...]]:
    """Rotation and mirroring that leave this anatomy normal.

    Args:
        plan: What was planned; its axes are those of the image file.
        transpose_forward: nnU-Net's order of those axes in stored cases.
        dimensions: Of the configuration's patches; 2 leaves the first stored axis out.

    Returns:
        Smallest and largest rotation in radians, and the stored axes that may be mirrored.
    """
    limit = float(np.deg2rad(plan.rotation_degrees))
    stored = [list(transpose_forward).index(axis) - (3 - dimensions) for axis in plan.mirror_axes]
    return (-limit, limit), tuple(sorted(axis for axis in stored if axis >= 0))


def feed(loader: nnUNetDataLoader, device: torch.device) -> Any:
    """Worker processes beside a GPU; this process on a CPU, where others would only compete with the network."""
    workers = get_allowed_n_proc_DA() if device.type != "cpu" else 0
    if workers == 0:
        return SingleThreadedAugmenter(loader, None)
    return NonDetMultiThreadedAugmenter(
        loader,
        None,
        workers,
        num_cached=max(6, workers // 2),
        seeds=None,
        pin_memory=device.type == "cuda",
        wait_time=0.002,
    )
