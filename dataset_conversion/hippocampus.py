"""Hippocampus: small T1 MRI crops around the hippocampus, 260 volumes of 1 mm.

Source: Task04_Hippocampus of the Medical Segmentation Decathlon, http://medicaldecathlon.com; Antonelli et al., "The
Medical Segmentation Decathlon", Nature Communications 13, 4128 (2022). Licence CC BY-SA 4.0.

Normal: every image of imagesTr; its labels, of the hippocampus, and imagesTs are not used. Held out: the last 20 % by
name, as normal test cases, from which nnood_make_benchmark makes anomalous ones. Some of the people had a psychotic
disorder, which leaves no lesion. Two images may be of one person; which ones is not published, so there is no
groups.csv.
"""

from pathlib import Path

from dataset_conversion.cases import files_source
from dataset_conversion.common import write_dataset
from dataset_conversion.hold_out import hold_out
from dataset_conversion.trees import first_folder
from nnood.case_files import group_by_case, image_files
from nnood.errors import one_error

FOLDERS = ("Task04_Hippocampus/imagesTr", "imagesTr", "images", ".")


def convert_hippocampus(
    source: Path, raw_root: Path, dataset_id: int, name: str, *, link: bool = False, processes: int = 1
) -> Path:
    """Make a raw data set of normal images, the last 20 % of them as test cases.

    Args:
        source: The unpacked archive, its folder Task04_Hippocampus, or a folder of hippocampus_XXX.nii.gz.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        link: Make symbolic links in the place of copies.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If there are no images, or bad ones; these are listed after the good ones were converted.
    """
    folder = first_folder(source, FOLDERS, "hippocampus_*.nii.gz", "the unpacked Task04_Hippocampus")
    cases, faults = group_by_case(image_files(folder, ".nii.gz"), numbered=False)
    one_error(faults)
    training, tests = hold_out(cases, {}, folder)
    return write_dataset(
        raw_root,
        dataset_id,
        name,
        {case: files_source(cases[case]) for case in training},
        {case: files_source(cases[case]) for case in tests},
        labels=dict.fromkeys(tests, 0),
        link=link,
        processes=processes,
    )
