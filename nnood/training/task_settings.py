"""What the tasks must know, gathered from the plan and the preprocessed data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nnood.errors import UserError
from nnood.plan import NnoodPlan
from nnood.planning.lesions import LESIONS_FILE
from nnood.safety import sha256
from nnood.tasks import TaskSettings


def task_settings(plan: NnoodPlan, configuration: str, spacing: Sequence[float], folder: Path) -> TaskSettings:
    """The settings of all tasks on one configuration.

    Args:
        plan: Of the data set.
        configuration: A preprocessed one.
        spacing: Of the configuration, in mm, one per axis of its patches.
        folder: The preprocessed data set, which holds the shapes of lesions if there are any.

    Raises:
        UserError: If that file is missing or was changed.
    """
    measured = plan.configurations[configuration]
    return TaskSettings(
        extent=measured.foreground_extent[-len(spacing) :],
        fractions=plan.anomaly_size,
        label_sigma=measured.label_sigma,
        spacing=tuple(map(float, spacing)),
        label_saturation=measured.label_saturation,
        lesions=_load_lesions(folder / LESIONS_FILE, plan.lesions) if plan.lesions else None,
    )


def _load_lesions(file: Path, expected: str) -> torch.Tensor:
    if not file.is_file() or sha256(file) != expected:
        raise UserError(f"{file} is missing or was changed; run nnood_plan_and_preprocess again.")
    return torch.from_numpy(np.load(file, allow_pickle=False))
