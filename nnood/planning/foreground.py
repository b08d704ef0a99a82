"""Where the body is: a foreground mask per case, by a method chosen once per data set from the images themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from acvl_utils.morphology.morphology_helper import remove_all_but_largest_component
from scipy import ndimage
from skimage.filters import threshold_otsu

# A background is called uniform when most of the image's border is dark and those dark voxels vary little compared
# with the gap between the dark and the bright class. Both limits lie in wide gaps: crops and X-rays, which have no
# background, have a spread of 0.25 to 0.6; air around heads, hands, chests and breasts (MR, CT, X-ray) 0 to 0.14.
MIN_DARK_BORDER = 0.6
MAX_BACKGROUND_SPREAD = 0.2
MIN_ZERO_SHARE = 0.98
MIN_CAPTURED = 0.8
MAX_SURVEY_EDGE = 128
MIN_SHARE_OF_CASES = 0.5
# By these, the foreground of any new image is found, and is not simply all of it.
COMPUTED_METHODS = ("nonzero", "otsu")


@dataclass(frozen=True)
class BackgroundStatistics:
    """What the border of one image tells about a background.

    Attributes:
        dark_border: Share of border voxels below Otsu's threshold.
        spread: Standard deviation of those dark border voxels, relative to the difference between the medians of the
            bright and the dark class.
        zero_share: Share of the dark border voxels that are exactly zero in the file.
        captured: Share of all bright voxels that lie in the body mask which a threshold gives: low where bright things
            are strewn over an image that has no clear body.
    """

    dark_border: float
    spread: float
    zero_share: float
    captured: float

    @property
    def uniform(self) -> bool:
        """Whether there is a uniform dark background around one body."""
        return (
            self.dark_border >= MIN_DARK_BORDER
            and self.spread <= MAX_BACKGROUND_SPREAD
            and self.captured >= MIN_CAPTURED
        )

    @property
    def zero(self) -> bool:
        """Whether that background is exactly zero."""
        return self.dark_border >= MIN_DARK_BORDER and self.zero_share >= MIN_ZERO_SHARE


def _brightness(image: np.ndarray) -> np.ndarray:
    """Channels (C, *S) scaled robustly to [0, 1] and averaged: (*S)."""
    low, high = np.percentile(image.reshape(len(image), -1), (0.5, 99.5), axis=1).reshape(
        2, -1, *[1] * (image.ndim - 1)
    )
    return np.clip((image - low) / np.maximum(high - low, np.finfo(np.float32).tiny), 0, 1).mean(axis=0)


def _border(volume: np.ndarray) -> np.ndarray:
    """The voxels of all outer faces, flat; axes of a single voxel have no faces."""
    faces = [np.take(volume, index, axis) for axis, n in enumerate(volume.shape) if n > 1 for index in (0, -1)]
    return np.concatenate([face.ravel() for face in faces])


def background_statistics(image: np.ndarray) -> BackgroundStatistics:
    """Measure the border of an image (C, Z, Y, X); large images are thinned out, which changes nothing of note."""
    image = image[(slice(None), *(slice(None, None, -(-n // MAX_SURVEY_EDGE)) for n in image.shape[1:]))]
    brightness = _brightness(image)
    threshold = threshold_otsu(brightness)
    border = _border(brightness)
    dark_border = border <= threshold
    if not dark_border.any() or (brightness <= threshold).all():
        return BackgroundStatistics(0.0, 1.0, 0.0, 0.0)
    gap = np.median(brightness[brightness > threshold]) - np.median(brightness[brightness <= threshold])
    zero_border = _border((image == 0).all(axis=0))
    bright = brightness > threshold
    return BackgroundStatistics(
        dark_border=float(dark_border.mean()),
        spread=float(border[dark_border].std() / max(gap, 1e-6)),
        zero_share=float(zero_border[dark_border].mean()),
        captured=float((bright & _fill_holes(_body(brightness))).sum() / bright.sum()),
    )


def choose_method(statistics: Sequence[BackgroundStatistics]) -> tuple[str, str]:
    """Decide for a whole data set, by majority of its cases.

    Returns:
        The method (`nonzero`, `otsu` or `whole`) and the reason in words.
    """
    total = len(statistics)
    zero = sum(case.zero for case in statistics)
    uniform = sum(case.uniform for case in statistics)
    if zero > MIN_SHARE_OF_CASES * total:
        return "nonzero", f"the border of {zero} of {total} cases is exactly zero"
    if uniform > MIN_SHARE_OF_CASES * total:
        return "otsu", f"{uniform} of {total} cases have a uniform dark background that is not exactly zero"
    return "whole", f"only {uniform} of {total} cases have one body before a uniform dark background"


def foreground_mask(image: np.ndarray, method: str) -> np.ndarray:
    """Compute the foreground of one image.

    Args:
        image: Values (C, Z, Y, X).
        method: `whole`, `nonzero` or `otsu`.

    Returns:
        Boolean (Z, Y, X), never empty: where the method finds nothing, the whole image.
    """
    if method == "whole":
        return np.ones(image.shape[1:], dtype=bool)
    mask = (image != 0).any(axis=0) if method == "nonzero" else _body(_brightness(image))
    mask = _fill_holes(mask)
    return mask if mask.any() else np.ones(image.shape[1:], dtype=bool)


def _body(brightness: np.ndarray) -> np.ndarray:
    """The largest component brighter than the background.

    Otsu's threshold on all voxels may separate bright from dark tissue (bone and fat in a CT). So it is taken again
    among the voxels below it, as long as that still parts the dark border's bulk from something brighter.
    """
    threshold = threshold_otsu(brightness)
    dark = brightness[brightness <= threshold]
    if len(np.unique(dark)) > 2:
        lower = threshold_otsu(dark)
        border = _border(brightness)
        noise = np.percentile(border[border <= threshold], 90) if (border <= threshold).any() else threshold
        threshold = lower if noise < lower else threshold
    mask = brightness > threshold
    structure = ndimage.generate_binary_structure(3, 1)
    opened = ndimage.binary_opening(mask, structure if mask.shape[0] > 1 else structure[1:2])
    mask = remove_all_but_largest_component(opened if opened.any() else mask)
    # Closing on a padded copy: without padding it would erase the mask at the border of the image.
    padded = ndimage.binary_closing(np.pad(mask, 3), structure, iterations=2)
    return padded[3:-3, 3:-3, 3:-3]


def _fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill cavities, slice by slice along every axis and in the volume: airways open to the outside stay open in 3D."""
    filled = ndimage.binary_fill_holes(mask)
    for axis, size in enumerate(mask.shape):
        if size > 1 and min(n for i, n in enumerate(mask.shape) if i != axis) == 1:
            continue
        slices = np.moveaxis(filled, axis, 0)
        np.moveaxis(filled, axis, 0)[:] = np.stack([ndimage.binary_fill_holes(plane) for plane in slices])
    return filled
