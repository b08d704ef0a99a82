"""Training of autoencoders, from folds to score maps; a run that is killed ends as if it had not been."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from same_runs import assert_same, killed_at

from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import read_image
from nnood.inference.members import find_members
from nnood.inference.predictor import MapPredictor
from nnood.paths import NNUNET_VARIABLES, VARIABLES, Roots
from nnood.phantoms import write_demo_dataset
from nnood.planning.foreground import foreground_mask
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.planning.storage import CaseStore
from nnood.reconstruction.recipes import RECONSTRUCTING
from nnood.reconstruction.settings import VOXEL_SCORES, Reconstruction
from nnood.reconstruction.trainer import ReconstructionTrainer
from nnood.safety import read_json, write_json
from nnood.training import resumable
from nnood.training.checkpoints import BEST, FINAL, find_newest, load_checkpoint
from nnood.training.cross_validation import cross_validate
from nnood.training.train import train
from nnood.training.trainer import NnoodTrainer

NAME = "Dataset999_Phantoms"
CPU = torch.device("cpu")
LENGTHS: dict[str, Any] = {"epochs": 2, "iterations": 2, "whole_every": 0}
SHORT: dict[str, Any] = {"epochs": 1, "iterations": 1, "whole_every": 0}
VAE_FOLD = Path(NAME) / "ReconstructionTrainer__vae-sink__3d_fullres" / "fold_0"


@pytest.fixture(scope="module", autouse=True)
def quiet_environment() -> Iterator[None]:
    """For fixtures of the module; tests have their own."""
    with pytest.MonkeyPatch.context() as environment:
        for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
            environment.setenv(name, "")
        yield


@pytest.fixture(scope="module")
def planned_once(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Six tiny phantoms for three configurations with small batches; not to be changed."""
    roots = Roots.under(tmp_path_factory.mktemp("reconstruction"))
    write_demo_dataset(roots.raw / NAME, num_train=6, num_test=0, shape=(12, 16, 12))
    plan_and_preprocess(
        NAME, roots, configurations=["3d_fullres", "2.5d", "2d"], base_features=4, gpu_memory_target=0.5
    )
    file = roots.preprocessed / NAME / "nnoodPlans.json"
    plans = read_json(file)
    for configuration in plans["configurations"].values():
        configuration["batch_size"] = 4
    write_json(file, plans)
    return roots


@pytest.fixture
def roots(planned_once: Roots, tmp_path: Path) -> Roots:
    """The same with results of its own."""
    return Roots(planned_once.raw, planned_once.preprocessed, tmp_path / "results")


def train_vae(roots: Roots, **options: Any) -> Path:
    return train(NAME, ["0"], roots, **{**LENGTHS, "recipe": "vae", "tasks": ["sink"], **options})[0]


