"""An archive holds all that a prediction needs, and of the training nothing else."""

import dataclasses
import json
import zipfile

import pytest
import torch

from nnood.errors import UserError
from nnood.inference.inference_plan import PatchScoring
from nnood.inference.predict import find_model
from nnood.safety import read_json, sha256
from nnood.sharing.exporting import export_model
from nnood.sharing.manifest import MANIFEST
from nnood.training.checkpoints import BEST, load_checkpoint

NAME = "Dataset101_Shared"
FOLDER = "NnoodTrainer__nnood__3d_fullres"
FILES = {
    MANIFEST,
    "inference_plan.json",
    "dataset_fingerprint.json",
    "recipes/nnood.json",
    f"{FOLDER}/plans.json",
    f"{FOLDER}/dataset.json",
    f"{FOLDER}/fold_0/checkpoint_best.pth",
    f"{FOLDER}/fold_0/checkpoint_best.sha256.json",
    f"{FOLDER}/fold_0/settings.json",
}


def test_it_holds_these_files_and_says_so(model_once):
    with zipfile.ZipFile(model_once) as archive:
        manifest = json.loads(archive.read(MANIFEST))
        assert set(archive.namelist()) == FILES
        assert set(manifest["files"]) == FILES - {MANIFEST}
        for entry in archive.infolist():
            stored = entry.filename.endswith(".pth")
            assert entry.compress_type == (zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)
    assert manifest["schema_version"] == 1
    assert manifest["dataset"] == NAME
    assert set(manifest["versions"]) == {"nnood", "python", "torch", "nnunetv2", "numpy"}
    assert manifest["versions"]["torch"] == torch.__version__


def test_no_name_of_a_case_and_no_path_is_in_it(model_once, shared_once):
    settings = shared_once.results / NAME / FOLDER / "fold_0" / "settings.json"
    assert "phantom_" in settings.read_text()
    with zipfile.ZipFile(model_once) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert b"phantom_0" not in content, name
            assert str(shared_once.raw.parent).encode() not in content, name


def test_checkpoints_hold_weights_but_no_optimiser(model_once, shared_once, tmp_path):
    file = shared_once.results / NAME / FOLDER / "fold_0" / BEST
    whole = load_checkpoint(file, torch.device("cpu"))
    with zipfile.ZipFile(model_once) as archive:
        own = torch.load(archive.extract(f"{FOLDER}/fold_0/{BEST}", tmp_path), weights_only=True)
    assert set(own) == {"network_weights", "mirror_axes"}
    assert own["network_weights"].keys() == whole["network_weights"].keys()
    assert all(torch.equal(own["network_weights"][key], value) for key, value in whole["network_weights"].items())
    assert (tmp_path / FOLDER / "fold_0" / BEST).stat().st_size < 0.5 * file.stat().st_size


def test_the_same_content_gives_the_same_bytes(model_once, shared_once, tmp_path):
    export_model(find_model(shared_once, dataset=NAME), shared_once, tmp_path / "again.zip")
    assert sha256(tmp_path / "again.zip") == sha256(model_once)


def test_members_of_the_sample_score_come_with_their_patches(shared, tmp_path):
    planned = find_model(shared, dataset=NAME)
    file = planned.members[0].file
    codes = {"codes": torch.ones(3, 2), "error": torch.ones(3), "elbo": torch.ones(3)}
    torch.save(load_checkpoint(file, torch.device("cpu")) | {"patches": codes}, file)
    (file.parent / "checkpoint_best.sha256.json").write_text(f'["{sha256(file)}"]')
    planned = dataclasses.replace(
        planned,
        plan=dataclasses.replace(planned.plan, sample_patches=PatchScoring(planned.plan.members, "elbo", "mean")),
        members=planned.members * 2,
    )
    export_model(planned, shared, tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        own = torch.load(archive.extract(f"{FOLDER}/fold_0/{BEST}", tmp_path), weights_only=True)
        plan = json.loads(archive.read("inference_plan.json"))
    assert torch.equal(own["patches"]["codes"], codes["codes"])
    digest = sha256(tmp_path / FOLDER / "fold_0" / BEST)
    assert plan["members"][0]["sha256"] == plan["sample_patches"]["members"][0]["sha256"] == digest


def test_without_a_plan_the_plain_mean_is_exported(shared, tmp_path):
    (shared.results / NAME / "inference_plan.json").unlink()
    export_model(find_model(shared, dataset=NAME), shared, tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        plan = json.loads(archive.read("inference_plan.json"))
    assert (plan["combination"], plan["steps"], len(plan["members"])) == ("mean", [], 1)


def test_a_damaged_checkpoint_leaves_no_archive(shared, tmp_path):
    planned = find_model(shared, dataset=NAME)
    planned.members[0].file.write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"does not agree with its recorded hash"):
        export_model(planned, shared, tmp_path / "out" / "model.zip")
    assert not list((tmp_path / "out").iterdir())


def test_the_exported_settings_say_how_it_was_trained(model_once, shared_once):
    with zipfile.ZipFile(model_once) as archive:
        own = json.loads(archive.read(f"{FOLDER}/fold_0/settings.json"))
        recipe = json.loads(archive.read("recipes/nnood.json"))
    whole = read_json(shared_once.results / NAME / FOLDER / "fold_0" / "settings.json")
    assert own["recipe"] == whole["recipe"] == recipe
    assert own["fold"] == {**whole["fold"], "train_cases": [], "val_cases": []}


def test_what_a_killed_call_left_is_removed(shared_once, tmp_path):
    leftover = tmp_path / f".tmp-{2**22 + 1}-model.zip"
    leftover.write_text("half an archive")
    export_model(find_model(shared_once, dataset=NAME), shared_once, tmp_path / "model.zip")
    assert [file.name for file in tmp_path.iterdir()] == ["model.zip"]
