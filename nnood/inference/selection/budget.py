"""How many cases are judged, so that their score maps fit on the disk."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnood.images import read_image
from nnood.inference.selection.images import Image, clean_images, list_images
from nnood.training.cross_validation import Fold
from nnood.training.validation import NORMAL, spread_evenly

logger = logging.getLogger(__name__)

# Clean cases for each one with anomalies: a threshold at 1 % false positives needs at least a hundred.
CLEAN_PER_CASE = 5
# Of score maps of judged cases, and again of those of more clean ones.
MAX_BYTES = 8 * 2**30
BYTES_PER_VOXEL = 2
FEWEST_CASES = 5
MEASURED_CASES = 5


def choose_images(
    folds: Sequence[Fold], files: dict[str, list[Path]], *, max_cases: int, max_bytes: float = MAX_BYTES
) -> tuple[tuple[Image, ...], tuple[Image, ...]]:
    """Choose as many cases as are wanted, or as score maps may take room.

    Args:
        folds: Of all members.
        files: Of each case of the data set.
        max_cases: At most so many cases get anomalies; five times as many are predicted clean.
        max_bytes: Of score maps of judged cases, and again of more clean ones. A few cases are judged in any case.

    Returns:
        Images to judge, clean and with anomalies; and clean images of more cases, for thresholds.
    """
    judged = list_images(folds, max_cases=max_cases)
    known = sorted({image.case for image in judged} & set(files))
    if not known:
        return tuple(judged), ()
    cases = len({image.case for image in judged})
    per_map = BYTES_PER_VOXEL * _voxels(files, spread_evenly(known, MEASURED_CASES))
    affordable = max(FEWEST_CASES, int(max_bytes / (per_map * sum(len(image.judges) for image in judged) / cases)))
    if affordable < cases:
        logger.info("Only %d of %d cases get anomalies: score maps take much room.", affordable, cases)
        judged = list_images(folds, max_cases=affordable)
        cases = affordable
    judges = float(np.mean([len(image.judges) for image in judged if image.task == NORMAL]))
    more = min(CLEAN_PER_CASE * max_cases, cases + int(max_bytes / (per_map * judges)))
    return tuple(judged), tuple(clean_images(folds, judged, max_cases=more))


def _voxels(files: dict[str, list[Path]], cases: Sequence[str]) -> float:
    """Mean number of voxels of some cases."""
    return float(np.mean([np.prod(read_image(files[case][0])[1].size) for case in cases]))
