"""Autoencoders: what they learn from a patch, and what they say of one."""

from typing import Any, NamedTuple

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn
from torch.nn.functional import interpolate

from nnood.network import build_network
from nnood.reconstruction.codebook import Codebook, NeighbourPrior, restore
from nnood.reconstruction.corruption import CORRUPT
from nnood.reconstruction.losses import Learned, gaussian_kl, sum_error
from nnood.reconstruction.settings import RESIDUALS, VOXEL_SCORES, Reconstruction
from nnood.reconstruction.stages import Decoder, Stages, build_encoder, is_small, plan_stages
from nnood.views import views_of

CODES = 256
MOST_STRIDE = 8  # from the image to a grid of codes
RESTORATIONS = 4
ACTIVATION_STAGE = 1  # the first that sees more than a voxel's neighbours
# Of a score that is no score: outside of the foreground, or exactly as reconstructed. Gradients of the KL term in large
# patches are about 1e-6, and must be measured.
LEAST = 1e-12


class Seen(NamedTuple):
    """A patch as the network sees it.

    Attributes:
        image: (B, C, *S) in standard deviations of the foreground; the slices of a slab are channels.
        counted: Where errors count, (B, 1, *S), 1 or 0.
        foreground: Where scores count, (B, 1, *S), 1 or 0.
    """

    image: torch.Tensor
    counted: torch.Tensor
    foreground: torch.Tensor


class Encoded(NamedTuple):
    """What the encoder says.

    Attributes:
        code: (B, D): the latent, its mean, or the mean over a grid.
        log_variance: Of a Gaussian latent (B, D), or None.
        features: What the decoder needs: (B, F, *G), or all stages of a U-Net.
        activation: On the patch's grid (B, 1, *S).
        indices: Of a codebook (B, *G), or None.
        codebook: Its loss, or None.
    """

    code: torch.Tensor
    log_variance: torch.Tensor | None
    features: Any
    activation: torch.Tensor
    indices: torch.Tensor | None = None
    codebook: torch.Tensor | None = None


class PatchValues(NamedTuple):
    """What is known of each of some patches, besides maps.

    Attributes:
        codes: (N, D).
        error: Mean error over its foreground (N,).
        elbo: What is minimised, per voxel of its foreground (N,).
        share: Share of foreground in it (N,).
    """

    codes: torch.Tensor
    error: torch.Tensor
    elbo: torch.Tensor
    share: torch.Tensor


