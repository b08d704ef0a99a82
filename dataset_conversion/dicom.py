"""DICOM: a folder tree of DICOM files of any names, one case per series; all of it is normal.

Source: any PACS export or archive, such as those of https://www.cancerimagingarchive.net, each under its own licence.
Files are told by their content, not by their names. Of each series, sizes, directions and distances of the slices must
agree; the frames of one file are taken as they are. A series of one slice becomes a 2D image without a position. Where
all series are CT, the channel is called so, and nnU-Net normalises it as such. What is drawn or computed from scans
(segmentations, doses) and files of other kinds are left out and counted.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from dataset_conversion.cases import Source
from dataset_conversion.common import write_dataset
from dataset_conversion.dicom_files import DicomHeader, read_header
from dataset_conversion.dicom_series import series_source
from dataset_conversion.labels import find_labels, mask_source
from nnood.errors import UserError, one_error
from nnood.parallel import map_cases

UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")

Series = dict[str, list[DicomHeader]]

logger = logging.getLogger(__name__)


def convert_dicom(
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
    """Make a raw data set from trees of DICOM files.

    A case is called `PATIENT_SERIESNUMBER`, in letters that any file system takes. Cases of a patient make up a group.

    Args:
        source: Folder tree of normal series.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        test: Folder tree of test series.
        labels: Folder of masks `CASE.ext` of test cases (non-zero: anomalous; no mask: normal case), or a CSV file
            `case,label` with a label 0 or 1 for every test case.
        link: Without effect: DICOM files are stored as NIfTI.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If there is no image, files are damaged, or series are no volumes; all such files and series are
            listed before anything is written.
    """
    if test and (test.resolve().is_relative_to(source.resolve()) or source.resolve().is_relative_to(test.resolve())):
        raise UserError(f"{test} and {source} lie in each other, so that test series would be trained on; part them.")
    training, faults = _find_series(source, set(), processes)
    tests, test_faults = _find_series(test, set(training), processes) if test else ({}, [])
    masks, sample_labels, label_faults = find_labels(labels, set(tests))
    training_sources, training_faults = _sources(training)
    test_sources, more_faults = _sources(tests)
    one_error([*faults, *test_faults, *label_faults, *training_faults, *more_faults])
    _warn_of_shared_patients(training, tests)
    modalities = {header.modality for headers in (*training.values(), *tests.values()) for header in headers}
    if len(modalities) > 1:
        logger.warning("Series of the modalities %s go into one data set.", ", ".join(sorted(modalities)))
    return write_dataset(
        raw_root,
        dataset_id,
        name,
        training_sources,
        test_sources,
        labels=sample_labels,
        masks={case: mask_source(path) for case, path in masks.items()},
        groups={case: headers[0].patient for case, headers in training.items()},
        channel_names=["CT"] if modalities == {"CT"} else None,
        link=link,
        processes=processes,
    )


def _find_series(folder: Path, taken: set[str], processes: int) -> tuple[Series, list[str]]:
    """The headers of each series by its case name, and one sentence per damaged file."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds the DICOM files.")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    read, faults = map_cases(
        read_header, {str(file): (file,) for file in files}, processes=processes, description="Reading headers"
    )
    found = [header for header in read.values() if header]
    scans = [header for header in found if not header.is_derived]
    if len(found) < len(read):
        logger.warning("%s: %d file(s) that hold no DICOM image are left out.", folder, len(read) - len(found))
    if len(scans) < len(found):
        logger.warning("%s: %d file(s) of segmentations or doses are left out.", folder, len(found) - len(scans))
    if not scans and not faults:
        raise UserError(f"{folder} holds no DICOM images among {len(files)} file(s); give the folder that holds them.")
    return _named(scans, taken), faults


def _named(headers: Sequence[DicomHeader], taken: set[str]) -> Series:
    """Sort images into series, whose names are unique also where patients' names differ in unsafe characters only."""
    grouped: dict[tuple[str, int, str], list[DicomHeader]] = defaultdict(list)
    for header in headers:
        grouped[header.patient, header.number, header.series].append(header)
    series: Series = {}
    used = {case.lower() for case in taken}
    for (patient, number, _), files in sorted(grouped.items()):
        stem = f"{UNSAFE.sub('-', patient).strip('-.') or 'patient'}_{number:03d}"
        names = (stem if repeat == 1 else f"{stem}-{repeat}" for repeat in count(1))
        case = next(one for one in names if one.lower() not in used)
        used.add(case.lower())
        series[case] = files
    return series


def _sources(series: Series) -> tuple[Mapping[str, Source], list[str]]:
    """A source per series, and one sentence per series that is no volume."""
    return map_cases(
        series_source,
        {case: (headers,) for case, headers in series.items()},
        processes=1,
        description="Arranging slices",
    )


def _warn_of_shared_patients(training: Series, tests: Series) -> None:
    """A patient on both sides makes results look better than they are."""
    known = {headers[0].patient for headers in training.values()}
    if shared := sorted({headers[0].patient for headers in tests.values()} & known):
        logger.warning("%d test patient(s) are also trained on, such as %s.", len(shared), shared[0])
