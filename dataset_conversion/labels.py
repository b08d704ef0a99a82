"""The labels of test cases: a folder of masks, or a table of sample labels."""

from functools import partial
from pathlib import Path

import numpy as np

from dataset_conversion.cases import Source
from nnood.case_files import group_by_case, image_files
from nnood.errors import UserError
from nnood.evaluation.folders import read_sample_labels
from nnood.geometry import Geometry
from nnood.images import image_ending, read_channels, read_image


def find_labels(labels: Path | None, tests: set[str]) -> tuple[dict[str, Path], dict[str, int], list[str]]:
    """Find the labels and check that they fit the test cases.

    Args:
        labels: Folder of masks, CSV file, or None.
        tests: Names of the test cases.

    Returns:
        Masks by case, or sample labels by case, and one sentence per fault.
    """
    if labels is None:
        return {}, {}, []
    if not tests:
        return {}, {}, [f"{labels} are labels, but there are no test images; give their folder too (--test)."]
    if labels.suffix.lower() == ".csv":
        sample_labels, faults = _read_labels(labels, tests)
        return {}, sample_labels, faults
    masks, faults = group_by_case(image_files(labels), numbered=False)
    for case, (path,) in masks.items():
        if case not in tests:
            faults.append(f"{path} belongs to no test image; name a mask CASE.ext like its test case, or remove it.")
        if image_ending(path) in (".jpg", ".jpeg"):
            faults.append(f"{path} is a JPEG file, which blurs the edges of a mask; use PNG or NIfTI.")
    return {case: path for case, (path,) in masks.items()}, {}, faults


def _read_labels(table: Path, tests: set[str]) -> tuple[dict[str, int], list[str]]:
    """Read a CSV file of `case,label`, which must name every test case and no other."""
    labels = {case: int(label) for case, label in read_sample_labels(table).items()}
    faults = [f"{table}: {case!r} is no test case; correct or remove its line." for case in labels if case not in tests]
    if missing := sorted(tests - set(labels)):
        faults.append(f"{table} lacks {len(missing)} test case(s), such as {missing[0]}; add them.")
    return labels, faults


def mask_source(mask: Path) -> Source:
    """A mask in a file of its own: non-zero where anomalous."""
    return Source(partial(read_channels, [mask]), inputs=(mask,))


def fitted_mask(mask: Source, image: Path) -> Source:
    """The mask as the data set holds it: binary, and on the grid of its image.

    Args:
        mask: Loads values that are non-zero where anomalous.
        image: The test image in the data set, which must be there when the mask is loaded.
    """
    return Source(
        partial(_load_fitted, mask, image), inputs=(*mask.inputs, image), settings=mask.settings, is_mask=True
    )


def _load_fitted(mask: Source, image: Path) -> tuple[list[np.ndarray], Geometry]:
    """Binarise a mask and check that it lies on its image's grid."""
    channels, geometry = mask.load()
    expected = read_image(image)[1]
    if not geometry.matches(expected):
        origin = mask.inputs[0] if mask.inputs else f"The mask of {image}"
        raise UserError(
            f"{origin} does not lie on the grid of its image ({geometry.describe()} and {expected.describe()}); "
            "resample it."
        )
    return [np.any([channel != 0 for channel in channels], axis=0).astype(np.uint8)], expected
