"""The frame of a raw data set that a converter writes: its folder, its checks, its dataset.json and its labels."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from dataset_conversion.cases import COLOURS, ENDING, FOLDERS, RECEIPTS, Found, Source, write_cases
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


def channel_names(channels: int, *, is_picture: bool) -> list[str]:
    """Names for dataset.json, by which nnU-Net also chooses the normalisation.

    Args:
        channels: How many.
        is_picture: Whether three channels are colours.
    """
    if channels == 1:
        return ["image"]
    if channels == len(COLOURS) and is_picture:
        return list(COLOURS)
    return [f"channel_{channel}" for channel in range(channels)]


def normal_images(labels: np.ndarray, normal: Collection[int], origin: Path) -> list[int]:
    """Which training images are of the normal classes.

    Args:
        labels: One class per training image.
        normal: Classes that count as normal.
        origin: Where the images come from.

    Raises:
        UserError: If there is none.
    """
    found = np.flatnonzero(np.isin(labels, list(normal))).tolist()
    if not found:
        raise UserError(
            f"{origin} has no training image of the normal classes {list(normal)}; "
            f"its classes are {sorted(set(labels.tolist()))}."
        )
    return found


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


def write_dataset(
    raw_root: Path,
    dataset_id: int,
    name: str,
    training: Mapping[str, Source],
    tests: Mapping[str, Source],
    labels: Mapping[str, int],
) -> Path:
    """Write a whole raw data set of pictures or volumes whose test cases have sample labels.

    Args:
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        training: Normal cases by name.
        tests: Test cases by name.
        labels: Of every test case.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If the id or name is not usable, or images are bad; they are listed after the good ones were written.
    """
    dataset = open_dataset(raw_root, dataset_id, name)
    found, faults = write_cases(dataset, "imagesTr", training, processes=1)
    found_tests, test_faults = write_cases(dataset, "imagesTs", tests, processes=1)
    channels = usual_channels(found)
    sources = {**training, **tests}
    by_file = {str((*sources[case].inputs, case)[0]): result for case, result in (found | found_tests).items()}
    report(faults + test_faults + disagreements(by_file, channels), dataset)
    write_labels(dataset, labels)
    finish_dataset(dataset, channel_names(channels, is_picture=True), len(training))
    return dataset
