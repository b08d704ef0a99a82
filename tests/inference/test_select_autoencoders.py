"""Autoencoders in a selection: their voxel scores as candidates, sample scores of patches, and plans that name both."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnood.errors import UserError
from nnood.images import read_case, read_image
from nnood.inference.inference_plan import PLAN_FILE, InferencePlan, PatchScoring, load_plan
from nnood.inference.members import find_members, plans_digest
from nnood.inference.predict import find_model, predict
from nnood.inference.predictor import MapPredictor
from nnood.inference.selection.find_best import find_best_configuration
from nnood.inference.selection.groups import find_groups
from nnood.inference.selection.patch_scoring import numbers_of_networks
from nnood.paths import NNUNET_VARIABLES, VARIABLES, Roots
from nnood.reconstruction import patch_scores
from nnood.reconstruction.network import PatchValues
from nnood.reconstruction.patch_scores import PATCH_COMBINATIONS, PATCH_SCORES, PatchScorer
from nnood.reconstruction.recipes import VAE
from nnood.safety import sha256, write_json
from nnood.training.checkpoints import BEST, load_checkpoint
from nnood.training.train import train

NAME = "Dataset101_Members"
CPU = torch.device("cpu")
FOLDER = "ReconstructionTrainer__vae__2d"
SCORES = ("absolute", "squared", "activation", "elbo_gradient", "kl_gradient")


@pytest.fixture(scope="module")
def mixed_once(trained_once: Roots, tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """One autoencoder and one member that learned tasks, on slices; and the plan that was selected from both."""
    results = tmp_path_factory.mktemp("mixed") / "results"
    shutil.copytree(trained_once.results, results)
    roots = Roots(trained_once.raw, trained_once.preprocessed, results)
    with pytest.MonkeyPatch.context() as environment:
        for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
            environment.setenv(name, "")
        # So that few patches are enough for detectors of codes, and tests are quick.
        environment.setattr("nnood.reconstruction.patch_scores.PATCH_SCORES", ("error", "elbo", "KNN", "MCD"))
        environment.setattr("nnood.inference.selection.patch_scoring.PATCH_SCORES", ("error", "elbo", "KNN", "MCD"))
        train(NAME, ["0"], roots, configuration="2d", recipe="vae", epochs=1, iterations=2)
        find_best_configuration(NAME, roots, configurations=["2d"])
    return roots


@pytest.fixture
def mixed(mixed_once: Roots, tmp_path: Path) -> Roots:
    shutil.copytree(mixed_once.results, tmp_path / "mixed")
    return Roots(mixed_once.raw, mixed_once.preprocessed, tmp_path / "mixed")


@pytest.fixture
def with_patches(mixed: Roots) -> Path:
    """A plan whose sample score is of patches."""
    file = mixed.results / NAME / PLAN_FILE
    plan = load_plan(file)
    member = autoencoder(mixed)
    planned = dataclasses.replace(
        plan.members[0], folder=FOLDER, fold="0", sha256=sha256(member.file), quantiles=(), voxel_score="absolute"
    )
    content = plan.to_dict() | {"sample_patches": PatchScoring((planned,), "KNN", "top_fifth").to_dict()}
    content["plans"] = content["plans"] | {FOLDER: plans_digest(member.plans, member.configuration)}
    write_json(file, content)
    return file


def autoencoder(roots: Roots) -> Any:
    (member,) = find_members(roots, dataset=NAME, recipe="vae", configuration="2d")
    return member


def test_each_voxel_score_is_a_candidate(mixed: Roots) -> None:
    groups = find_groups(mixed.results / NAME, [], ["2d"], [], BEST)
    assert list(groups)[:2] == ["nnood 2d", "vae 2d absolute"]
    assert set(groups) == {"nnood 2d", *(f"vae 2d {score}" for score in VAE.reconstruction.voxel_scores)}
    members = [member for found in groups.values() for member in found]
    assert numbers_of_networks(members) == {1: "vae 2d"}
    listed = [entry["name"] for entry in load_plan(mixed.results / NAME / PLAN_FILE).candidates]
    assert set(groups) <= set(listed)


def test_sample_scores_of_patches_are_candidates(mixed: Roots) -> None:
    candidates = load_plan(mixed.results / NAME / PLAN_FILE).candidates
    names = {entry["name"] for entry in candidates if entry["stage"] == "sample score"}
    expected = {f"{kind} of patches of vae 2d, {how}" for kind in ("error", "KNN", "MCD") for how in PATCH_COMBINATIONS}
    assert expected <= names


def test_one_checkpoint_gives_several_maps(mixed: Roots) -> None:
    member = autoencoder(mixed)
    members = [dataclasses.replace(member, voxel_score=score) for score in SCORES]
    case = sorted((mixed.raw / NAME / "imagesTs").glob("*"))[0]
    maps = dict(MapPredictor(members, CPU).maps(*read_case([case], 1)))
    for number, one in enumerate(members):
        alone = dict(MapPredictor([one], CPU).maps(*read_case([case], 1)))[0]
        np.testing.assert_allclose(maps[number], alone, atol=1e-6)
        assert 0 <= maps[number].min() < maps[number].max() <= 1
    default = dict(MapPredictor([member], CPU).maps(*read_case([case], 1)))[0]
    np.testing.assert_array_equal(default, maps[0])
    assert np.abs(maps[0] - maps[2]).max() > 0.01


def test_prediction_follows_the_sample_score_of_patches(mixed: Roots, with_patches: Path, tmp_path: Path) -> None:
    planned = find_model(mixed, dataset=NAME)
    scores = predict(mixed.raw / NAME / "imagesTs", tmp_path / "out", planned, device=CPU)
    member = autoencoder(mixed)
    scorer = PatchScorer(load_checkpoint(member.file, CPU)["patches"])
    for case, score in scores.items():
        image = read_case([mixed.raw / NAME / "imagesTs" / f"{case}_0000.nii.gz"], 1)
        ((_, values),) = MapPredictor([member], CPU).patch_values(*image, [0])
        patches = np.sort(scorer("KNN", values))
        assert score == pytest.approx(patches[-max(1, round(len(patches) / 5)) :].mean())
        assert (tmp_path / "out" / f"{case}.nii.gz.txt").read_text() == f"{score:.9g}\n"
    again = predict(mixed.raw / NAME / "imagesTs", tmp_path / "out", planned, device=CPU)
    assert again == scores


def test_the_score_map_is_that_of_the_plans_members_only(mixed: Roots, with_patches: Path, tmp_path: Path) -> None:
    images = mixed.raw / NAME / "imagesTs"
    predict(images, tmp_path / "patches", find_model(mixed, dataset=NAME), device=CPU)
    content = json.loads(with_patches.read_text()) | {"sample_patches": None}
    write_json(with_patches, content)
    scores = predict(images, tmp_path / "plain", find_model(mixed, dataset=NAME), device=CPU)
    for case in scores:
        pair = [read_image(tmp_path / folder / f"{case}.nii.gz")[0] for folder in ("patches", "plain")]
        np.testing.assert_array_equal(*pair)


def test_without_pyod_detectors_are_left_out(mixed: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise UserError("Latent outlier detectors need PyOD; install it with `pip install nnood[latent]`.")

    monkeypatch.setattr(patch_scores.LatentDetector, "fit", missing)
    (mixed.results / NAME / PLAN_FILE).unlink()
    plan = find_best_configuration(NAME, mixed, recipes=["vae"])
    names = [entry["name"] for entry in plan.candidates]
    assert any(name.startswith("elbo of patches") for name in names)
    assert not any(name.startswith("KNN of patches") for name in names)
    assert sum("pip install nnood[latent]" in note for note in plan.notes) == 1


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"score": "soup"}, "soup"),
        ({"combination": "soup"}, "soup"),
        ({"members": []}, "sample_patches"),
        ({"members": 5}, "members"),
    ],
)
def test_a_faulty_entry_gets_one_sentence(with_patches: Path, change: dict[str, Any], part: str) -> None:
    content = json.loads(with_patches.read_text())
    changed = copy.deepcopy(content)
    changed["sample_patches"] |= change
    with pytest.raises(UserError, match=part):
        InferencePlan.from_dict(changed)
    content["members"][0]["voxel_score"] = "soup"
    with pytest.raises(UserError, match="voxel_score"):
        InferencePlan.from_dict(content)


def test_a_plan_with_patches_survives_the_disk(with_patches: Path) -> None:
    plan = load_plan(with_patches)
    assert InferencePlan.from_dict(plan.to_dict()) == plan
    assert "KNN of patches, top_fifth" in plan.describe()


def test_patches_are_ranked_as_their_values_are() -> None:
    torch.manual_seed(0)
    training = {"codes": torch.randn(50, 3), "error": torch.rand(50), "elbo": torch.rand(50)}
    values = PatchValues(torch.randn(20, 3), torch.rand(20), torch.rand(20), torch.ones(20))
    scorer = PatchScorer(training)
    for kind in ("error", "elbo"):
        scores = scorer(kind, values)
        assert (scores > 0).all()
        assert (scores < 1).all()
        np.testing.assert_array_equal(np.argsort(scores), np.argsort(getattr(values, kind).numpy()))
    median = PatchValues(values.codes[:1], training["error"].median()[None], values.elbo[:1], values.share[:1])
    assert scorer("error", median)[0] == pytest.approx(0.5, abs=0.02)
    assert set(PATCH_SCORES) >= {"error", "elbo", "elliptic_envelope", "IForest"}


def test_combinations_in_closed_form() -> None:
    scores = np.array([0.1, 0.9, 0.3, 0.5, 0.2, 0.0, 0.4, 0.8, 0.6, 0.7])
    found = {name: combine(scores) for name, combine in PATCH_COMBINATIONS.items()}
    assert found == pytest.approx({"mean": 0.45, "max": 0.9, "top_fifth": 0.85})
    assert {combine(np.array([0.3])) for combine in PATCH_COMBINATIONS.values()} == {0.3}
