"""Writing a raw data set from any source: case by case, checked, resumable.

Each finished case leaves a receipt under `conversion/`, by which a repeated command knows what it need not do again.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnood.datasets import DATASET_NAME
from nnood.errors import UserError
from nnood.images import Geometry, write_image
from nnood.parallel import map_cases
from nnood.safety import read_json, read_receipt, remove_leftovers, write_json, write_receipt, write_text

ENDING = ".nii.gz"
RECEIPTS = "conversion"
FOLDERS = ("imagesTr", "imagesTs", "labelsTs")

Found = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where one case comes from.

    Attributes:
        load: Returns one array (z, y, x) or (y, x) per channel, and the geometry; it must reach worker processes.
        inputs: The files that it reads; when one changes, the case is converted again.
        settings: Whatever else decides the outcome, JSON-ready.
        is_mask: A mask is one file `CASE.nii.gz`, without a channel number.
    """

    load: Callable[[], tuple[list[np.ndarray], Geometry]]
    inputs: tuple[Path, ...] = ()
    settings: Any = None
    is_mask: bool = False


def open_dataset(raw_root: Path, dataset_id: int, name: str) -> Path:
    """Make the data set's folder ready for (more) cases.

    An earlier dataset.json is set aside, so that an incomplete data set can't be planned; `finish_dataset` brings back
    what the user had added to it.

    Args:
        raw_root: The folder of all raw data sets.
        dataset_id: From 0 on.
        name: Letters, digits, `_`, `.` and `-`.

    Returns:
        The folder `DatasetXXX_NAME`.

    Raises:
        UserError: If the id or name is not usable, or taken by something else.
    """
    dataset = raw_root / f"Dataset{dataset_id:03d}_{name}"
    if not DATASET_NAME.match(dataset.name):
        raise UserError(
            f"{dataset.name!r} is no data set name; expected an id from 0 on and a name of letters, digits, _, . and -."
        )
    for folder in sorted(raw_root.iterdir()) if raw_root.is_dir() else []:
        match = DATASET_NAME.match(folder.name)
        if match and int(match["number"]) == dataset_id and folder.name != dataset.name:
            raise UserError(f"Data set id {dataset_id} is already used by {folder}; choose another id.")
    if dataset.exists() and any(dataset.iterdir()) and not (dataset / RECEIPTS).is_dir():
        raise UserError(f"{dataset} exists and was not made by this command; choose another id or move it away.")
    for folder in (*FOLDERS, *(f"{RECEIPTS}/{kind}" for kind in FOLDERS), "."):
        remove_leftovers(dataset / folder)
    (dataset / RECEIPTS).mkdir(parents=True, exist_ok=True)
    if (dataset / "dataset.json").exists():
        (dataset / "dataset.json").replace(dataset / RECEIPTS / "dataset.json")
    return dataset


def write_cases(
    dataset: Path, folder: str, sources: Mapping[str, Source], *, processes: int
) -> tuple[dict[str, Found], list[str]]:
    """Write the cases that are not finished yet, and remove those that are no longer in the source.

    Args:
        dataset: The data set's folder.
        folder: One of `FOLDERS`.
        sources: By case name.
        processes: Number of worker processes.

    Returns:
        Per good case its number of `channels` and `dimensions`, and one sentence per bad case.
    """
    receipts = dataset / RECEIPTS / folder
    for receipt in sorted(receipts.glob("*.json")):
        if receipt.stem not in sources:
            logger.warning("%s: %s is no longer in the source; it is removed.", dataset / folder, receipt.stem)
            _forget(receipt)
    if not sources:
        return {}, []
    arguments = {case: (case, source, receipts / f"{case}.json") for case, source in sources.items()}
    return map_cases(_write_case, arguments, processes=processes, description=f"Converting {folder}")


