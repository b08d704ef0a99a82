import logging
from pathlib import Path

import numpy as np
import pytest
from dicom_writer import ROOT, forget_position, replace_tag, write_dicom, write_series
from raw_checks import read_folder, read_pairs, read_training, sentence_of_command, times
from scipy.spatial.transform import Rotation

from dataset_conversion.dicom import convert_dicom
from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import write_image
from nnood.safety import read_json

OBLIQUE = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
# A sagittal scan: its rows and columns run along the patient's y and z, its slices along x.
SAGITTAL = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], float)


def volume(seed: int = 0, shape: tuple[int, int, int] = (6, 5, 4)) -> np.ndarray:
    return np.random.default_rng(seed).integers(-500, 1500, shape).astype(np.int16)


def convert(folder: Path, **options: object) -> Path:
    return convert_dicom(folder, folder.parent / "raw", 7, "Heads", **options)  # type: ignore[arg-type]


def refused(folder: Path, **options: object) -> str:
    """The one sentence by which a tree is refused before anything is written."""
    with pytest.raises(UserError) as caught:
        convert(folder, **options)
    assert len(str(caught.value).splitlines()) == 1
    assert not (folder.parent / "raw").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("direction", "processes"), [(np.eye(3), 2), (OBLIQUE, 1), (SAGITTAL, 1), (np.diag([-1.0, -1.0, 1.0]), 1)]
)
def test_values_and_geometry(tmp_path: Path, direction: np.ndarray, processes: int) -> None:
    spacing, origin = (0.7, 1.3, 4.5), (-9.5, 12.25, 100.0)
    write_series(tmp_path / "in" / "a", volume(), spacing=spacing, origin=origin, direction=direction)
    ((values, geometry),) = read_training(convert(tmp_path / "in", processes=processes)).values()
    np.testing.assert_array_equal(values[0], volume())
    assert geometry.matches(Geometry((4, 5, 6), spacing, origin, tuple(direction.ravel().tolist())))


def test_series_are_cases_and_patients_groups(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "x", volume(1), patient="P 1", number=2, series="1")
    write_series(tmp_path / "in" / "x" / "deep", volume(2), patient="P 1", number=3, series="2")
    write_series(tmp_path / "in" / "y", volume(3), patient="P/1", number=2, series="3")
    write_series(tmp_path / "in" / "z", volume(4), patient="P 1", number=2, series="4")
    write_series(tmp_path / "in" / "v", volume(5), patient="", number=1, series="5")
    dataset = convert(tmp_path / "in")
    study = f"{ROOT}.9"
    assert read_pairs(dataset / "groups.csv") == {
        f"{study}_001": study,
        "P-1_002": "P 1",
        "P-1_002-2": "P 1",
        "P-1_003": "P 1",
        "P-1_002-3": "P/1",
    }
    found = {case: values[0] for case, (values, _) in read_training(dataset).items()}
    for case, seed in (("P-1_002", 1), ("P-1_002-2", 4), ("P-1_003", 2), ("P-1_002-3", 3), (f"{study}_001", 5)):
        np.testing.assert_array_equal(found[case], volume(seed))


@pytest.mark.parametrize(("second", "channel"), [("CT", "CT"), ("MR", "image")])
def test_the_channel_of_ct_is_called_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, second: str, channel: str
) -> None:
    write_series(tmp_path / "in" / "a", volume(), series="1")
    write_series(tmp_path / "in" / "b", volume(1), series="2", tags={"0008|0060": second})
    assert read_json(convert(tmp_path / "in") / "dataset.json")["channel_names"] == {"0": channel}
    assert ("the modalities CT, MR go into one data set" in caplog.text) == (second == "MR")


def test_names_of_patients_in_any_encoding(tmp_path: Path) -> None:
    for number, byte in enumerate((b"\xe4", b"\xfc")):
        files = write_series(tmp_path / "in" / str(number), volume(number), patient="Pxyz", series=str(number))
        for file in files:
            file.write_bytes(file.read_bytes().replace(b"Pxyz", b"Px" + byte + b"z"))
    dataset = convert(tmp_path / "in")
    assert read_pairs(dataset / "groups.csv") == {"Px-z_001": "Pxäz", "Px-z_001-2": "Pxüz"}


