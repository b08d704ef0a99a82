from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_checks import read_folder, read_pairs, read_training, sentence_of_command, times

from dataset_conversion.chestxray14 import convert_chestxray14
from nnood.errors import UserError

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height]"
)
# Image, findings, patient, age, sex, view.
TRAINING = [
    ("00000001_000.png", "No Finding", "1", "058Y", "M", "PA"),
    ("00000001_001.png", "Cardiomegaly|Effusion", "1", "059Y", "M", "PA"),
    ("00000001_002.png", "No Finding", "1", "060Y", "M", "PA"),
    ("00000002_000.png", "No Finding", "2", "18", "F", "PA"),
    ("00000003_000.png", "No Finding", "3", "017Y", "F", "PA"),
    ("00000004_000.png", "No Finding", "4", "40", "M", "AP"),
    ("00000005_000.png", "No Finding", "5", "411Y", "M", "PA"),
    ("00000006_000.png", "No Finding", "6", "215M", "M", "PA"),
    ("00000007_000.png", "No Finding", "7", "216M", "F", "PA"),
    ("00000008_000.png", "No Finding", "8", "005D", "F", "PA"),
]
TESTS = [
    ("00000011_000.png", "No Finding", "11", "030Y", "M", "PA"),
    ("00000012_000.png", "Mass", "12", "031Y", "F", "PA"),
    ("00000012_001.png", "No Finding", "12", "031Y", "F", "AP"),
    ("00000013_000.png", "Hernia|Mass", "13", "087Y", "M", "PA"),
    ("00000014_000.png", "Hernia", "14", "007Y", "M", "PA"),
]


def pixels(name: str) -> np.ndarray:
    return np.random.default_rng(int(name[:8]) + int(name[9:12])).integers(0, 256, (20, 18)).astype(np.uint8)


