"""nnU-Net's preprocessor behind the image gate: resumable, case by case, with the foreground as segmentation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from tqdm import tqdm

from nnood.datasets import Dataset
from nnood.errors import UserError, one_error
from nnood.geometry import Geometry
from nnood.images import nnunet_properties, read_case, read_image
from nnood.parallel import map_cases
from nnood.plan import ConfigurationPlan
from nnood.planning.storage import PROPERTIES_FOLDER, case_files, foreground_file, receipt_file, save_case
from nnood.safety import agrees_with_disk, digest_of, read_json, read_receipt, remove_leftovers, write_receipt

PAIRS = 5000
PERCENTILES = (50, 40)


def preprocess_image(
    image: np.ndarray,
    foreground: np.ndarray | None,
    geometry: Geometry,
    plans: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Transpose, crop, normalise and resample one image as nnU-Net does.

    Args:
        image: Values (C, Z, Y, X) from the gate.
        foreground: Mask (1, Z, Y, X), or None at prediction.
        geometry: Of the image.
        plans: The data set's plans.
        configuration: One of them.
        dataset_json: In nnU-Net's keys.

    Returns:
        Preprocessed image (C, *S) float32, segmentation (1, *S) with -1 outside of the non-zero region, and nnU-Net's
        properties, with which a prediction finds its way back.
    """
    return DefaultPreprocessor(verbose=False).run_case_npy(
        image, foreground, nnunet_properties(geometry), plans, configuration, dataset_json
    )


def _settings(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    """Everything in the plans that a preprocessed case depends on."""
    keys = ("spacing", "normalization_schemes", "use_mask_for_norm", "resampling_fn_data", "resampling_fn_data_kwargs")
    values = PlansManager(plans).get_configuration(configuration).configuration
    return {
        **{key: values[key] for key in keys},
        "transpose": plans["transpose_forward"],
        "intensities": plans["foreground_intensity_properties_per_channel"],
        "percentiles": PERCENTILES,
    }


def preprocess_case(
    case: str,
    files: list[Path],
    mask: Path,
    plans: dict[str, Any],
    configuration: str,
    dataset_json: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Preprocess and store one training case, unless that is done already.

    Returns:
        `extent` (voxels of the foreground's box, as stored) and two percentiles, per channel, of the absolute
        difference of two random foreground voxels: `contrast` (the median) and `saturation` (the 40th).
    """
    inputs, outputs = [*files, mask], case_files(folder, case)
    receipt, settings = receipt_file(folder, case), _settings(plans, configuration)
    known = read_receipt(receipt, settings=settings, inputs=inputs, outputs=outputs)
    if known is not None:
        return known
    image, geometry = read_case(files, len(dataset_json["channel_names"]))
    values, mask_geometry = read_image(mask)
    if not mask_geometry.matches(geometry):
        raise UserError(f"{mask} does not fit {files[0]}; run nnood_plan_and_preprocess --overwrite.")
    foreground = values.reshape(1, *image.shape[1:]).astype(np.int8)
    manager = PlansManager(plans)
    planned = manager.get_configuration(configuration)
    data, segmentation, properties = preprocess_image(image, foreground, geometry, manager, planned, dataset_json)
    locations = np.asarray(properties["class_locations"][1], dtype=np.int32).reshape(-1, 4)
    save_case(folder, case, data, segmentation, locations, tuple(planned.patch_size))
    contrast, saturation = _differences(data, locations)
    result = {"extent": _extent(locations, data.shape[1:]), "contrast": contrast, "saturation": saturation}
    write_receipt(receipt, settings=settings, inputs=inputs, outputs=outputs, result=result)
    return result


def stored_case_faults(folder: Path, plans: dict[str, Any], configuration: str, cases: Sequence[str]) -> list[str]:
    """What is wrong with stored cases, one sentence each.

    Args:
        folder: The preprocessed data set.
        plans: nnU-Net's plans.
        configuration: One of them.
        cases: Names of the cases to check.
    """
    target = folder / plans["configurations"][configuration]["data_identifier"]
    advice = f"run nnood_plan_and_preprocess -d {plans['dataset_name']} -c {configuration} again."
    settings = digest_of(_settings(plans, configuration))
    checked = tqdm(cases, desc="Checking preprocessed cases", unit="case", leave=False, disable=None)
    found = {case: _stored_case_fault(target, case, settings) for case in checked}
    return [f"{target}: case {case} {fault}; {advice}" for case, fault in found.items() if fault]


def _stored_case_fault(target: Path, case: str, settings: str) -> str | None:
    """What is wrong with one stored case, in half a sentence, or None."""
    try:
        receipt = read_json(receipt_file(target, case))
        if receipt["settings"] != settings:
            return "was preprocessed by other plans"
        if agrees_with_disk(receipt["outputs"], case_files(target, case)):
            return None
    except (UserError, KeyError, TypeError):
        return "has not been preprocessed completely"
    return "was changed or damaged since it was preprocessed"


def _extent(locations: np.ndarray, shape: tuple[int, ...]) -> list[int]:
    """Extent of the box around sampled foreground positions; the whole image where there is no foreground."""
    if not len(locations):
        return list(shape)
    return (np.ptp(locations[:, 1:], axis=0) + 1).tolist()


def _differences(data: np.ndarray, locations: np.ndarray) -> list[list[float]]:
    """Percentiles of the absolute difference of random pairs of foreground voxels: for each, one per channel."""
    generator = np.random.default_rng(0)
    if len(locations):
        pairs = generator.integers(len(locations), size=(2, PAIRS))
        _, z, y, x = locations[pairs].transpose(2, 0, 1)
        values = data[:, z, y, x]
    else:
        values = data.reshape(len(data), -1)[:, generator.integers(data[0].size, size=(2, PAIRS))]
    return np.percentile(np.abs(values[:, 0] - values[:, 1]), PERCENTILES, axis=1).tolist()


def preprocess(
    dataset: Dataset, folder: Path, plans: dict[str, Any], configuration: str, *, processes: int
) -> ConfigurationPlan:
    """Preprocess all training cases for one configuration and measure what nnood's plan needs.

    Args:
        dataset: The raw data set.
        folder: Its preprocessed folder.
        plans: nnU-Net's plans.
        configuration: One of them.
        processes: Worker processes.

    Raises:
        UserError: If cases failed; the others are finished, and all failures are listed.
    """
    target = folder / plans["configurations"][configuration]["data_identifier"]
    target.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    remove_leftovers(target / PROPERTIES_FOLDER)
    json = dataset.nnunet_json()
    arguments = {
        case: (case, files, foreground_file(folder, case), plans, configuration, json, target)
        for case, files in dataset.training.items()
    }
    results, faults = map_cases(
        preprocess_case, arguments, processes=processes, description=f"Preprocessing {configuration}"
    )
    one_error(faults)
    extent = np.median([result["extent"] for result in results.values()], axis=0)
    # A channel without any contrast in most cases (a constant one) still needs scales > 0.
    contrast, saturation = (
        np.maximum(np.median([result[key] for result in results.values()], axis=0), 2e-3)
        for key in ("contrast", "saturation")
    )
    return ConfigurationPlan(
        tuple(round(float(n)) for n in extent), tuple((0.5 * contrast).tolist()), tuple(saturation.tolist())
    )
