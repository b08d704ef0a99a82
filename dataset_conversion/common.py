"""The frame of a raw data set that a converter writes: its folder, its dataset.json, its labels and its groups."""

import csv
import io
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset_conversion.cases import ENDING, FOLDERS, RECEIPTS, Source, write_cases
from dataset_conversion.channels import channel_names as default_channel_names
from dataset_conversion.channels import disagreements, usual_channels
from dataset_conversion.labels import fitted_mask
from nnood.datasets import DATASET_NAME, GROUPS_FILE
from nnood.errors import UserError
from nnood.safety import read_json, remove_leftovers, write_json, write_text

logger = logging.getLogger(__name__)


def dataset_folder(raw_root: Path, dataset_id: int, name: str) -> Path:
    """Where a data set lies, whether or not it is there."""
    return raw_root / f"Dataset{dataset_id:03d}_{name}"


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
    dataset = dataset_folder(raw_root, dataset_id, name)
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


def _write_table(dataset: Path, name: str, header: tuple[str, str], rows: Mapping[str, Any]) -> None:
    """Write a table of cases, or remove it if there are no rows any more; one that the user wrote or changed stays.

    By a copy among the receipts a later call knows what it wrote itself.
    """
    file, own = dataset / name, dataset / RECEIPTS / name
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([header, *rows.items()])
    ours = {table.getvalue().encode(), own.read_bytes() if own.exists() else b""}
    if file.exists() and file.read_bytes() not in ours:
        if rows:
            logger.warning("%s was not written by this command, or was changed since; it is kept.", file)
    elif rows:
        write_text(file, table.getvalue())
        write_text(own, table.getvalue())
    else:
        file.unlink(missing_ok=True)
        own.unlink(missing_ok=True)


def finish_dataset(dataset: Path, channel_names: list[str], cases: int, overrides: Mapping[str, Any]) -> None:
    """Write dataset.json, which makes the data set ready for planning.

    Args:
        dataset: The data set's folder.
        channel_names: One per channel; names that the user gave before are kept if they are as many.
        cases: Number of training cases.
        overrides: For the block `nnood`; one that the user wrote is kept.
    """
    aside = dataset / RECEIPTS / "dataset.json"
    before = read_json(aside) if aside.exists() else {}
    names = {str(channel): name for channel, name in enumerate(channel_names)}
    if len(before.get("channel_names", {})) == len(names):
        names = before["channel_names"]
    if overrides:
        before.setdefault("nnood", dict(overrides))
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
    *,
    labels: Mapping[str, int] | None = None,
    masks: Mapping[str, Source] | None = None,
    groups: Mapping[str, str] | None = None,
    channel_names: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    link: bool = False,
    processes: int = 1,
) -> Path:
    """Write a whole raw data set.

    Args:
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        training: Normal cases by name.
        tests: Test cases by name.
        labels: 1 for an anomalous test case, 0 for a normal one; written to `labelsTs.csv`.
        masks: Of anomalous test cases, non-zero where anomalous, on the grid of the image; written to `labelsTs/`. A
            test case without a mask is normal. With masks and labels both are written: the folder is evaluated voxel by
            voxel, the table by case.
        groups: Training case to its patient; written to `groups.csv`, by which the folds keep patients together.
        channel_names: One per channel; `image`, or R, G, B of pictures, or numbered, if None.
        overrides: What the source says better than nnood finds out, as in `nnood.datasets.Overrides`; for the block
            `nnood` of dataset.json, unless the user wrote one before.
        link: Make symbolic links where an image would be stored unchanged.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If there is no training case, the id or name is not usable, or images are bad; these are listed after
            the good ones were written. Bad test images don't keep the data set from being planned.
    """
    if not training:
        raise UserError("The source has no normal images to train on; check it and the options that choose among them.")
    dataset = open_dataset(raw_root, dataset_id, name)
    found, faults = write_cases(dataset, "imagesTr", training, processes=processes, link=link)
    found_tests, test_faults = write_cases(dataset, "imagesTs", tests, processes=processes, link=link)
    fitted = {
        case: fitted_mask(mask, dataset / "imagesTs" / f"{case}_0000{ENDING}")
        for case, mask in (masks or {}).items()
        if case in found_tests
    }
    test_faults += write_cases(dataset, "labelsTs", fitted, processes=processes)[1]
    _write_table(dataset, "labelsTs.csv", ("case", "label"), labels or {})
    of_training = {case: groups[case] for case in training} if groups else {}
    _write_table(dataset, GROUPS_FILE, ("case", "group"), of_training)

    channels = len(channel_names) if channel_names else usual_channels(found)
    by_file = {_shown(case, training[case]): result for case, result in found.items()}
    if not faults and not disagreements(by_file, channels):
        names = channel_names or default_channel_names(channels, example=next(iter(training.values())))
        finish_dataset(dataset, list(names), len(training), overrides or {})
    by_file |= {_shown(case, tests[case]): result for case, result in found_tests.items()}
    report(faults + test_faults + disagreements(by_file, channels), dataset)
    return dataset


def _shown(case: str, source: Source) -> str:
    """What a case is called in messages."""
    return str((*source.inputs, case)[0])
