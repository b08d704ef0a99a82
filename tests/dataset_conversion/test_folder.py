import json
import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from dataset_conversion.cases import storable
from dataset_conversion.folder import convert_folder
from nnood.datasets import load_dataset
from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import read_image, write_image
from nnood.paths import Roots

RNG = np.random.default_rng(5)
SHAPE = (4, 5, 6)
OBLIQUE = Geometry((6, 5, 4), (0.7, 1.3, 4.5), (-9.5, 12.25, 1.0), (-1, 0, 0, 0, 0, 1, 0, 1, 0))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def _volume(kind: str = "int16") -> np.ndarray:
    return RNG.integers(0, 99, SHAPE).astype(kind)


def _write(folder: Path, *names: str, geometry: Geometry = OBLIQUE, kind: str = "int16") -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        write_image(_volume(kind), geometry, folder / name)
    return folder


def _convert(source: Path, **options: object) -> Path:
    return convert_folder(source, source.parent / "raw", 7, "Heads", **options)  # type: ignore[arg-type]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _times(dataset: Path) -> dict[str, int]:
    return {str(path.relative_to(dataset)): path.stat().st_mtime_ns for path in dataset.rglob("*.nii.gz")}


def _json(dataset: Path) -> dict:
    return json.loads((dataset / "dataset.json").read_text())


@pytest.mark.parametrize("processes", [1, 2])
def test_volumes_keep_values_type_and_geometry(source: Path, processes: int) -> None:
    _write(source, "a.nii.gz", "b.nrrd", "c.mha", "d.nii")
    dataset = _convert(source, processes=processes)
    assert dataset == source.parent / "raw" / "Dataset007_Heads"
    assert _json(dataset) == {"channel_names": {"0": "image"}, "numTraining": 4, "file_ending": ".nii.gz"}
    for path in source.iterdir():
        before, _ = read_image(path)
        after, geometry = read_image(dataset / "imagesTr" / f"{path.name.split('.')[0]}_0000.nii.gz")
        np.testing.assert_array_equal(after, before)
        assert after.dtype == before.dtype
        assert geometry.matches(OBLIQUE)
    loaded = load_dataset(dataset.name, Roots(source.parent / "raw", source, source))
    assert list(loaded.training) == ["a", "b", "c", "d"]


def test_pictures_and_arrays(source: Path) -> None:
    grey = RNG.integers(0, 255, (16, 17)).astype(np.uint8)
    Image.fromarray(grey).save(source / "a.png")
    Image.fromarray(grey).save(source / "b.jpg")
    tifffile.imwrite(source / "c.tif", grey)
    np.save(source / "d.npy", grey)
    np.savez(source / "e.npz", grey)
    dataset = _convert(source)
    assert _json(dataset)["numTraining"] == 5
    for case in "acde":
        np.testing.assert_array_equal(read_image(dataset / "imagesTr" / f"{case}_0000.nii.gz")[0][0], grey)


def test_colour_makes_three_channels(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    colour = RNG.integers(0, 255, (16, 17, 4)).astype(np.uint8)
    Image.fromarray(colour).save(source / "a.png")
    Image.fromarray(colour[..., :3]).save(source / "b.png")
    dataset = _convert(source)
    assert _json(dataset)["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    for channel in range(3):
        array, _ = read_image(dataset / "imagesTr" / f"a_{channel:04d}.nii.gz")
        np.testing.assert_array_equal(array[0], colour[..., channel])
    assert "alpha" in caplog.text


def test_channel_files(source: Path) -> None:
    _write(source, *(f"{case}_000{channel}.nii.gz" for case in "ab" for channel in (0, 1)))
    test = _write(source.parent / "test", "x_0000.mha", "x_0001.mha")
    dataset = _convert(source, test=test)
    assert _json(dataset)["channel_names"] == {"0": "channel_0", "1": "channel_1"}
    assert _names(dataset / "imagesTr") == [f"{case}_000{channel}.nii.gz" for case in "ab" for channel in (0, 1)]
    assert _names(dataset / "imagesTs") == ["x_0000.nii.gz", "x_0001.nii.gz"]


@pytest.mark.parametrize(
    ("names", "cases"),
    [
        (["a_0000.nii.gz", "b_0000.nii.gz"], ["a", "b"]),
        (["film_0000.nii.gz", "film_0001.nii.gz", "film_0002.nii.gz"], ["film_0000", "film_0001", "film_0002"]),
        (["s_2020.nii.gz", "t_2021.nii.gz", "u.nii.gz"], ["s_2020", "t_2021", "u"]),
    ],
)
def test_which_names_hold_channel_numbers(source: Path, names: list[str], cases: list[str]) -> None:
    dataset = _convert(_write(source, *names))
    assert _names(dataset / "imagesTr") == [f"{case}_0000.nii.gz" for case in cases]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.array([True, False]), "uint8"),
        (np.array([1, -5], np.int64), "int32"),
        (np.array([1, 2**40], np.int64), "int64"),
        (np.array([1, 5], np.uint64), "int32"),
        (np.array([0.5, 2], np.float16), "float32"),
        (np.array([0.1, 2], np.float64), "float64"),
        (np.array([1, 500], ">i2"), "int16"),
        (np.array([1, 500], ">f4"), "float32"),
    ],
)
def test_types_that_nifti_holds(source: Path, before: np.ndarray, after: str) -> None:
    stored = storable(before)
    assert stored.dtype == np.dtype(after)
    assert stored.dtype.isnative
    np.testing.assert_array_equal(stored, before)
    np.save(source / "a.npy", np.tile(before, (4, 3)))
    array, _ = read_image(_convert(source) / "imagesTr" / "a_0000.nii.gz")
    np.testing.assert_array_equal(array[0], np.tile(before, (4, 3)))
    assert array.dtype == after


