"""What autoencoders minimise: error, KL divergence, the entropy of an activation map with the opposite sign."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import log_softmax


class Learned(NamedTuple):
    """What a network says of a batch in training.

    Attributes:
        image: What was to be reconstructed (B, C, *S), in standard deviations of the foreground.
        counted: Where it was, (B, 1, *S), 1 or 0.
        reconstructions: Of the image, and of its corrupted copy if both are reconstructed; (B, C, *S) each.
        mean: Of a Gaussian latent (B, D), or None.
        log_variance: Of it (B, D), or None.
        activation: The encoder's activation map on the patch's grid (B, 1, *S).
        codebook: What a codebook and its prior add, or None.
    """

    image: torch.Tensor
    counted: torch.Tensor
    reconstructions: list[torch.Tensor]
    mean: torch.Tensor | None
    log_variance: torch.Tensor | None
    activation: torch.Tensor
    codebook: torch.Tensor | None


def sum_error(image: torch.Tensor, reconstruction: torch.Tensor, counted: torch.Tensor, kind: str) -> torch.Tensor:
    """Sum of errors of each image: half the squared, or the absolute difference.

    Half the square is the negative log-likelihood, up to a constant, of a Gaussian of variance 1; the absolute
    difference that of a Laplace distribution of scale 1.

    Args:
        image: (B, C, *S).
        reconstruction: (B, C, *S).
        counted: (B, 1, *S), 1 where it counts.
        kind: `absolute` or `squared`.

    Returns:
        (B,).
    """
    difference = (image - reconstruction) * counted
    return (difference.abs() if kind == "absolute" else 0.5 * difference.square()).flatten(1).sum(1)


def gaussian_kl(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL divergence of a diagonal Gaussian from the standard one, in nats.

    Args:
        mean: (B, D).
        log_variance: (B, D).

    Returns:
        (B,).

    Source: Kingma, Welling 2014, "Auto-encoding variational Bayes", appendix B.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def activation_entropy(activation: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Shannon entropy, in nats, of the softmax of a map over the voxels that count.

    Args:
        activation: (B, 1, *S).
        counted: (B, 1, *S), 1 where it counts; everything counts where nothing does.

    Returns:
        (B,); at most the log of the number of these voxels, which a constant map reaches.

    Source: Silva-Rodríguez, Naranjo, Dolz 2022, "Constrained unsupervised anomaly segmentation", eq. 9.
    """
    flat, inside = activation.flatten(1).float(), counted.flatten(1) > 0
    inside = inside | ~inside.any(1, keepdim=True)
    # Infinities must be gone before anything is multiplied: their gradients are no numbers, chosen or not.
    logs = log_softmax(flat.masked_fill(~inside, -torch.inf), 1).masked_fill(~inside, 0.0)
    return -(logs.exp() * logs).sum(1)


class ReconstructionLoss(nn.Module):
    """Error, plus beta times the KL term, minus the weighted entropy, per value of the image; plus the codebook's."""

    def __init__(self, error: str, beta: float, entropy: float) -> None:
        """Choose.

        Args:
            error: `absolute` or `squared`.
            beta: Weight of the KL term.
            entropy: Weight of the activation map's entropy.
        """
        super().__init__()
        self.error, self.beta, self.entropy = error, beta, entropy

    def forward(self, learned: Learned, target: torch.Tensor) -> torch.Tensor:
        """The mean over the batch. The target is in `learned`; that of the trainer is not regarded."""
        errors = [sum_error(learned.image, one, learned.counted, self.error) for one in learned.reconstructions]
        total = torch.stack(errors).mean(0)
        if learned.mean is not None and learned.log_variance is not None:
            total = total + self.beta * gaussian_kl(learned.mean, learned.log_variance)
        if self.entropy:
            total = total - self.entropy * activation_entropy(learned.activation, learned.counted)
        loss = total.mean() / learned.image[0].numel()
        return loss if learned.codebook is None else loss + learned.codebook
