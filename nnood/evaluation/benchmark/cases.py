"""The cases of a benchmark set, made source by source; what is finished is not done twice."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnood.errors import UserError
from nnood.evaluation.benchmark.kinds import KINDS, MASKS
from nnood.evaluation.benchmark.lesions import draw_lesion
from nnood.evaluation.benchmark.planting import plant
from nnood.evaluation.benchmark.subjects import Subject
from nnood.evaluation.benchmark.table import Row
from nnood.evaluation.results import NORMAL
from nnood.geometry import Geometry
from nnood.images import read_case, write_image
from nnood.planning.foreground import foreground_mask
from nnood.safety import read_receipt, write_receipt

FORMAT = 1
RECEIPTS = ".receipts"
ENDING = ".nii.gz"


@dataclass(frozen=True)
class Order:
    """One case to make.

    Attributes:
        case: Its name.
        kind: A key of `KINDS`, or `normal`.
        seed: Decides everything about it.
    """

    case: str
    kind: str
    seed: int


@dataclass(frozen=True)
class Job:
    """All cases to make of one source; read once, and only if something is left to do.

    Attributes:
        source: Name of the source case; that of another data set begins with `foreign/`.
        files: Its images.
        channels: How many it must have.
        foreground: `whole`, `nonzero` or `otsu`.
        orders: What to make.
        output: The benchmark's folder.
        lesions: Masks of real lesions; may be empty.
    """

    source: str
    files: tuple[Path, ...]
    channels: int
    foreground: str
    orders: tuple[Order, ...]
    output: Path
    lesions: tuple[Path, ...]


def make_cases(job: Job) -> tuple[list[Row], list[str]]:
    """Make what is not finished yet of one source.

    Returns:
        The rows, and one sentence per case that could not be made.

    Raises:
        UserError: If the source is broken.
    """
    rows, faults = [], []
    read: tuple[Subject, Geometry] | None = None
    for order in job.orders:
        outputs = _outputs(job, order)
        receipt = job.output / RECEIPTS / f"{order.case}.json"
        settings = _settings(job, order)
        known = read_receipt(receipt, settings=settings, inputs=job.files, outputs=outputs)
        if known is None:
            read = read or _read(job)
            try:
                known = _make(job, order, outputs, *read)
            except UserError as error:
                faults.append(str(error))
                continue
            write_receipt(receipt, settings=settings, inputs=job.files, outputs=outputs, result=known)
        close_to = () if order.kind == NORMAL else KINDS[order.kind].close_to
        rows.append(Row(order.case, job.source, order.kind, close_to, seed=order.seed, **known))
    return rows, faults


def _settings(job: Job, order: Order) -> dict[str, Any]:
    """All that decides a case besides its source's files; other lesion masks are another benchmark."""
    return {"format": FORMAT, **asdict(order), "foreground": job.foreground}


def _make(job: Job, order: Order, outputs: list[Path], subject: Subject, geometry: Geometry) -> dict[str, Any]:
    """Make and write one case; return what the table says of it.

    Raises:
        UserError: If no lesion can be had for it.
    """
    if order.kind == NORMAL:
        _write(outputs, subject.image, None, subject.spacing, geometry)
        return {}
    lesion = draw_lesion(job.lesions, order.seed) if KINDS[order.kind].needs == MASKS else None
    planted = plant(order.kind, subject, order.seed, lesion)
    _write(outputs, planted.image, planted.mask, planted.spacing, geometry)
    return {
        "size_mm": planted.size_mm,
        "volume_mm3": float(planted.mask.sum() * np.prod(planted.spacing)),
        "strength": planted.strength,
        "changed": planted.changed,
    }


def _read(job: Job) -> tuple[Subject, Geometry]:
    image, geometry = read_case(job.files, job.channels)
    spacing = geometry.spacing[::-1] if geometry.dimensions == 3 else (1.0, *geometry.spacing[::-1])
    return Subject.of(image, foreground_mask(image, job.foreground), spacing), geometry


def _outputs(job: Job, order: Order) -> list[Path]:
    """The files of a case: one per channel and, if it is anomalous, its mask last."""
    files = [job.output / "imagesTs" / f"{order.case}_{channel:04d}{ENDING}" for channel in range(job.channels)]
    return files if order.kind == NORMAL else [*files, job.output / "labelsTs" / f"{order.case}{ENDING}"]


def _write(
    outputs: list[Path], image: np.ndarray, mask: np.ndarray | None, spacing: tuple[float, ...], geometry: Geometry
) -> None:
    """Write the images and the mask; a turned image has its own size and spacing."""
    last = slice(None, geometry.dimensions)
    geometry = replace(geometry, size=image.shape[:0:-1][last], spacing=spacing[::-1][last])
    for channel, path in zip(image, outputs, strict=False):
        write_image(channel, geometry, path)
    if mask is not None:
        write_image(mask.astype(np.uint8), geometry, outputs[-1])
