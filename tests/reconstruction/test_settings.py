"""What a recipe says of a reconstruction: what is read is what was written, and every fault is named."""

import itertools
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from recipe_files import refused as sentence_of

from nnood.errors import UserError
from nnood.reconstruction.recipes import RECONSTRUCTING
from nnood.reconstruction.settings import (
    BACKGROUNDS,
    CORRUPTIONS,
    ENCODERS,
    ERRORS,
    LATENTS,
    VOXEL_SCORES,
    Reconstruction,
)
from nnood.training.recipe import Recipe
from nnood.training.recipes import RECIPES, read_recipe

OTHERS: dict[str, Any] = {
    "encoder": "residual",
    "latent": "codebook",
    "latent_sizes": [3, 5],
    "error": "absolute",
    "beta": 2,
    "entropy": 0.5,
    "corruption": "coarse_noise",
    "background": "keep",
    "voxel_score": "squared",
}
MINE: dict[str, Any] = {
    "name": "mine",
    "summary": "My autoencoder.",
    "tasks": {"sink": 1},
    "scheme": "unseen_tasks",
    "reconstruction": {"latent": "plain"},
}


def refused(content: dict[str, Any], kind: type[Exception] = ValueError) -> str:
    with pytest.raises(kind) as error:
        Reconstruction.from_dict(content)
    return str(error.value)


# ---- alone ----------------------------------------------------------------------------------------------------------


def test_every_key_is_read_and_written() -> None:
    assert OTHERS.keys() == {entry.name for entry in fields(Reconstruction)}
    default = Reconstruction()
    assert all(value != default.to_dict()[key] for key, value in OTHERS.items())
    settings = Reconstruction.from_dict(OTHERS)
    assert settings.to_dict() == OTHERS
    assert settings.latent_sizes == (3, 5)
    assert type(settings.beta) is float
    for key, value in OTHERS.items():
        assert getattr(settings, key) == (tuple(value) if key == "latent_sizes" else value)


def test_what_is_left_out_has_the_value_of_the_class() -> None:
    assert Reconstruction.from_dict({}) == Reconstruction()
    assert Reconstruction.from_dict({"beta": 3}) == Reconstruction(beta=3.0)


@pytest.mark.parametrize("recipe", RECONSTRUCTING, ids=lambda recipe: recipe.name)
def test_recipes_survive_a_file(recipe: Recipe) -> None:
    assert recipe.reconstruction is not None
    content = json.loads(json.dumps(recipe.reconstruction.to_dict()))
    assert Reconstruction.from_dict(content) == recipe.reconstruction
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("key", ["encoder", "latent", "error", "corruption", "background", "voxel_score"])
def test_a_choice_that_does_not_exist(key: str) -> None:
    choices = {
        "encoder": ENCODERS,
        "latent": LATENTS,
        "error": ERRORS,
        "corruption": CORRUPTIONS,
        "background": BACKGROUNDS,
        "voxel_score": VOXEL_SCORES,
    }
    for wrong in ("soup", "", "PLANNED", "none "):
        message = refused({key: wrong})
        assert message.startswith(f"{key} is {wrong!r}, expected one of ")
        assert message.endswith(", ".join(choices[key]))


@pytest.mark.parametrize("key", ["beta", "entropy"])
@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf, -math.inf, 1e10])
def test_a_number_out_of_range(key: str, value: float) -> None:
    assert f"{key} is {value}, expected a number from 0" in refused({key: value})
    assert getattr(Reconstruction.from_dict({key: 0}), key) == 0


@pytest.mark.parametrize("sizes", [[0, 5], [5, 0], [-1, 5]])
def test_a_latent_without_entries(sizes: list[int]) -> None:
    assert f"latent_sizes is {sizes}" in refused({"latent_sizes": sizes})


WRONG_TYPES: dict[str, list[Any]] = {
    **{key: [None, 1, True, ["plain"], {}] for key, value in OTHERS.items() if isinstance(value, str)},
    **{key: [None, "1", True, [1.0], {}] for key in ("beta", "entropy")},
    "latent_sizes": [None, 5, "16", [], [16], [1, 2, 3], [16, "128"], [16, 12.5], [True, 16], [16, None], {"a": 1}],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG_TYPES.items() for value in values], ids=str
)
def test_a_wrong_type(key: str, value: Any) -> None:
    assert key in refused({key: value}, TypeError)


def test_the_types_of_all_keys_are_tried() -> None:
    assert WRONG_TYPES.keys() == OTHERS.keys()


@pytest.mark.parametrize("key", ["Beta", "latent_size", "loss", ""])
def test_an_unknown_key(key: str) -> None:
    message = refused({"latent": "plain", key: 1})
    assert repr(key) in message
    assert all(known in message for known in OTHERS)


