"""Losses that a recipe may name, and what cross-entropy would be for a network that has learned nothing."""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from torch import nn
from torch.nn import functional


class SoftBinaryCrossEntropy(nn.Module):
    """Binary cross-entropy of logits (B, 1, *S) with soft labels (B, 1, *S), computed in float32."""

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Mean over all voxels."""
        return functional.binary_cross_entropy_with_logits(logits.float(), label.float())


class DiceAndCrossEntropy(DC_and_BCE_loss):
    """nnU-Net's Dice and binary cross-entropy of logits (B, 1, *S) with labels (B, 1, *S), computed in float32.

    For one class and its background, this is the Dice and cross-entropy of stock nnU-Net: its two softmax outputs
    differ by the one logit here.
    """

    def __init__(self, weight: float, *, batch_dice: bool, ddp: bool) -> None:
        """Choose how both are summed.

        Args:
            weight: Of each of the two.
            batch_dice: Whether Dice is of the whole batch rather than the mean over its images; nnU-Net plans this.
            ddp: Whether several processes share the batch.
        """
        dice = {"batch_dice": batch_dice, "do_bg": True, "smooth": 1e-5, "ddp": ddp}
        super().__init__({}, dice, weight_ce=weight, weight_dice=weight)

    def forward(self, net_output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Weighted sum of the negative Dice and the cross-entropy."""
        if self.dc.batch_dice:
            # As one image (1, 1, B, *S): nnU-Net gathers a row per image, and ranks may have different numbers of them.
            net_output, target = net_output.transpose(0, 1)[None], target.transpose(0, 1)[None]
        return super().forward(net_output.float(), target.float())


# From whether nnU-Net plans Dice of whole batches, and whether several processes share one. Dice of single images is a
# poor guide where some of them are normal, so that only the loss of stock nnU-Net follows the plan.
LOSSES: dict[str, Callable[[bool, bool], nn.Module]] = {
    "bce": lambda batch_dice, ddp: SoftBinaryCrossEntropy(),
    "combo": lambda batch_dice, ddp: DiceAndCrossEntropy(0.5, batch_dice=True, ddp=ddp),
    "dice_ce": lambda batch_dice, ddp: DiceAndCrossEntropy(1.0, batch_dice=batch_dice, ddp=ddp),
}


def downsample_label(label: torch.Tensor, shapes: Sequence[Sequence[int]], *, hard: bool = False) -> list[torch.Tensor]:
    """The label at each of the network's resolutions.

    Args:
        label: (B, 1, *S).
        shapes: Spatial shapes, the full one first.
        hard: By the nearest voxel, as stock nnU-Net has it, rather than by averaging.

    Returns:
        One tensor per shape.
    """
    pool: Callable[..., torch.Tensor] = (
        functools.partial(functional.interpolate, mode="nearest-exact")
        if hard
        else functional.adaptive_avg_pool2d
        if label.ndim == 4
        else functional.adaptive_avg_pool3d
    )
    return [label if tuple(shape) == tuple(label.shape[2:]) else pool(label, tuple(shape)) for shape in shapes]


def entropy(prior: float) -> float:
    """Cross-entropy of the best constant prediction for labels of this mean: -p ln p - (1 - p) ln(1 - p)."""
    if not 0 < prior < 1:
        return 0.0
    return -prior * math.log(prior) - (1 - prior) * math.log(1 - prior)