class Autoencoder(nn.Module):
    """In training, a patch becomes `Learned`; else logits of one of its voxel scores.

    Patches (B, (C + 1) * k, *S): the channels of the image and, as one more, its foreground; of slabs, each with its k
    slices. A score r >= 0 has the logit log(r / s), where s is what the score is on normal images: so it is 1/2 there,
    and between 0 and 1.

    Attributes:
        voxel_score: Which score is put out.
        image_mean: Of the foreground, per channel of the image.
        image_spread: Its standard deviation.
        scales: What each of `VOXEL_SCORES` is on normal images.
    """

    image_mean: torch.Tensor
    image_spread: torch.Tensor
    scales: torch.Tensor
    encoder: nn.Module
    decoder: nn.Module
    to_latent: nn.Module
    from_latent: nn.Module
    codebook: Codebook
    prior: NeighbourPrior

    def __init__(self, settings: Reconstruction, configuration: ConfigurationManager, channels: int) -> None:
        """Build the network.

        Args:
            settings: The recipe's.
            configuration: nnU-Net's.
            channels: Of the images.
        """
        super().__init__()
        self.settings, self.voxel_score = settings, settings.voxel_score
        view = views_of(configuration)[0]
        self._slices, self._middle = max(1, view.slices), view.beyond
        patch_size = configuration.patch_size[1:] if view.slices else configuration.patch_size
        values = channels * self._slices
        self.register_buffer("image_mean", torch.zeros(channels))
        self.register_buffer("image_spread", torch.ones(channels))
        self.register_buffer("scales", torch.ones(len(VOXEL_SCORES)))
        self._mode = "bilinear" if len(patch_size) == 2 else "trilinear"
        latent = settings.latent_sizes[0 if is_small(patch_size) else 1]
        if settings.encoder == "unet":
            network = build_network(configuration, channels, deep_supervision=False, outputs=values)
            self.encoder, self.decoder = network.get_submodule("encoder"), network.get_submodule("decoder")
            # Several ranks wait for the gradient of each parameter that may have one; coarser outputs are not used.
            for output in list(self.decoder.get_submodule("seg_layers").children())[:-1]:
                output.requires_grad_(False)
            return
        grid = settings.latent == "codebook"
        stages = plan_stages(
            configuration.network_arch_init_kwargs, patch_size, most_stride=MOST_STRIDE if grid else None
        )
        self.encoder = build_encoder(stages, values, residual=settings.encoder == "residual")
        self.decoder = Decoder(stages, values)
        self._build_latent(stages, latent)

    def _build_latent(self, stages: Stages, latent: int) -> None:
        """Between encoder and decoder."""
        self._deepest = (stages.features[-1], *stages.sizes[-1])
        if self.settings.latent == "codebook":
            axes = len(stages.patch_size)
            operation = nn.Conv2d if axes == 2 else nn.Conv3d
            self.to_latent = operation(self._deepest[0], latent, 1)
            self.from_latent = operation(latent, self._deepest[0], 1)
            self.codebook, self.prior = Codebook(CODES, latent, axes), NeighbourPrior(CODES, axes)
            return
        self.to_latent = nn.Linear(stages.values, latent * (2 if self.settings.latent == "gaussian" else 1))
        self.from_latent = nn.Linear(latent, stages.values)

    # ---- a patch ------------------------------------------------------------------------------------------------

    def see(self, patch: torch.Tensor) -> Seen:
        """Take a patch (B, (C + 1) * k, *S) apart."""
        channels = len(self.image_mean)
        slabs = patch.float().unflatten(1, (channels + 1, self._slices))
        image, inside = slabs[:, :channels], slabs[:, channels:]
        shape = (1, channels, *[1] * (slabs.ndim - 2))
        image = (image - self.image_mean.view(shape)) / self.image_spread.view(shape)
        foreground = inside[:, :, self._middle]
        if self.settings.background == "keep":
            return Seen(image.flatten(1, 2), torch.ones_like(foreground), foreground)
        # What lies outside is noise in standard deviations already.
        image = torch.where(inside > 0, image, slabs[:, :channels])
        return Seen(image.flatten(1, 2), foreground, foreground)

    def forward(self, patch: torch.Tensor) -> Learned | torch.Tensor:
        """A patch (B, (C + 1) * k, *S) to what is learned from it or, in evaluation, logits (B, 1, *S)."""
        seen = self.see(patch)
        return self._learn(seen) if self.training else self.logits(seen)

    def _learn(self, seen: Seen) -> Learned:
        corruption = self.settings.corruption
        shown = seen.image if corruption in ("none", "squares") else CORRUPT[corruption](seen.image, seen.counted)
        encoded = self.encode(shown)
        reconstructions = [self._decode(encoded, sampled=True)]
        if corruption == "squares":
            masked = self.encode(CORRUPT[corruption](seen.image, seen.counted))
            reconstructions.append(self._decode(masked, sampled=False))
        is_gaussian = encoded.log_variance is not None
        return Learned(
            seen.image,
            seen.counted,
            reconstructions,
            encoded.code.float() if is_gaussian else None,
            encoded.log_variance,
            encoded.activation,
            encoded.codebook,
        )

    def encode(self, image: torch.Tensor) -> Encoded:
        """The encoder's answer to an image (B, C, *S)."""
        stages = self.encoder(image)
        early = stages[min(ACTIVATION_STAGE, len(stages) - 1)].float().mean(1, keepdim=True)
        activation = interpolate(early, image.shape[2:], mode=self._mode)
        if self.settings.encoder == "unet":
            return Encoded(stages[-1].float().flatten(2).mean(2), None, stages, activation)
        if self.settings.latent == "codebook":
            chosen = self.codebook(self.to_latent(stages[-1]).float())
            loss = chosen.loss + self.prior.loss(chosen.indices) if self.training else None
            code = chosen.features.flatten(2).mean(2)
            return Encoded(code, None, chosen.features, activation, chosen.indices, loss)
        latent = self.to_latent(stages[-1].flatten(1)).float()
        if self.settings.latent == "plain":
            return Encoded(latent, None, latent, activation)
        mean, log_variance = latent.chunk(2, 1)
        # Beyond these, the exponential is of no use: no latent is that sure, or that unsure.
        return Encoded(mean, log_variance.clamp(-20, 20), mean, activation)

    def _decode(self, encoded: Encoded, *, sampled: bool) -> torch.Tensor:
        """The reconstruction (B, C, *S) float32, of a sample of a Gaussian latent or of its mean."""
        if self.settings.encoder == "unet":
            return self.decoder(encoded.features).float()
        features = encoded.features
        if sampled and encoded.log_variance is not None:
            features = features + torch.randn_like(features) * (0.5 * encoded.log_variance).exp()
        deep = self.from_latent(features)
        return self.decoder(deep if deep.ndim > 2 else deep.unflatten(1, self._deepest))

    def reconstruct(self, encoded: Encoded) -> torch.Tensor:
        """The reconstruction (B, C, *S) that scores are about; of a codebook, the mean of several restorations."""
        if encoded.indices is None:
            return self._decode(encoded, sampled=False)
        generator = torch.Generator().manual_seed(0)
        threshold = float(self.prior.unlikely)
        restored = restore(encoded.indices, self.prior, threshold, RESTORATIONS, generator)
        features = [self.codebook.look_up(one) for one in restored]
        images = [self._decode(encoded._replace(features=one), sampled=False) for one in features]
        return torch.stack(images).mean(0)

    # ---- scores -------------------------------------------------------------------------------------------------

    def logits(self, seen: Seen) -> torch.Tensor:
        """Logits (B, 1, *S) of the chosen voxel score."""
        scale = self.scales[VOXEL_SCORES.index(self.voxel_score)]
        score = self.score(seen, self.voxel_score) / scale
        return torch.where(seen.foreground > 0, score, 0.0).clamp(LEAST, 1 / LEAST).log()

    def score(self, seen: Seen, kind: str) -> torch.Tensor:
        """A voxel score (B, 1, *S), float32, 0 or more.

        Args:
            seen: Patches.
            kind: One of the settings' `voxel_scores`.

        Source: gradients of the KL term, and their product with the residual: Zimmerer et al. 2019, "Unsupervised
        anomaly localization using variational auto-encoders"; the activation map: Silva-Rodríguez et al. 2022.
        """
        if kind == "activation":
            return self.encode(seen.image).activation.clamp(-50, 50).exp()
        if kind in RESIDUALS:
            residual = self._middle_of(seen.image - self.reconstruct(self.encode(seen.image))).abs()
            return (residual if kind == "absolute" else residual.square()).mean(1, keepdim=True)
        gradient = self._gradient(seen, kind.split("_")[0])
        return gradient * self.score(seen, "absolute") if kind.endswith("residual") else gradient

    def _gradient(self, seen: Seen, term: str) -> torch.Tensor:
        """Mean over channels of how much a voxel changes a term of what is minimised, (B, 1, *S)."""
        # Prediction is done in inference mode, whose tensors know no gradients. In half precision they would vanish.
        precise = torch.autocast(seen.image.device.type, enabled=False)
        with torch.inference_mode(False), torch.enable_grad(), precise:
            image = seen.image.clone().requires_grad_()
            encoded = self.encode(image)
            total = image.new_zeros(())
            if term != "kl":
                reconstruction = self._decode(encoded, sampled=False)
                total = total + sum_error(image, reconstruction, seen.counted.clone(), self.settings.error).sum()
            if term != "error" and encoded.log_variance is not None:
                weight = 1.0 if term == "kl" else self.settings.beta
                total = total + weight * gaussian_kl(encoded.code, encoded.log_variance).sum()
            (gradient,) = torch.autograd.grad(total, image)
        return self._middle_of(gradient).abs().mean(1, keepdim=True)

    def _middle_of(self, image: torch.Tensor) -> torch.Tensor:
        """Of slabs, the middle slices (B, C, *S)."""
        return image.unflatten(1, (-1, self._slices))[:, :, self._middle]

    def values(self, seen: Seen) -> PatchValues:
        """What is known of patches besides maps."""
        encoded = self.encode(seen.image)
        counted = seen.foreground.flatten(1).sum(1)
        voxels = counted.clamp(min=1) * len(self.image_mean) * self._slices
        total = sum_error(seen.image, self._decode(encoded, sampled=False), seen.foreground, self.settings.error)
        error = total / voxels
        if encoded.log_variance is not None:
            total = total + self.settings.beta * gaussian_kl(encoded.code, encoded.log_variance)
        if encoded.indices is not None:
            total = total + self.prior.surprise(encoded.indices).flatten(1).sum(1)
        return PatchValues(encoded.code, error, total / voxels, counted / seen.foreground[0].numel())
