import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dataset_conversion.medmnist import convert_medmnist
from nnood.datasets import load_dataset
from nnood.errors import UserError
from nnood.images import read_image
from nnood.paths import Roots

PNEUMONIA = Path(__file__).parents[3] / "shared" / "data" / "pneumoniamnist" / "pneumoniamnist.npz"
SHAPES = {"grey": (12, 12), "colour": (12, 12, 3), "volume": (12, 12, 12)}
TRAIN_LABELS, TEST_LABELS = [0, 1, 2, 0, 1], [2, 0, 1]


def _arrays(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    arrays = {}
    for split, labels in (("train", TRAIN_LABELS), ("val", [0]), ("test", TEST_LABELS)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (len(labels), *shape)).astype(np.uint8)
        arrays[f"{split}_labels"] = np.array(labels)[:, None]
    return arrays


def _save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def _labels(dataset: Path) -> dict[str, str]:
    with (dataset / "labelsTs.csv").open() as file:
        return {row["case"]: row["label"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("kind", SHAPES)
def test_images_and_labels(tmp_path: Path, kind: str) -> None:
    arrays = _arrays(SHAPES[kind])
    dataset = convert_medmnist(_save(tmp_path / "a.npz", arrays), tmp_path / "raw", 3, "Small")
    content = json.loads((dataset / "dataset.json").read_text())
    assert list(content["channel_names"].values()) == (["R", "G", "B"] if kind == "colour" else ["image"])
    assert _labels(dataset) == {"test_00000": "1", "test_00001": "0", "test_00002": "1"}
    training = load_dataset(dataset.name, Roots(tmp_path / "raw", tmp_path, tmp_path)).training
    assert list(training) == ["train_00000", "train_00003"]
    values = np.concatenate([read_image(path)[0] for path in training["train_00003"]])
    expected = arrays["train_images"][3]
    np.testing.assert_array_equal(values, np.moveaxis(expected, -1, 0) if kind == "colour" else expected[None])
    assert values.dtype == np.uint8


def test_other_normal_classes(tmp_path: Path) -> None:
    archive = _save(tmp_path / "a.npz", _arrays((12, 12)))
    dataset = convert_medmnist(archive, tmp_path / "raw", 3, "Small", normal=(1, 2))
    assert list(_labels(dataset).values()) == ["0", "1", "0"]
    assert len(list((dataset / "imagesTr").iterdir())) == 3
    with pytest.raises(UserError, match=r"no training image of the normal classes \[7\]; its classes are \[0, 1, 2\]"):
        convert_medmnist(archive, tmp_path / "raw", 4, "None", normal=(7,))


def test_only_what_is_missing_is_done_again(tmp_path: Path) -> None:
    archive = _save(tmp_path / "a.npz", _arrays((12, 12)))
    dataset = convert_medmnist(archive, tmp_path / "raw", 3, "Small")
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*.nii.gz")}
    missing = dataset / "imagesTs" / "test_00001_0000.nii.gz"
    missing.unlink()
    convert_medmnist(archive, tmp_path / "raw", 3, "Small")
    assert [path for path, time in before.items() if path.stat().st_mtime_ns != time] == [missing]


def test_archives_that_are_refused(tmp_path: Path) -> None:
    arrays = _arrays((12, 12))
    archive = _save(tmp_path / "a.npz", arrays)
    faulty = {
        "test_labels is not a file": {key: value for key, value in arrays.items() if key != "test_labels"},
        "pickle": arrays | {"test_labels": np.array([{}, 1, 2], dtype=object)},
        "of shape \\(3, 1\\)": arrays | {"test_images": arrays["test_images"][:2]},
        "float64": arrays | {"train_images": arrays["train_images"] / 2},
        "of shape \\(\\)": arrays | {"test_labels": np.array(1)},
        "labels per image": arrays | {"train_labels": np.zeros((5, 14), int)},
    }
    for message, content in faulty.items():
        with pytest.raises(UserError, match=f"(?i){message}"):
            convert_medmnist(_save(tmp_path / "b.npz", content), tmp_path / "raw", 3, "Small")
    archive.write_bytes(archive.read_bytes()[:-30])
    for broken in (archive, tmp_path / "missing.npz"):
        with pytest.raises(UserError, match="no intact MedMNIST archive"):
            convert_medmnist(broken, tmp_path / "raw", 3, "Small")
    np.save(tmp_path / "c.npy", arrays["train_images"])
    with pytest.raises(UserError, match="no intact MedMNIST archive"):
        convert_medmnist(tmp_path / "c.npy", tmp_path / "raw", 3, "Small")
    assert not (tmp_path / "raw").exists()


@pytest.mark.skipif(not PNEUMONIA.is_file(), reason="../shared/data/pneumoniamnist is absent")
def test_pneumonia(tmp_path: Path) -> None:
    dataset = convert_medmnist(PNEUMONIA, tmp_path / "raw", 5, "Pneumonia")
    assert json.loads((dataset / "dataset.json").read_text())["numTraining"] == 388
    assert len(list((dataset / "imagesTr").iterdir())) == 388
    labels = _labels(dataset)
    assert (len(labels), list(labels.values()).count("0")) == (624, 234)
    with np.load(PNEUMONIA) as arrays:
        image, _ = read_image(dataset / "imagesTs" / "test_00123_0000.nii.gz")
        np.testing.assert_array_equal(image[0], arrays["test_images"][123])
        assert labels["test_00123"] == str(arrays["test_labels"][123, 0])
