"""What plans may name: nnU-Net imports and calls whatever they do, with arguments that are theirs, too."""

import pydoc
import re
from pathlib import Path
from typing import Any

from torch import nn

from nnood.errors import UserError
from nnood.safety import read_json

NETWORKS = (
    "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
)
RESAMPLING = (
    "no_resampling_hack",
    "resample_data_or_seg_to_shape",
    "resample_torch_fornnunet",
    "resample_torch_simple",
)
NORMALISATION = re.compile(r"[A-Za-z0-9]+Normalization")
# Modules import others, so a longer path could lead from torch.nn to anywhere.
PART = re.compile(r"torch\.nn\.(?:modules\.[a-z]+\.)?[A-Z]\w*")


def check_plans(file: Path) -> None:
    """Check that plans name nothing but networks, their parts, and nnU-Net's resampling and normalisation.

    Raises:
        UserError: Names the file.
    """
    try:
        for configuration in read_json(file)["configurations"].values():
            _check_configuration(configuration, file)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not valid ({error}).") from error


def _check_configuration(configuration: dict[str, Any], file: Path) -> None:
    """Check a configuration; what it lacks it inherits."""
    for key in ("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities"):
        if configuration.get(key, RESAMPLING[0]) not in RESAMPLING:
            raise UserError(f"{file} names {configuration[key]!r}, which does not resample.")
    for name in configuration.get("normalization_schemes", ()):
        if not NORMALISATION.fullmatch(name):
            raise UserError(f"{file} names {name!r}, which does not normalise.")
    architecture = configuration.get("architecture")
    if architecture is None:
        return
    if architecture["network_class_name"] not in NETWORKS:
        raise UserError(f"{file} names the network {architecture['network_class_name']!r}, which is unknown.")
    for key in architecture["_kw_requires_import"]:
        name = architecture["arch_kwargs"][key]
        if name is not None and not _is_part(name):
            raise UserError(f"{file} names {name!r}, which is no part of a network.")


def _is_part(name: str) -> bool:
    """Whether a name is that of a layer."""
    if not PART.fullmatch(name):
        return False
    found = pydoc.locate(name)
    return isinstance(found, type) and issubclass(found, nn.Module)
