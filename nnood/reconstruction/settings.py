"""What a recipe of the reconstruction family says besides what all recipes say."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from typing import Any

from nnood.json_fields import integer, number, typed

ENCODERS = ("planned", "residual", "unet")
LATENTS = ("plain", "gaussian", "codebook")
ERRORS = ("absolute", "squared")
CORRUPTIONS = ("none", "squares", "coarse_noise")
BACKGROUNDS = ("noise", "keep")

RESIDUALS = ("absolute", "squared")
# How far a voxel is from its reconstruction; the encoder's activation there; by how much the voxel could lower what is
# minimised. Only a Gaussian latent has a KL term; what is minimised without one is the error alone.
_OF_ALL = (*RESIDUALS, "activation")
_OF_ERROR = ("error_gradient", "error_gradient_x_residual")
_OF_GAUSSIAN = ("elbo_gradient", "kl_gradient", "elbo_gradient_x_residual", "kl_gradient_x_residual")
VOXEL_SCORES = (*_OF_ALL, *_OF_ERROR, *_OF_GAUSSIAN)


@dataclass(frozen=True)
class Reconstruction:
    """How a network reconstructs, what it learns from, and what its score map is by default.

    Attributes:
        encoder: `planned`: the planned encoder and a decoder without skip connections, or the small form of tiny
            images; `residual`: the same depth and widths with two residual blocks per stage, as in ResNet-18; `unet`:
            the planned network as it is.
        latent: `plain`: a vector; `gaussian`: mean and variance of one (VAE); `codebook`: a grid of discrete codes
            (VQ-VAE).
        latent_sizes: Entries of the latent vector (of each code) for tiny images and patches, at most 32 voxels along
            each edge, and for larger ones.
        error: What is minimised between image and reconstruction.
        beta: Weight of the KL term of a Gaussian latent.
        entropy: Weight of the entropy of the encoder's activation map, which is maximised.
        corruption: `none`; `squares`: squares (cubes) are masked in a copy of each image and are to be restored, beside
            the image itself; `coarse_noise`: each image is reconstructed from one with noise of a coarse grid.
        background: `noise`: outside of the foreground, images hold noise of the foreground's mean and spread, which
            need not be reconstructed; `keep`: they are as they are.
        voxel_score: One of `VOXEL_SCORES`, as long as no inference plan has chosen another.
    """

    encoder: str = "planned"
    latent: str = "gaussian"
    latent_sizes: tuple[int, int] = (16, 128)
    error: str = "squared"
    beta: float = 1.0
    entropy: float = 0.0
    corruption: str = "none"
    background: str = "noise"
    voxel_score: str = "absolute"

    def __post_init__(self) -> None:
        for key, known in _CHOICES.items():
            if getattr(self, key) not in known:
                raise ValueError(f"{key} is {getattr(self, key)!r}, expected one of {', '.join(known)}")
        if self.voxel_score not in self.voxel_scores:
            raise ValueError(
                f"voxel_score is {self.voxel_score!r}, but of the latent {self.latent!r} it can only be one of "
                f"{', '.join(self.voxel_scores)}"
            )
        if self.encoder == "unet" and self.latent != "plain":
            raise ValueError(f"latent is {self.latent!r}, but of the encoder 'unet' it can only be 'plain'")
        if min(self.latent_sizes) < 1:
            raise ValueError(f"latent_sizes is {list(self.latent_sizes)}, expected two whole numbers above 0")
        for key in ("beta", "entropy"):
            if not 0 <= getattr(self, key) < _LARGEST:
                raise ValueError(f"{key} is {getattr(self, key)}, expected a number from 0 to {_LARGEST:g}")

    @property
    def voxel_scores(self) -> tuple[str, ...]:
        """Those of `VOXEL_SCORES` that its networks have."""
        return (*_OF_ALL, *(_OF_GAUSSIAN if self.latent == "gaussian" else _OF_ERROR))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return {**asdict(self), "latent_sizes": list(self.latent_sizes)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Reconstruction":
        """Read it back; what is left out has the value that it has by default.

        Raises:
            TypeError: If a value is of another type; the message names the key.
            ValueError: If there is an unknown key, or a value that cannot be; the message names the key.
        """
        known = {entry.name: entry.type for entry in fields(cls)}
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no key of reconstruction; known are {', '.join(known)}")
        return cls(**{key: _read(content, key, known[key]) for key in content})


_LARGEST = 1e9
_CHOICES: dict[str, Collection[str]] = {
    "encoder": ENCODERS,
    "latent": LATENTS,
    "error": ERRORS,
    "corruption": CORRUPTIONS,
    "background": BACKGROUNDS,
    "voxel_score": VOXEL_SCORES,
}


def _read(content: dict[str, Any], key: str, kind: Any) -> Any:
    if kind is str:
        return typed(content, key, str)
    if kind is float:
        return number(content, key)
    values = typed(content, key, list)
    if len(values) != 2:
        raise TypeError(f"{key} is {values!r}, expected two whole numbers")
    return tuple(integer({key: value}, key) for value in values)
