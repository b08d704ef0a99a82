"""`nnood.Predictor` says of arrays and SimpleITK images what `nnood_predict` says of files."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from made_plan import NAME, make_plan

from nnood import Predictor, Roots, ScoreResult, UserError
from nnood.case_files import list_cases
from nnood.images import read_image
from nnood.inference.predict import find_model, predict

SHAPE = (16, 24, 18)
SPACING = (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def model(trained_once: Roots, tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """The members with a plan of everything; not to be changed."""
    results = tmp_path_factory.mktemp("array_predictor") / "results"
    results.mkdir()
    (results / NAME).mkdir()
    for folder in (trained_once.results / NAME).iterdir():
        (results / NAME / folder.name).symlink_to(folder)
    roots = Roots(trained_once.raw, trained_once.preprocessed, results)
    make_plan(roots)
    return roots


@pytest.fixture(scope="module")
def predictor(model: Roots) -> Predictor:
    return Predictor(NAME, roots=model, device="cpu")


@pytest.fixture(scope="module")
def predicted(model: Roots, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path, dict[str, float]]:
    """Test images by case, and what the command writes for them."""
    output, images = tmp_path_factory.mktemp("scores"), model.raw / NAME / "imagesTs"
    scores = predict(images, output, find_model(model, dataset=NAME), device="cpu", save_mask=True)
    return {case: files[0] for case, files in list_cases(images, 1).items()}, output, scores


def assert_as_written(result: ScoreResult, case: str, output: Path, scores: dict[str, float]) -> None:
    written = read_image(output / f"{case}.nii.gz")[0][0]
    assert result.score_map.dtype == np.float32
    np.testing.assert_array_equal(result.score_map, written)
    assert result.mask is not None
    np.testing.assert_array_equal(result.mask, read_image(output / "masks" / f"{case}.nii.gz")[0][0] > 0)
    assert result.sample_score == scores[case]


def test_arrays_score_as_their_files_do(predictor, predicted):
    files, output, scores = predicted
    for case, file in files.items():
        array, geometry = read_image(file)
        spacing = tuple(reversed(geometry.spacing))
        untouched = array.copy()
        assert_as_written(predictor(array[0], spacing), case, output, scores)
        assert_as_written(predictor(array, spacing), case, output, scores)  # with an axis of channels
        np.testing.assert_array_equal(array, untouched)


def test_simpleitk_images_score_as_their_files_do(predictor, predicted):
    files, output, scores = predicted
    for case, file in files.items():
        image = sitk.ReadImage(str(file))
        assert_as_written(predictor(image), case, output, scores)
        assert_as_written(predictor([image]), case, output, scores)


def test_a_plan_and_an_id_name_the_same_model(model, predictor):
    array = np.random.default_rng(0).normal(size=SHAPE)
    expected = predictor(array, SPACING)
    for name in (model.results / NAME / "inference_plan.json", str(model.results / NAME / "inference_plan.json"), 101):
        found = Predictor(name, roots=model, device=torch.device("cpu"))(array, SPACING)
        np.testing.assert_array_equal(found.score_map, expected.score_map)
        assert found.sample_score == expected.sample_score


def test_without_a_plan_there_is_no_mask(trained_once):
    result = Predictor(101, roots=trained_once, device="cpu")(np.random.default_rng(0).normal(size=SHAPE), SPACING)
    assert result.mask is None
    assert result.score_map.shape == SHAPE
    assert 0 <= result.sample_score <= 1


def test_spacing_matters(predictor):
    array = np.random.default_rng(0).normal(size=SHAPE)
    assert not np.array_equal(predictor(array, SPACING).score_map, predictor(array, (2.0, 1.0, 1.0)).score_map)


@pytest.mark.parametrize(
    ("image", "spacing", "expected"),
    [
        (np.zeros((16, 24, 18)), SPACING, "constant"),
        (np.full((16, 24, 18), np.nan), SPACING, "NaN or infinite"),
        (np.full((16, 24, 18), 1e300), SPACING, "range of float32"),
        (np.ones((16, 24, 18), complex), SPACING, "real numbers"),
        (np.array([["a"]]), None, "real numbers"),
        (np.zeros((2, *SHAPE)), SPACING, "Expected 1 channel(s), as the model was trained with, but got 2"),
        (np.zeros(SHAPE), (1.0, 0.0, 1.0), "above 0"),
        (np.zeros(SHAPE), (1.0, float("nan"), 1.0), "above 0"),
        (np.zeros((1, 1, *SHAPE)), SPACING, "(1, 1, 16, 24, 18)"),
        (np.zeros((0, 24, 18)), SPACING, "(0, 24, 18)"),
        (np.zeros(SHAPE), (1.0,), "(1.0,)"),
        (np.random.default_rng(0).normal(size=(24, 18)), None, "is a 2D image, but 3d_fullres was trained on volumes"),
        (np.zeros(24), None, "(24,)"),
        ([], None, "a list of such images"),
        (["image.nii.gz"], None, "a list of such images"),
        (sitk.Image(4, 4, sitk.sitkUInt8), SPACING, "leave it out"),
    ],
)
def test_images_that_do_not_fit_are_refused(predictor, image: Any, spacing: Any, expected: str):
    with pytest.raises(UserError, match=re.escape(expected)):
        predictor(image, spacing)


def test_channels_must_share_one_grid(predictor):
    one, other = (sitk.GetImageFromArray(np.random.default_rng(0).normal(size=SHAPE)) for _ in range(2))
    other.SetOrigin((5.0, 0.0, 0.0))
    with pytest.raises(UserError, match="Image 1 of the list lies elsewhere"):
        predictor([one, other])


@pytest.mark.parametrize("name", ["102", "nothing.json", "Dataset101_Other"])
def test_models_that_are_not_there_are_refused(model, name):
    with pytest.raises(UserError, match=re.escape(name)):
        Predictor(name, roots=model)


def test_devices_that_are_not_there_are_refused(model):
    with pytest.raises(UserError, match="no device 'abacus'"):
        Predictor(NAME, roots=model, device="abacus")
