"""Converters: one file per kind of source, each of which writes a raw data set that nnood can plan."""

from collections.abc import Callable
from pathlib import Path

from dataset_conversion.fashion_mnist import convert_fashion_mnist
from dataset_conversion.folder import convert_folder
from dataset_conversion.medmnist import convert_medmnist
from dataset_conversion.mednist import convert_mednist

SOURCES: dict[str, Callable[..., Path]] = {
    "folder": convert_folder,
    "medmnist": convert_medmnist,
    "mednist": convert_mednist,
    "fashion_mnist": convert_fashion_mnist,
}
# Whose classes are numbers, not names.
NUMBERED = ("medmnist", "fashion_mnist")
