"""VinDr-CXR: posteroanterior chest X-rays of adults from two hospitals in Hanoi, read by radiologists.

Source: Nguyen et al., "VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations", Scientific Data 9,
429 (2022), https://physionet.org/content/vindr-cxr/1.0.0/. PhysioNet Credentialed Health Data License 1.5.0: access
after training, no redistribution.

Protocol: the published division into training and testing. Each training image was read by three radiologists; it is
normal only if all of them found nothing. Test images carry the consensus of five. (Cai et al., "Dual-distribution
discrepancy for anomaly detection in chest X-rays", MICCAI 2022, draw their test images from the training part; their
numbers are of another test set.) Patients are not named, so that each image counts as a patient of its own.

The masks are the annotated boxes, filled. A box is coarser than the lesion in it, so that voxel metrics compare methods
but don't say how well a lesion is outlined. Test images whose boxes and consensus contradict each other (an abnormal
image may have a diagnosis only, which has no place) are left out and counted, as they would count as normal.
"""

import logging
import math
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_conversion.cases import Source
from dataset_conversion.common import write_dataset
from dataset_conversion.dicom_files import open_dicom
from dataset_conversion.dicom_window import read_displayed
from dataset_conversion.tables import read_table
from nnood.errors import UserError, one_error
from nnood.geometry import Geometry
from nnood.images import refuse_constant

NO_FINDING = "No finding"
READERS = 3
CORNERS = ("x_min", "y_min", "x_max", "y_max")
WHITE = np.iinfo(np.uint16).max

Box = tuple[float, ...]

logger = logging.getLogger(__name__)


def convert_vindr(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    name: str,
    *,
    size: int = 512,
    link: bool = False,
    processes: int = 1,
) -> Path:
    """Make a raw data set from VinDr-CXR.

    Images are windowed as their headers say, reduced, and stored as 16-bit grey values. Since reduced images are alike
    in pixels and not all headers give a spacing, pixels count as 1 mm.

    Args:
        source: Folder of `train/*.dicom`, `test/*.dicom` and `annotations/`. Without `annotations_test.csv` the test
            set has sample labels only.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        size: Pixels of the longer side, to which larger images are reduced, boxes alike.
        link: Without effect: DICOM files are stored as NIfTI.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If a table or an image is missing, a table makes no sense, or images are bad; bad images are listed
            after the good ones were converted.
    """
    if size < 1:
        raise UserError(f"A longer side of {size} pixels leaves no image; give a number from 1 on.")
    tables = source / "annotations"
    readings = _read_labels(tables / "image_labels_train.csv", readers=READERS)
    labels = _read_labels(tables / "image_labels_test.csv", readers=1)
    boxes = _read_boxes(tables / "annotations_test.csv")
    normal = [image for image, is_normal in readings.items() if is_normal]
    if not normal:
        raise UserError(f"{tables / 'image_labels_train.csv'} has no image in which all readers found nothing.")
    if boxes is not None:
        labels = _without_contradictions(labels, boxes)
    training, tests = (
        {image: source / split / f"{image}.dicom" for image in images}
        for split, images in (("train", normal), ("test", labels))
    )
    if missing := [file for file in (*training.values(), *tests.values()) if not file.is_file()]:
        raise UserError(f"{source} lacks {len(missing)} image(s), such as {missing[0]}; download them.")
    return write_dataset(
        raw_root,
        dataset_id,
        name,
        {image: _source(file, size) for image, file in training.items()},
        {image: _source(file, size) for image, file in tests.items()},
        labels={image: int(not is_normal) for image, is_normal in labels.items()},
        masks={
            image: _mask_source(tests[image], found, size) for image, found in (boxes or {}).items() if image in tests
        },
        link=link,
        processes=processes,
    )


def _read_labels(table: Path, *, readers: int) -> dict[str, bool]:
    """Whether each image is normal to all of its readers."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in read_table(table, ("image_id", NO_FINDING)):
        found[row["image_id"]].append(row[NO_FINDING])
    one_error(
        [
            f"{table}: {image} has the readings {values} of {NO_FINDING!r}; expected {readers} of 0 or 1, replace the "
            "file by an intact copy."
            for image, values in found.items()
            if len(values) != readers or not set(values) <= {"0", "1"}
        ]
    )
    return {image: set(values) == {"1"} for image, values in found.items()}


def _read_boxes(table: Path) -> dict[str, list[Box]] | None:
    """The boxes of each image that has some, as pixels (x_min, y_min, x_max, y_max); None if there is no such table."""
    if not table.exists():
        return None
    boxes: dict[str, list[Box]] = defaultdict(list)
    faults = []
    for row in read_table(table, ("image_id", "class_name", *CORNERS)):
        if row["class_name"] == NO_FINDING:
            continue
        try:
            box = tuple(float(row[corner]) for corner in CORNERS)
        except ValueError:
            box = (math.nan,) * 4
        if not (np.isfinite(box).all() and box[0] < box[2] and box[1] < box[3]):
            faults.append(f"{table}: {row['image_id']} has a box of no area; replace the file by an intact copy.")
        boxes[row["image_id"]].append(box)
    one_error(faults)
    return boxes


def _without_contradictions(labels: dict[str, bool], boxes: dict[str, list[Box]]) -> dict[str, bool]:
    """The test images that are abnormal and have boxes, or are normal and have none."""
    agreeing = {image: is_normal for image, is_normal in labels.items() if is_normal != (image in boxes)}
    if len(agreeing) < len(labels):
        logger.warning(
            "%d of %d test images are left out: abnormal without a box, or normal with one.",
            len(labels) - len(agreeing),
            len(labels),
        )
    return agreeing


def _source(file: Path, size: int) -> Source:
    return Source(partial(_load_image, file, size), inputs=(file,), settings=size)


def _mask_source(file: Path, boxes: list[Box], size: int) -> Source:
    return Source(partial(_load_boxes, file, boxes, size), inputs=(file,), settings=[size, boxes])


def _load_image(file: Path, size: int) -> tuple[list[np.ndarray], Geometry]:
    """An X-ray as displayed, reduced; Pillow averages over all pixels that make up a new one."""
    displayed = read_displayed(file)
    width, height = _reduced(displayed.shape[1], displayed.shape[0], size)
    grey = np.asarray(Image.fromarray(displayed).resize((width, height), Image.Resampling.BILINEAR))
    channels = [np.rint(np.clip(grey, 0, 1) * WHITE).astype(np.uint16)]
    refuse_constant(channels, file)
    return channels, Geometry.from_spacing((height, width), (1.0, 1.0))


def _load_boxes(file: Path, boxes: list[Box], size: int) -> tuple[list[np.ndarray], Geometry]:
    """The filled boxes on the grid of the reduced image; each covers every pixel that it touches."""
    columns, rows = open_dicom(file).GetSize()[:2]
    width, height = _reduced(columns, rows, size)
    mask = np.zeros((height, width), np.uint8)
    for x_min, y_min, x_max, y_max in boxes:
        right, bottom = math.ceil(x_max * width / columns), math.ceil(y_max * height / rows)
        mask[max(0, int(y_min * height / rows)) : bottom, max(0, int(x_min * width / columns)) : right] = 1
    if not mask.any():
        raise UserError(f"{file} has boxes outside of the image only; leave the image out.")
    return [mask], Geometry.from_spacing((height, width), (1.0, 1.0))


def _reduced(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height of the reduced image."""
    factor = min(1.0, size / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))
