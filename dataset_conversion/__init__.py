"""Converters: one file per kind of source, each of which writes a raw data set that nnood can plan."""

from collections.abc import Callable
from pathlib import Path

from dataset_conversion.folder import convert_folder
from dataset_conversion.medmnist import convert_medmnist

SOURCES: dict[str, Callable[..., Path]] = {
    "folder": convert_folder,
    "medmnist": convert_medmnist,
}
