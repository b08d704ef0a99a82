"""Networks for slices with their neighbours (2.5d), from raw images to score maps."""

import logging
import shutil
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import torch
from PIL import Image

from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import read_image, write_image
from nnood.inference.inference_plan import load_plan
from nnood.inference.predict import find_model, predict
from nnood.inference.predictor import MapPredictor
from nnood.inference.selection.find_best import find_best_configuration
from nnood.paths import NNUNET_VARIABLES, VARIABLES, Roots
from nnood.phantoms import make_phantom
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.safety import read_json, write_json
from nnood.training import resumable, trainer
from nnood.training.checkpoints import FINAL, load_checkpoint
from nnood.training.task_sheet import draw_tasks
from nnood.training.train import train
from nnood.training.trainer import NnoodTrainer

NAME = "Dataset102_Slabs"
CPU = torch.device("cpu")
TINY: dict[str, Any] = {"base_features": 4, "gpu_memory_target": 0.1}


class Killed(BaseException):
    """Stands in for a kill: nothing catches it."""


def write_case(folder: Path, name: str, volumes: list[np.ndarray], spacing: tuple[float, ...]) -> None:
    for channel, values in enumerate(volumes):
        geometry = Geometry.from_spacing(values.shape, spacing)
        write_image(values.astype(np.float32), geometry, folder / f"{name}_{channel:04d}.nii.gz")


def write_raw(roots: Roots, volumes: list[list[np.ndarray]], spacing: tuple[float, ...], **block: Any) -> None:
    """A raw data set of volumes, one list per case with one volume per channel."""
    folder = roots.raw / NAME
    for number, channels in enumerate(volumes):
        write_case(folder / "imagesTr", f"case_{number}", channels, spacing)
    names = {str(channel): f"MR{channel}" for channel in range(len(volumes[0]))}
    content = {"channel_names": names, "numTraining": len(volumes), "file_ending": ".nii.gz", "nnood": block}
    write_json(folder / "dataset.json", content)


def phantom(seed: int, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Two channels."""
    values = make_phantom(np.random.default_rng([7, seed]), shape)
    return [values, values.max() - values]


@pytest.fixture(scope="module")
def planned_once(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Isotropic volumes of odd sizes and two channels, preprocessed for 2.5d and 2d; not to be changed."""
    roots = Roots.under(tmp_path_factory.mktemp("slabs"))
    with pytest.MonkeyPatch.context() as environment:
        for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
            environment.setenv(name, "")
        shapes = np.random.default_rng(5).integers((13, 17, 15), (16, 24, 18), size=(6, 3))
        volumes = [phantom(number, tuple(map(int, shape))) for number, shape in enumerate(shapes)]
        write_raw(roots, volumes, (2.0, 2.0, 2.0), mirror_axes=[2])
        plan_and_preprocess(NAME, roots, configurations=["2.5d", "2d"], **TINY)
    return roots


@pytest.fixture
def slabs(planned_once: Roots, tmp_path: Path) -> Roots:
    """The same with results of its own."""
    return Roots(planned_once.raw, planned_once.preprocessed, tmp_path / "results")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_checkpoint(fold / FINAL, CPU) for fold in (one, other))
    for name, weights in first["network_weights"].items():
        assert torch.equal(weights, second["network_weights"][name]), name
    assert first["logging"]["train_losses"] == second["logging"]["train_losses"]
    assert first["logging"]["voxel_ap"] == second["logging"]["voxel_ap"]


def test_a_killed_run_goes_on_as_if_it_had_never_stopped(slabs: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"configuration": "2.5d", "tasks": ["fpi", "nsa"], "epochs": 2, "iterations": 5}
    sides = []

    def seen(self: NnoodTrainer, batch: dict[str, Any]) -> Any:
        sides.append(batch["view"])
        if len(sides) == kill_at:
            raise Killed
        return original(self, batch)

    original = NnoodTrainer.train_step
    monkeypatch.setattr(NnoodTrainer, "train_step", seen)
    kill_at = 0
    (smooth,) = train(NAME, ["0"], slabs, **options)
    expected = list(sides)
    assert set(expected) == {0, 1, 2}
    again = Roots(slabs.raw, slabs.preprocessed, slabs.results / "again")
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    sides.clear()
    for step in (4, 8):
        kill_at = step
        with pytest.raises(Killed):
            train(NAME, ["0"], again, go_on=True, **options)
        sides.pop()
    kill_at = 0
    (resumed,) = train(NAME, ["0"], again, go_on=True, **options)
    assert sides == expected
    assert_same_weights(smooth, resumed)


