"""A model whose sample score is read from the patches of an autoencoder takes along what that needs."""

import dataclasses

import pytest

from nnood.inference.inference_plan import PLAN_FILE, PatchScoring
from nnood.inference.predict import find_model, predict
from nnood.paths import Roots
from nnood.safety import write_json
from nnood.sharing import export_model, open_model
from nnood.training.train import train

NAME = "Dataset101_Shared"


@pytest.fixture
def reconstructing(shared) -> Roots:
    """A variational autoencoder beside the network of the plan, which both predict with."""
    train(NAME, 0, shared, recipe="vae", epochs=1, iterations=1, device="cpu")
    first = find_model(shared, dataset=NAME).plan
    second = find_model(shared, dataset=NAME, recipe="vae", configuration="3d_fullres").plan
    residual = dataclasses.replace(second.members[0], voxel_score="squared")
    plan = dataclasses.replace(
        first,
        members=(*first.members, residual),
        plans=first.plans | second.plans,
        sample_patches=PatchScoring(second.members, "elbo", "max"),
    )
    write_json(shared.results / NAME / PLAN_FILE, plan.to_dict())
    return shared


def test_it_predicts_bit_by_bit_as_at_home(reconstructing, images, tmp_path):
    planned = find_model(reconstructing, dataset=NAME)
    assert len(planned.members) == 3
    home = predict(images, tmp_path / "home", planned, device="cpu")
    manifest = export_model(planned, reconstructing, tmp_path / "model.zip")
    assert len([name for name in manifest.files if name.endswith(".pth")]) == 2
    with open_model(tmp_path / "model.zip") as shared:
        away = predict(images, tmp_path / "away", shared, device="cpu")
    assert away == home
    for file in (tmp_path / "home").glob("*.nii.gz*"):
        assert (tmp_path / "away" / file.name).read_bytes() == file.read_bytes()
