"""Raw data sets: `DatasetXXX_Name` folders in the layout of an nnU-Net user, with normal cases only."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnood.case_files import Cases, list_cases
from nnood.errors import UserError, one_error
from nnood.image_readers import ENDINGS
from nnood.paths import Roots
from nnood.safety import read_json

FOREGROUND_METHODS = ("auto", "whole", "nonzero", "otsu", "masks")
LABELS = {"background": 0, "foreground": 1}
GROUPS_FILE = "groups.csv"  # case,group: which training cases are of one patient
DATASET_NAME = re.compile(r"^Dataset(?P<number>\d{3,})_(?P<name>\w[\w.-]*)$")


@dataclass(frozen=True)
class Overrides:
    """The optional block `nnood` of dataset.json: what the user knows better than the automatic choice.

    Attributes:
        foreground: One of `FOREGROUND_METHODS`.
        mirror_axes: Spatial axes (0 = first of z, y, x as stored) along which the anatomy may be mirrored.
        rotation_degrees: Largest rotation of the augmentation, or None for the planned one.
        anomaly_size: Smallest and largest extent of anomalies, as fractions of the foreground's box, or None.
        lesion_masks: Folder of masks of real lesions, whose shapes the task `lesion_shapes` plants, or None.
    """

    foreground: str = "auto"
    mirror_axes: tuple[int, ...] = ()
    rotation_degrees: float | None = None
    anomaly_size: tuple[float, float] | None = None
    lesion_masks: Path | None = None

    @classmethod
    def from_dict(cls, block: Any, source: Path) -> "Overrides":
        """Read and check the block.

        Raises:
            UserError: If a key is unknown or a value out of range; names the file and the key.
        """
        known = set(cls.__dataclass_fields__)
        where = f'{source}, block "nnood"'
        if not isinstance(block, dict) or not set(block) <= known:
            unknown = sorted(set(block) - known) if isinstance(block, dict) else [block]
            raise UserError(f"{where}: unknown key {unknown}; known are {', '.join(sorted(known))}.")
        faults = []
        if block.get("foreground", "auto") not in FOREGROUND_METHODS:
            faults.append(
                f"{where}: foreground is {block['foreground']!r}; expected one of {', '.join(FOREGROUND_METHODS)}."
            )
        axes = block.get("mirror_axes", [])
        if not isinstance(axes, list) or any(not _is_number(axis) or axis not in (0, 1, 2) for axis in axes):
            faults.append(f"{where}: mirror_axes is {axes!r}; expected a list of 0, 1 and 2.")
        rotation = block.get("rotation_degrees")
        if rotation is not None and not (_is_number(rotation) and 0 <= rotation <= 180):
            faults.append(f"{where}: rotation_degrees is {rotation!r}; expected a number from 0 to 180.")
        size = block.get("anomaly_size")
        if size is not None and not _is_size_range(size):
            faults.append(f"{where}: anomaly_size is {size!r}; expected two fractions, 0 < smallest <= largest <= 1.")
        masks = block.get("lesion_masks")
        if masks is not None and not (isinstance(masks, str) and (source.parent / masks).is_dir()):
            faults.append(f"{where}: lesion_masks is {masks!r}; expected a folder of masks.")
        one_error(faults)
        return cls(
            block.get("foreground", "auto"),
            tuple(axes),
            rotation,
            tuple(size) if size else None,
            source.parent / masks if masks else None,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_size_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and 0 < value[0] <= value[1] <= 1


@dataclass(frozen=True)
class Dataset:
    """A raw data set whose structure has been checked; the images have not been opened.

    Attributes:
        name: `DatasetXXX_Name`.
        folder: Where it lies.
        channel_names: One per channel; nnU-Net chooses the normalisation by them.
        file_ending: Of images, such as `.nii.gz`.
        training: Normal cases: name to one file per channel.
        overrides: What the user set in dataset.json.
    """

    name: str
    folder: Path
    channel_names: tuple[str, ...]
    file_ending: str
    training: Cases
    overrides: Overrides = field(default_factory=Overrides)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.channel_names)

    def nnunet_json(self) -> dict[str, Any]:
        """The dataset.json that nnU-Net's classes see: the foreground stands where they expect the segmentation."""
        return {
            "channel_names": {str(i): name for i, name in enumerate(self.channel_names)},
            "labels": dict(LABELS),
            "numTraining": len(self.training),
            "file_ending": self.file_ending,
        }


def dataset_names(roots: Roots) -> list[str]:
    """The names of all data sets of which there is anything, sorted."""
    there = [root for root in (roots.raw, roots.preprocessed, roots.results) if root.is_dir()]
    folders = [folder for root in there for folder in root.iterdir() if folder.is_dir()]
    return sorted({folder.name for folder in folders if DATASET_NAME.match(folder.name)})


def dataset_number(name: str) -> int:
    """The id in `DatasetXXX_Name`."""
    return int(name.removeprefix("Dataset").split("_")[0])


def find_dataset_name(dataset: str, roots: Roots) -> str:
    """Resolve an id or name to `DatasetXXX_Name`, looking into all three roots.

    Args:
        dataset: `101`, `Dataset101_Heads` or `Dataset101`.
        roots: The three root folders.

    Raises:
        UserError: If there is no such data set, or several share the id.
    """
    names = dataset_names(roots)
    if dataset in names:
        return dataset
    number = dataset.removeprefix("Dataset")
    matches = []
    if number.isdecimal():
        matches = [name for name in names if dataset_number(name) == int(number)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(f"Data set id {dataset} is not unique: {', '.join(matches)}; rename one of them.")
    known = (
        f"there are {', '.join(names)}" if names else f"there is none under {roots.raw}, make one with nnood_convert"
    )
    raise UserError(f"There is no data set {dataset!r}; {known}.")


def load_dataset(name: str, roots: Roots) -> Dataset:
    """Read dataset.json and check the structure of a raw data set.

    Raises:
        UserError: If dataset.json is missing or wrong, there are no images, or they are not as many as it says.
    """
    folder = roots.raw / name
    source = folder / "dataset.json"
    content = read_json(source)
    if not isinstance(content, dict):
        raise UserError(f"{source} must hold a JSON object with channel_names, numTraining and file_ending.")
    missing = [key for key in ("channel_names", "numTraining", "file_ending") if key not in content]
    if missing:
        raise UserError(f"{source} lacks {', '.join(missing)}; add what is missing.")
    names, ending = content["channel_names"], content["file_ending"]
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))} or not names:
        raise UserError(f'{source}: channel_names is {names!r}; expected {{"0": NAME, "1": NAME, ...}}.')
    if ending not in ENDINGS:
        raise UserError(f"{source}: file_ending is {ending!r}; expected one of {', '.join(ENDINGS)}.")
    training = list_cases(folder / "imagesTr", len(names), file_ending=ending)
    if len(training) != content["numTraining"]:
        raise UserError(
            f"{source} says numTraining {content['numTraining']} but imagesTr holds {len(training)} cases; "
            "the data set is incomplete or the number wrong, correct either."
        )
    overrides = Overrides.from_dict(content.get("nnood", {}), source)
    return Dataset(name, folder, tuple(str(names[str(i)]) for i in range(len(names))), ending, training, overrides)
