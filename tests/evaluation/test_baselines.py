import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from nnood.errors import UserError
from nnood.evaluation import baselines
from nnood.evaluation.baselines import (
    MAX_TRAINING_CASES,
    MIN_DEVIATION,
    NormalDistribution,
    baselines_beside,
    fit_baselines,
    score_at_random,
    score_by_intensity,
    score_by_value,
)
from nnood.evaluation.benchmark.table import Row, write_benchmark
from nnood.geometry import Geometry
from nnood.images import read_case, write_image
from nnood.paths import Roots
from nnood.phantoms import write_demo_dataset
from nnood.planning.foreground import foreground_mask
from nnood.safety import write_json

NAME = "Dataset321_Heads"
SHAPE = (5, 6, 7)


def _image(seed: int, channels: int = 1, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, size=(channels, *shape)).astype(np.float32)


def _foreground(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng([seed, 1]).uniform(size=shape) < 0.7


def _standardised(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    return np.stack([(one - one[foreground].mean()) / one[foreground].std() for one in image.astype(np.float64)])


@pytest.mark.parametrize("channels", [1, 2])
def test_intensity_is_the_rank_in_the_foreground(channels: int) -> None:
    image, foreground = _image(0, channels).round(-1), _foreground(0)
    scores = score_by_intensity(image, foreground)
    expected = np.zeros(SHAPE)
    for place in np.argwhere(foreground):
        for one in image:
            value, values = one[tuple(place)], one[foreground]
            rank = (values < value).sum() + ((values == value).sum() + 1) / 2
            expected[tuple(place)] = max(expected[tuple(place)], rank / foreground.sum())
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_z_score_by_value(channels: int) -> None:
    image, foreground = _image(1, channels), _foreground(1)
    z = np.abs(_standardised(image, foreground)).max(axis=0)
    np.testing.assert_allclose(score_by_value(image, foreground), np.where(foreground, z / (1 + z), 0), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_z_score_by_voxel(channels: int) -> None:
    normal = [_standardised(_image(seed, channels), np.ones(SHAPE, dtype=bool)) for seed in range(10, 16)]
    # One place where all are alike: its deviation is taken for larger than it is.
    for one in normal:
        one[:, 0, 0, 0] = 0.25
    distribution = NormalDistribution.of(iter(normal))
    mean, deviation = np.mean(normal, axis=0), np.std(normal, axis=0)
    np.testing.assert_allclose(distribution.mean, mean, atol=1e-12)
    np.testing.assert_allclose(distribution.deviation, np.maximum(deviation, MIN_DEVIATION), atol=1e-9)
    assert (distribution.deviation[:, 0, 0, 0] == MIN_DEVIATION).all()
    image, foreground = _image(2, channels), _foreground(2)
    z = np.abs((_standardised(image, foreground) - mean) / np.maximum(deviation, MIN_DEVIATION)).max(axis=0)
    scores = distribution.score_by_voxel(image, foreground)
    np.testing.assert_allclose(scores, np.where(foreground, z / (1 + z), 0), atol=1e-6)


def _resampled(values: np.ndarray, axis: int, new: int) -> np.ndarray:
    """Linearly along one axis, between the centres of the voxels."""
    old = values.shape[axis]
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    return np.apply_along_axis(lambda line: np.interp(centres, np.arange(old), line), axis, values)


def test_images_of_other_shapes_are_stretched() -> None:
    first, second = _image(3), _image(4, shape=(10, 4, 7))
    distribution = NormalDistribution.of([first, second])
    stretched = _resampled(_resampled(second, 1, 5), 2, 6)
    np.testing.assert_allclose(distribution.mean, (first + stretched) / 2, rtol=1e-5)
    image, foreground = _image(5, shape=(3, 6, 14)), _foreground(5, (3, 6, 14))
    mean, deviation = (_resampled(_resampled(one, 1, 3), 3, 14) for one in (distribution.mean, distribution.deviation))
    z = np.abs((_standardised(image, foreground) - mean) / deviation).max(axis=0)
    scores = distribution.score_by_voxel(image, foreground)
    np.testing.assert_allclose(scores, np.where(foreground, z / (1 + z), 0), atol=1e-5)


def test_a_distribution_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        NormalDistribution.of([])


def test_only_the_voxel_wise_one_finds_what_is_at_the_wrong_place() -> None:
    """Bright on the left, dark on the right; the anomaly is dark on the left."""
    shape = (4, 20, 20)
    level = np.where(np.arange(20) < 10, 100.0, 50.0)
    rng = np.random.default_rng(0)
    foreground, truth = np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool)
    truth[1:3, 5:10, 2:6] = True
    normal = [(level + rng.normal(0, 5, size=shape))[None] for _ in range(20)]
    image = np.where(truth, 50.0, level)[None] + rng.normal(0, 5, size=(1, *shape))
    fitted = NormalDistribution.of(_standardised(one, foreground) for one in normal)
    assert average_precision_score(truth.ravel(), fitted.score_by_voxel(image, foreground).ravel()) > 0.99
    for baseline in (score_by_value, score_by_intensity, score_at_random):
        assert average_precision_score(truth.ravel(), baseline(image, foreground).ravel()) < 0.1


def test_random_scores_are_chance_and_repeatable() -> None:
    shape = (20, 30, 40)
    image, foreground = _image(6, shape=shape), np.ones(shape, dtype=bool)
    truth = np.random.default_rng(1).uniform(size=shape) < 0.05
    scores = score_at_random(image, foreground)
    np.testing.assert_array_equal(scores, score_at_random(image.copy(), ~foreground))
    assert average_precision_score(truth.ravel(), scores.ravel()) == pytest.approx(0.05, abs=0.01)
    assert roc_auc_score(truth.ravel(), scores.ravel()) == pytest.approx(0.5, abs=0.03)
    # Two images that begin with the same background.
    other = image.copy()
    other[0, -1, -1, -1] += 1
    assert abs(np.corrcoef(scores.ravel(), score_at_random(other, foreground).ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["any", "constant", "one voxel of foreground"])
def test_scores_lie_in_the_range(channels: int, kind: str) -> None:
    image, foreground = _image(7, channels), _foreground(7)
    if kind == "constant":
        image[:] = 3
    if kind == "one voxel of foreground":
        foreground = np.zeros(SHAPE, dtype=bool)
        foreground[2, 3, 4] = True
    distribution = NormalDistribution.of([_image(8, channels), _image(9, channels)])
    for baseline in (score_at_random, score_by_intensity, score_by_value, distribution.score_by_voxel):
        before = image.copy()
        scores = baseline(image, foreground)
        assert scores.shape == SHAPE
        assert scores.dtype == np.float32
        assert scores.min() >= 0
        assert scores.max() <= 1
        np.testing.assert_array_equal(image, before)


def test_many_training_cases_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def fake(files: list[Path], channels: int) -> tuple[np.ndarray, None]:
        read.append(int(files[0].name))
        return _image(read[-1], channels), None

    monkeypatch.setattr(baselines, "read_case", fake)
    fit_baselines({str(number): [Path(str(number))] for number in range(250)}, 1, "whole", progress=False)
    assert len(set(read)) == len(read) == MAX_TRAINING_CASES
    assert (min(read), max(read)) == (0, 249)
    assert np.diff(sorted(read)).max() <= 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of tiny phantoms, and predictions of its test cases; not to be changed."""
    folder = tmp_path_factory.mktemp("baselines")
    raw = folder / "raw" / NAME
    write_demo_dataset(raw, num_train=4, num_test=4, shape=(20, 24, 20))
    predictions = folder / "predictions"
    for path in (raw / "imagesTs").iterdir():
        name = path.name.removesuffix("_0000.nii.gz")
        write_image(np.zeros((2, 2, 2)), Geometry.from_spacing((2, 2, 2), (1.0,) * 3), predictions / f"{name}.nii.gz")
        (predictions / f"{name}.nii.gz.txt").write_text("0.5")
    return folder


@pytest.fixture
def demo(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def _roots(folder: Path) -> Roots:
    return Roots(folder / "raw", folder / "preprocessed", folder / "results")


def test_beside_predictions(made: Path) -> None:
    raw = made / "raw" / NAME
    found = baselines_beside(made / "predictions", raw / "labelsTs", _roots(made), threshold=0.5)
    assert list(found) == ["random", "intensity", "z-score by value", "z-score by voxel"]
    for result in found.values():
        assert (result.normal_cases, result.anomalous_cases) == (2, 2)
        assert None not in [figure.value for figure in result.figures.values()]
    assert found["random"].figures["voxel_auroc"].value == pytest.approx(0.5, abs=0.05)
    # The other ones anew, from files to figures.
    training = [read_case([path], 1)[0] for path in sorted((raw / "imagesTr").iterdir())]
    fitted = NormalDistribution.of(_standardised(one, foreground_mask(one, "otsu")) for one in training)
    truths, scores = [], {"intensity": [], "z-score by value": [], "z-score by voxel": []}  # type: ignore[var-annotated]
    for path in sorted((raw / "imagesTs").iterdir()):
        image, _ = read_case([path], 1)
        foreground = foreground_mask(image, "otsu")
        mask = raw / "labelsTs" / path.name.replace("_0000", "")
        truths.append(read_case([mask], 1)[0].ravel() if mask.exists() else np.zeros(foreground.size))
        scores["intensity"].append(score_by_intensity(image, foreground).ravel())
        scores["z-score by value"].append(score_by_value(image, foreground).ravel())
        scores["z-score by voxel"].append(fitted.score_by_voxel(image, foreground).ravel())
    for name, maps in scores.items():
        expected = average_precision_score(np.concatenate(truths), np.concatenate(maps))
        assert found[name].figures["voxel_ap"].value == pytest.approx(expected, abs=1e-3), name


def test_with_labels_elsewhere(demo: Path) -> None:
    raw = demo / "raw" / NAME
    labels = demo / "elsewhere" / "labelsTs"
    shutil.copytree(raw / "labelsTs", labels)
    with pytest.raises(UserError, match=r"elsewhere does not say which data set.* -d"):
        baselines_beside(demo / "predictions", labels, _roots(demo))
    with pytest.raises(UserError, match="imagesTs is not a folder"):
        baselines_beside(demo / "predictions", labels, _roots(demo), dataset="321")
    with pytest.raises(UserError, match="no data set '5'"):
        baselines_beside(demo / "predictions", labels, _roots(demo), dataset="5")
    expected = baselines_beside(demo / "predictions", labels, _roots(demo), dataset="321", images=raw / "imagesTs")
    assert expected["intensity"].figures["voxel_ap"].value is not None
    shutil.copytree(raw / "imagesTs", demo / "elsewhere" / "imagesTs")
    write_json(demo / "elsewhere" / "benchmark.json", {"dataset": NAME})
    with pytest.raises(UserError, match="unfinished benchmark set"):
        baselines_beside(demo / "predictions", labels, _roots(demo))
    kinds = {name.name.removesuffix(".nii.gz"): "blur" for name in labels.iterdir()}
    names = sorted(path.name.removesuffix("_0000.nii.gz") for path in (raw / "imagesTs").iterdir())
    write_benchmark(demo / "elsewhere" / "benchmark.csv", [Row(n, n, kinds.get(n, "normal")) for n in names])
    again = baselines_beside(demo / "predictions", labels, _roots(demo))
    assert {name: found.figures for name, found in again.items()} == {
        name: found.figures for name, found in expected.items()
    }


def test_a_case_without_image(demo: Path) -> None:
    raw = demo / "raw" / NAME
    images = demo / "images"
    shutil.copytree(raw / "imagesTs", images)
    (images / "phantom_004_0000.nii.gz").unlink()
    with pytest.raises(UserError, match=r"images has no image of the case phantom_004; .* -i"):
        baselines_beside(demo / "predictions", raw / "labelsTs", _roots(demo), images=images)


def test_sample_labels_alone(demo: Path) -> None:
    raw = demo / "raw" / NAME
    anomalous = {path.name.removesuffix(".nii.gz") for path in (raw / "labelsTs").iterdir()}
    names = sorted(path.name.removesuffix(".nii.gz") for path in (demo / "predictions").glob("*.nii.gz"))
    shutil.rmtree(raw / "labelsTs")
    lines = [f"{name},{int(name in anomalous)}" for name in names]
    (raw / "labelsTs.csv").write_text("\n".join(["case,label", *lines]))
    for result in baselines_beside(demo / "predictions", raw / "labelsTs", _roots(demo)).values():
        assert result.figures["voxel_ap"].value is None
        assert result.figures["sample_ap"].value is not None


def test_a_constant_channel_says_nothing() -> None:
    """Divided by its deviation of almost 0, it would poison the normal distribution of all places."""
    images = [np.stack([np.full((3, 4, 5), 7.0), np.random.default_rng(n).random((3, 4, 5))]) for n in range(4)]
    whole = np.ones((3, 4, 5), dtype=bool)
    images[0][0, 0, 0, 0] = 8.0
    scores = score_by_value(images[1], whole)
    alone = score_by_value(images[1][1:], whole)
    np.testing.assert_allclose(scores, alone, rtol=1e-6)
