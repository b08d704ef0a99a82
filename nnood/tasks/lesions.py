"""Masks of real lesions, brought to one size and form so that they can be planted anywhere."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

EDGE = 32
# Fewer voxels than this have no form of their own.
MIN_VOXELS = 27


def lesion_template(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray | None:
    """Bring the largest connected piece of a mask to a cube that its enclosing ball touches.

    Args:
        mask: Boolean (Z, Y, X); a 2D mask has one slice, and becomes a disc-like lesion as thick as it is wide.
        spacing: Size of a voxel in mm, in the same order.

    Returns:
        (EDGE, EDGE, EDGE) uint8, 255 inside; None if the piece has fewer than `MIN_VOXELS` voxels.
    """
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    if not len(sizes) or sizes.max() < MIN_VOXELS:
        return None
    piece = pieces == 1 + sizes.argmax()
    piece = piece[ndimage.find_objects(piece.astype(np.uint8))[0]]
    edges = np.asarray(spacing, dtype=float)
    if mask.shape[0] == 1:
        thickness = max(1, round(max(piece.shape * edges) / edges[0]))
        piece = np.repeat(piece, thickness, axis=0)
    voxels = np.argwhere(piece) * edges
    middle = voxels.mean(axis=0)
    radius = np.linalg.norm(voxels - middle, axis=1).max() + np.linalg.norm(edges) / 2
    step = 2 * radius / EDGE
    # Half a voxel of the template wide, so that thin parts leave a trace in it.
    margin = 2 + np.ceil(step / edges).astype(int)
    padded = np.pad(piece.astype(np.float32), [(n, n) for n in margin])
    smoothed = ndimage.gaussian_filter(padded, np.maximum(step / edges - 1, 0) / 2)
    positions = (np.indices((EDGE,) * 3) + 0.5) * step - radius
    where = (positions + middle[:, None, None, None]) / edges[:, None, None, None] + margin[:, None, None, None]
    values = ndimage.map_coordinates(smoothed, where, order=1)
    values = values / max(values.max(), 1e-6)
    return np.round(255 * values).astype(np.uint8)
