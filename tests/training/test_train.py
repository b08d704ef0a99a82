import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from nnood.errors import UserError
from nnood.paths import Roots
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.safety import read_json, write_json
from nnood.tasks import TASKS
from nnood.training import planting, trainer
from nnood.training.recipes import RECIPES
from nnood.training.train import train

NAME = "Dataset999_Phantoms"


def test_other_tasks_have_a_folder_and_folds_of_their_own(planned: Roots) -> None:
    (folder,) = train(
        "999", ["1"], planned, tasks=["cutpaste", "poisson_inter"], epochs=1, iterations=1, device=torch.device("cpu")
    )
    assert folder.parent.name == "NnoodTrainer__nnood-cutpaste+poisson_inter__3d_fullres"
    summary = json.loads((folder / "validation" / "summary.json").read_text())
    assert set(summary["voxel_ap"]) == {"cutpaste", "poisson_inter"}
    folds = planned.preprocessed / "Dataset999_Phantoms" / "cross_validation" / "nnood-cutpaste+poisson_inter.json"
    assert json.loads(folds.read_text())[0]["train_tasks"] == ["cutpaste", "poisson_inter"]


def test_another_data_set_lends_all_patches(planned: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "Dataset998_Others"
    shutil.copytree(planned.preprocessed / NAME, planned.preprocessed / other)
    plans = planned.preprocessed / other / "nnoodPlans.json"
    write_json(plans, read_json(plans) | {"dataset_name": other})
    lent = []

    def recorded(**options: object) -> planting.Donors:
        lent.extend([options["external"]] if options else [])
        return original(**options)  # type: ignore[arg-type]

    original = planting.Donors
    monkeypatch.setattr(planting, "Donors", recorded)
    (folder,) = train("999", ["0"], planned, tasks=["fpi"], donors="998", epochs=1, iterations=1)
    assert folder.parent.name == "NnoodTrainer__nnood-fpi@Dataset998__3d_fullres"
    assert read_json(folder / "settings.json")["recipe"]["donors"] == other
    assert len(lent) == 2  # the prior's batches, the epoch
    shapes = {tuple(patch.shape) for patches in lent for patch in patches}
    assert len(shapes) == 1
    assert all(len(patches) == 16 for patches in lent)
    assert not torch.equal(lent[0][0], lent[1][0])


def test_a_recipe_may_choose_label_and_repetition(planned: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPES["nnood"], name="binary", label="binary", repeat=None)
    monkeypatch.setitem(RECIPES, "binary", recipe)
    labels = []

    def recorded(label: torch.Tensor, shapes: list[list[int]]) -> list[torch.Tensor]:
        labels.append(label)
        return original(label, shapes)

    original = trainer.downsample_label
    monkeypatch.setattr(trainer, "downsample_label", recorded)
    (folder,) = train("999", ["0"], planned, recipe="binary", epochs=1, iterations=3)
    assert set(torch.cat(labels).unique().tolist()) == {0.0, 1.0}
    assert read_json(folder / "settings.json")["recipe"]["label"] == "binary"


def test_donors_of_other_channels_are_refused(planned: Roots) -> None:
    other = "Dataset998_Others"
    shutil.copytree(planned.preprocessed / NAME, planned.preprocessed / other)
    file = planned.preprocessed / other / "dataset.json"
    write_json(file, read_json(file) | {"channel_names": {"0": "T1", "1": "T2"}})
    with pytest.raises(UserError, match=r"2 channels but Dataset999_Phantoms has 1"):
        train("999", ["0"], planned, donors="998", epochs=1, iterations=1)


def test_every_task_trains_and_lesions_come_from_masks(planned: Roots) -> None:
    train("999", ["0"], planned, epochs=1, iterations=1)
    source = planned.raw / NAME / "dataset.json"
    masks = planned.raw / "masks"
    masks.mkdir()
    for number in range(3):
        mask = np.zeros((12, 14, 16), np.uint8)
        mask[3:8, 4:10, 5 : 9 + number] = 1
        np.save(masks / f"lesion_{number}.npy", mask)
    write_json(source, read_json(source) | {"nnood": {"lesion_masks": "../masks"}})
    plan_and_preprocess(NAME, planned)
    shapes = planned.preprocessed / NAME / "lesion_shapes.npy"
    assert np.load(shapes).shape == (3, 32, 32, 32)
    (folder,) = train("999", ["0"], planned, tasks=list(TASKS), epochs=1, iterations=8)
    voxel_ap = read_json(folder / "validation" / "summary.json")["voxel_ap"]
    assert list(voxel_ap) == list(TASKS)
    assert all(value is not None for value in voxel_ap.values())
    train("999", ["1"], planned, epochs=1, iterations=1)  # to the member from before, lesions are nothing new
    before = shapes.stat().st_mtime_ns
    plan_and_preprocess(NAME, planned)
    assert shapes.stat().st_mtime_ns == before
    shapes.write_bytes(shapes.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"lesion_shapes\.npy is missing or was changed"):
        train("999", ["1"], planned, tasks=["lesion_shapes"], epochs=1, iterations=1)
