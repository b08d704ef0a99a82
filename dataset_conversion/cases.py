"""Writing the images of a raw data set: case by case, checked, resumable.

Each finished case leaves a receipt under `conversion/`, by which a repeated command knows what it need not do again.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnood.geometry import Geometry
from nnood.images import image_ending, read_channels, refuse_constant, write_image
from nnood.parallel import map_cases
from nnood.safety import link_file, read_receipt, write_receipt

ENDING = ".nii.gz"
RECEIPTS = "conversion"
FOLDERS = ("imagesTr", "imagesTs", "labelsTs")

COLOURS = ("R", "G", "B")

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
        originals: One `.nii.gz` file per channel whose values `load` returns as they are, so that a link to it will do;
            empty where there is no such file.
    """

    load: Callable[[], tuple[list[np.ndarray], Geometry]]
    inputs: tuple[Path, ...] = ()
    settings: Any = None
    is_mask: bool = False
    originals: tuple[Path, ...] = ()


def files_source(files: list[Path]) -> Source:
    """A case of one file per channel, or of one file that holds them all."""
    linkable = all(image_ending(file) == ENDING for file in files)
    return Source(partial(_load_files, files), inputs=tuple(files), originals=tuple(files) if linkable else ())


def array_source(image: np.ndarray, digest: str) -> Source:
    """A case out of an archive that holds many.

    Args:
        image: Values (y, x), (y, x, 3) or (z, y, x).
        digest: Of the archive; when it changes, the case is converted again.
    """
    return Source(partial(_split_array, image), settings=digest)


def _load_files(files: list[Path]) -> tuple[list[np.ndarray], Geometry]:
    """One array per channel of an image in which there is something to see."""
    channels, geometry = read_channels(files)
    refuse_constant(channels, files[0])
    return channels, geometry


def _split_array(image: np.ndarray) -> tuple[list[np.ndarray], Geometry]:
    """Values per channel; such archives state no spacing, so voxels count as 1 mm."""
    is_colour = image.ndim == 3 and image.shape[-1] == len(COLOURS)
    channels = list(np.moveaxis(image, -1, 0)) if is_colour else [image]
    return channels, Geometry.from_spacing(channels[0].shape, [1.0] * channels[0].ndim)


def write_cases(
    dataset: Path, folder: str, sources: Mapping[str, Source], *, processes: int, link: bool = False
) -> tuple[dict[str, Found], list[str]]:
    """Write the cases that are not finished yet, and remove those that are no longer in the source.

    Args:
        dataset: The data set's folder.
        folder: One of `FOLDERS`.
        sources: By case name.
        processes: Number of worker processes.
        link: Make symbolic links to the originals where the images would be stored unchanged.

    Returns:
        Per good case its number of `channels` and `dimensions`, and one sentence per bad case.
    """
    receipts = dataset / RECEIPTS / folder
    for receipt in sorted(receipts.glob("*.json")):
        if receipt.stem not in sources:
            logger.warning("%s: %s is no longer in the source; it is removed.", dataset / folder, receipt.stem)
            _forget(receipt)
    if not sources:
        if (dataset / folder).is_dir() and not any((dataset / folder).iterdir()):
            (dataset / folder).rmdir()  # an empty labelsTs would hide labelsTs.csv
        return {}, []
    arguments = {case: (case, source, receipts / f"{case}.json", link) for case, source in sources.items()}
    return map_cases(_write_case, arguments, processes=processes, description=f"Converting {folder}")


def _write_case(case: str, source: Source, receipt: Path, link: bool) -> Found:
    """Write one case, or link to it, unless its receipt says that it is finished."""
    targets = [path.absolute() for path in source.originals] if link else []
    settings = {"settings": source.settings, "links": list(map(str, targets))} if targets else source.settings
    outputs = _recorded_outputs(receipt)
    done = read_receipt(receipt, settings=settings, inputs=source.inputs, outputs=outputs)
    if done is not None:
        return done
    _forget(receipt)
    channels, geometry = source.load()
    numbers = [""] if source.is_mask else [f"_{channel:04d}" for channel in range(len(channels))]
    outputs = [_output_folder(receipt) / f"{case}{number}{ENDING}" for number in numbers]
    for channel, (values, path) in enumerate(zip(channels, outputs, strict=True)):
        stored = storable(values)
        if len(targets) == len(channels) and stored.dtype == values.dtype:
            link_file(path, targets[channel])
        else:
            write_image(stored, geometry, path)
    found = {"channels": len(channels), "dimensions": geometry.dimensions}
    write_receipt(receipt, settings=settings, inputs=source.inputs, outputs=outputs, result=found)
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
    if kind.kind == "b":
        return values.astype(np.uint8)
    if kind.kind == "f" and kind.itemsize not in (4, 8):
        return values.astype(np.float32 if kind.itemsize == 2 else np.float64)
    limits = np.iinfo(np.int32)
    if kind.kind in "iu" and kind.itemsize == 8 and limits.min <= values.min() and values.max() <= limits.max:
        return values.astype(np.int32)
    return values.astype(kind.newbyteorder("="), copy=False)
