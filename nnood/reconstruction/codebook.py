"""The bottleneck of a VQ-VAE: a codebook, a prior over codes, and the restoration of codes that the prior finds odd."""

import math
from typing import NamedTuple

import torch
from torch import distributed, nn
from torch.nn.functional import conv2d, conv3d, embedding, mse_loss

COMMITMENT = 0.25
ROWS = 1 << 16  # features compared with all codes at a time: bounds the memory
KERNEL = 5
QUANTILE = 0.98
MOMENTUM = 0.99
SWEEPS = 2


class Quantised(NamedTuple):
    """What a codebook makes of features.

    Attributes:
        features: The nearest codes (B, D, *G), float32; their gradient goes to the features that came in.
        loss: Scalar; pulls codes to features and features to codes.
        indices: Which codes (B, *G), int64.
    """

    features: torch.Tensor
    loss: torch.Tensor
    indices: torch.Tensor


class Codebook(nn.Module):
    """Replaces each feature vector by the nearest of a number of learned codes.

    On the first training batch the codes start anew as feature vectors drawn from it, since codes far from all features
    would never be used. The buffer `is_started` remembers that this was done.

    Source: van den Oord et al., "Neural discrete representation learning", NeurIPS 2017, equations 1 to 3.
    """

    is_started: torch.Tensor

    def __init__(self, codes: int, dimensions: int, spatial: int) -> None:
        """Draw the codes evenly from +-1/codes.

        Args:
            codes: Number K of codes.
            dimensions: Length D of each.
            spatial: Axes of the grid, 2 or 3.
        """
        super().__init__()
        self.spatial = spatial
        self.codes = nn.Parameter(torch.empty(codes, dimensions).uniform_(-1 / codes, 1 / codes))
        self.register_buffer("is_started", torch.tensor(False))

    def forward(self, features: torch.Tensor) -> Quantised:
        """Quantise features (B, D, *G), in float32 whatever their type.

        The loss is the mean over all elements of (sg[z] - e)^2 + 0.25 (z - sg[e])^2 for features z and codes e.

        Raises:
            ValueError: If the features are of another shape.
        """
        if features.ndim != self.spatial + 2 or features.shape[1] != self.codes.shape[1]:
            raise ValueError(
                f"Expected features (B, {self.codes.shape[1]}, *G) on a grid of {self.spatial} axes, "
                f"but got the shape {tuple(features.shape)}."
            )
        features = features.float()
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            rows = features.movedim(1, -1).flatten(0, -2)
            if self.training and not self.is_started:
                self._start(rows)
            indices = torch.cat([self._nearest(part) for part in rows.split(ROWS)])
            indices = indices.view(len(features), *features.shape[2:])
        codes = self.look_up(indices)
        loss = mse_loss(codes, features.detach()) + COMMITMENT * mse_loss(features, codes.detach())
        return Quantised(codes.detach() + (features - features.detach()), loss, indices)

    def look_up(self, indices: torch.Tensor) -> torch.Tensor:
        """The codes (B, D, *G) of indices (B, *G)."""
        return embedding(indices, self.codes).movedim(-1, 1)

    def _nearest(self, rows: torch.Tensor) -> torch.Tensor:
        """Index of the nearest code, by squared distance less the part that all codes share, per row (N, D)."""
        return (self.codes.square().sum(dim=1) - 2 * rows @ self.codes.T).argmin(dim=1)

    def _start(self, rows: torch.Tensor) -> None:
        """Take as codes different rows (N, D), drawn from torch's global generator; the same on all ranks.

        Equal rows, such as those of empty background, count once. If there are fewer than codes, the other codes stay.
        """
        different = torch.unique(rows, dim=0)
        chosen = torch.randperm(len(different))[: len(self.codes)].to(rows.device)
        self.codes[: len(chosen)] = different[chosen]
        if distributed.is_available() and distributed.is_initialized():
            distributed.broadcast(self.codes.data, 0)
        self.is_started.fill_(True)


