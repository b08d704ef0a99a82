"""From scores on the network's grid to a score map on the input's, and to files in the MOOD challenge's layout."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnood.geometry import Geometry
from nnood.images import write_image
from nnood.safety import write_text


def map_back(
    scores: torch.Tensor, properties: dict[str, Any], plans: PlansManager, configuration: ConfigurationManager
) -> np.ndarray:
    """Undo nnU-Net's preprocessing on scores.

    Scores are resampled, not logits: so the mean of members on the network's grid becomes the mean of their score maps.

    Args:
        scores: (1, *S) in [0, 1] on the preprocessed grid.
        properties: As the preprocessing of the image left them.
        plans: The plans.
        configuration: One of them.

    Returns:
        Scores (Z, Y, X) float32 in [0, 1]; 0 outside of the region that was cropped to.
    """
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    planned = list(configuration.spacing)
    current = planned if len(planned) == len(shape) else [spacing[0], *planned]
    resampled = configuration.resampling_fn_probabilities(scores.float(), shape, current, spacing)
    values = torch.as_tensor(resampled).float()[0].clamp(0, 1).numpy()
    whole = np.zeros(properties["shape_before_cropping"], dtype=np.float32)
    insert_crop_into_image(whole, values, properties["bbox_used_for_cropping"])
    return np.ascontiguousarray(whole.transpose(plans.transpose_backward))


def prediction_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Score map and sample score of a case, named as in the MOOD challenge."""
    return folder / f"{name}.nii.gz", folder / f"{name}.nii.gz.txt"


def write_prediction(score_map: np.ndarray, score: float, geometry: Geometry, folder: Path, name: str) -> None:
    """Write a case's score map with the geometry of its input, and the sample score beside it.

    Args:
        score_map: (Z, Y, X) in [0, 1].
        score: Of the sample.
        geometry: Of the input.
        folder: Where to.
        name: Of the case.
    """
    map_file, score_file = prediction_files(folder, name)
    write_image(score_map.astype(np.float32, copy=False), geometry, map_file)
    write_text(score_file, f"{score:.9g}\n")
