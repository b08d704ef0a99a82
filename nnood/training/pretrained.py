"""Start from an encoder that was trained before: by nnU-Net v2, by nnssl, or by nnood itself."""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nnood.errors import UserError
from nnood.safety import sha256
from nnood.training.foreign_checkpoints import load_foreign
from nnood.training.recipe import Recipe

WEIGHTS = "network_weights"  # where all three keep them
ADAPTATION = "nnssl_adaptation_plan"  # nnssl's, which says what the encoder is called
ENCODER = "encoder"
WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # of several ranks, of compiling
ALIAS = ".all_modules."  # building blocks know each of their layers by two names


@dataclass(frozen=True)
class Taken:
    """What a network took over.

    Attributes:
        tensors: Number of the encoder's tensors that were replaced.
        of: Number of the encoder's tensors.
        whole: Parts of the encoder that were replaced altogether: `stem`, `stages.0`, ...
        partly: Parts of which only some layers were.
        averaged: Input channels over which the first layer's kernels were averaged; 0 if they fit as they are.
    """

    tensors: int
    of: int
    whole: tuple[str, ...]
    partly: tuple[str, ...]
    averaged: int

    def describe(self, file: Path) -> str:
        """For the user."""
        parts = [", ".join(self.whole)] if self.whole else []
        parts += [f"in part {', '.join(self.partly)}"] if self.partly else []
        first = f" The first layer's kernels are their mean over {self.averaged} channels." if self.averaged else ""
        return f"Taken from {file}: {self.tensors} of {self.of} tensors of the encoder ({'; '.join(parts)}).{first}"


def check_pretrained(file: Path, recipe: Recipe) -> str:
    """Check a checkpoint before anything starts from it, as far as that goes without the network.

    Args:
        file: A checkpoint of nnU-Net v2, nnssl or nnood.
        recipe: Of the networks to start.

    Returns:
        The SHA-256 of the file.

    Raises:
        UserError: As `read_encoder` does, or if the recipe's networks don't have the encoder that nnU-Net plans.
    """
    if recipe.reconstruction is not None and recipe.reconstruction.encoder != "unet":
        raise UserError(
            f"--pretrained is for networks with nnU-Net's planned encoder, which those of the recipe {recipe.name} "
            "don't have; leave it out."
        )
    read_encoder(file)
    return sha256(file)


def read_encoder(file: Path, digest: str | None = None) -> dict[str, torch.Tensor]:
    """The weights of an encoder, named as in the networks that nnU-Net plans: `encoder.stages.0...`.

    Args:
        file: A checkpoint of nnU-Net v2, nnssl or nnood.
        digest: SHA-256 that it must have; any if None.

    Raises:
        UserError: If it is missing, was changed, holds anything that could run, or has no encoder.
    """
    content = load_foreign(file, _numpy_scalars())
    if digest is not None and sha256(file) != digest:
        raise UserError(f"{file} was changed while it was in use; start again with the file as it was.")
    weights = content.get(WEIGHTS) if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise UserError(f"{file} is no checkpoint of nnU-Net v2, nnssl or nnood: it has no {WEIGHTS}; choose another.")
    own = _name_of_encoder(content.get(ADAPTATION))
    found = {}
    for name, value in weights.items():
        plain = WRAPPERS.sub("", str(name))
        if plain.startswith(f"{own}.") and ALIAS not in plain and isinstance(value, torch.Tensor):
            found[ENCODER + plain.removeprefix(own)] = value
    if not found:
        raise UserError(f"{file} has no weights of an encoder (named {own}...); choose another checkpoint.")
    return found


def take_encoder(network: nn.Module, weights: dict[str, torch.Tensor], file: Path) -> Taken:
    """Replace the weights of an encoder, layer by layer, where all tensors of a layer fit by name and shape.

    A first layer for another number of channels is averaged over them and scaled, so that it answers to channels that
    are all the same as it did before.

    Args:
        network: With the encoder that nnU-Net planned; changed in place.
        weights: As `read_encoder` gives them.
        file: Where they came from, for the user.

    Raises:
        UserError: If no layer fits.
    """
    own = {
        name: value
        for name, value in network.state_dict().items()
        if name.startswith(f"{ENCODER}.") and ALIAS not in name
    }
    first = next((name for name, value in own.items() if value.dim() > 2), "")
    averaged = _other_channels(own.get(first), weights.get(first))
    if averaged:
        weights = {**weights, first: _averaged(weights[first], own[first].shape[1])}
    layers: dict[str, list[str]] = defaultdict(list)
    for name in own:
        layers[name.rsplit(".", 2)[0]].append(name)
    taken = [
        name
        for names in layers.values()
        if all(name in weights and weights[name].shape == own[name].shape for name in names)
        for name in names
    ]
    if not taken:
        raise UserError(
            f"{file} fits no layer of the encoder that was planned (its first has the shape "
            f"{_shape(own.get(first))}, not {_shape(weights.get(first))}); plan the data set like the one that the "
            "checkpoint is of, or leave out --pretrained."
        )
    with torch.no_grad():
        for name in taken:
            own[name].copy_(weights[name])
    counts: dict[str, list[bool]] = defaultdict(list)
    for name in own:
        counts[_part(name)].append(name in taken)
    whole = tuple(part for part, ones in counts.items() if all(ones))
    partly = tuple(part for part, ones in counts.items() if any(ones) and not all(ones))
    return Taken(len(taken), len(own), whole, partly, averaged if first in taken else 0)


def _name_of_encoder(adaptation: Any) -> str:
    """What the weights of the encoder begin with; nnssl says what its stages are called."""
    stages = adaptation.get("key_to_encoder") if isinstance(adaptation, dict) else None
    return stages.removesuffix(".stages") if isinstance(stages, str) else ENCODER


def _numpy_scalars() -> list[Any]:
    """What nnU-Net's checkpoints hold besides tensors and plain values: figures of its log, as numpy has them."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    # The second name is numpy 1's for the same function.
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def _other_channels(own: torch.Tensor | None, other: torch.Tensor | None) -> int:
    """How many channels another first layer has, if that is all that differs; 0 otherwise."""
    if own is None or other is None or own.dim() != other.dim():
        return 0
    same = own.shape[0] == other.shape[0] and own.shape[2:] == other.shape[2:]
    return other.shape[1] if same and own.shape[1] != other.shape[1] else 0


def _averaged(kernels: torch.Tensor, channels: int) -> torch.Tensor:
    """Kernels for another number of channels."""
    mean = kernels.mean(1, keepdim=True) * (kernels.shape[1] / channels)
    return mean.repeat(1, channels, *[1] * (kernels.dim() - 2))


def _part(name: str) -> str:
    """`stem` or `stages.2`, from the name of a tensor."""
    words = name.split(".")[1:]
    return words[0] if words[0] == "stem" else ".".join(words[:2])


def _shape(tensor: torch.Tensor | None) -> str:
    return "none" if tensor is None else " x ".join(map(str, tensor.shape))
