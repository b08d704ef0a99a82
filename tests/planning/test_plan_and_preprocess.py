import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

from nnood.datasets import load_dataset
from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import read_image, write_image
from nnood.paths import Roots, set_nnunet_roots
from nnood.plan import NnoodPlan
from nnood.planning.plan_and_preprocess import describe_plans, plan_and_preprocess
from nnood.planning.planner import OneChannelPlanner, plan_configurations
from nnood.planning.storage import CaseStore
from nnood.safety import read_json, write_json

NAME = "Dataset999_Phantoms"
CASES = [f"phantom_{number:03d}" for number in range(6)]
CONFIGURATION = "nnoodPlans_3d_fullres"


def plans_of(roots: Roots) -> dict[str, Any]:
    return read_json(roots.preprocessed / NAME / "nnoodPlans.json")


def block_of(roots: Roots) -> NnoodPlan:
    return NnoodPlan.from_dict(plans_of(roots)["nnood"])


def raw_file(roots: Roots, number: int) -> Path:
    return roots.raw / NAME / "imagesTr" / f"{CASES[number]}_0000.nii.gz"


def change_raw(roots: Roots, number: int, factor: float) -> None:
    values, geometry = read_image(raw_file(roots, number))
    write_image((values[0] * factor).astype(np.float32), geometry, raw_file(roots, number))


def override(roots: Roots, **settings: Any) -> None:
    file = roots.raw / NAME / "dataset.json"
    write_json(file, {**read_json(file), "nnood": settings})


