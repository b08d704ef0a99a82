"""The whole way from a raw data set to plans and preprocessed cases."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnood.datasets import Dataset, find_dataset_name, load_dataset
from nnood.errors import UserError
from nnood.paths import Roots, get_roots, set_nnunet_roots
from nnood.plan import BUDGET_KEY, CASE_LIST_FILE, PLANS_FILE, ConfigurationPlan, NnoodPlan
from nnood.planning.contact_sheet import draw_foreground
from nnood.planning.lesions import prepare_lesions
from nnood.planning.planner import default_configuration, plan_configurations
from nnood.planning.preprocessor import preprocess
from nnood.planning.storage import FOREGROUND_FOLDER
from nnood.planning.survey import SURVEY_FOLDER, extract_fingerprint, survey
from nnood.safety import read_json, remove_leftovers, write_json
from nnood.views import VIEWS_KEY, refuse_slabs_of_images, stored_as

logger = logging.getLogger(__name__)

# nnU-Net's rotation for elongated 2D patches; its 180 degrees for others would make an upside-down chest normal.
DEFAULT_ROTATION_DEGREES = 15.0
# Smaller anomalies than this many voxels vanish in the network's first pooling.
MIN_ANOMALY_VOXELS = 4
ANOMALY_FRACTIONS = (0.1, 0.7)
DEFAULT_BUDGET = {"gpu_memory_target": 8.0, "base_features": 32}  # nnU-Net's


def plan_and_preprocess(
    dataset: str | int,
    roots: Roots | None = None,
    *,
    configurations: Sequence[str] = (),
    processes: int = 1,
    gpu_memory_target: float | None = None,
    base_features: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Fingerprint, plan and preprocess a raw data set. Goes on where an earlier, killed call stopped.

    Args:
        dataset: Id or name.
        roots: The three root folders; as the commands have them (`nnood.paths.get_roots`) if None.
        configurations: Which to preprocess; the default configuration if empty.
        processes: Worker processes.
        gpu_memory_target: GB that training may use; patch and batch size follow from it. None: as in an earlier call,
            or 8.
        base_features: Feature maps of the network's first stage. None: as in an earlier call, or 32.
        overwrite: Forget earlier plans and preprocessed cases.

    Returns:
        The preprocessed folder.

    Raises:
        UserError: If the data set is incomplete, changed or broken, or a configuration does not exist.
    """
    roots = roots or get_roots()
    set_nnunet_roots(roots)
    raw = load_dataset(find_dataset_name(str(dataset), roots), roots)
    folder = roots.preprocessed / raw.name
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for part in (folder, folder / FOREGROUND_FOLDER, folder / FOREGROUND_FOLDER / SURVEY_FOLDER):
        remove_leftovers(part)
    method, reason = survey(raw, folder, processes=processes)
    logger.info("Foreground: '%s', because %s.", method, reason)
    fingerprint = extract_fingerprint(raw, folder, method, processes=processes)
    write_json(folder / "dataset_fingerprint.json", fingerprint)
    logger.info("Foreground masks to look at: %s", draw_foreground(raw, folder, method, reason))
    budget = _budget(folder, gpu_memory_target, base_features)
    plans = {**plan_configurations(raw, folder, **budget), BUDGET_KEY: budget}
    write_json(folder / "dataset.json", raw.nnunet_json())
    chosen = tuple(configurations) or (default_configuration(plans),)
    unknown = [name for name in chosen if name not in plans["configurations"]]
    if unknown:
        refuse_slabs_of_images(plans, unknown[0])
        raise UserError(
            f"{raw.name} has no configuration {unknown[0]!r}; there are {', '.join(plans['configurations'])}."
        )
    stored = dict.fromkeys(map(stored_as, chosen))
    made = {name: preprocess(raw, folder, plans, name, processes=processes) for name in stored}
    measured = {**_earlier(folder, plans, chosen), **{name: made[stored_as(name)] for name in chosen}}
    masks = raw.overrides.lesion_masks
    lesions = prepare_lesions(masks, folder, processes=processes) if masks else ""
    plans["nnood"] = _nnood_plan(raw, plans, measured, fingerprint, method, reason, lesions).to_dict()
    write_json(folder / CASE_LIST_FILE, list(raw.training))
    write_json(folder / PLANS_FILE, plans)
    return folder