def test_masks_are_binary_and_on_the_grid_of_their_image(source: Path, tmp_path: Path) -> None:
    _write(source, "a.nii.gz")
    test = _write(tmp_path / "test", "x.nii.gz", "y.nii.gz")
    labels = tmp_path / "labels"
    write_image(np.arange(120).reshape(SHAPE).astype(np.float32) % 3, OBLIQUE, labels / "x.nrrd")
    dataset = _convert(source, test=test, labels=labels)
    assert _names(dataset / "labelsTs") == ["x.nii.gz"]
    mask, geometry = read_image(dataset / "labelsTs" / "x.nii.gz")
    np.testing.assert_array_equal(mask[0], np.arange(120).reshape(SHAPE) % 3 > 0)
    assert mask.dtype == np.uint8
    assert geometry.matches(OBLIQUE)


def test_bad_masks(source: Path, tmp_path: Path) -> None:
    _write(source, "a.nii.gz")
    test = _write(tmp_path / "test", "x.nii.gz")
    labels = _write(tmp_path / "labels", "x.nii.gz", geometry=Geometry.from_spacing(SHAPE, (1, 1, 1)))
    with pytest.raises(UserError, match=r"x\.nii\.gz does not lie on the grid of its image"):
        _convert(source, test=test, labels=labels)
    _write(labels, "z.nii.gz")
    with pytest.raises(UserError, match=r"z\.nii\.gz belongs to no test image"):
        _convert(source, test=test, labels=labels)
    with pytest.raises(UserError, match="there are no test images"):
        _convert(source, labels=labels)


def test_sample_labels(source: Path, tmp_path: Path) -> None:
    _write(source, "a.nii.gz")
    test = _write(tmp_path / "test", "x,1.nii.gz", "y.nii.gz")
    table = tmp_path / "labels.csv"
    table.write_text('\ufeffcase,label\r\n y , 1\r\n"x,1",0\r\n', encoding="utf-8")
    dataset = _convert(source, test=test, labels=table)
    assert (dataset / "labelsTs.csv").read_text() == 'case,label\ny,1\n"x,1",0\n'
    assert not (dataset / "labelsTs").exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("y,1\n", "Expected the header case,label, but got 'y,1'"),
        ("", "Expected the header case,label, but got nothing"),
        ("case,label\nx,2\n", "Expected a case and 0 or 1, but got 'x,2'"),
        ("case,label\nz,1\n", "'z' is no test case"),
        ("case,label\nx,1\nx,1\n", "The case x was listed before"),
        ("case,label\nx,1\n", r"lacks 1 test case\(s\), such as y"),
    ],
)
def test_bad_sample_labels(source: Path, tmp_path: Path, table: str, message: str) -> None:
    _write(source, "a.nii.gz")
    test = _write(tmp_path / "test", "x.nii.gz", "y.nii.gz")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        _convert(source, test=test, labels=tmp_path / "labels.csv")


def test_what_is_left_out_is_named(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(source, "a.nii.gz")
    (source / "notes.txt").write_text("x")
    (source / "more").mkdir()
    _convert(source)
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "more, notes.txt" in warning.getMessage()


def test_nothing_to_convert(source: Path) -> None:
    with pytest.raises(UserError, match="holds no images"):
        _convert(source)
    with pytest.raises(UserError, match="is not a folder"):
        _convert(source / "missing")


def test_names_that_do_not_fit(source: Path) -> None:
    _write(source, "a.nii.gz", "a.mha", "b.nii", "b.nrrd")
    with pytest.raises(UserError, match=r"(?s)2 faults.*a\.nii\.gz and a\.mha.*b\.nrrd and b\.nii"):
        _convert(source)
    assert not (source.parent / "raw").exists()


def test_missing_channels_and_mixed_names(source: Path) -> None:
    _write(source, "a_0000.nii", "a_0001.nii", "b_0001.nii")
    with pytest.raises(UserError, match="case b has _0001"):
        _convert(source)
    _write(source, "b_0000.nii", "c.nii")
    with pytest.raises(UserError, match=r"a_0000\.nii ends in a channel number but c\.nii does not"):
        _convert(source)


def test_all_bad_files_are_listed_and_the_good_ones_kept(source: Path) -> None:
    _write(source, "a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz")
    good = (source / "b.nii.gz").read_bytes()
    (source / "b.nii.gz").write_bytes(good[:-20])
    (source / "c.nii.gz").write_bytes(b"")
    dataset = source.parent / "raw" / "Dataset007_Heads"
    with pytest.raises(UserError, match=r"(?s)2 fault.* start the command again.*b\.nii\.gz.*c\.nii\.gz is empty"):
        _convert(source)
    assert _names(dataset / "imagesTr") == ["a_0000.nii.gz", "d_0000.nii.gz"]
    assert not (dataset / "dataset.json").exists()

    before = _times(dataset)
    (source / "b.nii.gz").write_bytes(good)
    (source / "c.nii.gz").unlink()
    _convert(source)
    assert _names(dataset / "imagesTr") == ["a_0000.nii.gz", "b_0000.nii.gz", "d_0000.nii.gz"]
    assert _json(dataset)["numTraining"] == 3
    assert {name: time for name, time in _times(dataset).items() if name in before} == before


def test_bad_test_image_does_not_hold_up_training(source: Path, tmp_path: Path) -> None:
    _write(source, "a.nii.gz")
    test = _write(tmp_path / "test", "x.nii.gz", "y.nii.gz")
    labels = _write(tmp_path / "labels", "x.nii.gz", "y.nii.gz")
    (test / "x.nii.gz").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"(?s)1 fault.*x\.nii\.gz is damaged"):
        _convert(source, test=test, labels=labels)
    dataset = source.parent / "raw" / "Dataset007_Heads"
    assert _json(dataset)["numTraining"] == 1
    assert _names(dataset / "labelsTs") == ["y.nii.gz"]


