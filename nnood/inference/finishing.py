"""From a combined score map to the plan's final answer: post-processing, calibration, sample score."""

import numpy as np

from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.inference.inference_plan import InferencePlan
from nnood.inference.postprocessing import apply_steps, spacing_of
from nnood.planning.foreground import foreground_mask
from nnood.scores import sample_score

USERS_MASKS = "masks"


def refuse_users_masks(plan: InferencePlan, method: str) -> None:
    """Refuse plans that need the foreground of new images where only the user's own masks say what that is.

    Args:
        plan: To be followed.
        method: How the data set's foreground was found.

    Raises:
        UserError: If it cannot be followed.
    """
    if plan.needs_foreground and method == USERS_MASKS:
        raise UserError(
            f"The inference plan of {plan.dataset} needs the foreground of new images, but the data set's own was "
            "given as masks; leave out restrict_to_foreground and within_foreground."
        )


def foreground_of(image: np.ndarray, plan: InferencePlan, method: str) -> np.ndarray | None:
    """The foreground of a new image, if the plan needs it.

    Args:
        image: Values (C, Z, Y, X).
        plan: To be followed.
        method: How the data set's foreground was found.

    Returns:
        Bool (Z, Y, X), or None.
    """
    return foreground_mask(image, method) if plan.needs_foreground else None


def finish(
    score_map: np.ndarray, plan: InferencePlan, *, foreground: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, float]:
    """Take the plan's steps, calibrate, and score the sample.

    Args:
        score_map: The combined one, (Z, Y, X) float32 in [0, 1]; not modified.
        plan: To be followed.
        foreground: Bool (Z, Y, X); None if the plan does not need it.
        geometry: Of the image.

    Returns:
        The score map (Z, Y, X) float32 in [0, 1] and the sample score in [0, 1].
    """
    processed = apply_steps(score_map, plan.steps, foreground=foreground, spacing=spacing_of(geometry))
    calibrated = plan.calibration(processed)
    return calibrated, sample_score(calibrated, plan.sample_score, foreground if plan.within_foreground else None)
