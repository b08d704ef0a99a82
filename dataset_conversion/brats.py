"""BraTS: brain tumours in T2 MRI, against brains of healthy people from elsewhere.

Source: Brain Tumor Segmentation Challenge, https://www.med.upenn.edu/cbica/brats2020; Menze et al., IEEE Transactions
on Medical Imaging 34(10), 1993-2024 (2015); Bakas et al., Scientific Data 4, 170117 (2017). Healthy brains, such as
T2w_acpc_dc_restore_brain of the Human Connectome Project, https://www.humanconnectome.org, are given with --normal: one
skull-stripped T2 image per person. Licence: both by registration, under the terms shown there.

Normal: all images of --normal, for training. Test: the T2 image of every case of BraTS; anomalous is what any of its
labels marks (whole tumour). All test cases have a tumour: this is a set to localise with, not to tell people apart.

Protocol: after Zimmerer et al., "Context-encoding variational autoencoder for unsupervised anomaly detection", 2018,
arXiv:1812.05941, which trains on T2 images of the Human Connectome Project and tests on BraTS 2017 and ISLES 2015.
Every brain (the largest piece of what is not 0) is turned to the same axes, resampled to 1 mm, its values are taken
relative to the mean and standard deviation within the brain, and the middle of the box around it is moved to the middle
of one common box of 176 x 208 x 176 mm; sizes of brains are kept. Nothing is registered, and whole volumes are kept, in
place of the paper's slices.
"""

from pathlib import Path

from dataset_conversion.brains import write_brains
from nnood.errors import UserError, one_error

# How the T2 image and the labels of a case end: to 2021, from 2023 on.
ENDINGS = (("_t2", "_seg"), ("-t2w", "-seg"))
FORMATS = (".nii.gz", ".nii")


def convert_brats(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    name: str,
    *,
    normal: Path,
    link: bool = False,
    processes: int = 1,
) -> Path:
    """Make a raw data set of healthy brains for training and the brains of BraTS as test cases.

    Args:
        source: Folder of BraTS's training cases, at any depth: CASE/CASE_t2.nii.gz with CASE_seg.nii.gz, or
            CASE/CASE-t2w.nii.gz with CASE-seg.nii.gz.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        normal: Folder of skull-stripped T2 images of healthy people, one file each.
        link: Without effect: every image is resampled.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If there are no cases, one lacks its labels, or images are bad or not skull-stripped; bad images are
            listed after the good ones were converted.
    """
    return write_brains(raw_root, dataset_id, name, normal, _find_cases(source), processes=processes)


def _find_cases(source: Path) -> dict[str, tuple[Path, Path]]:
    """T2 image and labels of each case."""
    cases: dict[str, tuple[Path, Path]] = {}
    faults = []
    for image_ending, label_ending in ENDINGS:
        for image in sorted(source.rglob(f"*{image_ending}.nii*")):
            kind = next((kind for kind in FORMATS if image.name.endswith(image_ending + kind)), None)
            if kind is None or image.name.startswith("."):
                continue
            case = image.name.removesuffix(image_ending + kind)
            labels = image.with_name(f"{case}{label_ending}{kind}")
            if not labels.is_file():
                faults.append(f"{labels} does not exist; rename it if it has another name, or remove {image}.")
            elif case in cases:
                faults.append(f"{image} and {cases[case][0]} are of the same case; remove one of them.")
            else:
                cases[case] = (image, labels)
    one_error(faults)
    if not cases:
        raise UserError(f"{source} holds no case of BraTS (CASE/CASE_t2.nii.gz); give the folder of training cases.")
    return cases