def test_images_must_agree(source: Path, tmp_path: Path) -> None:
    _write(source, "a.nii.gz", "b.nii.gz")
    vector = sitk.GetImageFromArray(RNG.random((*SHAPE, 2)), isVector=True)
    sitk.WriteImage(vector, str(source / "c.nii.gz"))
    with pytest.raises(UserError, match=r"c\.nii\.gz has 2 channel\(s\); expected 1"):
        _convert(source)
    (source / "c.nii.gz").unlink()
    np.save(source / "c.npy", RNG.random((5, 6)))
    with pytest.raises(UserError, match=r"c\.npy is 2D and .*\.nii\.gz is 3D"):
        _convert(source)
    assert not (source.parent / "raw" / "Dataset007_Heads" / "dataset.json").exists()
    (tmp_path / "test").mkdir()
    (source / "c.npy").rename(tmp_path / "test" / "c.npy")
    with pytest.raises(UserError, match=r"c\.npy is 2D and .*\.nii\.gz is 3D"):
        _convert(source, test=tmp_path / "test")


def test_only_what_is_missing_is_done_again(source: Path) -> None:
    dataset = _convert(_write(source, "a.nii.gz", "b.nii.gz", "c.nii.gz"))
    before = _times(dataset)
    _convert(source)
    assert _times(dataset) == before

    (dataset / "imagesTr" / "b_0000.nii.gz").unlink()
    leftover = dataset / "imagesTr" / f".tmp-{10**30}-b_0000.nii.gz"
    leftover.write_text("half")
    _convert(source)
    after = _times(dataset)
    assert [name for name in before if after[name] != before[name]] == ["imagesTr/b_0000.nii.gz"]
    assert not leftover.exists()


def test_damaged_output_and_changed_input_are_done_again(source: Path) -> None:
    dataset = _convert(_write(source, "a.nii.gz", "b.nii.gz", "c.nii.gz"))
    before = _times(dataset)
    damaged = dataset / "imagesTr" / "a_0000.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    _write(source, "c.nii.gz")
    _convert(source)
    after = _times(dataset)
    assert sorted(name for name in before if after[name] != before[name]) == [
        "imagesTr/a_0000.nii.gz",
        "imagesTr/c_0000.nii.gz",
    ]
    np.testing.assert_array_equal(read_image(damaged)[0], read_image(source / "a.nii.gz")[0])


def test_what_the_user_added_to_dataset_json_survives(source: Path) -> None:
    dataset = _convert(_write(source, "a.nii.gz"))
    content = _json(dataset) | {"channel_names": {"0": "CT"}, "nnood": {"mirror_axes": [2]}}
    (dataset / "dataset.json").write_text(json.dumps(content))
    _write(source, "b.nii.gz")
    (source / "c.nii.gz").write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):
        _convert(source)
    assert not (dataset / "dataset.json").exists()
    (source / "c.nii.gz").unlink()
    _convert(source)
    assert _json(dataset) == content | {"numTraining": 2}


def test_taken_ids_and_names(source: Path) -> None:
    _write(source, "a.nii.gz")
    raw = source.parent / "raw"
    _convert(source)
    with pytest.raises(UserError, match=r"id 7 is already used by .*Dataset007_Heads"):
        convert_folder(source, raw, 7, "Hands")
    (raw / "Dataset008_Mine" / "imagesTr").mkdir(parents=True)
    with pytest.raises(UserError, match="was not made by this command"):
        convert_folder(source, raw, 8, "Mine")
    for number, name in ((-1, "a"), (9, "a/b"), (9, "../a"), (9, "")):
        with pytest.raises(UserError, match="is no data set name"):
            convert_folder(source, raw, number, name)
