"""nnU-Net's blur for patches of a few slices, through which its kernel does not fit."""

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

# nnU-Net's largest kernel reaches 3 voxels to either side, and what it mirrors there must be in the patch.
FEWEST_SLICES = 4


class SliceBlur(GaussianBlurTransform):
    """The same blur within all slices of a channel, and none across them."""

    def __init__(self, blur: GaussianBlurTransform) -> None:
        """Take over the settings of nnU-Net's, which draws each channel's strength on its own."""
        super().__init__(blur.blur_sigma, False, blur.synchronize_axes, blur.p_per_channel, blur.benchmark)

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        """Blur some channels of (C, k, H, W) in place; their slices are channels of a 2D image."""
        for channel, sigmas in zip(np.flatnonzero(params["apply_to_channel"]), params["sigmas"], strict=True):
            slices = img[channel]
            for axis, sigma in enumerate(sigmas[1:]):
                slices = self._benchmark_wrapper(slices, sigma, axis)
            img[channel] = slices
        return img


def blur_within_slices(transforms: ComposeTransforms) -> ComposeTransforms:
    """nnU-Net's augmentation with another blur."""

    def replaced(transform: Any) -> Any:
        if isinstance(transform, RandomTransform) and isinstance(transform.transform, GaussianBlurTransform):
            return RandomTransform(SliceBlur(transform.transform), transform.apply_probability)
        return transform

    return ComposeTransforms([replaced(transform) for transform in transforms.transforms])
