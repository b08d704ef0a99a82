import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_conversion.mednist import convert_mednist
from nnood.datasets import load_dataset
from nnood.errors import UserError
from nnood.images import read_image
from nnood.paths import Roots

SIZES = {"Hand": 10, "HeadCT": 5, "CXR": 7}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, count in SIZES.items():
        (tmp_path / "in" / label).mkdir(parents=True)
        for number in range(count):
            values = rng.integers(0, 256, (8, 9)).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / "in" / label / f"{3 * number:06d}.jpeg")
    (tmp_path / "in" / "README.md").write_text("Six classes.")
    return tmp_path / "in"


def labels_of(dataset: Path) -> dict[str, str]:
    with (dataset / "labelsTs.csv").open() as file:
        return {row["case"]: row["label"] for row in csv.DictReader(file)}


def test_images_and_labels(source: Path, tmp_path: Path) -> None:
    dataset = convert_mednist(source, tmp_path / "raw", 3, "Small", normal=("Hand",))
    assert json.loads((dataset / "dataset.json").read_text())["channel_names"] == {"0": "image"}
    assert labels_of(dataset) == {
        "CXR_000015": "1",
        "CXR_000018": "1",
        "Hand_000024": "0",
        "Hand_000027": "0",
        "HeadCT_000012": "1",
    }
    training = load_dataset(dataset.name, Roots(tmp_path / "raw", tmp_path, tmp_path)).training
    assert list(training) == [f"Hand_{3 * number:06d}" for number in range(8)]
    for file, original in (
        (training["Hand_000003"][0], source / "Hand" / "000003.jpeg"),
        (dataset / "imagesTs" / "CXR_000018_0000.nii.gz", source / "CXR" / "000018.jpeg"),
    ):
        np.testing.assert_array_equal(read_image(file)[0][0], np.asarray(Image.open(original)))


def test_several_normal_classes(source: Path, tmp_path: Path) -> None:
    dataset = convert_mednist(source, tmp_path / "raw", 3, "Small", normal=("HeadCT", "CXR"))
    assert sorted(labels_of(dataset).values()) == ["0", "0", "0", "1", "1"]
    assert len(list((dataset / "imagesTr").iterdir())) == 4 + 5


def test_only_what_changed_is_done_again(source: Path, tmp_path: Path) -> None:
    dataset = convert_mednist(source, tmp_path / "raw", 3, "Small", normal=("Hand",))
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*.nii.gz")}
    missing = dataset / "imagesTs" / "Hand_000024_0000.nii.gz"
    changed = dataset / "imagesTr" / "Hand_000003_0000.nii.gz"
    missing.unlink()
    (source / "Hand" / "000003.jpeg").write_bytes((source / "Hand" / "000006.jpeg").read_bytes())
    convert_mednist(source, tmp_path / "raw", 3, "Small", normal=("Hand",))
    assert {path for path, time in before.items() if path.stat().st_mtime_ns != time} == {missing, changed}


def test_folders_that_are_refused(source: Path, tmp_path: Path) -> None:
    def convert(folder: Path = source, normal: tuple[str, ...] = ("Hand",)) -> Path:
        return convert_mednist(folder, tmp_path / "raw", 3, "Small", normal=normal)

    for normal in (("Foot",), ("Hand", "Foot"), ()):
        with pytest.raises(UserError, match=r"choose from its classes \['CXR', 'Hand', 'HeadCT'\]"):
            convert(normal=normal)
    with pytest.raises(UserError, match="missing is not a folder"):
        convert(tmp_path / "missing")
    (source / "Empty").mkdir()
    with pytest.raises(UserError, match="Empty holds no images"):
        convert()
    (source / "Empty" / "1.jpeg").write_bytes((source / "Hand" / "000003.jpeg").read_bytes())
    with pytest.raises(UserError, match=r"Empty holds 1 image.*; training needs 2 or more"):
        convert(normal=("Hand", "Empty"))
    (source / "Empty" / "1.jpg").write_bytes((source / "Hand" / "000003.jpeg").read_bytes())
    with pytest.raises(UserError, match="the same name but for the ending"):
        convert()
    assert not (tmp_path / "raw").exists()


def test_bad_images_are_listed_and_good_ones_kept(source: Path, tmp_path: Path) -> None:
    cut, empty, colour, flat = (source / "Hand" / f"{number:06d}.jpeg" for number in (3, 6, 9, 24))
    originals = {file: file.read_bytes() for file in (cut, empty, colour, flat)}
    cut.write_bytes(originals[cut][: len(originals[cut]) // 2])
    empty.write_bytes(b"")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)).save(colour)
    Image.fromarray(np.full((8, 9), 128, np.uint8)).save(flat)
    with pytest.raises(UserError, match=r"4 fault\(s\) were found") as caught:
        convert_mednist(source, tmp_path / "raw", 3, "Small", normal=("Hand",))
    for file, reason in ((cut, "cannot be read"), (empty, "is empty"), (colour, "3 channel"), (flat, "is constant")):
        assert any(str(file) in line and reason in line for line in str(caught.value).splitlines())
    dataset = tmp_path / "raw" / "Dataset003_Small"
    assert not (dataset / "dataset.json").exists()
    for file, content in originals.items():
        file.write_bytes(content)
    convert_mednist(source, tmp_path / "raw", 3, "Small", normal=("Hand",))
    assert json.loads((dataset / "dataset.json").read_text())["numTraining"] == 8


def test_real_images(real_data: Path, tmp_path: Path) -> None:
    dataset = convert_mednist(real_data / "mednist", tmp_path / "raw", 3, "Xrays", normal=("CXR",))
    files = sorted((real_data / "mednist" / "CXR").iterdir())
    assert len(list((dataset / "imagesTr").iterdir())) == 400
    assert Counter(labels_of(dataset).values()) == {"0": 100, "1": 500}
    image, _ = read_image(dataset / "imagesTs" / f"CXR_{files[-1].stem}_0000.nii.gz")
    np.testing.assert_array_equal(image[0], np.asarray(Image.open(files[-1])))