def test_labels_are_2d_and_what_is_known_of_the_data_is_that_of_the_slices(
    slabs: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    def recorded(label: torch.Tensor, wanted: list[list[int]], **options: bool) -> list[torch.Tensor]:
        made = original(label, wanted, **options)
        shapes.append([tuple(one.shape) for one in made])
        return made

    original = trainer.downsample_label
    monkeypatch.setattr(trainer, "downsample_label", recorded)
    (fold,) = train(NAME, ["0"], slabs, configuration="2.5d", tasks=["fpi"], epochs=1, iterations=2)
    plans = read_json(fold.parent / "plans.json")["configurations"]["2.5d"]
    batch, (_, height, width) = plans["batch_size"], plans["patch_size"]
    assert shapes[0][0] == (batch, 1, height, width)
    assert all(len(shape) == 4 for found in shapes for shape in found)
    assert len(shapes[0]) == len(plans["architecture"]["arch_kwargs"]["strides"]) - 1
    assert load_checkpoint(fold / FINAL, CPU)["mirror_axes"] == [2]
    figures = read_json(fold / "validation" / "summary.json")
    assert set(figures["voxel_ap"]) == {"fpi"}


def test_a_network_that_was_not_trained_on_mirrored_images_does_not_predict_them(slabs: Roots) -> None:
    (fold,) = train(NAME, ["0"], slabs, configuration="2.5d", recipe="ae", epochs=1, iterations=2)
    assert load_checkpoint(fold / FINAL, CPU)["mirror_axes"] == []


def test_from_training_to_score_maps_with_another_configuration_beside_it(slabs: Roots, tmp_path: Path) -> None:
    short: dict[str, Any] = {"epochs": 1, "iterations": 2}
    (fold,) = train(NAME, ["0"], slabs, recipe="autoseg", **short)
    assert fold.parent.name == "NnoodTrainer__autoseg__2.5d"
    train(NAME, ["0"], slabs, configuration="2.5d", **short)
    train(NAME, ["0"], slabs, configuration="2d", **short)
    find_best_configuration(NAME, slabs, max_cases=1)
    plan = load_plan(slabs.results / NAME / "inference_plan.json")
    tried = {entry["name"] for entry in plan.candidates if entry["stage"] == "configuration"}
    assert {"nnood 2.5d", "nnood 2d", "autoseg 2.5d"} <= tried
    images = tmp_path / "images"
    shape = (12, 21, 16)
    write_case(images, "new", phantom(99, shape), (2.5, 2.0, 1.5))
    ways = (
        find_model(slabs, dataset=NAME),
        find_model(slabs, dataset=NAME, recipe="nnood", configuration="2.5d"),
    )
    for number, way in enumerate(ways):
        output = tmp_path / f"scores_{number}"
        assert list(predict(images, output, way, device=CPU)) == ["new"]
        scores, geometry = read_image(output / "new.nii.gz")
        assert scores.shape == (1, *shape)
        assert geometry.matches(Geometry.from_spacing(shape, (2.5, 2.0, 1.5)))
        assert 0 <= scores.min() < scores.max() <= 1


@pytest.mark.parametrize("recipe", ["nnunet_fpi", "nsa", "random_shape"])
def test_it_goes_with_recipes_of_every_kind(slabs: Roots, recipe: str) -> None:
    """Anomalies planted beforehand, a schedule that ends when all is learned, another loss."""
    (fold,) = train(NAME, ["0"], slabs, configuration="2.5d", recipe=recipe, epochs=1, iterations=2, whole_every=0)
    (loss,) = load_checkpoint(fold / FINAL, CPU)["logging"]["train_losses"]
    assert np.isfinite(loss)


def edited(slabs: Roots, tmp_path: Path, **changes: Any) -> Roots:
    """The same, with plans that a user has changed."""
    roots = Roots(slabs.raw, tmp_path / "preprocessed", slabs.results)
    shutil.copytree(slabs.preprocessed, roots.preprocessed)
    file = roots.preprocessed / NAME / "nnoodPlans.json"
    plans = read_json(file)
    plans["configurations"]["2.5d"] |= changes
    write_json(file, plans)
    return roots


def test_cases_planted_beforehand_lie_as_those_that_they_are_made_of(slabs: Roots) -> None:
    (folder,) = train(
        NAME, ["0"], slabs, configuration="2.5d", recipe="nnunet_fpi", epochs=1, iterations=1, whole_every=0
    )
    planted = sorted((folder / "offline").glob("*.b2nd"))
    assert planted
    for file in planted:
        copy, source = (
            blosc2.open(str(path)) for path in (file, slabs.preprocessed / NAME / "nnoodPlans_3d_fullres" / file.name)
        )
        assert copy.chunks == source.chunks
        assert copy.blocks == source.blocks


def test_slabs_may_be_thicker_and_views_fewer(slabs: Roots, tmp_path: Path) -> None:
    roots = edited(slabs, tmp_path, patch_size=[5, 24, 24], views=[2, 0])
    (fold,) = train(NAME, ["0"], roots, configuration="2.5d", epochs=1, iterations=2)
    weights = load_checkpoint(fold / FINAL, CPU)["network_weights"]
    assert next(values.shape[1] for name, values in weights.items() if "conv.weight" in name) == 10
    write_case(tmp_path / "images", "new", phantom(98, (14, 20, 17)), (2.0, 2.0, 2.0))
    predict(tmp_path / "images", tmp_path / "scores", find_model(roots, dataset=NAME), device=CPU)
    assert read_image(tmp_path / "scores" / "new.nii.gz")[0].std() > 0


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"patch_size": [4, 24, 24]}, "odd number of slices"),
        ({"patch_size": [0, 24, 24]}, "three edges"),
        ({"patch_size": ["3", 24, 24]}, "three edges"),
        ({"patch_size": [3.5, 24, 24]}, "three edges"),
        ({"views": []}, "distinct views"),
        ({"views": [0, 0]}, "distinct views"),
        ({"views": ["z"]}, "axis from 0 to 2"),
        ({"views": [1.0]}, "axis from 0 to 2"),
        ({"views": 3}, "list of distinct views"),
    ],
)
def test_plans_that_cannot_be_are_refused_before_anything_is_written(
    slabs: Roots, tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    roots = edited(slabs, tmp_path, **changes)
    with pytest.raises(UserError, match=rf"configuration 2\.5d is not valid \(.*{fault}.*\); correct"):
        train(NAME, ["0"], roots, configuration="2.5d", epochs=1, iterations=1)
    assert not roots.results.exists()


def test_its_members_join_an_ensemble_with_others(slabs: Roots) -> None:
    short: dict[str, Any] = {"epochs": 1, "iterations": 1, "whole_every": 0}
    for configuration in ("2.5d", "2d"):
        train(NAME, ["0"], slabs, configuration=configuration, **short)
    members = [
        find_model(slabs, dataset=NAME, recipe="nnood", configuration=configuration).members[0]
        for configuration in ("2.5d", "2d")
    ]
    values = np.stack(phantom(3, (14, 20, 17)))
    geometry = Geometry.from_spacing(values.shape[1:], (2.0, 2.0, 2.0))
    predictor = MapPredictor(members, CPU)
    maps = dict(predictor.maps(values, geometry))
    assert not np.allclose(maps[0], maps[1])
    np.testing.assert_allclose(predictor.mean(values, geometry), (maps[0] + maps[1]) / 2, atol=1e-5)


def test_pictures_are_refused_by_members_for_slabs(slabs: Roots, tmp_path: Path) -> None:
    train(NAME, ["0"], slabs, configuration="2.5d", epochs=1, iterations=1, whole_every=0)
    geometry = Geometry.from_spacing((20, 24), (1.0, 1.0))
    for channel in (0, 1):
        values = np.random.default_rng(channel).normal(size=(20, 24)).astype(np.float32)
        write_image(values, geometry, tmp_path / "images" / f"flat_{channel:04d}.nii.gz")
    way = find_model(slabs, dataset=NAME)
    with pytest.raises(UserError, match=r"is a 2D image, but 2\.5d was trained on volumes"):
        predict(tmp_path / "images", tmp_path / "scores", way, device=CPU)


def test_the_sheet_of_tasks_shows_middle_slices(planned_once: Roots, tmp_path: Path) -> None:
    draw_tasks(NAME, planned_once, ["fpi", "sink"], tmp_path / "sheet.png", configuration="2.5d")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert np.asarray(picture).std() > 10


def test_other_cases_lend_slabs_of_every_side(slabs: Roots, tmp_path: Path) -> None:
    roots = Roots(slabs.raw, tmp_path / "preprocessed", slabs.results)
    for name in (NAME, "Dataset103_Others"):
        shutil.copytree(slabs.preprocessed / NAME, roots.preprocessed / name)
    plans = roots.preprocessed / "Dataset103_Others" / "nnoodPlans.json"
    write_json(plans, {**read_json(plans), "dataset_name": "Dataset103_Others"})
    short: dict[str, Any] = {"epochs": 1, "iterations": 4, "whole_every": 0}
    (fold,) = train(NAME, ["0"], roots, configuration="2.5d", tasks=["fpi"], donors="103", **short)
    content = load_checkpoint(fold / FINAL, CPU)
    assert (
        content["logging"]["failed"][0]
        < 4 * read_json(fold.parent / "plans.json")["configurations"]["2.5d"]["batch_size"]
    )


@pytest.mark.parametrize("slices", [2, 9])
def test_flat_volumes_are_seen_from_the_front_even_thinner_than_a_slab(
    tmp_path: Path, slices: int, caplog: pytest.LogCaptureFixture
) -> None:
    roots = Roots.under(tmp_path)
    shape = (slices, 32, 36)
    volumes = [[np.random.default_rng(number).normal(100, 10, shape)] for number in range(6)]
    write_raw(roots, volumes, (6.0, 1.0, 1.0), foreground="whole")
    plan_and_preprocess(NAME, roots, configurations=["2.5d"], **TINY)
    assert read_json(roots.preprocessed / NAME / "nnoodPlans.json")["configurations"]["2.5d"]["views"] == [0]
    with caplog.at_level(logging.WARNING):
        train(NAME, ["0"], roots, configuration="2.5d", epochs=1, iterations=3)
    assert not caplog.records
    write_case(tmp_path / "new", "new", [np.random.default_rng(9).normal(100, 10, shape)], (6.0, 1.0, 1.0))
    predict(tmp_path / "new", tmp_path / "scores", find_model(roots, dataset=NAME), device=CPU)
    assert read_image(tmp_path / "scores" / "new.nii.gz")[0].shape == (1, *shape)
