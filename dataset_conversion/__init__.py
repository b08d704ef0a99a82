"""Converters: one file per kind of source, each of which writes a raw data set that nnood can plan."""

from pathlib import Path

from dataset_conversion.converter import Converter, Option
from dataset_conversion.fashion_mnist import convert_fashion_mnist
from dataset_conversion.folder import convert_folder
from dataset_conversion.medmnist import convert_medmnist
from dataset_conversion.mednist import convert_mednist

_CLASS_NUMBERS = Option("normal", "numbers of the classes that are normal", type=int, several=True)

SOURCES: dict[str, Converter] = {
    "folder": Converter(
        convert_folder,
        "Images",
        (
            Option("test", "folder of test images", type=Path),
            Option("labels", "folder of masks, or CSV of case,label, for the test images", type=Path),
        ),
        "-i scans -d 101 -n Heads --test new_scans --labels masks",
    ),
    "medmnist": Converter(convert_medmnist, "MedMNIST", (_CLASS_NUMBERS,), "-i pneumoniamnist.npz -d 101"),
    "mednist": Converter(
        convert_mednist,
        "MedNIST",
        (Option("normal", "names of the classes that are normal", several=True),),
        "-i MedNIST -d 101 --normal CXR",
    ),
    "fashion_mnist": Converter(
        convert_fashion_mnist,
        "FashionMNIST",
        (_CLASS_NUMBERS, Option("most", "test images per class, all if left out", type=int)),
        "-i fashion -d 101 --normal 0",
    ),
}