def test_a_score_needs_what_it_is_made_of() -> None:
    """A KL term for its gradient; without one, all of what is minimised is the error."""
    for latent, score in itertools.product(LATENTS, VOXEL_SCORES):
        fits = score in ("absolute", "squared", "activation") or (score.startswith("error") != (latent == "gaussian"))
        assert (score in Reconstruction(latent=latent).voxel_scores) == fits
        if fits:
            assert Reconstruction(latent=latent, voxel_score=score).voxel_score == score
        else:
            message = refused({"latent": latent, "voxel_score": score})
            assert f"voxel_score is {score!r}" in message
            assert repr(latent) in message


def test_a_unet_has_no_latent_of_its_own() -> None:
    assert Reconstruction(encoder="unet", latent="plain").encoder == "unet"
    for latent in ("gaussian", "codebook"):
        assert f"latent is {latent!r}" in refused({"encoder": "unet", "latent": latent})


def test_the_class_itself_checks() -> None:
    wrong: dict[str, Any] = {"beta": -1.0, "encoder": "soup", "latent_sizes": (0, 1), "voxel_score": "soup"}
    for key, value in wrong.items():
        with pytest.raises(ValueError, match=key):
            replace(Reconstruction(), **{key: value})


# ---- in a recipe ----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.json"


def refused_file(file: Path, **changes: Any) -> str:
    """The one sentence by which a file is refused; it names the file."""
    file.write_text(json.dumps(MINE | changes))
    return sentence_of(file)


def test_a_file_of_a_user(file: Path) -> None:
    file.write_text(json.dumps(MINE | {"reconstruction": OTHERS}))
    recipe = read_recipe(file)
    assert recipe.reconstruction == Reconstruction.from_dict(OTHERS)
    assert recipe.scheme == "unseen_tasks"
    file.write_text(json.dumps(MINE | {"reconstruction": {}}))
    assert read_recipe(file).reconstruction == Reconstruction()


@pytest.mark.parametrize(
    ("block", "parts"),
    [
        ({"beta": -1}, ("beta is -1",)),
        ({"beta": "much"}, ("beta is 'much'", "a number")),
        ({"encoder": "soup"}, ("encoder is 'soup'", "planned")),
        ({"latent_sizes": [16]}, ("latent_sizes is [16]", "two whole numbers")),
        ({"bta": 1}, ("'bta'", "beta")),
        ({"voxel_score": "error_gradient"}, ("voxel_score is 'error_gradient'", "gaussian")),
        ([], ("reconstruction is []", "named entries")),
        ("vae", ("reconstruction is 'vae'", "named entries")),
        (True, ("reconstruction is True", "named entries")),
    ],
    ids=str,
)
def test_faults_in_a_file_name_file_and_key(file: Path, block: Any, parts: tuple[str, ...]) -> None:
    sentence = refused_file(file, reconstruction=block)
    for part in parts:
        assert part in sentence


def test_a_key_that_is_given_twice(file: Path) -> None:
    file.write_text(json.dumps(MINE).replace('"latent": "plain"', '"beta": 1, "latent": "plain", "beta": 2'))
    with pytest.raises(UserError, match="the key 'beta' is given twice"):
        read_recipe(file)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "1" + "0" * 400])
def test_no_number_is_infinite_or_none_at_all(file: Path, value: str) -> None:
    file.write_text(json.dumps(MINE | {"reconstruction": {"beta": "HERE"}}).replace('"HERE"', value))
    with pytest.raises(UserError, match="beta is "):
        read_recipe(file)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"scheme": "per_task"}, "scheme is 'per_task'"),
        ({"scheme": "paired(2)"}, "scheme is 'paired(2)'"),
        ({"reconstruction": None}, "scheme is 'unseen_tasks'"),
        ({"planting": "offline", "label": "binary"}, "planting is 'offline'"),
        ({"stop_at": 0.5}, "stop_at is 0.5"),
    ],
    ids=str,
)
def test_what_goes_with_a_reconstruction_only_or_not_with_one(file: Path, changes: dict[str, Any], part: str) -> None:
    sentence = refused_file(file, **changes)
    assert part in sentence
    assert "reconstruction" in sentence.replace(str(file), "")


def test_recipes_that_plant_cannot_be_made_to_reconstruct_by_halves() -> None:
    with pytest.raises(ValueError, match=r"scheme is 'per_task'.*reconstruction"):
        replace(RECIPES["nnood"], reconstruction=Reconstruction())
    with pytest.raises(ValueError, match=r"scheme is 'unseen_tasks'.*reconstruction"):
        replace(RECIPES["nnood"], scheme="unseen_tasks")
    both = replace(RECIPES["nnood"], scheme="unseen_tasks", reconstruction=Reconstruction())
    assert both.reconstruction == Reconstruction()
