import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_writer import make_monochrome1, replace_tag, set_stored_bits, write_dicom, write_series
from raw_checks import read_folder, read_pairs, read_training, sentence_of_command, times
from scipy.special import expit

from dataset_conversion.dicom_window import Window, read_displayed
from dataset_conversion.vindr import convert_vindr
from nnood.errors import UserError

# Image to the findings of its readers: 1 is "No finding".
TRAINING = {"a1": "111", "a2": "110", "a3": "000", "a4": "111", "a5": "100"}
TESTS = {"t1": "1", "t2": "0", "t3": "0", "t4": "1"}
BOXES = [
    ("t1", "No finding", "", "", "", ""),
    ("t2", "Nodule/Mass", "8.0", "4.5", "16.0", "20.2"),
    ("t2", "ILD", "30", "38", "99", "99"),
    ("t3", "Cardiomegaly", "10", "10", "11", "12"),
    ("t4", "No finding", "", "", "", ""),
]
SHAPE = (60, 40)
WINDOW = {"0028|1050": "2000\\100", "0028|1051": "1000\\50"}


def pixels(name: str, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(list(name.encode())).integers(0, 4096, shape).astype(np.uint16)


def write_rows(table: Path, header: str, rows: Sequence[tuple[str, ...]]) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for split, images in (("train", TRAINING), ("test", TESTS)):
        for image in images:
            write_dicom(folder / split / f"{image}.dicom", pixels(image), WINDOW)
    readings = [(image, f"R{i}", "0", one) for image, values in TRAINING.items() for i, one in enumerate(values)]
    tables = folder / "annotations"
    write_rows(tables / "image_labels_train.csv", "image_id,rad_id,Aortic enlargement,No finding", readings)
    write_rows(
        tables / "image_labels_test.csv", "image_id,Aortic enlargement,No finding", [(i, "0", TESTS[i]) for i in TESTS]
    )
    write_rows(tables / "annotations_test.csv", "image_id,class_name,x_min,y_min,x_max,y_max", BOXES)
    return folder


def convert(source: Path, **options: int) -> Path:
    return convert_vindr(source, source.parent / "raw", 8, "Chests", **options)  # type: ignore[arg-type]


def windowed(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """The linear window of the standard: C.11.2.1.2.1."""
    return np.interp(values, [centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2], [0, 1])


def test_all_readers_must_have_found_nothing(source: Path) -> None:
    training = read_training(convert(source))
    assert list(training) == ["a1", "a4"]
    for image, (values, geometry) in training.items():
        expected = windowed(pixels(image), 2000, 1000)
        np.testing.assert_allclose(values[0, 0] / 65535, expected, atol=1e-5)
        assert geometry.spacing == (1, 1)


def test_test_images_carry_the_consensus_and_boxes(source: Path) -> None:
    dataset = convert(source)
    assert read_pairs(dataset / "labelsTs.csv") == {"t1": "0", "t2": "1", "t3": "1", "t4": "0"}
    assert list(read_folder(dataset / "imagesTs")) == [f"{image}_0000" for image in TESTS]
    masks = read_folder(dataset / "labelsTs")
    expected = {image: np.zeros(SHAPE, np.uint8) for image in ("t2", "t3")}
    expected["t2"][4:21, 8:16] = 1
    expected["t2"][38:60, 30:40] = 1
    expected["t3"][10:12, 10:11] = 1
    np.testing.assert_equal(masks, expected)


def test_images_and_boxes_are_reduced_alike(source: Path) -> None:
    dataset = convert(source, size=20)
    image = read_folder(dataset / "imagesTs")["t2_0000"]
    grey = torch.from_numpy(windowed(pixels("t2"), 2000, 1000))[None, None]
    reference = torch.nn.functional.interpolate(grey, (20, 13), mode="bilinear", antialias=True)[0, 0].numpy()
    np.testing.assert_allclose(image / 65535, reference, atol=2e-5)
    assert image.dtype == np.uint16
    masks = read_folder(dataset / "labelsTs")
    expected = np.zeros((20, 13), np.uint8)
    expected[1:7, 2:6] = 1  # y 4.5 to 20.2 of 60, x 8 to 16 of 40
    expected[12:20, 9:13] = 1
    np.testing.assert_array_equal(masks["t2"], expected)
    assert np.argwhere(masks["t3"]).tolist() == [[3, 3]]  # small as it is, it is not lost


def test_a_fine_pattern_becomes_grey(source: Path) -> None:
    board = (np.indices(SHAPE).sum(axis=0) % 2 * 4000).astype(np.uint16)
    board[:6] = 0
    write_dicom(source / "train" / "a1.dicom", board)
    image = read_folder(convert(source, size=30) / "imagesTr")["a1_0000"]
    np.testing.assert_allclose(image[5:] / 65535, 0.5, atol=0.02)


def test_without_boxes_there_are_sample_labels_only(source: Path) -> None:
    (source / "annotations" / "annotations_test.csv").unlink()
    dataset = convert(source)
    assert len(read_pairs(dataset / "labelsTs.csv")) == 4
    assert not (dataset / "labelsTs").exists()


def test_boxes_that_contradict_the_consensus(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*BOXES[:3], ("t4", "ILD", "1", "1", "9", "9")]
    write_rows(source / "annotations" / "annotations_test.csv", "image_id,class_name,x_min,y_min,x_max,y_max", rows)
    dataset = convert(source)
    assert read_pairs(dataset / "labelsTs.csv") == {"t1": "0", "t2": "1"}
    assert list(read_folder(dataset / "labelsTs")) == ["t2"]
    assert "2 of 4 test images are left out: abnormal without a box, or normal with one." in caplog.text


@pytest.mark.parametrize("bits", [16, 12])
@pytest.mark.parametrize("is_inverted", [False, True])
@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("LINEAR", windowed),
        (
            "LINEAR_EXACT",
            lambda values, centre, width: np.interp(values, [centre - width / 2, centre + width / 2], [0, 1]),
        ),
        ("SIGMOID", lambda values, centre, width: expit(4 * (values - centre) / width)),
    ],
)
def test_windows(tmp_path: Path, kind: str, reference: Window, is_inverted: bool, bits: int) -> None:
    tags = {"0028|1050": "3000", "0028|1051": "1200.5", "0028|1056": kind, "0028|1052": "0", "0028|1053": "1"}
    file = write_dicom(tmp_path / "a.dicom", pixels("a"), tags)
    replace_tag(file, "0028|1053", "1 ", "3 ")
    replace_tag(file, "0028|1052", "0 ", "-9")
    if bits == 12:
        set_stored_bits(file, bits)
    if is_inverted:
        make_monochrome1(file)
    expected = reference(pixels("a") * 3.0 - 9, 3000, 1200.5)
    np.testing.assert_allclose(read_displayed(file), 1 - expected if is_inverted else expected, atol=1e-6)


