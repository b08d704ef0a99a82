"""The first look at every training case: is it whole, what is its geometry, has it a background?

Then, once the method is chosen, the foreground mask of every case and the intensities in it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

from nnood.datasets import Dataset
from nnood.errors import UserError, one_error
from nnood.images import nnunet_properties, read_case, read_image, write_image
from nnood.parallel import map_cases
from nnood.plan import CASE_LIST_FILE, PLANS_FILE
from nnood.planning.foreground import BackgroundStatistics, background_statistics, choose_method, foreground_mask
from nnood.planning.storage import FOREGROUND_FOLDER, foreground_file
from nnood.safety import atomic_path, read_json, read_receipt, write_receipt

SURVEY_FOLDER = "survey"
MAX_INTENSITY_SAMPLES = 10_000_000


def survey_case(files: list[Path], channels: int, receipt: Path) -> dict[str, Any]:
    """Check and measure one case; a finished, unchanged one is not read again.

    Returns:
        `dimensions` (2 or 3) and the `BackgroundStatistics` as `background`.

    Raises:
        UserError: If the case is broken, or was changed since it was surveyed.
    """
    known = read_receipt(receipt, settings=channels, inputs=files, outputs=[])
    if known is not None:
        return known
    if receipt.exists():
        raise UserError(
            f"{files[0]} was changed since the data set was planned; "
            "put the old file back or plan anew with --overwrite."
        )
    image, geometry = read_case(files, channels)
    result = {"dimensions": geometry.dimensions, "background": asdict(background_statistics(image))}
    write_receipt(receipt, settings=channels, inputs=files, outputs=[], result=result)
    return result


def survey(dataset: Dataset, folder: Path, *, processes: int) -> tuple[str, str]:
    """Check every training case and choose the foreground method.

    Args:
        dataset: The raw data set.
        folder: Its preprocessed folder.
        processes: Worker processes.

    Returns:
        The method and the reason for it.

    Raises:
        UserError: If any case is broken or changed (all are listed), or 2D and 3D images are mixed.
    """
    _refuse_changed_list(dataset, folder)
    receipts = folder / FOREGROUND_FOLDER / SURVEY_FOLDER
    arguments = {case: (files, dataset.channels, receipts / f"{case}.json") for case, files in dataset.training.items()}
    results, faults = map_cases(survey_case, arguments, processes=processes, description="Checking images")
    one_error(faults)
    flat = [case for case, result in results.items() if result["dimensions"] == 2]
    if flat and len(flat) < len(results):
        volume = next(case for case in results if case not in set(flat))
        raise UserError(
            f"{dataset.folder} mixes 2D images ({flat[0]}) and volumes ({volume}); make two data sets of them."
        )
    chosen = dataset.overrides.foreground
    if chosen != "auto":
        return chosen, "set in dataset.json"
    return choose_method([BackgroundStatistics(**result["background"]) for result in results.values()])


def _refuse_changed_list(dataset: Dataset, folder: Path) -> None:
    """Refuse to go on with other cases than those that the existing plans were made of."""
    if not (folder / PLANS_FILE).exists():
        return
    planned = set(read_json(folder / CASE_LIST_FILE))
    gone, new = sorted(planned - set(dataset.training)), sorted(set(dataset.training) - planned)
    if gone or new:
        first = f"{gone[0]} is gone" if gone else f"{new[0]} is new"
        raise UserError(
            f"{dataset.folder} has other training cases than when it was planned ({first}); "
            "restore it or plan anew with --overwrite."
        )


def foreground_case(
    case: str, files: list[Path], channels: int, method: str, user_mask: Path | None, folder: Path, samples: int
) -> dict[str, Any]:
    """Compute and write one case's foreground mask, and what the fingerprint needs of it.

    Writes `CASE.nii.gz` (uint8) and `CASE.npy` (float32 intensities in the foreground, C x `samples`).

    Returns:
        nnU-Net's measures of a case: `shape_after_crop`, `spacing`, `relative_size`; and `extent_mm`, (z, y, x) of the
        foreground's box.
    """
    target = folder / FOREGROUND_FOLDER
    outputs = [foreground_file(folder, case), target / f"{case}.npy"]
    inputs = [*files, user_mask] if user_mask else files
    receipt = target / f"{case}.json"
    settings = {"method": method, "samples": samples}
    known = read_receipt(receipt, settings=settings, inputs=inputs, outputs=outputs)
    if known is not None:
        return known
    image, geometry = read_case(files, channels)
    if user_mask is None:
        mask = foreground_mask(image, method)
    else:
        values, mask_geometry = read_image(user_mask)
        if not mask_geometry.matches(geometry):
            raise UserError(
                f"{user_mask} ({mask_geometry.describe()}) does not fit {files[0].name} ({geometry.describe()})."
            )
        mask = (values[0] > 0).reshape(image.shape[1:])
        if not mask.any():
            raise UserError(f"{user_mask} is empty; mark the foreground in it or set another method in dataset.json.")
    write_image(mask.astype(np.uint8), geometry, outputs[0])
    cropped, segmentation, _ = crop_to_nonzero(image, mask[None].astype(np.int8))
    intensities, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
        segmentation, cropped, num_samples=samples
    )
    with atomic_path(outputs[1]) as temporary, temporary.open("wb") as file:
        np.save(file, np.asarray(intensities, dtype=np.float32))
    spacing = nnunet_properties(geometry)["spacing"]
    extent = np.ptp(np.argwhere(mask), axis=0) + 1
    result = {
        "extent_mm": (extent * spacing).tolist(),
        "shape_after_crop": list(cropped.shape[1:]),
        "spacing": spacing,
        "relative_size": float(np.prod(cropped.shape[1:]) / np.prod(image.shape[1:])),
    }
    write_receipt(receipt, settings=settings, inputs=inputs, outputs=outputs, result=result)
    return result


def extract_fingerprint(dataset: Dataset, folder: Path, method: str, *, processes: int) -> dict[str, Any]:
    """Write all foreground masks and gather nnU-Net's data set fingerprint.

    nnU-Net's extractor reads with its own readers, which let damaged files through; so its measures are taken here,
    by its own functions, on images that have passed the gate.

    Returns:
        The fingerprint, in nnU-Net's keys, and `foreground_extents_mm`.
    """
    masks = _user_masks(dataset) if method == "masks" else {}
    samples = max(100, MAX_INTENSITY_SAMPLES // len(dataset.training))
    arguments = {
        case: (case, files, dataset.channels, method, masks.get(case), folder, samples)
        for case, files in dataset.training.items()
    }
    results, faults = map_cases(foreground_case, arguments, processes=processes, description="Foreground masks")
    one_error(faults)
    intensities = np.concatenate([np.load(folder / FOREGROUND_FOLDER / f"{case}.npy") for case in results], axis=1)
    return {
        "spacings": [result["spacing"] for result in results.values()],
        "shapes_after_crop": [result["shape_after_crop"] for result in results.values()],
        "foreground_intensity_properties_per_channel": {
            str(channel): _summary(values) for channel, values in enumerate(intensities)
        },
        "foreground_extents_mm": [result["extent_mm"] for result in results.values()],
        "median_relative_size_after_cropping": float(
            np.median([result["relative_size"] for result in results.values()])
        ),
    }


def _summary(values: np.ndarray) -> dict[str, float]:
    """Intensity statistics in nnU-Net's keys."""
    low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "median": float(median),
        "std": float(values.std(dtype=np.float64)),
        "min": float(values.min()),
        "max": float(values.max()),
        "percentile_99_5": float(high),
        "percentile_00_5": float(low),
    }


def _user_masks(dataset: Dataset) -> dict[str, Path]:
    """The user's own foreground masks, one per training case."""
    masks = {case: dataset.folder / "foregroundTr" / f"{case}{dataset.file_ending}" for case in dataset.training}
    one_error(
        [
            f"{mask} is missing; add it or set another foreground method."
            for mask in masks.values()
            if not mask.is_file()
        ]
    )
    return masks
