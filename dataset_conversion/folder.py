"""Any folder of normal images, in any format that nnood reads, with optional test images and their labels."""

from pathlib import Path

from dataset_conversion.cases import files_source
from dataset_conversion.common import write_dataset
from dataset_conversion.labels import find_labels, mask_source
from nnood.case_files import Cases, group_by_case, has_channel_numbers, image_files
from nnood.errors import one_error


def convert_folder(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    name: str,
    *,
    test: Path | None = None,
    labels: Path | None = None,
    link: bool = False,
    processes: int = 1,
) -> Path:
    """Make a raw data set from folders of images.

    Args:
        source: Folder of normal images, named `CASE.ext` or nnU-Net's way, `CASE_0000.ext` and so on per channel.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        test: Folder of test images.
        labels: Folder of masks `CASE.ext` of test cases (non-zero: anomalous; no mask: normal case), or a CSV file
            `case,label` with a label 0 or 1 for every test case.
        link: Make symbolic links to `.nii.gz` files that would be stored unchanged.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If anything in the input is wrong; all bad files are listed after the good ones were converted.
    """
    training_files = image_files(source)
    numbered = has_channel_numbers(training_files)
    training, faults = group_by_case(training_files, numbered)
    tests: Cases = {}
    if test:
        test_files = image_files(test)
        tests, test_faults = group_by_case(test_files, numbered or has_channel_numbers(test_files))
        faults += test_faults
    masks, sample_labels, label_faults = find_labels(labels, set(tests))
    one_error(faults + label_faults)
    return write_dataset(
        raw_root,
        dataset_id,
        name,
        {case: files_source(files) for case, files in training.items()},
        {case: files_source(files) for case, files in tests.items()},
        labels=sample_labels,
        masks={case: mask_source(path) for case, path in masks.items()},
        link=link,
        processes=processes,
    )
