"""nnU-Net's experiment planner, told that there is one output channel and no cascade, and asked for 2.5d too."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from nnood.datasets import Dataset
from nnood.errors import UserError
from nnood.paths import NNUNET_VARIABLES
from nnood.plan import PLANS_NAME
from nnood.planning.storage import foreground_file
from nnood.safety import plain, write_json
from nnood.views import SLABS, VIEWS_KEY

CONFIGURATIONS = ("2d", SLABS, "3d_lowres", "3d_fullres")
SLICES = 3
# nnU-Net lets a batch cover 5 % of the data at most, which is fewer than two images of a small data set. Here every
# image gets new anomalies each time, and the cases of a batch lend each other patches: four may be in it.
MIN_CASES_IN_BATCH = 4


class OneChannelPlanner(ExperimentPlanner):
    """Plans a network that puts out one score per voxel, whatever the labels are."""

    @staticmethod
    def static_estimate_VRAM_usage(  # noqa: N802
        patch_size: Any, input_channels: int, output_channels: int, *architecture: Any
    ) -> float:
        """nnU-Net's estimate, for one output channel."""
        return ExperimentPlanner.static_estimate_VRAM_usage(patch_size, input_channels, 1, *architecture)

    def determine_reader_writer(self) -> type[SimpleITKIO]:
        """Name nnU-Net's closest reader; what reads is the gate in `nnood.images`, in every format."""
        return SimpleITKIO

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Keep the plans in memory: nnood completes them and writes them atomically."""
        recursive_fix_for_json_export(plans)


@contextlib.contextmanager
def _staged(dataset: Dataset, folder: Path) -> Iterator[None]:
    """Let nnU-Net's planner find the raw data set with the foreground in the place of the segmentation."""
    content = dataset.nnunet_json()
    content["dataset"] = {
        case: {"images": [str(path) for path in files], "label": str(foreground_file(folder, case))}
        for case, files in dataset.training.items()
    }
    variable = NNUNET_VARIABLES["raw"]
    before = os.environ.get(variable)
    with tempfile.TemporaryDirectory() as staging:
        write_json(Path(staging) / dataset.name / "dataset.json", content)
        os.environ[variable] = staging
        try:
            yield
        finally:
            if before is None:
                del os.environ[variable]
            else:
                os.environ[variable] = before


def plan_configurations(
    dataset: Dataset, folder: Path, *, gpu_memory_target: float, base_features: int
) -> dict[str, Any]:
    """Let nnU-Net plan spacing, patch size, topology and batch size of every configuration.

    Args:
        dataset: The raw data set.
        folder: Its preprocessed folder, which holds the fingerprint.
        gpu_memory_target: In GB; patch and batch size follow from it.
        base_features: Feature maps of the first stage (nnU-Net: 32).

    Returns:
        nnU-Net's plans, without the cascade.

    Raises:
        UserError: If the images are too small for any network.
    """
    with _staged(dataset, folder), contextlib.redirect_stdout(io.StringIO()):
        planner = OneChannelPlanner(dataset.name, gpu_memory_target_in_gb=gpu_memory_target, plans_name=PLANS_NAME)
        planner.UNet_base_num_features = base_features
        planner.max_dataset_covered = max(planner.max_dataset_covered, MIN_CASES_IN_BATCH / len(dataset.training))
        try:
            # Lists in place of tuples, so that plans compare equal with those that are read back from the disk.
            plans = plain(planner.plan_experiment())
            if "3d_fullres" in plans["configurations"]:
                plans["configurations"][SLABS] = _plan_slabs(planner, plans["configurations"]["3d_fullres"])
        except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
            shape = np.median(planner.dataset_fingerprint["shapes_after_crop"], axis=0).astype(int).tolist()
            raise UserError(
                f"nnU-Net cannot plan a network for {dataset.name} (median size {shape} after cropping: {error}); "
                "are the images large enough and their spacings right?"
            ) from error
    plans["configurations"] = {
        name: plans["configurations"][name] for name in CONFIGURATIONS if name in plans["configurations"]
    }
    for configuration in plans["configurations"].values():
        configuration.pop("next_stage", None)
    return plans


def _plan_slabs(planner: ExperimentPlanner, volumes: dict[str, Any]) -> dict[str, Any]:
    """Let nnU-Net plan a network for slices of the cases that 3d_fullres stores: the 2.5d configuration.

    Flat volumes are seen from the front only. Others are seen from all sides by one network, for which no direction
    differs from the others, and its patch has room for the largest slice.

    Args:
        planner: After it planned the others.
        volumes: What it planned for 3d_fullres.
    """
    spacing, shape, patch_size = (volumes[key] for key in ("spacing", "median_image_size_in_voxels", "patch_size"))
    is_flat = max(spacing[0] / max(spacing[1:]), max(patch_size) / patch_size[0]) > ANISO_THRESHOLD
    if is_flat:
        views, edges, size = [0], spacing[1:], shape[1:]
    else:
        views, edges, size = [0, 1, 2], [float(np.median(spacing))] * 2, [max(shape[:2]), max(shape[1:])]
    voxels = float(np.prod(shape)) * planner.dataset_json["numTraining"]
    planned = planner.get_plans_for_configuration(edges, size, volumes["data_identifier"], voxels, {})
    recursive_fix_for_json_export(planned)
    own = {key: planned[key] for key in ("architecture", "batch_size")}
    patch = {"patch_size": [SLICES, *planned["patch_size"]], "batch_dice": True, VIEWS_KEY: views}
    return plain({**volumes, **own, **patch})


def default_configuration(plans: dict[str, Any]) -> str:
    """The configuration for a user who names none: full resolution for volumes, 2d for images."""
    return "3d_fullres" if "3d_fullres" in plans["configurations"] else "2d"
