"""Converters: one file per kind of source, each of which writes a raw data set that nnood can plan."""

from pathlib import Path

from dataset_conversion.bids import convert_bids
from dataset_conversion.brats import convert_brats
from dataset_conversion.chestxray14 import SEXES, convert_chestxray14
from dataset_conversion.converter import Converter, Option
from dataset_conversion.dicom import convert_dicom
from dataset_conversion.fashion_mnist import convert_fashion_mnist
from dataset_conversion.folder import convert_folder
from dataset_conversion.hippocampus import convert_hippocampus
from dataset_conversion.isles import convert_isles
from dataset_conversion.ixi import MODALITIES, convert_ixi
from dataset_conversion.medmnist import convert_medmnist
from dataset_conversion.mednist import convert_mednist
from dataset_conversion.mood import PARTS, convert_mood
from dataset_conversion.vindr import convert_vindr

_CLASS_NUMBERS = Option("normal", "numbers of the classes that are normal", type=int, several=True)
_HEALTHY_BRAINS = Option("normal", "folder of skull-stripped T2 images of healthy people, one file each", type=Path)

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
    "mood": Converter(
        convert_mood, "MOOD_{part}", (Option("part", "of the challenge", choices=PARTS),), "-i mood -d 101 --part brain"
    ),
    "brats": Converter(
        convert_brats, "BraTS", (_HEALTHY_BRAINS,), "-i MICCAI_BraTS2020_TrainingData -d 101 --normal hcp_t2"
    ),
    "isles": Converter(convert_isles, "ISLES", (_HEALTHY_BRAINS,), "-i SISS2015_Training -d 101 --normal hcp_t2"),
    "hippocampus": Converter(convert_hippocampus, "Hippocampus", (), "-i Task04_Hippocampus -d 101"),
    "ixi": Converter(
        convert_ixi,
        "IXI_{modality}",
        (Option("modality", "of the images", choices=MODALITIES),),
        "-i IXI-T1 -d 101 --modality T1",
    ),
    "medmnist": Converter(convert_medmnist, "MedMNIST", (_CLASS_NUMBERS,), "-i pneumoniamnist.npz -d 101"),
    "mednist": Converter(
        convert_mednist,
        "MedNIST_{normal}",
        (Option("normal", "names of the classes that are normal", several=True),),
        "-i MedNIST -d 101 --normal CXR",
    ),
    "fashion_mnist": Converter(
        convert_fashion_mnist,
        "FashionMNIST_{normal}",
        (_CLASS_NUMBERS, Option("most", "test images per class, all if left out", type=int)),
        "-i fashion -d 101 --normal 0",
    ),
    "vindr": Converter(
        convert_vindr,
        "VinDrCXR",
        (Option("size", "pixels of the longer side, to which images are reduced", type=int),),
        "-i vindr-cxr/1.0.0 -d 101 --size 512",
    ),
    "chestxray14": Converter(
        convert_chestxray14,
        "ChestXray14",
        (Option("sex", "of the patients", choices=SEXES),),
        "-i ChestXray-NIHCC -d 101 --sex M",
    ),
    "bids": Converter(
        convert_bids,
        "BIDS",
        (
            Option("suffix", "how the names of the images end, such as T1w or acq-mprage_T1w"),
            Option("normal", "COLUMN=VALUE of participants.tsv that normal participants have; all if left out"),
        ),
        "-i ds000001 -d 101 --suffix T1w --normal group=control",
    ),
    "dicom": Converter(
        convert_dicom,
        "DICOM",
        (
            Option("test", "folder tree of test series", type=Path),
            Option("labels", "folder of masks, or CSV of case,label, for the test series", type=Path),
        ),
        "-i export -d 101 -n Heads --test new_scans --labels labels.csv",
    ),
}
