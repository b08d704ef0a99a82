import json
import logging
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnood.errors import UserError
from nnood.paths import Roots
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.safety import read_json, write_json
from nnood.tasks import TASKS
from nnood.training import planting, trainer, validation
from nnood.training.checkpoints import FINAL
from nnood.training.cross_validation import load_folds
from nnood.training.progress import TakenError
from nnood.training.recipes import RECIPES, Recipe
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
    lent: list[list[torch.Tensor]] = []

    def recorded(**options: object) -> planting.Donors:
        lent.extend([options["external"]] if options else [])  # type: ignore[list-item]
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

    def recorded(label: torch.Tensor, shapes: list[list[int]], **options: bool) -> list[torch.Tensor]:
        labels.append(label)
        return original(label, shapes, **options)

    original = trainer.downsample_label
    monkeypatch.setattr(trainer, "downsample_label", recorded)
    (folder,) = train("999", ["0"], planned, recipe="binary", epochs=1, iterations=3, whole_every=0)
    assert set(torch.cat(labels).unique().tolist()) == {0.0, 1.0}
    assert read_json(folder / "settings.json")["recipe"]["label"] == "binary"


def test_members_of_one_folder_are_of_one_recipe(planned: Roots, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    recipe = replace(RECIPES["nnood"], name="mine", iterations=1, validate_whole_every=0)
    write_json(file, recipe.to_dict())
    train("999", ["0"], planned, recipe=str(file), epochs=1)
    write_json(file, replace(recipe, learning_rate=1e-4).to_dict())
    with pytest.raises(UserError, match=r"fold_0 was trained with another recipe 'mine', of another learning_rate"):
        train("999", ["1"], planned, recipe=str(file), epochs=1)
    write_json(file, replace(recipe, epochs=3, summary="The same, for longer.").to_dict())
    train("999", ["1"], planned, recipe=str(file), epochs=1)


def test_donors_of_other_channels_are_refused(planned: Roots) -> None:
    other = "Dataset998_Others"
    shutil.copytree(planned.preprocessed / NAME, planned.preprocessed / other)
    file = planned.preprocessed / other / "dataset.json"
    write_json(file, read_json(file) | {"channel_names": {"0": "T1", "1": "T2"}})
    with pytest.raises(UserError, match=r"2 channels but Dataset999_Phantoms has 1"):
        train("999", ["0"], planned, donors="998", epochs=1, iterations=1)


def test_every_task_trains_and_lesions_come_from_masks(planned: Roots) -> None:
    train("999", ["0"], planned, epochs=1, iterations=1, whole_every=0)
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
    (folder,) = train("999", ["0"], planned, tasks=list(TASKS), epochs=1, iterations=8, whole_every=0)
    voxel_ap = read_json(folder / "validation" / "summary.json")["voxel_ap"]
    assert list(voxel_ap) == list(TASKS)
    assert all(value is not None for value in voxel_ap.values())
    train(
        "999", ["1"], planned, epochs=1, iterations=1, whole_every=0
    )  # to the member from before, lesions are nothing new
    before = shapes.stat().st_mtime_ns
    plan_and_preprocess(NAME, planned)
    assert shapes.stat().st_mtime_ns == before
    shapes.write_bytes(shapes.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"lesion_shapes\.npy is missing or was changed"):
        train("999", ["1"], planned, tasks=["lesion_shapes"], epochs=1, iterations=1)


# ---- every fold, and where nothing may happen -----------------------------------------------------------------------


def test_every_trains_what_is_missing_and_shows_a_table(tiny: Roots, caplog: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {"tasks": ["fpi"], "epochs": 1, "iterations": 1, "whole_every": 0}
    folders = train("999", ["2"], tiny, **options)
    folder = folders[0].parent
    before = (folder / "fold_2" / FINAL).stat().st_mtime_ns
    other = {"process": os.getppid(), "host": socket.gethostname()}
    write_json(folder / "fold_1" / "running.json", other)
    with caplog.at_level(logging.INFO):
        folders = train("999", ["every"], tiny, **options)
    assert [fold.name for fold in folders] == [f"fold_{number}" for number in range(5)]
    tables = [record.getMessage() for record in caplog.records if record.getMessage().startswith("fold  state")]
    states = [[line.split()[1] for line in table.splitlines()[1:]] for table in tables]
    assert states == [["missing", "running", "done", "missing", "missing"], ["done", "running", "done", "done", "done"]]
    assert "Fold 1 is being trained" in caplog.text
    assert "Fold 2 is finished" in caplog.text
    assert (folder / "fold_2" / FINAL).stat().st_mtime_ns == before
    assert read_json(folder / "fold_1" / "running.json") == other
    assert not (folder / "fold_1" / "settings.json").exists()
    assert not (folder / "fold_0" / "running.json").exists()
    with pytest.raises(UserError, match=r"fold_1 is being trained by the process"):
        train("999", ["1"], tiny, **options)
    assert not (folder / "fold_1" / "settings.json").exists()


def test_every_goes_on_when_another_takes_a_fold_at_the_same_moment(
    tiny: Roots, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(folder: Any) -> None:
        raise TakenError(f"{folder} is being trained")

    monkeypatch.setattr("nnood.training.train.mark_running", taken)
    with caplog.at_level(logging.INFO):
        train("999", ["every"], tiny, tasks=["fpi"], epochs=1, iterations=2)
    for number in range(5):
        assert f"Fold {number} is being trained" in caplog.text
    # Nothing was done: one table is enough.
    assert sum(record.getMessage().startswith("fold  state") for record in caplog.records) == 1


def test_a_run_without_its_settings_is_not_continued(tiny: Roots) -> None:
    options: dict[str, Any] = {"tasks": ["sink"], "epochs": 1, "iterations": 1, "whole_every": 0}
    (folder,) = train("999", ["0"], tiny, **options)
    (folder / "settings.json").unlink()
    with pytest.raises(UserError, match=r"settings\.json is missing; bring it back, or move the folder away"):
        train("999", ["0"], tiny, go_on=True, **options)


def test_training_ends_when_the_training_tasks_are_learned(tiny: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPES["nnood"], name="stops", tasks={"fpi": 1.0, "sink": 1.0}, stop_at=0.5)
    monkeypatch.setitem(RECIPES, "stops", recipe)
    write_tasks(tiny, recipe, {"train_tasks": ["sink"], "val_tasks": ["fpi"]})
    reached = iter([0.4, 0.5, 0.9])
    voxel_ap = validation.TaskScores.voxel_ap

    def learned(self: validation.TaskScores, tasks: Sequence[str]) -> dict[str, float]:
        return {"sink": next(reached)} if tuple(tasks) == ("sink",) else voxel_ap(self, tasks)

    monkeypatch.setattr(validation.TaskScores, "voxel_ap", learned)
    (fold,) = train("999", ["0"], tiny, recipe="stops", epochs=8, iterations=1)
    content = torch.load(fold / FINAL, weights_only=True)
    assert (content["current_epoch"], content["is_saturated"]) == (2, True)
    log = content["logging"]
    assert log["mean_training_voxel_ap"] == [0.4, 0.5]
    assert all(set(figures) == {"fpi"} for figures in log["voxel_ap"])
    assert log["mean_voxel_ap"] == [figures["fpi"] for figures in log["voxel_ap"]]
    assert log["whole_voxel_ap"][-1] is not None
    summary = read_json(fold / "validation" / "summary.json")
    assert summary["epochs"] == 2
    assert set(summary["whole_voxel_ap"]) == {"fpi"}
    said = next(fold.glob("training_log_*.txt")).read_text()
    assert "The training tasks reached a voxel AP of 0.500 (stop_at 0.5): training ends here." in said


def write_tasks(roots: Roots, recipe: Recipe, tasks: dict[str, list[str]]) -> None:
    """Write the folds of a recipe by hand, with these tasks."""
    folder = roots.preprocessed / NAME
    load_folds(folder, recipe, read_json(folder / "case_list.json"))
    file = folder / "cross_validation" / f"{recipe.name}.json"
    write_json(file, [fold | tasks for fold in read_json(file)])
