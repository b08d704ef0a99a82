"""MOOD: brain MRI (800 volumes of 256^3) or abdominal CT (550 of 512^3) of the MOOD challenge, and its toy cases.

Source: Medical Out-of-Distribution Analysis Challenge, http://medicalood.dkfz.de, data by registration at
https://www.synapse.org/mood; Zimmerer et al., "MOOD 2020: a public benchmark for out-of-distribution detection and
localization on medical images", IEEE Transactions on Medical Imaging 41(10), 2728-2738 (2022). Licence: the terms that
Synapse shows with the data.

Normal: all images of brain_train or abdom_train, scans in which no anomaly was identified. Test: the few toy cases,
with voxel masks (labelsTs) and sample labels (labelsTs.csv); the challenge keeps its own test set to itself. Values are
in [0, 1], as published, and are stored as they are.
"""

import logging
from functools import partial
from pathlib import Path

import numpy as np

from dataset_conversion.cases import Source, files_source
from dataset_conversion.common import write_dataset
from dataset_conversion.labels import mask_source
from dataset_conversion.trees import find_folder, first_folder
from nnood.case_files import group_by_case, image_files
from nnood.errors import UserError, one_error
from nnood.geometry import Geometry
from nnood.images import read_channels, refuse_constant

PARTS = ("brain", "abdom")
ANY = "*.nii.gz"

logger = logging.getLogger(__name__)


def convert_mood(
    source: Path, raw_root: Path, dataset_id: int, name: str, *, part: str, link: bool = False, processes: int = 1
) -> Path:
    """Make a raw data set from one part of the challenge's data.

    Args:
        source: The folder that holds brain_train or abdom_train, unpacked one level deeper or not, and, where there are
            toy cases, brain_toy or abdom_toy with toy and toy_label, or these two themselves.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        part: One of `PARTS`.
        link: Make symbolic links in the place of copies.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If there are no training images, a toy case lacks a label, or images are bad or have values outside
            [0, 1]; bad images are listed after the good ones were converted.
    """
    train = f"{part}_train"
    places = (f"{train}/{train}", train, f"{part}/{train}/{train}", f"{part}/{train}")
    folder = first_folder(source, places, ANY, f"the folder that holds {train}")
    training, faults = group_by_case(image_files(folder), numbered=False)
    above_toys = (f"{part}_toy/", f"{part}_toy/{part}_toy/", f"{part}/", "")
    toys = find_folder(source, [f"{above}toy" for above in above_toys], ANY)
    if toys is None:
        logger.warning("%s holds no toy cases of %s, so the data set has no test cases.", source, part)
    tests, more = group_by_case(image_files(toys), numbered=False) if toys else ({}, [])
    labels, masks, lacking = _toy_labels(toys.with_name("toy_label"), list(tests)) if toys else ({}, {}, [])
    one_error(faults + more + lacking)
    return write_dataset(
        raw_root,
        dataset_id,
        name,
        {case: _unit_source(files) for case, files in training.items()},
        {case: _unit_source(files) for case, files in tests.items()},
        labels=labels,
        masks=masks,
        link=link,
        processes=processes,
    )


def _toy_labels(folder: Path, cases: list[str]) -> tuple[dict[str, int], dict[str, Source], list[str]]:
    """Sample labels of all toy cases, masks of the anomalous ones, and one sentence per fault."""
    labels, masks, faults = {}, {}, []
    for case in cases:
        sample, mask = folder / "sample" / f"{case}.nii.gz.txt", folder / "pixel" / f"{case}.nii.gz"
        faults += [
            f"{file} does not exist; unpack the toy labels again." for file in (sample, mask) if not file.is_file()
        ]
        text = sample.read_text(errors="replace").strip() if sample.is_file() else "0"
        if text not in ("0", "1", "0.0", "1.0"):
            faults.append(f"{sample}: Expected 0 or 1, but got {text[:20]!r}; unpack the toy labels again.")
            continue
        labels[case] = int(float(text))
        if labels[case]:
            masks[case] = mask_source(mask)
    return labels, masks, faults


def _unit_source(files: list[Path]) -> Source:
    """An image whose values must be in [0, 1]."""
    plain = files_source(files)
    return Source(partial(_load_unit, files[0]), inputs=plain.inputs, originals=plain.originals)


def _load_unit(file: Path) -> tuple[list[np.ndarray], Geometry]:
    channels, geometry = read_channels([file])
    refuse_constant(channels, file)
    low, high = min(values.min() for values in channels), max(values.max() for values in channels)
    if low < 0 or high > 1:
        raise UserError(f"{file} has values from {low:g} to {high:g}; expected 0 to 1 as in MOOD, leave the file out.")
    return channels, geometry
