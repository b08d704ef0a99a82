import csv
from pathlib import Path

import numpy as np
import pytest

from dataset_conversion import SOURCES
from dataset_conversion.cases import Source, array_source, files_source
from dataset_conversion.common import write_dataset
from dataset_conversion.converter import Converter, Option
from dataset_conversion.labels import mask_source
from nnood.errors import UserError
from nnood.evaluation.truth import find_truth
from nnood.geometry import Geometry
from nnood.images import read_image, write_image
from nnood.safety import read_json

RNG = np.random.default_rng(0)
SHAPE = (4, 6, 7)


def sources(*names: str) -> dict[str, Source]:
    return {name: array_source(RNG.integers(0, 99, SHAPE).astype(np.uint8), "digest") for name in names}


def rows(table: Path) -> list[list[str]]:
    with table.open() as file:
        return list(csv.reader(file))


def test_masks_and_labels_and_groups_are_written(tmp_path: Path) -> None:
    mask = tmp_path / "mask.nii.gz"
    values = (RNG.random(SHAPE) > 0.5).astype(np.float32) * 7
    write_image(values, Geometry.from_spacing(SHAPE, (1, 1, 1)), mask)
    dataset = write_dataset(
        tmp_path,
        3,
        "Both",
        sources("a", "b"),
        sources("x", "y"),
        labels={"x": 1, "y": 0},
        masks={"x": mask_source(mask)},
        groups={"a": "p", "b": "p", "elsewhere": "q"},
        channel_names=["CT"],
        overrides={"foreground": "whole"},
    )
    assert rows(dataset / "groups.csv") == [["case", "group"], ["a", "p"], ["b", "p"]]
    assert rows(dataset / "labelsTs.csv") == [["case", "label"], ["x", "1"], ["y", "0"]]
    written = read_image(dataset / "labelsTs" / "x.nii.gz")[0][0]
    np.testing.assert_array_equal(written, values > 0)
    content = read_json(dataset / "dataset.json")
    assert content["channel_names"] == {"0": "CT"}
    assert content["nnood"] == {"foreground": "whole"}
    by_voxel = find_truth(dataset / "labelsTs", tmp_path, ["x", "y"])
    assert (list(by_voxel.masks), by_voxel.sample_labels) == (["x"], None)
    by_case = find_truth(dataset / "labelsTs.csv", tmp_path, ["x", "y"])
    assert (by_case.masks, by_case.sample_labels) == ({}, {"x": True, "y": False})


def test_what_the_user_wrote_into_the_block_stays(tmp_path: Path) -> None:
    def write() -> Path:
        return write_dataset(tmp_path, 3, "Mine", sources("a"), {}, overrides={"foreground": "whole"})

    file = write() / "dataset.json"
    file.write_text(file.read_text().replace("whole", "otsu"))
    assert read_json(write() / "dataset.json")["nnood"] == {"foreground": "otsu"}


def test_a_case_of_the_same_name_in_training_and_test_is_named_rightly(tmp_path: Path) -> None:
    files = {}
    for folder, shape in (("train", SHAPE), ("test", SHAPE[1:])):
        files[folder] = tmp_path / folder / "a.npy"
        files[folder].parent.mkdir()
        np.save(files[folder], RNG.random(shape))
    with pytest.raises(UserError, match=r"test/a\.npy is 2D and .*train/a\.npy is 3D"):
        write_dataset(tmp_path, 3, "Same", {"a": files_source([files["train"]])}, {"a": files_source([files["test"]])})


def test_every_source_has_a_help_page_and_a_sentence() -> None:
    for name, converter in SOURCES.items():
        first, _, rest = converter.description.partition("\n")
        assert first.endswith("."), name
        assert name == "folder" or "Source: " in rest
        assert converter.name_with({option.name: "A" for option in converter.options}).isidentifier()


def test_other_choices_have_other_names() -> None:
    assert SOURCES["ixi"].name_with({}) == "IXI_T1"
    assert SOURCES["ixi"].name_with({"modality": "PD"}) == "IXI_PD"
    assert SOURCES["fashion_mnist"].name_with({"normal": (1, 9)}) == "FashionMNIST_1_9"
    assert SOURCES["mednist"].name_with({"normal": ("Head CT", "../CXR")}) == "MedNIST_HeadCT_..CXR"


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no normal images to train on"):
        write_dataset(tmp_path / "raw", 3, "None", {}, sources("x"))
    assert not (tmp_path / "raw").exists()


def test_options_must_be_those_of_the_function() -> None:
    mood = SOURCES["mood"]
    with pytest.raises(ValueError, match="convert_mood has the options"):
        Converter(mood.function, "Name")
    with pytest.raises(ValueError, match="convert_mood has the options"):
        Converter(mood.function, "Name", (*mood.options, Option("other", "none")))


def test_tables_follow_the_source_unless_the_user_changed_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training, tests = sources("a", "b"), sources("x")

    def write(**tables: dict) -> Path:
        return write_dataset(tmp_path, 3, "Tables", training, tests, **tables)

    dataset = write(labels={"x": 1}, groups={"a": "p", "b": "q"})
    write(labels={"x": 0}, groups={"a": "p", "b": "p"})
    assert rows(dataset / "labelsTs.csv") == [["case", "label"], ["x", "0"]]
    assert rows(dataset / "groups.csv")[2] == ["b", "p"]
    (dataset / "groups.csv").write_text("case,group\na,mine\nb,mine\n")
    write(groups={"a": "p", "b": "q"})
    assert not (dataset / "labelsTs.csv").exists()
    assert rows(dataset / "groups.csv")[1] == ["a", "mine"]
    assert "groups.csv" in caplog.text
    write()
    assert (dataset / "groups.csv").exists()
