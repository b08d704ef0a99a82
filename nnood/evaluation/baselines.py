"""What is reached without any training: the floor that every figure is compared with."""

import torch
from torch import nn


class IntensityBaseline(nn.Module):
    """The distance of a voxel's intensity from the mean, in place of a network.

    On z-scored images this is the z-score against the intensity-wise normal distribution. It is put out as the logit of
    |z| / (1 + |z|), which is log |z|, so that the same sliding window and export lead to scores in [0, 1].
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Score images (B, C, *S); returns logits (B, 1, *S) of the channel that deviates most."""
        return image.abs().amax(dim=1, keepdim=True).clamp(min=1e-4).log()