@pytest.mark.parametrize("is_inverted", [False, True])
@pytest.mark.parametrize(
    "tags", [{}, {"0028|1050": "5"}, {"0028|1050": "5", "0028|1051": "0"}, {"0028|1050": "5", "0028|1051": "x"}]
)
def test_without_a_usable_window_all_values_are_shown(tmp_path: Path, tags: dict[str, str], is_inverted: bool) -> None:
    values = pixels("b").astype(np.int16) - 300
    file = write_dicom(tmp_path / "b", values, tags)
    if is_inverted:
        make_monochrome1(file)
    expected = np.interp(values, [values.min(), values.max()], [1, 0] if is_inverted else [0, 1])
    np.testing.assert_allclose(read_displayed(file), expected, atol=1e-6)


def test_bad_images_are_listed_and_good_ones_kept(source: Path) -> None:
    train = source / "train"
    (train / "a1.dicom").write_bytes(b"%PDF-1.4 of 3000 pages")
    cut = source / "test" / "t1.dicom"
    cut.write_bytes(cut.read_bytes()[:-9])
    write_dicom(train / "a4.dicom", np.stack([pixels("x")] * 3))
    (source / "annotations" / "annotations_test.csv").write_text(
        "image_id,class_name,x_min,y_min,x_max,y_max\nt2,ILD,50,1,70,9\nt3,ILD,1,1,9,9\n"
    )
    with pytest.raises(UserError, match=r"4 fault\(s\) were found") as caught:
        convert(source)
    lines = str(caught.value).splitlines()[1:]
    assert lines == [
        f"  - {train / 'a1.dicom'} is no DICOM file; replace the file by an intact copy.",
        f"  - {train / 'a4.dicom'} has 1 channel(s) and 3 frame(s); expected one X-ray per file.",
        f"  - {cut} is damaged or holds no image; replace the file by an intact copy.",
        f"  - {source / 'test' / 't2.dicom'} has boxes outside of the image only; leave the image out.",
    ]
    assert len(read_folder(source.parent / "raw" / "Dataset008_Chests" / "imagesTs")) == 3