def test_each_slice_has_its_own_scale(tmp_path: Path) -> None:
    stored = volume() + 500
    scales = (".5", "2 ", "3 ", ".1", "4 ", ".2")
    files = write_series(tmp_path / "in", stored, tags={"0028|1052": "0", "0028|1053": "1"})
    for file, scale in zip(files, scales, strict=True):
        replace_tag(file, "0028|1053", "1 ", scale)
        replace_tag(file, "0028|1052", "0 ", "-7")
    expected = stored * np.array(scales, float)[:, None, None] - 7
    ((values, _),) = read_training(convert(tmp_path / "in")).values()
    np.testing.assert_allclose(values[0], expected, rtol=1e-6)


def test_one_slice_is_a_2d_image(tmp_path: Path) -> None:
    write_series(tmp_path / "in", volume(shape=(1, 5, 4)), spacing=(0.7, 1.3, 4.5), direction=OBLIQUE)
    ((values, geometry),) = read_training(convert(tmp_path / "in")).values()
    np.testing.assert_array_equal(values[0], volume(shape=(1, 5, 4)))
    assert geometry == Geometry((4, 5), pytest.approx((0.7, 1.3)), (0, 0), (1, 0, 0, 1))  # type: ignore[arg-type]


def test_frames_of_one_file_are_a_volume(tmp_path: Path) -> None:
    frames = (volume() + 500).astype(np.uint16)
    write_dicom(tmp_path / "in" / "film", frames)
    ((values, geometry),) = read_training(convert(tmp_path / "in")).values()
    np.testing.assert_array_equal(values[0], frames)
    assert geometry.size == (4, 5, 6)


def test_colours_are_channels(tmp_path: Path) -> None:
    colours = np.random.default_rng(3).integers(0, 256, (16, 17, 3)).astype(np.uint8)
    write_dicom(tmp_path / "in" / "a", colours)
    ((values, geometry),) = read_training(convert(tmp_path / "in")).values()
    np.testing.assert_array_equal(values[:, 0], np.moveaxis(colours, -1, 0))
    assert geometry.dimensions == 2


def test_compressed_files(tmp_path: Path) -> None:
    stored = (volume(shape=(1, 70, 60))[0] + 500).astype(np.uint16)
    file = write_dicom(tmp_path / "in" / "a", stored, compress=True)
    assert file.stat().st_size < stored.nbytes
    ((values, _),) = read_training(convert(tmp_path / "in")).values()
    np.testing.assert_array_equal(values[0, 0], stored)


def test_other_files_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "in"
    write_series(folder, volume())
    write_series(folder / "drawn", volume(1), series="8", tags={"0008|0060": "SEG"})
    (folder / "notes.txt").write_text("x")
    (folder / "scan.dcm").write_bytes(b"%PDF-1.4")
    (folder / "empty").write_bytes(b"")
    name = b"1.2.840.10008.5.1.4.1.1.88.11\0"
    (folder / "report").write_bytes(bytes(128) + b"DICM\x02\x00\x02\x00UI" + bytes([len(name), 0]) + name)
    assert len(read_training(convert(folder))) == 1
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        f"{folder}: 4 file(s) that hold no DICOM image are left out.",
        f"{folder}: 6 file(s) of segmentations or doses are left out.",
    ]


