"""The reconstruction family as recipes."""

from dataclasses import replace

from nnood.reconstruction.settings import Reconstruction
from nnood.training.recipe import Recipe
from nnood.training.schemes import UNSEEN_TASKS

_PLANNED = (
    "Spacing, normalisation, patch and batch size, depth and widths of the encoder are nnU-Net's plan; images and "
    "patches of at most 32 voxels along each edge have the small form of four convolutions. Tasks are planted in "
    "validation only. "
)
_BACKGROUND = "Outside of the foreground there is noise, as far as there is such an outside. "

AE = Recipe(
    name="ae",
    summary="Autoencoder: what it cannot reconstruct is anomalous.",
    # What checkpoints are chosen by: brighter and darker, displaced, foreign.
    tasks=dict.fromkeys(("smooth_intensity", "sink", "source", "poisson_inter", "random_shape"), 1.0),
    citation=(
        'Baur, Denner, Wiestler, Navab, Albarqouni, "Autoencoders for unsupervised anomaly segmentation in brain MR '
        'images", Medical Image Analysis 2021'
    ),
    notes=_PLANNED + _BACKGROUND,
    scheme=UNSEEN_TASKS,
    augmentation="none",
    optimiser="adam",
    schedule="constant",
    learning_rate=1e-4,
    weight_decay=1e-5,
    epochs=400,
    reconstruction=Reconstruction(latent="plain"),
)

VAE = replace(
    AE,
    name="vae",
    summary="Variational autoencoder: reconstruction and KL divergence.",
    citation=(
        'Kingma, Welling, "Auto-encoding variational Bayes", ICLR 2014; Zimmerer et al., "Unsupervised anomaly '
        'localization using variational auto-encoders", MICCAI 2019'
    ),
    reconstruction=Reconstruction(),
)

RECONSTRUCTING = (
    AE,
    VAE,
    replace(
        VAE,
        name="cevae",
        summary="VAE that also restores masked squares.",
        citation=(
            'Zimmerer, Kohl, Petersen, Isensee, Maier-Hein, "Context-encoding variational autoencoder for '
            'unsupervised anomaly detection", MIDL 2019'
        ),
        reconstruction=Reconstruction(corruption="squares", voxel_score="kl_gradient_x_residual"),
    ),
    replace(
        VAE,
        name="constrained_vae",
        summary="VAE whose encoder must respond to all of a normal image alike; its activation map is the score.",
        citation=(
            'Silva-Rodríguez, Naranjo, Dolz, "Constrained unsupervised anomaly segmentation", Medical Image Analysis '
            "2022"
        ),
        notes=_PLANNED
        + _BACKGROUND
        + "Two residual blocks per stage as in ResNet-18, at the planned widths. Weights of the KL term and of the "
        "entropy as in the authors' code, where errors are summed too. The map is that of the second stage.",
        weight_decay=0.0,
        reconstruction=Reconstruction(
            encoder="residual", latent_sizes=(64, 128), beta=10.0, entropy=0.1, voxel_score="activation"
        ),
    ),
    replace(
        AE,
        name="dae",
        summary="U-Net that removes coarse noise; what it removes is anomalous.",
        citation=(
            'Kascenas, Pugeault, O\'Neil, "Denoising autoencoders for unsupervised anomaly detection in brain MRI", '
            "MIDL 2022"
        ),
        notes=_PLANNED
        + _BACKGROUND
        + "The network is the planned one. Noise of spread 1, in standard deviations of the foreground, on a grid of 8 "
        "voxels; published are 0.2, of intensities scaled to [0, 1], and a grid of 8 pixels. The publication's median "
        "filter is left to the inference plan.",
        reconstruction=Reconstruction(encoder="unet", latent="plain", corruption="coarse_noise"),
    ),
    replace(
        AE,
        name="vqvae",
        summary="Autoencoder with discrete codes; unlikely codes are drawn anew, and the restored image is compared.",
        citation=(
            'Naval Marimont, Tarroni, "Anomaly detection through latent space restoration using vector quantized '
            'variational autoencoders", ISBI 2021'
        ),
        notes=_PLANNED
        + _BACKGROUND
        + "The grid of codes is at most 8 times coarser than the image. The prior predicts a code from its neighbours, "
        "where the publication has an autoregressive one; 4 restorations are averaged, 15 in the publication.",
        reconstruction=Reconstruction(latent="codebook", latent_sizes=(64, 128)),
    ),
)
