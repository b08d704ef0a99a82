"""Any folder of normal images, in any format that nnood reads, with optional test images and their labels."""

from pathlib import Path

from dataset_conversion.cases import Source, files_source, write_cases
from dataset_conversion.common import (
    channel_names,
    disagreements,
    finish_dataset,
    open_dataset,
    report,
    usual_channels,
    write_labels,
)
from dataset_conversion.labels import find_labels, mask_source
from nnood.case_files import Cases, group_by_case, has_channel_numbers, image_files
from nnood.errors import UserError, one_error
from nnood.image_readers import MEDICAL_ENDINGS
from nnood.images import image_ending


def convert_folder(
    images: Path,
    raw_root: Path,
    dataset_id: int,
    name: str,
    *,
    test: Path | None = None,
    labels: Path | None = None,
    processes: int = 1,
) -> Path:
    """Make a raw data set from folders of images.

    Args:
        images: Folder of normal images, named `CASE.ext` or nnU-Net's way, `CASE_0000.ext` and so on per channel.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        test: Folder of test images.
        labels: Folder of masks `CASE.ext` of test cases (non-zero: anomalous; no mask: normal case), or a CSV file
            `case,label` with a label 0 or 1 for every test case.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If anything in the input is wrong; all bad files are listed after the good ones were converted.
    """
    if labels and not test:
        raise UserError(f"{labels} are labels, but there are no test images; give their folder too (--test).")
    training_files = image_files(images)
    numbered = has_channel_numbers(training_files)
    training, faults = group_by_case(training_files, numbered)
    tests: Cases = {}
    if test:
        test_files = image_files(test)
        tests, test_faults = group_by_case(test_files, numbered or has_channel_numbers(test_files))
        faults += test_faults
    masks, sample_labels, label_faults = find_labels(labels, set(tests))
    one_error(faults + label_faults)

    dataset = open_dataset(raw_root, dataset_id, name)
    found, training_faults = write_cases(dataset, "imagesTr", _sources(training), processes=processes)
    found_test, test_faults = write_cases(dataset, "imagesTs", _sources(tests), processes=processes)
    mask_sources = {case: mask_source(dataset, case, path) for case, path in masks.items() if case in found_test}
    test_faults += write_cases(dataset, "labelsTs", mask_sources, processes=processes)[1]
    if sample_labels:
        write_labels(dataset, sample_labels)

    channels = usual_channels(found)
    by_file = {str(training[case][0]): result for case, result in found.items()}
    if not training_faults and not disagreements(by_file, channels):
        names = channel_names(channels, is_picture=_is_picture(next(iter(training.values()))))
        finish_dataset(dataset, names, len(training))
    by_file |= {str(tests[case][0]): result for case, result in found_test.items()}
    report(training_faults + test_faults + disagreements(by_file, channels), dataset)
    return dataset


def _sources(cases: Cases) -> dict[str, Source]:
    return {case: files_source(files) for case, files in cases.items()}


def _is_picture(files: list[Path]) -> bool:
    """Whether a case is one file whose three channels are colours."""
    return len(files) == 1 and image_ending(files[0]) not in MEDICAL_ENDINGS