def write_tables(folder: Path, training: Sequence[tuple[str, ...]], tests: Sequence[tuple[str, ...]]) -> None:
    rows = [",".join((row[0], row[1], "0", *row[2:], "2500", "2048")) for row in (*training, *tests)]
    (folder / "Data_Entry_2017.csv").write_text("\n".join([HEADER, *rows, ""]))
    (folder / "train_val_list.txt").write_text("\n".join(row[0] for row in training))
    (folder / "test_list.txt").write_text("\r\n".join(row[0] for row in tests) + "\r\n")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The images of training in the first archive, those of testing in the last."""
    folder = tmp_path / "in"
    for archive, rows in (("images_001", TRAINING), ("images_012", TESTS)):
        (folder / archive / "images").mkdir(parents=True)
        for name, *_ in rows:
            Image.fromarray(pixels(name)).save(folder / archive / "images" / name)
    write_tables(folder, TRAINING, TESTS)
    return folder


def convert(source: Path, **options: str) -> Path:
    return convert_chestxray14(source, source.parent / "raw", 9, "Chests", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sex", "training", "tests"),
    [
        ("both", {"00000001_000": "1", "00000001_002": "1", "00000002_000": "2", "00000007_000": "7"}, "010"),
        ("M", {"00000001_000": "1", "00000001_002": "1"}, "01"),
        ("F", {"00000002_000": "2", "00000007_000": "7"}, "1"),
    ],
)
def test_normal_adults_in_one_view(source: Path, sex: str, training: dict[str, str], tests: str) -> None:
    dataset = convert(source, sex=sex)
    assert read_pairs(dataset / "groups.csv") == training
    found = read_training(dataset)
    assert list(found) == list(training)
    for case, (values, geometry) in found.items():
        np.testing.assert_array_equal(values[0, 0], pixels(case))
        assert geometry.dimensions == 2
    chosen = [row for row in TESTS if row[5] == "PA" and int(row[3][:3]) >= 18 and sex in (row[4], "both")]
    expected = {row[0][:-4]: str(int(row[1] != "No Finding")) for row in chosen}
    assert read_pairs(dataset / "labelsTs.csv") == expected
    assert list(read_folder(dataset / "imagesTs")) == [f"{case}_0000" for case in sorted(expected)]
    patients = {row[0][:-4]: row[2] for row in TESTS}
    assert not {patients[case] for case in expected} & set(training.values())


def test_all_images_in_one_folder_and_the_other_name_of_sex(source: Path) -> None:
    (source / "images").mkdir()
    for file in source.glob("images_*/images/*.png"):
        file.rename(source / "images" / file.name)
    table = source / "Data_Entry_2017.csv"
    (source / "Data_Entry_2017_v2020.csv").write_text(table.read_text().replace("Patient Gender", "Patient Sex"))
    table.unlink()
    assert len(read_training(convert(source))) == 4


def test_grey_images_that_are_stored_in_colours(source: Path) -> None:
    name = "00000001_000.png"
    file = source / "images_001" / "images" / name
    opaque = np.full((20, 18), 255, np.uint8)
    Image.fromarray(np.stack([pixels(name)] * 3 + [opaque], axis=-1)).save(file)
    values, _ = read_training(convert(source))["00000001_000"]
    np.testing.assert_array_equal(values, pixels(name)[None, None])
    colours = np.stack([pixels(name)] * 2 + [opaque], axis=-1)
    Image.fromarray(colours).save(file)
    with pytest.raises(UserError, match=r"00000001_000\.png is a colour picture; expected a grey X-ray"):
        convert(source)


def test_only_what_is_missing_is_done_again(source: Path) -> None:
    dataset = convert(source)
    before = times(dataset)
    missing = dataset / "imagesTs" / "00000012_000_0000.nii.gz"
    missing.unlink()
    convert(source)
    assert [path for path, time in times(dataset).items() if before[path] != time] == [missing]
    convert(source, sex="M")
    assert len(times(dataset)) == 4


def test_bad_images_are_listed(source: Path) -> None:
    cut = source / "images_012" / "images" / "00000011_000.png"
    cut.write_bytes(cut.read_bytes()[:60])
    flat = source / "images_001" / "images" / "00000002_000.png"
    Image.fromarray(np.zeros((20, 18), np.uint8)).save(flat)
    with pytest.raises(UserError, match=r"2 fault\(s\) were found") as caught:
        convert(source)
    assert f"{cut} is damaged" in str(caught.value)
    assert f"{flat} is constant" in str(caught.value)


def without(folder: Path, name: str) -> None:
    next(folder.glob(name)).unlink()


def with_text(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


def shared(folder: Path) -> None:
    write_tables(folder, TRAINING, [*TESTS, ("00000099_000.png", "Mass", "1", "058Y", "M", "PA")])


def aged(folder: Path, age: str, sex: str = "M") -> None:
    write_tables(folder, [("00000001_000.png", "No Finding", "1", age, sex, "PA")], TESTS)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: without(folder, "Data_*"), "holds no Data_Entry_2017*.csv; give the folder"),
        (lambda folder: without(folder, "test_list.txt"), "test_list.txt does not exist"),
        (lambda folder: with_text(folder, "Data_Entry_2017.csv", "a,b\n1,2\n"), "lacks the column(s) Image Index"),
        (lambda folder: with_text(folder, "test_list.txt", "7.png"), "names 1 image(s) that Data_Entry_2017.csv lacks"),
        (lambda folder: without(folder, "*/*/00000012_000.png"), "lacks 1 image(s), such as 00000012_000.png"),
        (shared, "patient 1 is in both lists"),
        (lambda folder: aged(folder, "old"), "00000001_000.png has the age 'old'"),
        (lambda folder: aged(folder, "20", "X"), "00000001_000.png has the sex 'X'"),
        (lambda folder: aged(folder, "017Y"), "has no image to train on: sex both, adult, view PA, No Finding"),
    ],
)
def test_sources_that_are_refused(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    spoil(source)
    monkeypatch.chdir(source.parent)
    assert message in sentence_of_command(monkeypatch, capsys, "chestxray14", "-i", source, "-d", "9")
    assert not list(source.parent.glob("*/raw/*"))


def test_a_sex_that_there_is_not(source: Path) -> None:
    with pytest.raises(UserError, match="'men' is no sex in ChestX-ray14; expected one of M, F, both"):
        convert(source, sex="men")
