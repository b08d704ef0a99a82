"""BIDS: any tree of brain images in the Brain Imaging Data Structure, one suffix (`T1w`, `FLAIR`, ...) of it.

Source: Gorgolewski et al., "The brain imaging data structure, a format for organizing and describing outputs of
neuroimaging experiments", Scientific Data 3, 160044 (2016), https://bids.neuroimaging.io; many such data sets are at
https://openneuro.org, each under its own licence.

Protocol: which participants are normal is a column of participants.tsv (`--normal group=control`). A fifth of them,
drawn by a hash of their names, is held out: these are the normal test cases, and all images of participants of other
values the anomalous ones. Participants whose value is unknown (`n/a`) are left out. Without the option all images are
normal training cases.
"""

import hashlib
import logging
from collections import Counter
from pathlib import Path

from dataset_conversion.cases import files_source
from dataset_conversion.common import write_dataset
from dataset_conversion.hold_out import hold_out
from dataset_conversion.tables import read_table
from nnood.errors import UserError, one_error

ENDINGS = (".nii.gz", ".nii")
UNKNOWN = ("", "n/a")
PARTICIPANTS = "participants.tsv"

logger = logging.getLogger(__name__)


def convert_bids(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    name: str,
    *,
    suffix: str = "T1w",
    normal: str | None = None,
    link: bool = False,
    processes: int = 1,
) -> Path:
    """Make a raw data set from the images of one suffix.

    Args:
        source: The folder that holds `sub-*`, and `participants.tsv` if `normal` is given. Other folders, such as
            `derivatives`, are left out.
        raw_root: The folder of all raw data sets.
        dataset_id: Number of the new data set.
        name: Its name.
        suffix: How the names of the images end, such as `T1w`, or `acq-mprage_T1w` to choose among several.
        normal: `COLUMN=VALUE` of participants.tsv that normal participants have; all are normal if None.
        link: Make symbolic links to `.nii.gz` files that would be stored unchanged.
        processes: Number of worker processes.

    Returns:
        The data set's folder. Nothing finished is done twice when the same call is repeated.

    Raises:
        UserError: If there are no such images or participants, or images are bad; bad images are listed after the good
            ones were converted.
    """
    images = _find_images(source, suffix)
    owners = {case: file.relative_to(source).parts[0] for case, file in images.items()}
    labels: dict[str, int | None] = dict.fromkeys(owners.values())
    if normal is not None:
        labels = _divide(set(labels), source / PARTICIPANTS, normal)
    sources = {case: files_source([file]) for case, file in images.items() if owners[case] in labels}
    training = {case: one for case, one in sources.items() if labels[owners[case]] is None}
    return write_dataset(
        raw_root,
        dataset_id,
        name,
        training,
        {case: one for case, one in sources.items() if case not in training},
        labels={case: label for case in sources if (label := labels[owners[case]]) is not None},
        groups={case: owners[case] for case in training},
        link=link,
        processes=processes,
    )


def _find_images(source: Path, suffix: str) -> dict[str, Path]:
    """The images of a suffix by name; the name leaves the suffix out."""
    if not source.is_dir():
        raise UserError(f"{source} is not a folder; give the folder of a BIDS data set, which holds sub-*.")
    files = [file for ending in ENDINGS for file in source.glob(f"sub-*/**/sub-*{ending}") if not file.is_dir()]
    images: dict[str, Path] = {}
    faults = []
    for file in sorted(files):
        stem = _stem(file)
        case = stem.removesuffix(f"_{suffix}")
        if case == stem:
            continue
        if case in images:
            faults.append(f"{file} and {images[case].name} have the same name but for the ending; remove one.")
        images[case] = file
    one_error(faults)
    if not images:
        found = ", ".join(sorted({_stem(file).rpartition("_")[2] for file in files})) or "none at all"
        raise UserError(f"{source} has no images of the suffix {suffix}; found are images of {found}.")
    return images


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".nii")


def _divide(participants: set[str], table: Path, normal: str) -> dict[str, int | None]:
    """The sample label of each participant that is tested, None for those that are trained on; the others are out."""
    column, equals, value = normal.partition("=")
    if not equals:
        raise UserError(f"--normal is {normal!r}; expected COLUMN=VALUE of {table}, such as group=control.")
    rows = read_table(table, ("participant_id", column), separator="\t")
    values = {row["participant_id"]: row[column] for row in rows if row["participant_id"] in participants}
    if missing := sorted(participants - set(values)):
        raise UserError(f"{table} lacks {len(missing)} participant(s) with images, such as {missing[0]}; add them.")
    normals = [one for one in participants if values[one] == value]
    if len(normals) < 2:
        found = ", ".join(f"{one} ({count})" for one, count in sorted(Counter(values.values()).items()))
        raise UserError(
            f"{table} has {len(normals)} participant(s) with {normal} and images, expected 2 or more; "
            f"the values of {column} are {found}."
        )
    training, held_out = hold_out(normals, {one: _hash(one) for one in normals}, table)
    labels: dict[str, int | None] = {one: 1 for one in participants if values[one] not in UNKNOWN}
    labels |= dict.fromkeys(training) | dict.fromkeys(held_out, 0)
    if len(labels) < len(participants):
        logger.warning("%s: %d participant(s) have no %s; left out.", table, len(participants) - len(labels), column)
    return labels


def _hash(participant: str) -> str:
    """By which participants are drawn: by name, the last ones would often be those of one site."""
    return hashlib.sha256(participant.encode()).hexdigest()