def test_missing_slices(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", volume(), number=3, spacing=(1, 1, 2), origin=(0, 0, 10))
    files[2].unlink()
    sentence = refused(tmp_path / "in")
    assert "series 3 of patient P1 has a gap of 4 mm after the position (0, 0, 12), where 2 mm are usual" in sentence
    for file in (files[1], files[3]):
        file.unlink()
    assert "a gap of 8 mm after the position (0, 0, 10), where 2 mm" in refused(tmp_path / "in")
    (tmp_path / "in" / files[4].name).unlink()
    assert len(read_training(convert(tmp_path / "in"))) == 1  # two slices 10 mm apart


def test_gaps_that_differ_by_a_fifth(tmp_path: Path) -> None:
    for index, values in enumerate(volume()):
        write_series(tmp_path / "in" / str(index), values[None], origin=(3.0, 0.0, 2.0 * index + 0.4 * (index == 5)))
    assert "has a gap of 2.4 mm after the position (3, 0, 8), where 2 mm are usual" in refused(tmp_path / "in")


def test_positions_may_be_rounded(tmp_path: Path) -> None:
    for index, values in enumerate(volume()):
        z = 2.0 * index + (0.0, 0.05, -0.05, 0.0, 0.08, 0.0)[index]
        write_series(tmp_path / "in" / str(index), values[None], origin=(3.0, 0.0, z))
    ((values, geometry),) = read_training(convert(tmp_path / "in")).values()
    np.testing.assert_array_equal(values[0], volume())
    assert geometry.matches(Geometry((4, 5, 6), (1, 1, 2), (3, 0, 0), tuple(np.eye(3).ravel())))


def test_doubled_slices(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", volume(), number=3, spacing=(1, 1, 2), origin=(0, 0, 10))
    (tmp_path / "in" / "again").write_bytes(files[2].read_bytes())
    sentence = refused(tmp_path / "in")
    assert f"series 3 of patient P1 has {files[2].name} and again at the same position (0, 0, 14)" in sentence


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("size", {"volume": volume(shape=(1, 7, 4))}),
        ("orientation", {"direction": SAGITTAL}),
        ("spacing", {"spacing": (1.5, 1.0, 1.0)}),
    ],
)
def test_slices_that_do_not_fit_together(tmp_path: Path, what: str, other: dict) -> None:
    write_series(tmp_path / "in", volume(), number=5)
    stray = {"volume": volume(shape=(1, 5, 4)), "origin": (0.0, 0.0, 6.0), **other}
    write_series(tmp_path / "in" / "stray", **stray, number=5)
    sentence = refused(tmp_path / "in")
    assert f"series 5 of patient P1 differs in {what} between IM023 and" in sentence
    assert "at the position (0, 0, " in sentence


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    for index, values in enumerate(volume()):
        write_series(tmp_path / "in" / str(index), values[None], number=5, origin=(0.0, 0.3 * index, float(index)))
    sentence = refused(tmp_path / "in")
    assert "series 5 of patient P1 is shifted sideways by 0.6 mm at the position (0, 0.6, 2)" in sentence


def test_images_without_a_position_are_no_volume(tmp_path: Path) -> None:
    for file in write_series(tmp_path / "in", volume(shape=(2, 5, 4))):
        forget_position(file)
    assert "series 1 of patient P1 has 2 files that are no slices with a position" in refused(tmp_path / "in")


def test_several_films_in_one_series(tmp_path: Path) -> None:
    for index in range(2):
        film = (volume(index) + 500).astype(np.uint16)
        write_dicom(tmp_path / "in" / str(index), film, {"0010|0020": "P2", "0020|000e": f"{ROOT}.1"})
    assert "series 0 of patient P2 has 2 files that are no slices with a position" in refused(tmp_path / "in")


def test_damaged_files_and_faulty_series_are_listed_together(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "a", volume(), series="1")[3].unlink()
    write_series(tmp_path / "in" / "b", volume(), series="2")[2].unlink()
    cut = write_series(tmp_path / "in" / "c", volume(), series="3")[5]
    cut.write_bytes(cut.read_bytes()[:-7])
    with pytest.raises(UserError, match="3 faults were found") as caught:
        convert(tmp_path / "in")
    lines = str(caught.value).splitlines()
    assert f"{cut} is damaged or holds no image; replace the file by an intact copy." in lines[1]
    for name, line in zip("ab", lines[2:], strict=True):
        assert f"{tmp_path / 'in' / name}: series 1 of patient P1 has a gap of 2 mm" in line
    assert not (tmp_path / "raw").exists()


