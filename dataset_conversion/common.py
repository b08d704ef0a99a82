"""The frame of a raw data set that a converter writes: its folder, its checks, its dataset.json and its labels."""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from dataset_conversion.cases import ENDING, FOLDERS, RECEIPTS, Found
from nnood.datasets import DATASET_NAME
from nnood.errors import UserError
from nnood.safety import read_json, remove_leftovers, write_json, write_text


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
    for part in (*FOLDERS, *(f"{RECEIPTS}/{kind}" for kind in FOLDERS), "."):
        remove_leftovers(dataset / part)
    (dataset / RECEIPTS).mkdir(parents=True, exist_ok=True)
    if (dataset / "dataset.json").exists():
        (dataset / "dataset.json").replace(dataset / RECEIPTS / "dataset.json")
    return dataset


def usual_channels(found: Mapping[str, Found]) -> int:
    """The number of channels that most cases have."""
    return Counter(case["channels"] for case in found.values()).most_common(1)[0][0] if found else 0


def disagreements(found: Mapping[str, Found], channels: int) -> list[str]:
    """What keeps images from being one data set: 2D beside 3D, or different numbers of channels.

    Args:
        found: By the image's name in messages.
        channels: How many each image should have; 0 if no training image was good.

    Returns:
        One sentence per fault.
    """
    faults = [
        f"{image} has {case['channels']} channel(s); expected {channels}, as most training images have."
        for image, case in found.items()
        if channels and case["channels"] != channels
    ]
    examples = {case["dimensions"]: image for image, case in found.items()}
    if len(examples) > 1:
        faults.append(f"{examples[2]} is 2D and {examples[3]} is 3D; a data set holds one kind only.")
    return faults


def write_labels(dataset: Path, labels: Mapping[str, int]) -> None:
    """Write labelsTs.csv: 1 for an anomalous test case, 0 for a normal one."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("case", "label"), *labels.items()])
    write_text(dataset / "labelsTs.csv", table.getvalue())


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