@pytest.fixture(scope="module")
def smooth(planned_once: Roots, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fold of a VAE whose training never stopped."""
    results = tmp_path_factory.mktemp("smooth")
    return train_vae(Roots(planned_once.raw, planned_once.preprocessed, results))


def image_of(roots: Roots, case: str) -> tuple[np.ndarray, Geometry]:
    return read_image(roots.raw / NAME / "imagesTr" / f"{case}_0000.nii.gz")


# ---- what a run leaves ----------------------------------------------------------------------------------------------


def test_checkpoints_hold_codes_of_normal_patches_and_scales_of_scores(smooth: Path) -> None:
    for name in (FINAL, BEST):
        content = load_checkpoint(smooth / name, CPU)
        codes, error, elbo = (content["patches"][key] for key in ("codes", "error", "elbo"))
        training = read_json(smooth / "settings.json")["fold"]["train_cases"]
        assert codes.shape == (len(training), 16)  # the patch is as large as the images
        assert error.shape == elbo.shape == (len(training),)
        assert all(torch.isfinite(one).all() for one in (codes, error, elbo))
        assert codes.std(0).min() > 0
        assert (elbo > error).all()  # by the KL term
        assert (error > 0).all()
        scales = content["network_weights"]["scales"]
        assert torch.isfinite(scales).all()
        assert (scales > 0).all()
        measured = {one for one, scale in zip(VOXEL_SCORES, scales, strict=True) if scale != 1}
        assert measured == set(Reconstruction().voxel_scores)


def test_mean_and_spread_are_those_of_the_foreground(smooth: Path, planned_once: Roots) -> None:
    weights = load_checkpoint(smooth / FINAL, CPU)["network_weights"]
    cases = read_json(smooth / "settings.json")["fold"]["train_cases"]
    store = CaseStore(str(planned_once.preprocessed / NAME / "nnoodPlans_3d_fullres"), cases)
    values = []
    for case in cases:
        image, segmentation, _, _ = store.load_case(case)
        values.append(np.asarray(image[:])[0][np.asarray(segmentation[:])[0] == 1])
    inside = np.concatenate(values)
    mean, spread = float(inside.mean()), float(inside.std())
    assert abs(mean) > 0.3 * spread  # else the whole images' would do as well
    assert weights["image_mean"].item() == pytest.approx(mean, abs=0.1 * spread)
    assert weights["image_spread"].item() == pytest.approx(spread, rel=0.1)


def test_training_plants_nothing_and_validation_does(smooth: Path) -> None:
    fold = read_json(smooth / "settings.json")["fold"]
    assert fold["train_tasks"] == []
    assert fold["val_tasks"] == ["sink"]
    assert set(read_json(smooth / "validation" / "summary.json")["voxel_ap"]) == {"sink"}
    content = load_checkpoint(smooth / FINAL, CPU)
    assert content["logging"]["failed"] == [0, 0]
    assert np.isfinite(content["logging"]["train_losses"]).all()


# ---- a killed run ---------------------------------------------------------------------------------------------------


# Where to die, at which call since the last start, and which epoch and step are then the last on the disk.
DEATHS = [
    (NnoodTrainer, "train_step", 2, (0, 1)),
    (ReconstructionTrainer, "_measure", 1, (0, 1)),
    (NnoodTrainer, "train_step", 3, (1, 1)),
    (NnoodTrainer, "_write_summary", 1, (2, 0)),
]


def test_a_run_killed_again_and_again_ends_like_one_that_was_not(
    smooth: Path, roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)  # a checkpoint after every step
    for owner, name, call, (epoch, step) in DEATHS:
        with killed_at(owner, name, call):
            train_vae(roots, go_on=True)
        newest = find_newest(roots.results / VAE_FOLD)
        assert newest is not None
        assert (newest.epoch, newest.step) == (epoch, step)
    fold = train_vae(roots, go_on=True)
    assert fold == roots.results / VAE_FOLD
    for name in (FINAL, BEST):
        assert_same(load_checkpoint(fold / name, CPU), load_checkpoint(smooth / name, CPU), name)
    assert read_json(fold / "validation" / "summary.json") == read_json(smooth / "validation" / "summary.json")


# ---- all recipes, configurations and ways to predict ----------------------------------------------------------------


def check_map(score_map: np.ndarray, image: np.ndarray) -> None:
    """In [0, 1], about 0 where the foreground is not, and about 1/2 where a normal image is."""
    inside = foreground_mask(image, "otsu")
    assert score_map.shape == image.shape[1:]
    assert score_map.dtype == np.float32
    assert np.isfinite(score_map).all()
    assert 0 <= score_map.min() < score_map.max() <= 1
    assert score_map[~inside].max() < 1e-5
    assert 0.2 < np.median(score_map[inside]) < 0.8
    assert score_map[inside].std() > 0.001


def test_score_maps_of_a_case(smooth: Path, planned_once: Roots) -> None:
    roots = Roots(planned_once.raw, planned_once.preprocessed, smooth.parents[2])
    members = find_members(roots, dataset=NAME, recipe="vae-sink", configuration="3d_fullres")
    image, geometry = image_of(roots, read_json(smooth / "settings.json")["fold"]["train_cases"][0])
    ((_, score_map),) = MapPredictor(members, CPU).maps(image, geometry)
    check_map(score_map, image)
    ((_, again),) = MapPredictor(members, CPU).maps(image, geometry)
    np.testing.assert_array_equal(again, score_map)


# Each recipe once, and each configuration twice.
RUNS = [
    ("ae", "2.5d"),
    ("cevae", "2.5d"),
    ("constrained_vae", "2d"),
    ("dae", "2d"),
    ("vqvae", "3d_fullres"),
]


def test_all_recipes_are_trained_here() -> None:
    assert {recipe for recipe, _ in RUNS} | {"vae"} == {recipe.name for recipe in RECONSTRUCTING}


@pytest.mark.parametrize(("recipe", "configuration"), RUNS)
def test_every_recipe_trains_and_predicts(roots: Roots, recipe: str, configuration: str) -> None:
    options: dict[str, Any] = {"recipe": recipe, "configuration": configuration, "tasks": ["sink"]}
    (fold,) = train(NAME, ["1"], roots, **SHORT, **options)
    content = load_checkpoint(fold / FINAL, CPU)
    assert np.isfinite(content["logging"]["train_losses"]).all()
    assert all(torch.isfinite(values).all() for values in content["patches"].values())
    assert 0 < len(content["patches"]["codes"]) <= 1000
    members = find_members(roots, dataset=NAME, recipe=f"{recipe}-sink", configuration=configuration)
    image, geometry = image_of(roots, read_json(fold / "settings.json")["fold"]["train_cases"][0])
    ((_, score_map),) = MapPredictor(members, CPU).maps(image, geometry)
    check_map(score_map, image)


def test_one_network_on_all_cases(roots: Roots) -> None:
    (fold,) = train(NAME, ["all"], roots, **SHORT, recipe="ae", configuration="2d", tasks=["sink"])
    settings = read_json(fold / "settings.json")["fold"]
    assert fold.name == "fold_all"
    assert settings["train_tasks"] == []
    assert len(settings["train_cases"]) == len(settings["val_cases"]) == 6
    assert (fold / FINAL).exists()


# ---- folds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [one.name for one in RECONSTRUCTING])
def test_folds_train_on_no_task_and_validate_on_all(planned_once: Roots, recipe: str) -> None:
    found = cross_validate(NAME, planned_once, recipe=recipe)
    (file,) = (file for file in found.files if file.name == f"{recipe}.json")
    content = read_json(file)
    assert [fold["train_tasks"] for fold in content] == [[]] * len(found.folds)
    assert len(found.folds) == 5
    for fold in content:
        assert fold["val_tasks"] == ["smooth_intensity", "sink", "source", "poisson_inter", "random_shape"]
        assert not set(fold["train_cases"]) & set(fold["val_cases"])
        assert len(fold["train_cases"]) + len(fold["val_cases"]) == 6


def test_folds_that_train_on_a_task_are_refused_before_anything_is_written(planned_once: Roots, tmp_path: Path) -> None:
    roots = Roots(planned_once.raw, tmp_path / "preprocessed", tmp_path / "results")
    roots.preprocessed.mkdir()
    (roots.preprocessed / NAME).symlink_to(planned_once.preprocessed / NAME, target_is_directory=True)
    (file,) = (one for one in cross_validate(NAME, roots, recipe="vae", tasks=["dag"]).files if "dag" in one.name)
    content = read_json(file)
    content[1]["train_tasks"] = ["fpi"]
    write_json(file, content)
    with pytest.raises(UserError) as error:
        train(NAME, ["0"], roots, **SHORT, recipe="vae", tasks=["dag"])
    sentence = str(error.value)
    assert str(file) in sentence
    assert "fold 1: train_tasks must be empty" in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert not roots.results.exists()
    content[1].update(train_tasks=[], val_tasks=[])
    write_json(file, content)
    with pytest.raises(UserError, match="fold 1: val_tasks is empty"):
        train(NAME, ["0"], roots, **SHORT, recipe="vae", tasks=["dag"])
    file.unlink()
