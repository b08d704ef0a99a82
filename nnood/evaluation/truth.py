"""What the labels say of each case: voxel masks or sample labels, and the kinds of a benchmark set."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnood.errors import UserError, one_error
from nnood.evaluation.benchmark.table import DESCRIPTION, TABLE, Row, read_benchmark
from nnood.evaluation.folders import compare_names, find_images, find_masks, full_path, read_note, read_sample_labels
from nnood.evaluation.results import NORMAL
from nnood.geometry import Geometry
from nnood.image_readers import PICTURE_ENDINGS, TIFF_ENDINGS
from nnood.images import image_ending, read_image

EIGHT_BIT_ENDINGS = PICTURE_ENDINGS + TIFF_ENDINGS


@dataclass(frozen=True)
class Truth:
    """The labels of a test set.

    Attributes:
        masks: Case to voxel mask; a case without one is normal. Empty with sample labels.
        sample_labels: Case to whether it is anomalous; None where there are masks.
        rows: Case to its row of `benchmark.csv`; empty where there is no such table.
        trained: Tasks that the predicting networks trained on; None if unknown.
    """

    masks: dict[str, Path]
    sample_labels: dict[str, bool] | None
    rows: dict[str, Row]
    trained: frozenset[str] | None = None

    def kind(self, name: str, *, anomalous: bool) -> str:
        """Kind of anomaly; empty where nothing says it."""
        if name in self.rows:
            return self.rows[name].kind
        return "" if anomalous else NORMAL

    def close_to(self, kind: str) -> tuple[str, ...]:
        """Tasks that a kind is close to: of those that the networks trained on, or of all if these are unknown."""
        tasks = next((row.close_to for row in self.rows.values() if row.kind == kind), ())
        return tuple(task for task in tasks if self.trained is None or task in self.trained)

    def source(self, name: str) -> str:
        """What the case was made of: itself, but in a benchmark set."""
        return self.rows[name].source if name in self.rows else name

    def is_whole(self, name: str) -> bool:
        """Whether the kind of anomaly has no place, because it is in all of the image."""
        return name in self.rows and self.rows[name].whole_image


def find_truth(labels: Path, predictions: Path, predicted: Collection[str]) -> Truth:
    """Find the labels, and check that they are of the predicted cases.

    Args:
        labels: Folder of masks, with `imagesTs` and `benchmark.csv` beside it where there are such; or a CSV of sample
            labels. If there is no such folder, `<folder>.csv` is tried.
        predictions: The folder of predictions, for messages.
        predicted: The cases in it.

    Raises:
        UserError: If names don't fit together or a table is wrong; all faults are listed.
    """
    labels = full_path(labels)
    table = labels if labels.is_file() else labels.with_name(f"{labels.name}.csv")
    if not labels.is_dir() and table.is_file():
        listed = read_sample_labels(table)
        one_error(compare_names(predictions, predicted, dict.fromkeys(listed, table), whole=table))
        return Truth({}, listed, {})
    masks = find_masks(labels)
    beside = labels.parent
    images = beside / "imagesTs"
    there = find_images(images, predicted) | masks
    kinds = beside / TABLE
    if (beside / DESCRIPTION).is_file() and not kinds.is_file():
        raise UserError(f"{beside} is an unfinished benchmark set; start nnood_make_benchmark again.")
    rows = read_benchmark(kinds) if kinds.is_file() else {}
    if not masks and not rows and not images.is_dir():
        raise UserError(
            f"{labels} holds no masks; give the folder of masks or, if all cases are normal, a CSV file of case,label."
        )
    wanted = dict.fromkeys(rows, kinds) | there
    faults = compare_names(predictions, predicted, wanted, whole=images if images.is_dir() else None)
    if rows:
        unlisted = sorted(set(there) - set(rows))
        faults += [f"{kinds} does not list the case {name}; remove the case." for name in unlisted]
        # A lost mask must not make its case a normal one.
        unmasked = sorted(name for name, row in rows.items() if row.kind != NORMAL and name not in masks)
        faults += [
            f"{kinds} calls the case {name} {rows[name].kind}, but it has no mask in {labels}; make the set again."
            for name in unmasked
        ]
    one_error(faults)
    trained = read_note(predictions).get("tasks") if rows else None
    return Truth(masks, None, rows, None if trained is None else frozenset(trained))


def read_score_map(file: Path) -> tuple[np.ndarray, Geometry]:
    """Read a score map, 2D or 3D, and where it lies.

    Raises:
        UserError: If it is broken or has several channels.
    """
    scores, geometry = read_image(file)
    if len(scores) != 1:
        raise UserError(f"{file}: Expected a score map of 1 channel, but got {len(scores)}; predict the case again.")
    return scores[0], geometry


def read_mask(mask: Path, score_map: Path, geometry: Geometry) -> np.ndarray:
    """Read a mask that must fit a score map.

    Args:
        mask: 1 where anomalous, else 0; in PNG, JPEG, BMP or TIFF also 255.
        score_map: Its file, for messages.
        geometry: Of the score map.

    Returns:
        Bool, in the shape of the score map.

    Raises:
        UserError: If the mask is broken, of another geometry, or holds other values.
    """
    values, mask_geometry = read_image(mask)
    if not geometry.matches(mask_geometry):
        raise UserError(
            f"{score_map}: Expected the geometry of {mask} ({mask_geometry.describe()}), but got "
            f"{geometry.describe()}; predict the image that the mask was drawn on."
        )
    if len(values) != 1:
        raise UserError(f"{mask}: Expected a mask of 1 channel, but got {len(values)}; save it as a greyscale image.")
    truth = values != 0
    allowed = (1, 255) if image_ending(mask) in EIGHT_BIT_ENDINGS else (1,)
    if not any(np.array_equal(truth, values == one) for one in allowed):
        found = ", ".join(f"{value:g}" for value in np.unique(values)[:5])
        expected = " or ".join(f"0 and {one}" for one in allowed)
        raise UserError(f"{mask}: Expected the values {expected}, but got {found} (the five lowest); correct the mask.")
    return truth[0]
