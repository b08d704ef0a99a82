import csv
from pathlib import Path

import numpy as np
import pytest

from dataset_conversion.mood import convert_mood
from nnood.datasets import load_dataset
from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import read_image, write_image
from nnood.paths import Roots

SHAPE = (8, 9, 10)
GEOMETRY = Geometry.from_spacing(SHAPE, (1, 1, 1))
RNG = np.random.default_rng(0)
TRAIN = ("brain_train/brain_train", "brain_train", "brain/brain_train")
TOYS = ("brain_toy", "brain", ".")


def image(file: Path, *, highest: float = 1) -> None:
    write_image((RNG.random(SHAPE) * highest).astype(np.float32), GEOMETRY, file)


def tree(root: Path, train: str = TRAIN[0], toys: str = TOYS[0]) -> Path:
    """A tiny copy of the challenge's data: three training images, three toy cases of which the second is anomalous."""
    for number in range(3):
        image(root / train / f"{number:05d}.nii.gz")
        image(root / "abdom_train" / f"{number:05d}.nii.gz", highest=0.2)
        image(root / toys / "toy" / f"toy_{number}.nii.gz")
        mask = np.zeros(SHAPE, np.float32)
        mask[2:4, 3:5, 4:6] = number == 1
        labels = root / toys / "toy_label"
        write_image(mask, GEOMETRY, labels / "pixel" / f"toy_{number}.nii.gz")
        (labels / "sample").mkdir(exist_ok=True)
        (labels / "sample" / f"toy_{number}.nii.gz.txt").write_text(f"{int(number == 1)}\n")
    return root


def convert(source: Path, part: str = "brain", **options: bool) -> Path:
    return convert_mood(source, source.parent / "raw", 5, "Mood", part=part, **options)


@pytest.mark.parametrize("train", TRAIN)
@pytest.mark.parametrize("toys", TOYS)
def test_the_tree_may_be_unpacked_in_several_ways(tmp_path: Path, train: str, toys: str) -> None:
    source = tree(tmp_path / "in", train, toys)
    dataset = convert(source)
    training = load_dataset(dataset.name, Roots(dataset.parent, dataset, dataset)).training
    assert list(training) == ["00000", "00001", "00002"]
    for case, (file,) in training.items():
        values, geometry = read_image(file)
        np.testing.assert_array_equal(values, read_image(source / train / f"{case}.nii.gz")[0])
        assert values.min() >= 0
        assert values.max() <= 1
        assert geometry.matches(GEOMETRY)
    with (dataset / "labelsTs.csv").open() as file:
        assert list(csv.reader(file)) == [["case", "label"], ["toy_0", "0"], ["toy_1", "1"], ["toy_2", "0"]]
    assert [path.name for path in (dataset / "labelsTs").iterdir()] == ["toy_1.nii.gz"]
    mask = read_image(dataset / "labelsTs" / "toy_1.nii.gz")[0][0]
    assert (mask.dtype, mask.sum(), mask[2:4, 3:5, 4:6].sum()) == (np.uint8, 8, 8)


def test_the_other_part_has_no_toy_cases_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = convert(tree(tmp_path / "in"), "abdom")
    assert read_image(dataset / "imagesTr" / "00001_0000.nii.gz")[0].max() <= 0.2
    assert "holds no toy cases of abdom" in caplog.text
    assert not (dataset / "imagesTs").exists()


def test_links(tmp_path: Path) -> None:
    dataset = convert(tree(tmp_path / "in"), link=True)
    images = [*(dataset / "imagesTr").iterdir(), *(dataset / "imagesTs").iterdir()]
    assert len(images) == 6
    assert all(path.is_symlink() for path in images)


@pytest.mark.parametrize("link", [False, True])
def test_values_outside_0_to_1_are_refused(tmp_path: Path, link: bool) -> None:
    source = tree(tmp_path / "in")
    bad = [source / TRAIN[0] / "00001.nii.gz", source / "brain_toy" / "toy" / "toy_2.nii.gz"]
    image(bad[0], highest=1.2)
    write_image(RNG.random(SHAPE) - 0.1, GEOMETRY, bad[1])
    with pytest.raises(UserError, match=r"2 fault\(s\)") as caught:
        convert(source, link=link)
    for file, shown in zip(bad, ("to 1.1", "from -0.09"), strict=True):
        assert any(str(file) in line and shown in line for line in str(caught.value).splitlines())


def test_labels_that_are_missing_or_no_labels(tmp_path: Path) -> None:
    source = tree(tmp_path / "in")
    (source / "brain_toy/toy_label/sample/toy_0.nii.gz.txt").write_text("0.5")
    (source / "brain_toy/toy_label/sample/toy_1.nii.gz.txt").unlink()
    (source / "brain_toy/toy_label/pixel/toy_2.nii.gz").unlink()
    with pytest.raises(UserError, match="3 faults were found") as caught:
        convert(source)
    for shown in ("toy_0.nii.gz.txt: Expected 0 or 1, but got '0.5'", "toy_1.nii.gz.txt does not", "toy_2.nii.gz does"):
        assert shown in str(caught.value)
    assert not (tmp_path / "raw").exists()


def test_no_training_images(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"There is no \*\.nii\.gz in .*brain_train.*; give the folder that holds brain_train"
    ):
        convert(tmp_path / "in")