class NeighbourPrior(nn.Module):
    """How likely each code is, given the codes around it.

    The published prior is autoregressive: it needs one pass per code to draw codes, and sees the codes on one side
    only. This one sees all neighbours and never the code itself, so one pass does for all codes. The product of its
    probabilities is no likelihood of the whole grid but a pseudo-likelihood.

    The buffer `unlikely` follows the 98th percentile of the surprise over training batches: a threshold for `restore`.

    Source: Naval Marimont and Tarroni, "Anomaly detection through latent space restoration using vector quantized
    variational autoencoders", ISBI 2021; Besag, "Statistical analysis of non-lattice data", The Statistician 24, 1975.
    """

    mask: torch.Tensor
    unlikely: torch.Tensor

    def __init__(self, codes: int, spatial: int, *, features: int = 64) -> None:
        """Build the network.

        Args:
            codes: Number K of codes.
            spatial: Axes of the grid, 2 or 3.
            features: Width of the network.
        """
        super().__init__()
        kind = {2: nn.Conv2d, 3: nn.Conv3d}[spatial]
        self.convolve = {2: conv2d, 3: conv3d}[spatial]
        self.embedding = nn.Embedding(codes, features)
        self.around = kind(features, features, KERNEL)
        self.rest = nn.Sequential(nn.GELU(), kind(features, features, 1), nn.GELU(), kind(features, codes, 1))
        mask = torch.ones((KERNEL,) * spatial)
        mask[(KERNEL // 2,) * spatial] = 0
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("unlikely", torch.tensor(math.log(codes)))  # the surprise of one who knows nothing

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, K, *G) of indices (B, *G); outside the grid there is nothing (zeros).

        Computed in float32 throughout, so that draws hardly depend on how a batch is worked off.
        """
        with torch.autocast(indices.device.type, enabled=False):
            embedded = self.embedding(indices).movedim(-1, 1)
            around = self.convolve(embedded, self.around.weight * self.mask, self.around.bias, padding=KERNEL // 2)
            return self.rest(around).log_softmax(dim=1)

    def surprise(self, indices: torch.Tensor) -> torch.Tensor:
        """-log p (B, *G) of each of the codes (B, *G), in nats."""
        return _surprise(self(indices), indices)

    def loss(self, indices: torch.Tensor) -> torch.Tensor:
        """Mean surprise of codes (B, *G); in training mode `unlikely` follows."""
        surprise = self.surprise(indices)
        if self.training:
            self.unlikely.lerp_(surprise.detach().quantile(QUANTILE), 1 - MOMENTUM)
        return surprise.mean()


@torch.no_grad()
def restore(
    indices: torch.Tensor, prior: NeighbourPrior, threshold: float, samples: int, generator: torch.Generator
) -> torch.Tensor:
    """Replace unlikely codes by ones drawn from the prior.

    In a first sweep every code whose surprise is above the threshold is replaced, all at once and not in turn: each is
    drawn given its neighbours as they were. A second sweep replaces those of them that are still too surprising, now
    beside mended neighbours. A code that was likely at first is never touched.

    Args:
        indices: Codes (B, *G).
        prior: What is likely.
        threshold: In nats, such as `float(prior.unlikely)`.
        samples: Number of restorations of each image.
        generator: On the CPU. All images of a batch share its numbers, so an image's restorations are the same in any
            batch if the generator's state is the same at each call.

    Returns:
        Restored codes (samples, B, *G).

    Source: Naval Marimont and Tarroni 2021 (see `NeighbourPrior`), who draw codes in turn.
    """
    numbers = torch.rand((samples, SWEEPS, *indices.shape[1:]), generator=generator).to(indices.device)
    log_probabilities = prior(indices)
    is_unlikely = _surprise(log_probabilities, indices) > threshold
    restored = []
    for first, *others in numbers:
        current = torch.where(is_unlikely, _draw(log_probabilities, first), indices)
        for number in others:
            found = prior(current)
            again = is_unlikely & (_surprise(found, current) > threshold)
            current = torch.where(again, _draw(found, number), current)
        restored.append(current)
    return torch.stack(restored)


def _surprise(log_probabilities: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """-log p (B, *G) of indices (B, *G) under log-probabilities (B, K, *G)."""
    return -log_probabilities.gather(1, indices[:, None])[:, 0]


def _draw(log_probabilities: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Codes (B, *G) by inverse sampling: where cumulated log-probabilities (B, K, *G) pass numbers (*G) in [0, 1)."""
    passed = log_probabilities.exp().cumsum(dim=1)
    below = passed <= numbers * passed[:, -1:]
    return below.sum(dim=1).clamp(max=log_probabilities.shape[1] - 1)