def test_trees_without_images(tmp_path: Path) -> None:
    assert "is not a folder" in refused(tmp_path / "missing")
    (tmp_path / "in").mkdir()
    assert "holds no DICOM images among 0 file(s)" in refused(tmp_path / "in")
    (tmp_path / "in" / "a.dcm").write_text("x")
    assert "holds no DICOM images among 1 file(s)" in refused(tmp_path / "in")


def test_test_series_and_sample_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_series(tmp_path / "in", volume(), patient="P1")
    assert "there are no test images" in refused(tmp_path / "in", labels=tmp_path / "labels.csv")
    write_series(tmp_path / "test" / "a", volume(1), patient="P2", series="2")
    write_series(tmp_path / "test" / "b", volume(2), patient="P1", series="3")
    table = tmp_path / "labels.csv"
    table.write_text("case,label\nP2_001,1\n")
    assert "lacks 1 test case(s), such as P1_001-2" in refused(tmp_path / "in", test=tmp_path / "test", labels=table)
    table.write_text("case,label\nP2_001,1\nP1_001-2,0\n")
    dataset = convert(tmp_path / "in", test=tmp_path / "test", labels=table)
    assert "1 test patient(s) are also trained on, such as P1." in caplog.text
    assert read_pairs(dataset / "labelsTs.csv") == {"P2_001": "1", "P1_001-2": "0"}
    assert read_pairs(dataset / "groups.csv") == {"P1_001": "P1"}
    images = read_folder(dataset / "imagesTs")
    np.testing.assert_array_equal(images["P2_001_0000"], volume(1))
    np.testing.assert_array_equal(images["P1_001-2_0000"], volume(2))


@pytest.mark.parametrize("other", ["in", "in/deep", "."])
def test_a_test_folder_within_the_training_folder(tmp_path: Path, other: str) -> None:
    write_series(tmp_path / "in", volume())
    assert "lie in each other, so that test series would be trained on" in refused(
        tmp_path / "in", test=tmp_path / other
    )


def test_masks_lie_on_the_grid_of_their_series(tmp_path: Path) -> None:
    write_series(tmp_path / "in", volume())
    write_series(tmp_path / "test", volume(1), patient="P2", spacing=(0.7, 1.3, 4.5), direction=OBLIQUE)
    geometry = Geometry((4, 5, 6), (0.7, 1.3, 4.5), (0, 0, 0), tuple(OBLIQUE.ravel().tolist()))
    write_image((volume(1) > 1000).astype(np.uint8), geometry, tmp_path / "masks" / "P2_001.nii.gz")
    dataset = convert(tmp_path / "in", test=tmp_path / "test", labels=tmp_path / "masks")
    np.testing.assert_array_equal(read_folder(dataset / "labelsTs")["P2_001"], volume(1) > 1000)


def test_only_what_changed_is_done_again(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "a", volume(1), patient="A", series="1")
    changed = write_series(tmp_path / "in" / "b", volume(2), patient="B", series="2")
    write_series(tmp_path / "in" / "c", volume(3), patient="C", series="3")
    dataset = convert(tmp_path / "in")
    before = times(dataset)
    (dataset / "imagesTr" / "A_001_0000.nii.gz").unlink()
    changed[-1].unlink()
    convert(tmp_path / "in")
    assert {path.name for path, time in times(dataset).items() if before[path] != time} == {
        "A_001_0000.nii.gz",
        "B_001_0000.nii.gz",
    }
    assert read_folder(dataset / "imagesTr")["B_001_0000"].shape == (5, 5, 4)


def test_the_command_refuses_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_series(tmp_path / "in", volume())[2].unlink()
    sentence = sentence_of_command(monkeypatch, capsys, "dicom", "-i", "in", "-d", "7")
    assert "error: in: series 1 of patient P1 has a gap of 2 mm after the position (0, 0, 1)" in sentence
