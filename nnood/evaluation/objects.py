"""Object level: which anomalies are found at how many false alarms.

An object is a connected piece of the truth, a region a connected piece of the voxels that score at least a threshold
(diagonal neighbours count as connected, in 2D and 3D). A region finds an object when their intersection over union is
at least 0.1, as in nnDetection (Baumgartner et al., MICCAI 2021). A region is a false alarm when less than a tenth of
it is anomalous; so a fragment inside an object is neither a hit nor a false alarm, and a region that floods the image
finds nothing.
"""

from dataclasses import dataclass

import cc3d
import numpy as np

MIN_OVERLAP = 0.1
FALSE_ALARM_RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)


@dataclass(frozen=True)
class Detections:
    """What the regions of one case hit, per threshold.

    Attributes:
        found: Whether each object is found, bool (T, objects).
        false_alarms: Number of false alarms, int (T,).
    """

    found: np.ndarray
    false_alarms: np.ndarray


def label_objects(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the objects of a mask.

    Args:
        truth: Bool, 2D or 3D.

    Returns:
        Object numbers from 1 on, 0 outside, in the mask's shape; and the voxels per object, (objects,).
    """
    if not truth.any():
        return np.zeros(truth.shape, dtype=np.uint16), np.zeros(0, dtype=np.int64)
    objects = cc3d.connected_components(np.ascontiguousarray(truth), connectivity=8 if truth.ndim == 2 else 26)
    return objects, np.bincount(objects.reshape(-1))[1:]


def overlap_weights(objects: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Weight 1 / (voxels of its object) of each voxel inside an object, in the order of `objects > 0`.

    Summed over the voxels that are called anomalous, they give the overlaps of all objects: the AUPRO's vertical axis.
    """
    return (1 / sizes)[objects[objects > 0].astype(np.intp) - 1]


def detect(scores: np.ndarray, objects: np.ndarray, sizes: np.ndarray, thresholds: np.ndarray) -> Detections:
    """Match regions with objects at every threshold.

    Args:
        scores: Score map, 2D or 3D.
        objects: Numbers of objects, same shape, as `label_objects` gives them.
        sizes: Voxels per object.
        thresholds: Scores, (T,), in any order.
    """
    found = np.zeros((len(thresholds), len(sizes)), dtype=bool)
    false_alarms = np.zeros(len(thresholds), dtype=np.int64)
    inside = np.flatnonzero(objects.reshape(-1))
    numbers = objects.reshape(-1)[inside].astype(np.intp)
    for row, threshold in enumerate(thresholds):
        called = scores >= threshold
        if called.any():
            regions, region_sizes = label_objects(called)
            hit = regions.reshape(-1)[inside].astype(np.intp)
            found[row], false_alarms[row] = _match(hit, numbers, region_sizes, sizes)
    return Detections(found, false_alarms)


def _match(hit: np.ndarray, numbers: np.ndarray, region_sizes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, int]:
    """Which objects are found, and how many regions are false alarms.

    Args:
        hit: Region (0: none) of each anomalous voxel.
        numbers: Its object.
        region_sizes: Voxels per region.
        sizes: Voxels per object.
    """
    pairs, common = np.unique(hit[hit > 0] * (len(sizes) + 1) + numbers[hit > 0], return_counts=True)
    region, number = pairs // (len(sizes) + 1) - 1, pairs % (len(sizes) + 1) - 1
    union = region_sizes[region] + sizes[number] - common
    found = np.zeros(len(sizes), dtype=bool)
    found[number[common >= MIN_OVERLAP * union]] = True
    anomalous = np.bincount(region, common, minlength=len(region_sizes))
    return found, int((anomalous < MIN_OVERLAP * region_sizes).sum())


def best_threshold(found: np.ndarray, false_alarms: np.ndarray, rate: float) -> np.ndarray:
    """The threshold that finds most objects without more than `rate` false alarms per case.

    Args:
        found: Number of found objects, (..., T).
        false_alarms: False alarms per case, (..., T).
        rate: Allowed false alarms per case.

    Returns:
        Index of the threshold, (...), or -1 where every threshold gives more false alarms.
    """
    allowed = false_alarms <= rate
    return np.where(allowed.any(axis=-1), np.where(allowed, found, -1).argmax(axis=-1), -1)


def share_found(found: np.ndarray, objects: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Share of objects that are found at a threshold.

    Args:
        found: Number of found objects, (..., T).
        objects: Number of objects, (...).
        threshold: Index of the threshold, (...), as `best_threshold` gives it.

    Returns:
        Share in [0, 1], 0 where the index is -1; NaN without objects.
    """
    hits = np.take_along_axis(found, np.maximum(threshold, 0)[..., None], axis=-1)[..., 0]
    hits = np.where(threshold < 0, 0, hits)
    return np.where(objects > 0, hits / np.maximum(objects, 1e-9), np.nan)