def test_only_what_changed_is_done_again(source: Path) -> None:
    dataset = convert(source)
    before = times(dataset)
    convert(source)
    assert times(dataset) == before
    write_dicom(source / "train" / "a4.dicom", pixels("other"))
    convert(source)
    assert [path.name for path, time in times(dataset).items() if before[path] != time] == ["a4_0000.nii.gz"]
    convert(source, size=20)
    assert not set(times(dataset).values()) & set(before.values())


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        ("image_labels_train", None, "image_labels_train.csv does not exist; give the folder"),
        ("image_labels_test", "", "lacks the column(s) image_id, No finding"),
        ("image_labels_test", "image_id,No finding\n", "has a header only"),
        ("image_labels_test", "image_id,No finding\nt1,1\nt1,1\n", "t1 has the readings ['1', '1'] of 'No finding'"),
        ("image_labels_train", "image_id,No finding\na1,1\na1,1\n", "expected 3 of 0 or 1"),
        ("image_labels_train", "image_id,No finding\na1,1\na1,1\na1,yes\n", "a1 has the readings ['1', '1', 'yes']"),
        (
            "image_labels_train",
            "image_id,No finding\na1,1\na1,0\na1,1\n",
            "no image in which all readers found nothing",
        ),
        ("image_labels_test", "image_id,No finding\nt9,1\n", "lacks 1 image(s), such as "),
        ("annotations_test", "image_id,class_name\n", "lacks the column(s) x_min, y_min, x_max, y_max"),
        (
            "annotations_test",
            "image_id,class_name,x_min,y_min,x_max,y_max\nt2,ILD,5,5,5,9\n",
            "t2 has a box of no area",
        ),
        (
            "annotations_test",
            "image_id,class_name,x_min,y_min,x_max,y_max\nt2,ILD,5,5,nan,9\n",
            "t2 has a box of no area",
        ),
        ("annotations_test", "image_id,class_name,x_min,y_min,x_max,y_max\nt2,ILD,5\n", "t2 has a box of no area"),
    ],
)
def test_tables_that_are_refused(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    table: str,
    content: str | None,
    message: str,
) -> None:
    file = source / "annotations" / f"{table}.csv"
    file.unlink()
    if content is not None:
        file.write_text(content)
    monkeypatch.chdir(source.parent)
    assert message in sentence_of_command(monkeypatch, capsys, "vindr", "-i", source, "-d", "8")
    assert not list((source.parent).glob("*/raw/*"))


def test_a_size_of_nothing_is_refused(source: Path) -> None:
    with pytest.raises(UserError, match="give a number from 1 on"):
        convert(source, size=0)


def test_a_slice_in_colours_is_no_xray(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "c", np.zeros((6, 7, 3), np.uint8))
    with pytest.raises(UserError, match=r"has 3 channel\(s\) and 1 frame\(s\)"):
        read_displayed(file)


def test_a_signed_slice_that_is_inverted(tmp_path: Path) -> None:
    values = pixels("s").astype(np.int16) - 2000
    tags = {"0028|1050": "-100", "0028|1051": "800", "0028|1052": "0"}
    (file,) = write_series(tmp_path / "s", values[None], tags=tags)
    make_monochrome1(file)
    np.testing.assert_allclose(read_displayed(file), 1 - windowed(values, -100, 800), atol=1e-6)
