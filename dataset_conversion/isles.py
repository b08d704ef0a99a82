"""ISLES 2015 SISS: sub-acute stroke lesions in T2 MRI, against brains of healthy people from elsewhere.

Source: Ischemic Stroke Lesion Segmentation Challenge 2015, https://www.isles-challenge.org/ISLES2015; Maier et al.,
"ISLES 2015 - A public evaluation benchmark for ischemic stroke lesion segmentation from multispectral MRI", Medical
Image Analysis 35, 250-269 (2017). Healthy brains, such as T2w_acpc_dc_restore_brain of the Human Connectome Project,
https://www.humanconnectome.org, are given with --normal: one skull-stripped T2 image per person. Licence: both by
registration, under the terms shown there.

Normal: all images of --normal, for training. Test: the T2 image of each of the 28 training cases of SISS; anomalous is
the lesion that the expert drew (OT). All test cases have a lesion.

Protocol: as of the source brats, after Zimmerer et al. 2018, arXiv:1812.05941: 1 mm, values relative to the brain's
mean and standard deviation, brains in the middle of one box.
"""

import re
from pathlib import Path

from dataset_conversion.brains import write_brains
from nnood.errors import UserError, one_error

IMAGE, LESION = "VSD.Brain*.O.MR_T2.*", "VSD.Brain*.O.OT.*"
FILES = re.compile(r"\.nii(\.gz)?$")


def convert_isles(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    name: str,
    *,
    normal: Path,
    link: bool = False,
    processes: int = 1,
) -> Path:
    """Make a raw data set of healthy brains for training and the brains of ISLES 2015 SISS as test cases.

    Args:
        source: The folder of the training cases, SISS2015_Training, or the one above it:
            N/VSD.Brain.XX.O.MR_T2.ID/VSD.Brain.XX.O.MR_T2.ID.nii and N/VSD.Brain.XX.O.OT.ID/VSD.Brain.XX.O.OT.ID.nii.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        normal: Folder of skull-stripped T2 images of healthy people, one file each.
        link: Without effect: every image is resampled.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If there are no cases, one lacks its lesion, or images are bad or not skull-stripped; bad images are
            listed after the good ones were converted.
    """
    return write_brains(raw_root, dataset_id, name, normal, _find_cases(source), processes=processes)


def _find_cases(source: Path) -> dict[str, tuple[Path, Path]]:
    """T2 image and lesion of each case."""
    folders = {path.parent for depth in ("*", "*/*") for path in source.glob(f"{depth}/{IMAGE}") if path.is_dir()}
    cases, faults = {}, []
    for folder in sorted(folders):
        found = [_only_file(folder, pattern) for pattern in (IMAGE, LESION)]
        for file, pattern in zip(found, (IMAGE, LESION), strict=True):
            if file is None:
                faults.append(f"{folder / pattern} must hold one NIfTI file; unpack the case again or remove it.")
        image, lesion = found
        if image and lesion:
            # 01 to 28, so that the order by name is that of the numbers
            cases[f"siss_{folder.name.zfill(2)}"] = (image, lesion)
    one_error(faults)
    if not cases:
        raise UserError(f"{source} holds no case of ISLES (N/{IMAGE}); give the folder SISS2015_Training.")
    return cases


def _only_file(folder: Path, pattern: str) -> Path | None:
    """The one image in the one folder of a kind; None if there is another number of them."""
    files = [file for file in folder.glob(f"{pattern}/VSD*") if FILES.search(file.name)]
    return files[0] if len(files) == 1 else None