def _write_case(case: str, source: Source, receipt: Path) -> Found:
    """Write one case unless its receipt says that it is finished."""
    outputs = _recorded_outputs(receipt)
    done = read_receipt(receipt, settings=source.settings, inputs=source.inputs, outputs=outputs)
    if done is not None:
        return done
    _forget(receipt)
    channels, geometry = source.load()
    numbers = [""] if source.is_mask else [f"_{channel:04d}" for channel in range(len(channels))]
    outputs = [_output_folder(receipt) / f"{case}{number}{ENDING}" for number in numbers]
    for values, path in zip(channels, outputs, strict=True):
        write_image(storable(values), geometry, path)
    found = {"channels": len(channels), "dimensions": geometry.dimensions}
    write_receipt(receipt, settings=source.settings, inputs=source.inputs, outputs=outputs, result=found)
    return found


def _output_folder(receipt: Path) -> Path:
    return receipt.parents[2] / receipt.parent.name


def _recorded_outputs(receipt: Path) -> list[Path]:
    """The files that a case wrote, by its receipt."""
    try:
        return [_output_folder(receipt) / Path(name).name for name in json.loads(receipt.read_text())["outputs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _forget(receipt: Path) -> None:
    """Remove a case's files, then its receipt: in this order a kill in between leaves nothing unknown."""
    for path in _recorded_outputs(receipt):
        path.unlink(missing_ok=True)
    receipt.unlink(missing_ok=True)


def storable(values: np.ndarray) -> np.ndarray:
    """Change the type of values as little as NIfTI asks for, in the machine's byte order."""
    kind = values.dtype
    if kind == bool:
        return values.astype(np.uint8)
    if kind.kind == "f" and kind.itemsize not in (4, 8):
        return values.astype(np.float32 if kind.itemsize == 2 else np.float64)
    limits = np.iinfo(np.int32)
    if kind.kind in "iu" and kind.itemsize == 8 and limits.min <= values.min() and values.max() <= limits.max:
        return values.astype(np.int32)
    return values.astype(kind.newbyteorder("="), copy=False)


def usual_channels(found: Mapping[str, Found]) -> int:
    """The number of channels that most cases have."""
    return Counter(case["channels"] for case in found.values()).most_common(1)[0][0] if found else 0


def disagreements(found: Mapping[str, Found], channels: int) -> list[str]:
    """What keeps images from being one data set: 2D beside 3D, or different numbers of channels.

    Args:
        found: By the image's name in messages.
        channels: How many each image should have.

    Returns:
        One sentence per fault.
    """
    faults = [
        f"{image} has {case['channels']} channel(s); expected {channels}, as most training images have."
        for image, case in found.items()
        if case["channels"] != channels
    ]
    examples = {case["dimensions"]: image for image, case in found.items()}
    if len(examples) > 1:
        faults.append(f"{examples[2]} is 2D and {examples[3]} is 3D; a data set holds one kind only.")
    return faults


def write_labels(dataset: Path, labels: Mapping[str, int]) -> None:
    """Write labelsTs.csv: 1 for an anomalous test case, 0 for a normal one."""
    lines = [f"{json.dumps(case) if ',' in case else case},{label}\n" for case, label in labels.items()]
    write_text(dataset / "labelsTs.csv", "case,label\n" + "".join(lines))


def finish_dataset(dataset: Path, channel_names: list[str], cases: int) -> None:
    """Write dataset.json, which makes the data set ready for planning.

    Args:
        dataset: The data set's folder.
        channel_names: One per channel; names that the user gave before are kept if they are as many.
        cases: Number of training cases.
    """
    aside = dataset / RECEIPTS / "dataset.json"
    before = read_json(aside) if aside.exists() else {}
    names = {str(channel): name for channel, name in enumerate(channel_names)}
    if len(before.get("channel_names", {})) == len(names):
        names = before["channel_names"]
    content = {**before, "channel_names": names, "numTraining": cases, "file_ending": ENDING}
    write_json(dataset / "dataset.json", content)
    aside.unlink(missing_ok=True)


def report(faults: list[str], dataset: Path) -> None:
    """List all that went wrong.

    Raises:
        UserError: If there is any fault.
    """
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise UserError(
            f"{dataset.name} is incomplete, {len(faults)} fault(s) were found; mend or remove the files and start the "
            f"command again, finished cases are kept:\n{listed}"
        )
