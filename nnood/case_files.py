"""Which files in a folder are which case: plain names (`CASE.ext`) or nnU-Net's (`CASE_0000.ext` per channel)."""

import logging
import re
from collections import defaultdict
from pathlib import Path

from nnood.errors import UserError, one_error
from nnood.images import image_ending

CHANNEL_SUFFIX = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")

Cases = dict[str, list[Path]]

logger = logging.getLogger(__name__)


def image_files(folder: Path, file_ending: str | None = None) -> list[Path]:
    """The images in a folder, sorted; what is left out is named in the log.

    Args:
        folder: The folder; hidden files and sub-folders are left out.
        file_ending: Only these files, without a word on others, or None for every known image format.

    Raises:
        UserError: If the folder does not exist, holds no image, or holds a link that leads nowhere.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds the images.")
    entries = sorted(folder.iterdir())
    named = [path for path in entries if image_ending(path) and not path.name.startswith(".")]
    if broken := next((path for path in named if path.is_symlink() and not path.exists()), None):
        # Left out, its case would silently be missing.
        raise UserError(f"{broken} is a link to {broken.readlink()}, which does not exist; restore or remove it.")
    files = [path for path in named if path.is_file()]
    if file_ending:
        files = [path for path in files if path.name.lower().endswith(file_ending.lower())]
    elif skipped := [path.name for path in entries if path not in set(files)]:
        logger.warning("%s: no images that nnood reads, left out: %s", folder, ", ".join(skipped))
    if not files:
        expected = file_ending or "NIfTI, NRRD, MHA, PNG, JPEG, TIFF or numpy files"
        raise UserError(f"{folder} holds no images; expected {expected}.")
    return files


def stem(path: Path) -> str:
    """A file's name without its image ending."""
    return path.name[: -len(image_ending(path) or "")]


def has_channel_numbers(files: list[Path]) -> bool:
    """Whether names are nnU-Net's: all end in a number of four digits, from 0000 on and for more than one case.

    So the frames `film_0000.png`, `film_0001.png`, ... are single images.

    Raises:
        UserError: If only some names end in a channel number.
    """
    matches = {path: CHANNEL_SUFFIX.match(stem(path)) for path in files}
    first = next((path for path, match in matches.items() if match and match["channel"] == "0000"), None)
    plain = next((path for path, match in matches.items() if not match), None)
    if first and plain:
        raise UserError(f"{first} ends in a channel number but {plain.name} does not; name all files alike.")
    cases = {match["case"] for match in matches.values() if match}
    return first is not None and (len(cases) > 1 or len(files) == 1)


def group_by_case(files: list[Path], numbered: bool, channels: int | None = None) -> tuple[Cases, list[str]]:
    """Sort files into cases.

    Args:
        files: The images of one folder.
        numbered: Whether `_0000` and so on at the end of a name is the number of a channel.
        channels: How many a numbered case must have, where that is known. An RGB picture may carry the number 0000
            although its one file holds all three.

    Returns:
        Case name to files in the order of the channels, and one sentence per file or case that does not fit.
    """
    grouped: dict[str, dict[int, Path]] = defaultdict(dict)
    faults = []
    for path in files:
        match = CHANNEL_SUFFIX.match(stem(path)) if numbered else None
        case, channel = (match["case"], int(match["channel"])) if match else (stem(path), 0)
        if other := grouped[case].get(channel):
            faults.append(f"{path} and {other.name} have the same name but for the ending; rename or remove one.")
        grouped[case][channel] = path
    for case, found in grouped.items():
        expected = set(range(channels if channels and numbered else max(found) + 1))
        if set(found) != expected and not (channels == 3 and set(found) == {0}):
            names = ", ".join(f"_{channel:04d}" for channel in sorted(found))
            faults.append(
                f"{files[0].parent}: case {case} has {names}; expected {len(expected)} channels from _0000 on."
            )
    return {case: [found[i] for i in sorted(found)] for case, found in sorted(grouped.items())}, faults


def list_cases(folder: Path, channels: int, *, file_ending: str | None = None) -> Cases:
    """Find the cases in a folder of images whose number of channels is known.

    Names are nnU-Net's (`CASE_0000.nii.gz`, one file per channel) or plain (`CASE.nii.gz`, one file with all channels).
    With one channel, `scan_2021.nii.gz` is a plain name, unless every file carries the channel number 0000.

    Args:
        folder: The folder; hidden files and sub-folders are left out.
        channels: Channels per case.
        file_ending: Only these files, or None for every known image format.

    Returns:
        Case name to files in the order of the channels, sorted by name.

    Raises:
        UserError: If the folder does not exist, holds no image, or a case lacks a channel; all such cases are listed.
    """
    files = image_files(folder, file_ending)
    matches = [CHANNEL_SUFFIX.match(stem(path)) for path in files]
    first = [match is not None and match["channel"] == "0000" for match in matches]
    cases, faults = group_by_case(files, all(first) if channels == 1 else any(first), channels)
    one_error(faults)
    return cases
