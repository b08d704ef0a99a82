import csv
import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from dataset_conversion.fashion_mnist import convert_fashion_mnist
from nnood.datasets import load_dataset
from nnood.errors import UserError
from nnood.images import read_image
from nnood.paths import Roots

LABELS = {"train": [0, 1, 9, 0, 1], "t10k": [9, 0, 1, 0, 0, 0, 9]}
SIZE = (6, 5)


def images(split: str) -> np.ndarray:
    return np.random.default_rng(len(split)).integers(0, 256, (len(LABELS[split]), *SIZE)).astype(np.uint8)


def write(folder: Path, *, packed: bool = True) -> Path:
    """A tiny Fashion-MNIST, byte by byte as LeCun describes the format."""
    folder.mkdir()
    for split, labels in LABELS.items():
        contents = {
            f"{split}-images-idx3-ubyte": struct.pack(">4I", 2051, len(labels), *SIZE) + images(split).tobytes(),
            f"{split}-labels-idx1-ubyte": struct.pack(">2I", 2049, len(labels)) + bytes(labels),
        }
        for part, content in contents.items():
            file = folder / (f"{part}.gz" if packed else part)
            file.write_bytes(gzip.compress(content) if packed else content)
    return folder


def name_of(number: int) -> str:
    return f"class{LABELS['t10k'][number]}_test_{number:05d}"


def labels_of(dataset: Path) -> dict[str, str]:
    with (dataset / "labelsTs.csv").open() as file:
        return {row["case"]: row["label"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("packed", [True, False])
def test_images_and_labels(tmp_path: Path, packed: bool) -> None:
    dataset = convert_fashion_mnist(write(tmp_path / "in", packed=packed), tmp_path / "raw", 3, "Clothes")
    assert json.loads((dataset / "dataset.json").read_text())["channel_names"] == {"0": "image"}
    labels = labels_of(dataset)
    assert [labels[name_of(number)] for number in range(7)] == ["1", "0", "1", "0", "0", "0", "1"]
    training = load_dataset(dataset.name, Roots(tmp_path / "raw", tmp_path, tmp_path)).training
    assert list(training) == ["train_00000", "train_00003"]
    for file, expected in (
        (training["train_00003"][0], images("train")[3]),
        (dataset / "imagesTs" / f"{name_of(2)}_0000.nii.gz", images("t10k")[2]),
    ):
        values = read_image(file)[0]
        assert values.dtype == np.uint8
        np.testing.assert_array_equal(values, expected[None])


def test_other_normal_classes_and_fewer_tests(tmp_path: Path) -> None:
    source = write(tmp_path / "in")
    dataset = convert_fashion_mnist(source, tmp_path / "raw", 3, "Clothes", normal=(1, 9), most=2)
    # Class 0 has the test images 1, 3, 4 and 5: the first and the last are the evenly spread ones.
    assert labels_of(dataset) == dict(zip(map(name_of, (0, 1, 2, 5, 6)), "01010", strict=True))
    assert len(list((dataset / "imagesTs").iterdir())) == 5
    assert len(list((dataset / "imagesTr").iterdir())) == 3
    with pytest.raises(UserError, match=r"no training image of the normal classes \[7\]; its classes are \[0, 1, 9\]"):
        convert_fashion_mnist(source, tmp_path / "raw", 4, "None", normal=(7,))
    with pytest.raises(UserError, match="give a number from 1 on"):
        convert_fashion_mnist(source, tmp_path / "raw", 4, "None", most=0)


def test_only_what_is_missing_is_done_again(tmp_path: Path) -> None:
    source = write(tmp_path / "in")
    dataset = convert_fashion_mnist(source, tmp_path / "raw", 3, "Clothes")
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*.nii.gz")}
    missing = dataset / "imagesTs" / f"{name_of(1)}_0000.nii.gz"
    missing.unlink()
    convert_fashion_mnist(source, tmp_path / "raw", 3, "Clothes")
    assert [path for path, time in before.items() if path.stat().st_mtime_ns != time] == [missing]
    convert_fashion_mnist(source, tmp_path / "raw", 3, "Clothes", most=1)
    assert len(list((dataset / "imagesTs").iterdir())) == len(labels_of(dataset)) == 3


PACKED = gzip.compress(bytes(1000))
DAMAGE = {
    "no images": ("train-images-idx3-ubyte", None, "does not exist; give the folder"),
    "no labels": ("t10k-labels-idx1-ubyte", None, "does not exist; give the folder"),
    "empty": ("train-images-idx3-ubyte", b"", "begins with the bytes ; expected 00 00 08 03"),
    "labels for images": ("train-images-idx3-ubyte", struct.pack(">2I", 2049, 1) + b"1", "the bytes 00 00 08 01"),
    "images for labels": ("t10k-labels-idx1-ubyte", struct.pack(">4I", 2051, 1, 1, 1) + b"1", "the bytes 00 00 08 03"),
    "cut in header": ("t10k-images-idx3-ubyte", struct.pack(">2I", 2051, 7), "8 bytes, where its header of 16"),
    "cut": ("t10k-images-idx3-ubyte", struct.pack(">4I", 2051, 7, 6, 5) + bytes(209), r"225 bytes.*\(7, 6, 5\)"),
    "too long": ("t10k-images-idx3-ubyte", struct.pack(">4I", 2051, 7, 6, 5) + bytes(211), r"227 bytes.*\(7, 6, 5\)"),
    "huge": ("t10k-images-idx3-ubyte", struct.pack(">4I", 2051, *[2**32 - 1] * 3), r"shape \(4294967295, "),
    "no image in it": ("t10k-images-idx3-ubyte", struct.pack(">4I", 2051, 0, 6, 5), r"\(0, 6, 5\)"),
    "fewer labels": ("t10k-labels-idx1-ubyte", struct.pack(">2I", 2049, 6) + bytes(6), "7 images but .* 6 labels"),
    "more labels": ("train-labels-idx1-ubyte", struct.pack(">2I", 2049, 6) + bytes(6), "5 images but .* 6 labels"),
    "packed file cut": ("train-labels-idx1-ubyte", PACKED[:-9], "is damaged or cut off"),
    "packed file cut at once": ("train-labels-idx1-ubyte", PACKED[:3], "is damaged or cut off"),
    "checksum": ("train-labels-idx1-ubyte", PACKED[:-8] + bytes(8), "is damaged or cut off"),
    "no deflate stream": ("train-labels-idx1-ubyte", PACKED[:10] + b"\xff" * 9, "is damaged or cut off"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    part, content, message = DAMAGE[damage]
    file = write(tmp_path / "in") / f"{part}.gz"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        convert_fashion_mnist(tmp_path / "in", tmp_path / "raw", 3, "Clothes")
    assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "raw").exists()
