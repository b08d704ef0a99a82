import json
import re
from pathlib import Path
from typing import Any

import pytest

from nnood.case_files import list_cases
from nnood.datasets import Overrides, find_dataset_name, load_dataset
from nnood.errors import UserError
from nnood.paths import Roots


def _touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("x")
    return folder


def _names(cases: dict[str, list[Path]]) -> dict[str, list[str]]:
    return {case: [path.name for path in files] for case, files in cases.items()}


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots(*(tmp_path / part for part in ("raw", "preprocessed", "results")))


def _make_dataset(roots: Roots, *files: str, **content: Any) -> str:
    folder = roots.raw / "Dataset101_Heads"
    _touch(folder / "imagesTr", *files)
    default = {"channel_names": {"0": "T1"}, "numTraining": len(files), "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(default | content))
    return folder.name


def test_channels_are_grouped_in_order(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "b_0001.nii.gz", "b_0000.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz", ".hidden.nii.gz")
    assert _names(list_cases(folder, 2)) == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
    }


@pytest.mark.parametrize(
    ("files", "cases"),
    [
        (["a.nii.gz", "b.png"], ["a", "b"]),
        (["a_0000.nii.gz", "b_0000.nii.gz"], ["a", "b"]),
        (["scan_2021.nii.gz", "scan_2022.nii.gz"], ["scan_2021", "scan_2022"]),
        (["f_0000.png", "f_0001.png"], ["f_0000", "f_0001"]),
        (["f_0001_0000.png", "f_0002_0000.png"], ["f_0001", "f_0002"]),
    ],
)
def test_names_of_single_channel_cases(tmp_path: Path, files: list[str], cases: list[str]) -> None:
    assert list(list_cases(_touch(tmp_path, *files), 1)) == cases


def test_one_file_may_hold_all_three_colours(tmp_path: Path) -> None:
    assert _names(list_cases(_touch(tmp_path, "a.png"), 3)) == {"a": ["a.png"]}


def test_pictures_may_end_in_a_number(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "img_2021.png", "img_2022.png")
    assert _names(list_cases(folder, 3)) == {"img_2021": ["img_2021.png"], "img_2022": ["img_2022.png"]}


def test_only_the_wanted_ending(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a_0000.nii.gz", "b_0000.png", "notes.txt")
    assert list(list_cases(folder, 1, file_ending=".nii.gz")) == ["a"]


def test_all_incomplete_cases_are_listed(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a_0000.nii.gz", "b_0001.nii.gz", "c_0000.nii.gz", "c_0001.nii.gz")
    with pytest.raises(UserError) as error:
        list_cases(folder, 2)
    assert "case a has _0000; expected 2 channels" in str(error.value)
    assert "case b has _0001; expected 2 channels" in str(error.value)
    assert "case c" not in str(error.value)


def test_same_case_twice(tmp_path: Path) -> None:
    folder = _touch(tmp_path, "a.nii.gz", "a.png")
    with pytest.raises(UserError, match=r"a\.png and a\.nii\.gz have the same name"):
        list_cases(folder, 1)


def test_no_folder_and_no_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        list_cases(tmp_path / "missing", 1)
    with pytest.raises(UserError, match="holds no images"):
        list_cases(_touch(tmp_path, "notes.txt"), 1)


@pytest.mark.parametrize("dataset", ["101", "Dataset101", "Dataset101_Heads", "0101"])
def test_dataset_is_found_by_id_or_name(roots: Roots, dataset: str) -> None:
    (roots.preprocessed / "Dataset101_Heads").mkdir(parents=True)
    (roots.results / "Dataset101_Heads").mkdir(parents=True)
    (roots.results / "Dataset1010_Other").mkdir(parents=True)
    assert find_dataset_name(dataset, roots) == "Dataset101_Heads"


def test_unknown_and_ambiguous_datasets(roots: Roots) -> None:
    with pytest.raises(UserError, match="there is none under"):
        find_dataset_name("101", roots)
    (roots.raw / "Dataset101_Heads").mkdir(parents=True)
    with pytest.raises(UserError, match="there are Dataset101_Heads"):
        find_dataset_name("102", roots)
    (roots.results / "Dataset101_Hands").mkdir(parents=True)
    with pytest.raises(UserError, match="not unique: Dataset101_Hands, Dataset101_Heads"):
        find_dataset_name("101", roots)


def test_load_dataset(roots: Roots) -> None:
    name = _make_dataset(roots, "a_0000.nii.gz", "b_0000.nii.gz", nnood={"foreground": "otsu", "mirror_axes": [2]})
    dataset = load_dataset(name, roots)
    assert (dataset.name, dataset.channels, list(dataset.training)) == (name, 1, ["a", "b"])
    assert dataset.overrides == Overrides("otsu", (2,))
    assert dataset.nnunet_json() == {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "foreground": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }


def test_more_than_ten_channels_keep_their_order(roots: Roots) -> None:
    names = {str(i): f"echo {i}" for i in range(12)}
    name = _make_dataset(
        roots, *(f"a_{i:04d}.nii.gz" for i in range(12)), channel_names=dict(sorted(names.items())), numTraining=1
    )
    assert load_dataset(name, roots).channel_names == tuple(names.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"numTraining": 3}, "says numTraining 3 but imagesTr holds 1"),
        ({"channel_names": {}}, "channel_names is {}"),
        ({"channel_names": {"1": "T1"}}, "channel_names is {'1': 'T1'}"),
        ({"channel_names": ["T1"]}, "channel_names is ['T1']"),
        ({"file_ending": ".dcm"}, "file_ending is '.dcm'"),
        ({"nnood": {"forground": "otsu"}}, "unknown key ['forground']"),
        ({"nnood": {"foreground": "brain"}}, "foreground is 'brain'"),
        ({"nnood": {"mirror_axes": [3]}}, "mirror_axes is [3]"),
        ({"nnood": {"mirror_axes": [True]}}, "mirror_axes is [True]"),
        ({"nnood": {"rotation_degrees": -1}}, "rotation_degrees is -1"),
        ({"nnood": {"anomaly_size": [0.5, 0.1]}}, "anomaly_size is [0.5, 0.1]"),
        ({"nnood": []}, "unknown key [[]]"),
    ],
)
def test_wrong_dataset_json_is_explained(roots: Roots, content: dict[str, Any], message: str) -> None:
    name = _make_dataset(roots, "a_0000.nii.gz", **content)
    with pytest.raises(UserError, match=re.escape(message)):
        load_dataset(name, roots)


def test_all_wrong_overrides_are_listed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 faults"):
        Overrides.from_dict({"foreground": "x", "rotation_degrees": "x", "anomaly_size": []}, tmp_path)


def test_missing_keys_and_files(roots: Roots) -> None:
    with pytest.raises(UserError, match=r"dataset\.json does not exist"):
        load_dataset("Dataset101_Heads", roots)
    folder = _touch(roots.raw / "Dataset101_Heads")
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match="lacks channel_names, numTraining, file_ending"):
        load_dataset(folder.name, roots)
    (folder / "dataset.json").write_text("[]")
    with pytest.raises(UserError, match="must hold a JSON object"):
        load_dataset(folder.name, roots)
