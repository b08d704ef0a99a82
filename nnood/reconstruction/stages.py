"""Encoder and decoder of the planned depth and widths, without skip connections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op, get_matching_batchnorm
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from torch import nn

SMALL = 32
SMALL_FEATURES = (32, 64, 128, 256)
BLOCKS = 2  # convolutions, or residual blocks as in ResNet-18, per stage


@dataclass(frozen=True)
class Stages:
    """An encoder's stages, finest first, each with one entry per axis but for features.

    Attributes:
        patch_size: Of what the network sees.
        features: Channels of each stage.
        kernels: Kernel sizes.
        strides: Of the first convolution.
        blocks: Convolutions, or residual blocks, per stage.
    """

    patch_size: tuple[int, ...]
    features: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    blocks: int

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Of what each stage puts out."""
        sizes, size = [], self.patch_size
        for stride in self.strides:
            size = tuple(edge // step for edge, step in zip(size, stride, strict=True))
            sizes.append(size)
        return sizes

    @property
    def values(self) -> int:
        """How many the last stage puts out."""
        return self.features[-1] * math.prod(self.sizes[-1])


def is_small(patch_size: Sequence[int]) -> bool:
    """Whether images or patches are tiny: at most 32 voxels along each edge."""
    return max(patch_size) <= SMALL


def plan_stages(architecture: dict[str, Any], patch_size: Sequence[int], *, most_stride: int | None = None) -> Stages:
    """As nnU-Net planned; of tiny images and patches, four convolutions that halve them, as published.

    Args:
        architecture: nnU-Net's arguments of the planned network.
        patch_size: Of what the network sees. An edge that a stride does not divide is not shrunk by it.
        most_stride: Stages that shrink any axis by more are left out.
    """
    if is_small(patch_size):
        features = SMALL_FEATURES
        kernels, wanted = ([(width,) * len(patch_size)] * len(features) for width in (3, 2))
    else:
        features = tuple(architecture["features_per_stage"])
        kernels, wanted = ([tuple(one) for one in architecture[key]] for key in ("kernel_sizes", "strides"))
    size, shrunk = tuple(patch_size), (1,) * len(patch_size)
    strides: list[tuple[int, ...]] = []
    for stride in wanted:
        used = tuple(step if edge % step == 0 else 1 for edge, step in zip(size, stride, strict=True))
        size = tuple(edge // step for edge, step in zip(size, used, strict=True))
        shrunk = tuple(before * step for before, step in zip(shrunk, used, strict=True))
        if strides and most_stride is not None and max(shrunk) > most_stride:
            break
        strides.append(used)
    count = len(strides)
    return Stages(
        tuple(patch_size),
        features[:count],
        tuple(kernels[:count]),
        tuple(strides),
        1 if is_small(patch_size) else BLOCKS,
    )


def _layers(axes: int) -> dict[str, Any]:
    """Arguments of all building blocks.

    Batch normalisation, where nnU-Net normalises each image by itself: how bright an image is must reach the latent.
    """
    return {
        "conv_op": convert_dim_to_conv_op(axes),
        "conv_bias": True,
        "norm_op": get_matching_batchnorm(dimension=axes),
        "norm_op_kwargs": {},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {},
    }


def build_encoder(stages: Stages, channels: int, *, residual: bool) -> nn.Module:
    """An encoder that puts out the features of all stages, as a list.

    Args:
        stages: Depth and widths.
        channels: Of the image.
        residual: Whether its blocks are residual.
    """
    common = {
        "input_channels": channels,
        "n_stages": len(stages.features),
        "features_per_stage": stages.features,
        "kernel_sizes": stages.kernels,
        "strides": stages.strides,
        "return_skips": True,
        **_layers(len(stages.patch_size)),
    }
    if residual:
        return ResidualEncoder(n_blocks_per_stage=[stages.blocks] * len(stages.features), **common)
    return PlainConvEncoder(n_conv_per_stage=[stages.blocks] * len(stages.features), **common)


class Decoder(nn.Module):
    """From an encoder's coarsest features back to an image."""

    def __init__(self, stages: Stages, channels: int) -> None:
        """Build it.

        Args:
            stages: Of the encoder.
            channels: Of the image.
        """
        super().__init__()
        coarser_first = list(zip(stages.sizes, stages.features, stages.kernels, strict=True))[-2::-1]
        if stages.sizes[0] != stages.patch_size or not coarser_first:
            coarser_first.append((stages.patch_size, stages.features[0], stages.kernels[0]))
        layers = _layers(len(stages.patch_size))
        width, blocks = stages.features[-1], []
        for size, features, kernel in coarser_first:
            convolution = StackedConvBlocks(
                num_convs=1,
                input_channels=width,
                output_channels=features,
                kernel_size=kernel,
                initial_stride=1,
                **layers,
            )
            blocks += [nn.Upsample(size=size), convolution]
            width = features
        self.blocks = nn.Sequential(*blocks)
        self.last = layers["conv_op"](width, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, F, *G) to an image (B, C, *S), float32."""
        wide = self.blocks(features)
        with torch.autocast(wide.device.type, enabled=False):  # what is left of an image must not be rounded
            return self.last(wide.float())
