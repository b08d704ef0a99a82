"""What is planned for slices with their neighbours (2.5d)."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnood.datasets import load_dataset
from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import write_image
from nnood.network import build_network
from nnood.paths import Roots, set_nnunet_roots
from nnood.plan import NnoodPlan
from nnood.planning.plan_and_preprocess import describe_plans, plan_and_preprocess
from nnood.planning.planner import plan_configurations
from nnood.planning.preprocessor import stored_case_faults
from nnood.planning.storage import CaseStore
from nnood.safety import read_json, write_json
from nnood.training.train import train
from nnood.views import View, views_of

NAME = "Dataset999_Phantoms"


def planned_for(roots: Roots, shape: tuple[int, ...], spacing: tuple[float, ...]) -> dict[str, Any]:
    """The configurations of a data set whose cases are all of one size."""
    set_nnunet_roots(roots)
    folder = roots.preprocessed / NAME
    file = folder / "dataset_fingerprint.json"
    sizes = {"shapes_after_crop": [list(shape)] * 6, "spacings": [list(spacing)] * 6}
    write_json(file, {**read_json(file), **sizes})
    return plan_configurations(load_dataset(NAME, roots), folder, gpu_memory_target=8.0, base_features=8)


@pytest.mark.parametrize(
    ("shape", "spacing", "axes"),
    [
        ((60, 70, 80), (1.0, 1.0, 1.0), [0, 1, 2]),
        ((60, 70, 80), (2.5, 1.0, 1.0), [0, 1, 2]),
        ((20, 160, 190), (5.0, 1.0, 1.0), [0]),  # flat by spacing
        ((20, 160, 190), (1.0, 1.0, 1.0), [0]),  # and by shape
    ],
)
def test_flat_volumes_are_seen_from_the_front_only(
    planned: Roots, shape: tuple[int, ...], spacing: tuple[float, ...], axes: list[int]
) -> None:
    plans = planned_for(planned, shape, spacing)
    slabs, volumes = (plans["configurations"][name] for name in ("2.5d", "3d_fullres"))
    shared = set(volumes) - {"architecture", "batch_size", "patch_size", "batch_dice"}
    assert {key: slabs[key] for key in shared} == {key: volumes[key] for key in shared}
    assert slabs["views"] == axes
    assert slabs["patch_size"][0] == 3
    manager = PlansManager(plans).get_configuration("2.5d")
    assert views_of(manager) == tuple(View(axis, 3) for axis in axes)
    assert views_of(PlansManager(plans).get_configuration("3d_fullres")) == (View(),)
    if axes == [0]:
        assert slabs["patch_size"][1:] == plans["configurations"]["2d"]["patch_size"]
        assert slabs["architecture"] == plans["configurations"]["2d"]["architecture"]
    else:
        stored = [shape[axis] for axis in plans["transpose_forward"]]
        assert slabs["patch_size"][1] >= max(stored[:2])
        assert slabs["patch_size"][2] >= max(stored[1:])
    first = next(build_network(manager, 2, deep_supervision=False).parameters())
    assert first.shape[1:] == (6, 3, 3)


def test_it_shares_the_cases_of_3d_fullres(planned: Roots) -> None:
    folder = planned.preprocessed / NAME
    assert "2.5d (planned only): patch 3 x " in describe_plans(folder)
    before = {path: path.stat().st_mtime_ns for path in (folder / "nnoodPlans_3d_fullres").rglob("*")}
    plan_and_preprocess(NAME, planned, configurations=["2.5d"])
    assert {path: path.stat().st_mtime_ns for path in (folder / "nnoodPlans_3d_fullres").rglob("*")} == before
    assert not list(folder.glob("*2.5d*"))
    plans = read_json(folder / "nnoodPlans.json")
    measured = NnoodPlan.from_dict(plans["nnood"]).configurations
    assert measured["2.5d"] == measured["3d_fullres"]
    assert "2.5d (preprocessed): patch 3 x " in describe_plans(folder)
    assert stored_case_faults(folder, plans, "2.5d", read_json(folder / "case_list.json")) == []


def test_alone_it_stores_cases_in_chunks_for_volumes(planned: Roots) -> None:
    folder = planned.preprocessed / NAME / "nnoodPlans_3d_fullres"
    case = CaseStore(str(folder)).identifiers[0]
    before = CaseStore(str(folder)).load_case(case)[0].chunks
    plan_and_preprocess(NAME, planned, configurations=["2.5d"], overwrite=True)
    assert CaseStore(str(folder)).load_case(case)[0].chunks == before
    plan = NnoodPlan.from_dict(read_json(folder.parent / "nnoodPlans.json")["nnood"])
    assert list(plan.configurations) == ["2.5d"]


def test_who_forgets_how_the_others_were_planned_is_told(planned: Roots, caplog: pytest.LogCaptureFixture) -> None:
    plan_and_preprocess(NAME, planned, configurations=["2.5d"])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    plan_and_preprocess(NAME, planned, configurations=["2.5d"], base_features=5)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "3d_fullres was planned otherwise before" in warning
    assert "--base_features" in warning
    folder = planned.preprocessed / NAME
    assert list(NnoodPlan.from_dict(read_json(folder / "nnoodPlans.json")["nnood"]).configurations) == ["2.5d"]


def test_what_networks_may_cost_is_remembered(planned: Roots) -> None:
    file = planned.preprocessed / NAME / "nnoodPlans.json"
    plan_and_preprocess(NAME, planned, base_features=5, gpu_memory_target=2.0)
    train(NAME, ["0"], planned, epochs=1, iterations=1, whole_every=0)
    before = read_json(file)
    plan_and_preprocess(NAME, planned, configurations=["2.5d"])
    plans = read_json(file)
    assert plans["configurations"] == before["configurations"]
    assert plans["configurations"]["2.5d"]["architecture"]["arch_kwargs"]["features_per_stage"][0] == 5
    assert sorted(NnoodPlan.from_dict(plans["nnood"]).configurations) == ["2.5d", "3d_fullres"]
    # Who forgets may add a fold to what was trained before.
    plan_and_preprocess(NAME, planned, configurations=["3d_fullres"])
    train(NAME, ["1"], planned, configuration="3d_fullres", epochs=1, iterations=1, whole_every=0)


def test_images_have_none(tmp_path: Path) -> None:
    roots = Roots.under(tmp_path)
    folder = roots.raw / "Dataset101_Flat"
    for number in range(5):
        values = np.random.default_rng(number).normal(size=(24, 28)).astype(np.float32)
        file = folder / "imagesTr" / f"case_{number}_0000.nii.gz"
        write_image(values, Geometry.from_spacing((24, 28), (1.0, 1.0)), file)
    content = {"channel_names": {"0": "T1"}, "numTraining": 5, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", content)
    sentence = r"^Dataset101_Flat has no 2\.5d configuration, because its images are 2D; use -c 2d\.$"
    with pytest.raises(UserError, match=sentence):
        plan_and_preprocess("101", roots, configurations=["2.5d"])
    plan_and_preprocess("101", roots, base_features=4, gpu_memory_target=0.1)
    with pytest.raises(UserError, match=sentence):
        train("101", ["0"], roots, configuration="2.5d")
    with pytest.raises(UserError, match=r"recipe autoseg asks for \(its key configuration\), because .* 2D; use -c 2d"):
        train("101", ["0"], roots, recipe="autoseg")


def test_what_is_planned_only_names_the_recipe_that_asks_for_it(planned_once: Roots) -> None:
    asked = (
        r"no preprocessed configuration '2\.5d', which the recipe autoseg asks for .*; there are 3d_fullres\. .*-c 2.5d"
    )
    with pytest.raises(UserError, match=asked):
        train("999", ["0"], planned_once, recipe="autoseg")
