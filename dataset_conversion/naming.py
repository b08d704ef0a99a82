"""Which files in a folder are which case: plain names (`CASE.ext`) or nnU-Net's (`CASE_0000.ext` per channel)."""

import logging
from collections import defaultdict
from pathlib import Path

from nnood.datasets import CHANNEL_SUFFIX, Cases
from nnood.errors import UserError
from nnood.images import image_ending

logger = logging.getLogger(__name__)


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, sorted; what is left out is named in the log.

    Raises:
        UserError: If the folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds the images.")
    entries = sorted(folder.iterdir())
    files = [path for path in entries if path.is_file() and image_ending(path) and not path.name.startswith(".")]
    if skipped := [path.name for path in entries if path not in set(files)]:
        logger.warning("%s: no images that nnood reads, left out: %s", folder, ", ".join(skipped))
    if not files:
        raise UserError(f"{folder} holds no images; expected NIfTI, NRRD, MHA, PNG, JPEG, TIFF or numpy files.")
    return files


def _stem(path: Path) -> str:
    return path.name[: -len(image_ending(path) or "")]


def has_channel_numbers(files: list[Path]) -> bool:
    """Whether names are nnU-Net's: all end in a number of four digits, from 0000 on and for more than one case.

    So the frames `film_0000.png`, `film_0001.png`, ... are single images.

    Raises:
        UserError: If only some names end in a channel number.
    """
    matches = {path: CHANNEL_SUFFIX.match(_stem(path)) for path in files}
    first = next((path for path, match in matches.items() if match and match["channel"] == "0000"), None)
    plain = next((path for path, match in matches.items() if not match), None)
    if first and plain:
        raise UserError(f"{first} ends in a channel number but {plain.name} does not; name all files alike.")
    cases = {match["case"] for match in matches.values() if match}
    return first is not None and (len(cases) > 1 or len(files) == 1)


def group_by_case(files: list[Path], numbered: bool) -> tuple[Cases, list[str]]:
    """Sort files into cases.

    Args:
        files: The images of one folder.
        numbered: Whether `_0000` and so on at the end of a name is the number of a channel.

    Returns:
        Case name to files in the order of the channels, and one sentence per file or case that does not fit.
    """
    grouped: dict[str, dict[int, Path]] = defaultdict(dict)
    faults = []
    for path in files:
        match = CHANNEL_SUFFIX.match(_stem(path)) if numbered else None
        case, channel = (match["case"], int(match["channel"])) if match else (_stem(path), 0)
        if other := grouped[case].get(channel):
            faults.append(f"{path} and {other.name} have the same name but for the ending; rename or remove one.")
        grouped[case][channel] = path
    for case, channels in grouped.items():
        missing = sorted(set(range(max(channels) + 1)) - set(channels))
        if missing:
            names = ", ".join(f"{case}_{channel:04d}" for channel in missing[:5])
            faults.append(f"{files[0].parent}: {names} is missing; every case needs all channels, from _0000 on.")
    return {case: [channels[i] for i in sorted(channels)] for case, channels in sorted(grouped.items())}, faults
