from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy import ndimage

from nnood.geometry import Geometry
from nnood.images import read_image, write_image
from nnood.inference.export import map_back, prediction_files, write_prediction
from nnood.paths import Roots
from nnood.phantoms import make_phantom
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.planning.preprocessor import preprocess_image
from nnood.safety import read_json, write_json

NAME = "Dataset998_Anisotropic"
BODY = (slice(3, 26), slice(2, 16), slice(4, 22))
LOGIT = 3.0
CENTRE, RADIUS = (13, 8, 12), (6.0, 4.0, 5.0)


@pytest.fixture(scope="module")
def planned_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two volumes whose second axis is the coarse one, so that nnU-Net transposes."""
    base = tmp_path_factory.mktemp("anisotropic")
    roots = Roots(base / "raw", base / "preprocessed", base / "results")
    shape = (24, 14, 20)
    for number in range(2):
        image = make_phantom(np.random.default_rng(number), shape)
        file = roots.raw / NAME / "imagesTr" / f"case_{number}.nii.gz"
        write_image(image, Geometry.from_spacing(shape, (2.0, 5.0, 3.0)), file)
    write_json(
        roots.raw / NAME / "dataset.json",
        {"channel_names": {"0": "T1"}, "numTraining": 2, "file_ending": ".nii.gz"},
    )
    with pytest.MonkeyPatch.context() as environment:
        for name in ("raw", "preprocessed", "results"):
            environment.setenv(f"nnood_{name}", "")
            environment.setenv(f"nnUNet_{name}", "")
        return plan_and_preprocess(NAME, roots)


def ball(shape: Sequence[int]) -> np.ndarray:
    grid = np.indices(shape, dtype=float)
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, CENTRE, RADIUS, strict=True)) < 1


def round_trip(
    folder: Path, configuration: str, image: np.ndarray, geometry: Geometry
) -> tuple[np.ndarray, dict[str, Any], PlansManager]:
    """Preprocess an image, call what is bright anomalous, and map that back."""
    plans = PlansManager(read_json(folder / "nnoodPlans.json"))
    manager = plans.get_configuration(configuration)
    data, _, properties = preprocess_image(image, None, geometry, plans, manager, read_json(folder / "dataset.json"))
    threshold = (data.min() + data.max()) / 2
    scores = torch.sigmoid(torch.from_numpy(np.where(data > threshold, LOGIT, -LOGIT)))
    return map_back(scores, properties, plans, manager), properties, plans


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_a_blob_maps_back_onto_itself(planned_folder: Path, configuration: str) -> None:
    shape = (30, 18, 26)
    image = np.zeros((1, *shape), np.float32)
    image[0][BODY] = np.random.default_rng(0).uniform(0.9, 1.1, image[0][BODY].shape)
    truth = ball(shape)
    image[0][truth] = 10
    score_map, properties, plans = round_trip(
        planned_folder, configuration, image, Geometry.from_spacing(shape, (2.4, 4.0, 3.5))
    )
    assert list(plans.transpose_forward) == [1, 0, 2]
    assert score_map.shape == shape
    assert score_map.dtype == np.float32
    inside = np.zeros(shape, dtype=bool)
    inside[BODY] = True
    assert (score_map[~inside] == 0).all()
    assert score_map.max() == pytest.approx(1 / (1 + np.exp(-LOGIT)), rel=1e-3)
    assert score_map[inside].min() == pytest.approx(1 / (1 + np.exp(LOGIT)), rel=1e-3)
    found = score_map > 0.5
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9
    np.testing.assert_allclose(ndimage.center_of_mass(found), CENTRE, atol=0.3)
    boxes = properties["bbox_used_for_cropping"]
    assert [tuple(box) for box in boxes] == [(BODY[axis].start, BODY[axis].stop) for axis in (1, 0, 2)]


def test_prediction_files_in_the_layout_of_mood(tmp_path: Path) -> None:
    shape = (6, 7, 8)
    score_map = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    geometry = Geometry(shape[::-1], (1.5, 2.0, 0.7), (10.0, -3.0, 4.5), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    write_prediction(score_map, 0.123456789, geometry, tmp_path, "case.1")
    files = prediction_files(tmp_path, "case.1")
    assert [file.name for file in files] == ["case.1.nii.gz", "case.1.nii.gz.txt"]
    values, written = read_image(files[0])
    np.testing.assert_array_equal(values[0], score_map)
    assert values.dtype == np.float32
    assert written.matches(geometry)
    assert float(files[1].read_text()) == pytest.approx(0.123456789, rel=1e-8)


def test_a_flat_score_map_keeps_its_2d_geometry(tmp_path: Path) -> None:
    geometry = Geometry.from_spacing((9, 11), (0.5, 0.8))
    write_prediction(np.full((1, 9, 11), 0.25, np.float32), 0.25, geometry, tmp_path, "flat")
    values, written = read_image(tmp_path / "flat.nii.gz")
    assert values.shape == (1, 9, 11)
    assert written.matches(geometry)