def results_of_steps(roots: Roots) -> dict[Path, int]:
    """Time of modification of everything that belongs to single cases."""
    folder = roots.preprocessed / NAME
    files = [path for part in ("foreground", CONFIGURATION) for path in (folder / part).rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def mask_of(roots: Roots, number: int) -> np.ndarray:
    return read_image(roots.preprocessed / NAME / "foreground" / f"{CASES[number]}.nii.gz")[0][0]


def test_plans_hold_the_block_and_all_cases_are_stored(planned_once: Roots) -> None:
    block = block_of(planned_once)
    assert block.default_configuration == "3d_fullres"
    assert block.foreground_method == "otsu"
    assert block.mirror_axes == ()
    assert set(block.configurations) == {"3d_fullres"}
    configuration = block.configurations["3d_fullres"]
    boxes = [np.ptp(np.nonzero(mask_of(planned_once, number)), axis=1) + 1 for number in range(6)]
    np.testing.assert_allclose(configuration.foreground_extent, np.median(boxes, axis=0), atol=1)
    assert 0.05 < configuration.label_sigma[0] < 2
    # The 40th percentile of the differences whose median is twice sigma.
    assert 0.5 < configuration.label_saturation[0] / (2 * configuration.label_sigma[0]) < 1
    store = CaseStore(str(planned_once.preprocessed / NAME / CONFIGURATION))
    assert sorted(store.identifiers) == CASES
    assert "3d_fullres (preprocessed, the default)" in describe_plans(planned_once.preprocessed / NAME)


def test_stored_foreground_is_the_mask(planned_once: Roots) -> None:
    store = CaseStore(str(planned_once.preprocessed / NAME / CONFIGURATION))
    for number, case in enumerate(CASES):
        image, foreground, _, properties = store.load_case(case)
        # The phantoms' air is noise and never 0, so that nothing is cropped; the spacing is the planned one.
        np.testing.assert_array_equal(foreground[0] == 1, mask_of(planned_once, number))
        assert image.shape[1:] == foreground.shape[1:]
        assert (foreground[:][tuple(properties["class_locations"][1].T)] == 1).all()


def test_memory_is_estimated_for_one_output_channel(planned_once: Roots) -> None:
    configuration = plans_of(planned_once)["configurations"]["3d_fullres"]
    network = configuration["architecture"]
    rest = (network["network_class_name"], network["arch_kwargs"], network["_kw_requires_import"])

    def estimate(planner: type[ExperimentPlanner], outputs: int) -> float:
        return planner.static_estimate_VRAM_usage(tuple(configuration["patch_size"]), 1, outputs, *rest)

    assert estimate(OneChannelPlanner, 2) == estimate(ExperimentPlanner, 1) < estimate(ExperimentPlanner, 2)


def test_large_images_get_no_cascade(planned: Roots) -> None:
    set_nnunet_roots(planned)
    folder = planned.preprocessed / NAME
    fingerprint = read_json(folder / "dataset_fingerprint.json")
    fingerprint["shapes_after_crop"] = [[400, 420, 410]] * 6
    write_json(folder / "dataset_fingerprint.json", fingerprint)
    raw = load_dataset(NAME, planned)
    plans = plan_configurations(raw, folder, gpu_memory_target=8.0, base_features=32)
    assert set(plans["configurations"]) == {"2d", "2.5d", "3d_lowres", "3d_fullres"}
    assert "stage" not in str(plans["configurations"]).replace("n_stages", "").replace("per_stage", "")


def test_a_second_call_redoes_nothing(planned: Roots) -> None:
    before, plans = results_of_steps(planned), plans_of(planned)
    plan_and_preprocess(NAME, planned)
    assert results_of_steps(planned) == before
    assert plans_of(planned) == plans


def test_another_configuration_joins_the_first(planned: Roots) -> None:
    before = block_of(planned)
    plan_and_preprocess(NAME, planned, configurations=("2d",))
    after = block_of(planned)
    assert set(after.configurations) == {"2d", "3d_fullres"}
    assert after.configurations["3d_fullres"] == before.configurations["3d_fullres"]
    assert after.anomaly_size == before.anomaly_size
    assert len(list((planned.preprocessed / NAME / "nnoodPlans_2d").glob("*_seg.b2nd"))) == 6


def test_removed_and_changed_preprocessed_files_are_redone(planned: Roots) -> None:
    folder = planned.preprocessed / NAME / CONFIGURATION
    damaged = [folder / f"{CASES[0]}.b2nd", folder / f"{CASES[1]}_seg.b2nd", folder / "properties" / f"{CASES[2]}.npy"]
    contents = [path.read_bytes() for path in damaged]
    damaged[0].unlink()
    for path, content in zip(damaged[1:], contents[1:], strict=True):
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    before = results_of_steps(planned)
    plan_and_preprocess(NAME, planned)
    after = results_of_steps(planned)
    assert [path.read_bytes() for path in damaged] == contents
    redone = {path.name.split(".")[0].removesuffix("_seg") for path in after if after[path] != before.get(path)}
    assert redone == set(CASES[:3])


def test_a_changed_raw_file_is_refused(planned: Roots) -> None:
    change_raw(planned, 3, 1.5)
    before = results_of_steps(planned)
    with pytest.raises(UserError, match=f"{re.escape(str(raw_file(planned, 3)))} was changed.*--overwrite"):
        plan_and_preprocess(NAME, planned)
    assert results_of_steps(planned) == before


def test_a_removed_case_is_refused(planned: Roots) -> None:
    raw_file(planned, 5).unlink()
    with pytest.raises(UserError, match="numTraining 6 but imagesTr holds 5"):
        plan_and_preprocess(NAME, planned)
    file = planned.raw / NAME / "dataset.json"
    write_json(file, {**read_json(file), "numTraining": 5})
    with pytest.raises(UserError, match=f"{CASES[5]} is gone.*--overwrite"):
        plan_and_preprocess(NAME, planned)
    assert len(CaseStore(str(planned.preprocessed / NAME / CONFIGURATION)).identifiers) == 6


def test_unknown_configuration_is_refused(planned: Roots) -> None:
    before = plans_of(planned)
    with pytest.raises(UserError, match=r"no configuration '4d'; there are 2d, 2.5d, 3d_fullres"):
        plan_and_preprocess(NAME, planned, configurations=("4d",))
    assert plans_of(planned) == before


def test_images_and_volumes_do_not_mix(tmp_path: Path) -> None:
    roots = Roots(*(tmp_path / part for part in ("raw", "preprocessed", "results")))
    folder = roots.raw / NAME
    rng = np.random.default_rng(0)
    for name, shape in (("flat", (20, 20)), ("volume", (12, 20, 20))):
        values = rng.normal(size=shape).astype(np.float32)
        write_image(values, Geometry.from_spacing(shape, (1.0,) * len(shape)), folder / "imagesTr" / f"{name}.nii.gz")
    write_json(folder / "dataset.json", {"channel_names": {"0": "T1"}, "numTraining": 2, "file_ending": ".nii.gz"})
    with pytest.raises(UserError, match=r"mixes 2D images \(flat\) and volumes \(volume\)"):
        plan_and_preprocess(NAME, roots)


def test_overrides_of_the_user_are_respected(planned: Roots) -> None:
    override(planned, foreground="whole", mirror_axes=[2], rotation_degrees=5, anomaly_size=[0.2, 0.5])
    plan_and_preprocess(NAME, planned)
    block = block_of(planned)
    assert (block.foreground_method, block.mirror_axes) == ("whole", (2,))
    assert (block.rotation_degrees, block.anomaly_size) == (5, (0.2, 0.5))
    assert mask_of(planned, 0).all()
    # The box of a limited number of sampled positions.
    np.testing.assert_allclose(block.configurations["3d_fullres"].foreground_extent, (20, 24, 20), atol=1)


def test_masks_of_the_user_are_used(planned: Roots) -> None:
    override(planned, foreground="masks")
    with pytest.raises(UserError, match=r"foregroundTr.*is missing") as error:
        plan_and_preprocess(NAME, planned)
    assert all(case in str(error.value) for case in CASES)
    expected = np.zeros((20, 24, 20), np.uint8)
    expected[4:15, 6:20, 3:17] = 1
    for number, case in enumerate(CASES):
        geometry = read_image(raw_file(planned, number))[1]
        write_image(expected, geometry, planned.raw / NAME / "foregroundTr" / f"{case}.nii.gz")
    plan_and_preprocess(NAME, planned)
    assert block_of(planned).foreground_method == "masks"
    assert block_of(planned).configurations["3d_fullres"].foreground_extent == (11, 14, 14)
    stored = CaseStore(str(planned.preprocessed / NAME / CONFIGURATION)).load_case(CASES[0])[1]
    np.testing.assert_array_equal(stored[0] == 1, expected == 1)


def test_label_scale_does_not_depend_on_the_unit(planned: Roots) -> None:
    before = block_of(planned).configurations["3d_fullres"]
    for number in range(6):
        change_raw(planned, number, 1000)
    plan_and_preprocess(NAME, planned, overwrite=True)
    after = block_of(planned).configurations["3d_fullres"]
    assert after.foreground_extent == before.foreground_extent
    assert after.label_sigma == pytest.approx(before.label_sigma, rel=1e-3)