def _budget(folder: Path, gpu_memory_target: float | None, base_features: int | None) -> dict[str, Any]:
    """What the networks may cost: as asked for, as an earlier call was, or by default."""
    before = read_json(folder / PLANS_FILE).get(BUDGET_KEY, {}) if (folder / PLANS_FILE).exists() else {}
    asked = {"gpu_memory_target": gpu_memory_target, "base_features": base_features}
    return {**DEFAULT_BUDGET, **before, **{key: value for key, value in asked.items() if value is not None}}


def describe_plans(folder: Path) -> str:
    """A short table of what was planned, for the user to read.

    Args:
        folder: The preprocessed data set.
    """
    plans = read_json(folder / PLANS_FILE)
    plan = NnoodPlan.from_dict(plans["nnood"])
    lines = [f"Foreground: {plan.foreground_method} ({plan.foreground_reason})"]
    for name, values in plans["configurations"].items():
        default = ", the default" if name == plan.default_configuration else ""
        done = "preprocessed" if name in plan.configurations else "planned only"
        spacing = " x ".join(f"{value:.3g}" for value in values["spacing"])
        patch = " x ".join(map(str, values["patch_size"]))
        sides = f", seen along {len(values[VIEWS_KEY])} of 3 axes" if VIEWS_KEY in values else ""
        lines.append(f"{name} ({done}{default}): patch {patch}, batch {values['batch_size']}, spacing {spacing}{sides}")
    low, high = plan.anomaly_size
    lines.append(
        f"Anomalies: {low:.0%} to {high:.0%} of the foreground's extent; "
        f"mirroring along {plan.mirror_axes or 'no axis'}"
    )
    return "\n".join(lines)


def _earlier(folder: Path, plans: dict[str, Any], chosen: Sequence[str]) -> dict[str, ConfigurationPlan]:
    """What an earlier call measured on configurations that are still planned the same way; warns of others.

    Args:
        folder: The preprocessed data set.
        plans: The new ones.
        chosen: Configurations that are preprocessed now.
    """
    file = folder / PLANS_FILE
    if not file.exists():
        return {}
    before = read_json(file)
    known = NnoodPlan.from_dict(before["nnood"]).configurations
    same = [name for name, values in plans["configurations"].items() if before["configurations"].get(name) == values]
    lost = [name for name in known if name not in (*same, *chosen)]
    if lost:
        logger.warning(
            "%s was planned otherwise before, and its networks need those plans: unless the data set was changed on "
            "purpose, repeat this command with the --gpu_memory_target and --base_features of that time.",
            " and ".join(lost),
        )
    return {name: plan for name, plan in known.items() if name in same}


def smallest_anomaly(plans: dict[str, Any], fingerprint: dict[str, Any]) -> float:
    """The smallest fraction of the foreground's extent that still spans a few voxels of the default configuration.

    Args:
        plans: nnU-Net's plans.
        fingerprint: With `foreground_extents_mm`.
    """
    spacing = np.array(plans["configurations"][default_configuration(plans)]["spacing"])
    extents = np.median(fingerprint["foreground_extents_mm"], axis=0)[plans["transpose_forward"]]
    # The middle one of the axes: the thin axis of a flat volume says nothing about sizes within the slices.
    voxels = float(np.median(extents[-len(spacing) :] / spacing))
    return round(min(max(ANOMALY_FRACTIONS[0], MIN_ANOMALY_VOXELS / voxels), ANOMALY_FRACTIONS[1]), 4)


def _nnood_plan(
    raw: Dataset,
    plans: dict[str, Any],
    configurations: dict[str, ConfigurationPlan],
    fingerprint: dict[str, Any],
    method: str,
    reason: str,
    lesions: str,
) -> NnoodPlan:
    """Fill the typed block from what was measured and what the user set."""
    overrides = raw.overrides
    return NnoodPlan(
        default_configuration=default_configuration(plans),
        foreground_method=method,
        foreground_reason=reason,
        mirror_axes=overrides.mirror_axes,
        rotation_degrees=DEFAULT_ROTATION_DEGREES if overrides.rotation_degrees is None else overrides.rotation_degrees,
        anomaly_size=overrides.anomaly_size or (smallest_anomaly(plans, fingerprint), ANOMALY_FRACTIONS[1]),
        configurations=configurations,
        lesions=lesions,
    )
