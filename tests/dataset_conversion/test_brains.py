"""BraTS and ISLES: the published layouts, and brains made alike."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from dataset_conversion.brats import convert_brats
from dataset_conversion.isles import convert_isles
from nnood.datasets import load_dataset
from nnood.errors import UserError
from nnood.images import read_image
from nnood.paths import Roots
from nnood.planning.foreground import foreground_mask
from nnood.safety import read_json

BOX = (48, 56, 44)
HALF_AXES = (14.0, 20.0, 16.0)  # of the brain, in mm, along x, y, z
LESION = (5.0, -7.0, 4.0)  # its middle, from that of the brain: to the left, to the front, up
LPS, RAS, PSL = (1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1), (0, 0, 1, 1, 0, 0, 0, 1, 0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnood.safety.flush", lambda _: None)
    monkeypatch.setattr("dataset_conversion.brains.BOX", BOX)


def head(
    file: Path,
    *,
    lesion: Path | None = None,
    spacing: tuple[float, float, float] = (1, 1, 1),
    direction: tuple[int, ...] = LPS,
    middle: tuple[float, float, float] = (3, -20, 100),
    seed: int = 0,
) -> None:
    """Write an ellipsoid of a brain before a background of 0, drawn in millimetres, and a ball in it as lesion."""
    axes = np.array(direction).reshape(3, 3)
    extent = np.abs(axes.T @ np.array(HALF_AXES)) * 2 + 12
    size = np.ceil(extent / spacing).astype(int)
    # Where the first voxel lies, if the middle of the grid is to be at `middle`, moved a little.
    origin = np.array(middle) - axes @ ((size - 1) / 2 * spacing) + 2
    index = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), axis=-1)
    points = origin + (index * spacing) @ axes.T - middle
    brain = ((points / HALF_AXES) ** 2).sum(axis=-1) <= 1
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=tuple(size)), 1)
    values = np.where(brain, 500 + 3 * points[..., 1] + 150 * noise, 0).astype(np.int16)
    inside = (((points - LESION) ** 2).sum(axis=-1) <= 16) * 4
    for array, path in ((values, file), (inside.astype(np.uint8), lesion)):
        if path:
            image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
            image.SetSpacing(tuple(map(float, spacing)))
            image.SetOrigin(origin.tolist())
            image.SetDirection(tuple(map(float, direction)))
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(path))


@pytest.fixture
def normal(tmp_path: Path) -> Path:
    head(tmp_path / "hcp" / "100307.nii.gz", spacing=(0.7, 0.7, 0.7), direction=RAS, seed=1)
    head(tmp_path / "hcp" / "100408.nii.gz", spacing=(1, 1, 2), seed=2)
    return tmp_path / "hcp"


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    root = tmp_path / "brats"
    for case, images, labels, options in (
        ("BraTS20_Training_001", "_t2.nii.gz", "_seg.nii.gz", {}),
        ("HGG/Brats17_2013_2_1", "_t2.nii", "_seg.nii", {"spacing": (1, 1, 3), "direction": RAS}),
        ("BraTS-GLI-00000-000", "-t2w.nii.gz", "-seg.nii.gz", {"spacing": (2, 1.5, 1), "direction": PSL}),
    ):
        name = Path(case).name
        head(root / case / (name + images), lesion=root / case / (name + labels), **options)  # type: ignore[arg-type]
        (root / case / f"{name}_flair.nii.gz").write_bytes(b"not used")
        (root / case / f"._{name}_t2.nii.gz").write_bytes(b"of macOS")
    return root


def convert(source: Path, normal: Path, **options: object) -> Path:
    return convert_brats(source, source.parent / "raw", 5, "Tumours", normal=normal, **options)  # type: ignore[arg-type]


def volume(file: Path) -> np.ndarray:
    values, geometry = read_image(file)
    assert geometry.spacing == (1, 1, 1)
    assert values.shape == (1, *BOX)
    return values[0]


def test_brains_are_made_alike(brats: Path, normal: Path) -> None:
    dataset = convert(brats, normal)
    loaded = load_dataset(dataset.name, Roots(dataset.parent, dataset, dataset))
    assert list(loaded.training) == ["100307", "100408"]
    assert loaded.channel_names == ("T2",)
    files = sorted((dataset / "imagesTs").iterdir())
    assert [file.name.removesuffix("_0000.nii.gz") for file in files] == [
        "BraTS-GLI-00000-000",
        "BraTS20_Training_001",
        "Brats17_2013_2_1",
    ]
    for file in [*(case[0] for case in loaded.training.values()), *files]:
        values = volume(file)
        assert values.dtype == np.float32
        brain = values != 0
        assert values[brain].mean() == pytest.approx(0, abs=1e-4)
        assert values[brain].std() == pytest.approx(1, abs=1e-4)
        (box,) = ndimage.find_objects(brain.astype(int))
        for axis, half, most in zip(box, reversed(HALF_AXES), BOX, strict=True):
            assert axis.stop - axis.start == pytest.approx(2 * half, abs=3)
            assert (axis.start + axis.stop) / 2 == pytest.approx(most / 2, abs=0.5)
        # Values rise from the front to the back, whatever the axes of the file: y is the same way in all of them.
        rows = np.array([values[:, y][brain[:, y]].mean() for y in range(box[1].start + 3, box[1].stop - 3)])
        assert np.corrcoef(rows, np.arange(len(rows)))[0, 1] > 0.9


def test_values_on_a_grid_of_1_mm_are_moved_and_scaled_only(brats: Path, normal: Path) -> None:
    dataset = convert(brats, normal)
    original = read_image(brats / "BraTS20_Training_001" / "BraTS20_Training_001_t2.nii.gz")[0][0].astype(float)
    inside = original[original != 0]
    expected = (original - inside.mean()) / inside.std()
    (box,) = ndimage.find_objects((original != 0).astype(int))
    values = volume(dataset / "imagesTs" / "BraTS20_Training_001_0000.nii.gz")
    (moved,) = ndimage.find_objects((values != 0).astype(int))
    np.testing.assert_allclose(values[moved], np.where(original[box] != 0, expected[box], 0), atol=1e-5)


def test_resampling_agrees_with_another_library(brats: Path, normal: Path) -> None:
    dataset = convert(brats, normal)
    original = read_image(normal / "100408.nii.gz")[0][0].astype(float)
    size = 2 * len(original)  # slices of 2 mm
    rows = [(np.arange(size) + 0.5) / 2 - 0.5, np.arange(original.shape[1]), np.arange(original.shape[2])]
    grid = np.stack(np.meshgrid(*rows, indexing="ij"))
    linear = ndimage.map_coordinates(original, grid, order=1, mode="nearest")
    brain = (original != 0).repeat(2, axis=0)
    expected = np.where(brain, (linear - linear[brain].mean()) / linear[brain].std(), 0)
    (box,) = ndimage.find_objects(brain.astype(int))
    values = volume(dataset / "imagesTr" / "100408_0000.nii.gz")
    (moved,) = ndimage.find_objects((values != 0).astype(int))
    np.testing.assert_allclose(values[moved], expected[box], atol=1e-3)


@pytest.mark.parametrize("case", ["BraTS20_Training_001", "Brats17_2013_2_1", "BraTS-GLI-00000-000"])
def test_lesions_keep_their_place_in_the_brain(brats: Path, normal: Path, case: str) -> None:
    dataset = convert(brats, normal)
    lesion = volume(dataset / "labelsTs" / f"{case}.nii.gz")
    assert set(np.unique(lesion)) == {0, 1}
    assert lesion.sum() == pytest.approx(4 / 3 * np.pi * 4**3, rel=0.15)
    (box,) = ndimage.find_objects((volume(dataset / "imagesTs" / f"{case}_0000.nii.gz") != 0).astype(int))
    middle = [(axis.start + axis.stop - 1) / 2 for axis in box]
    offset = np.array(ndimage.center_of_mass(lesion)) - middle
    np.testing.assert_allclose(offset, LESION[::-1], atol=1)


def test_the_brain_is_the_foreground(brats: Path, normal: Path) -> None:
    dataset = convert(brats, normal)
    method = read_json(dataset / "dataset.json")["nnood"]["foreground"]
    values = volume(dataset / "imagesTr" / "100307_0000.nii.gz")
    found = foreground_mask(values[None], method)
    assert (found != ndimage.binary_fill_holes(values != 0)).mean() < 1e-3


def test_a_killed_conversion_goes_on(brats: Path, normal: Path) -> None:
    text = f"""
import os, pathlib, dataset_conversion.cases as cases, dataset_conversion.brains as brains
from dataset_conversion.brats import convert_brats
brains.BOX, written, write = {BOX}, [], cases.write_receipt
def count(path, **record):
    written.append(path)
    if len(written) == 4:
        os._exit(9)
    write(path, **record)
cases.write_receipt = count
root = pathlib.Path({str(brats.parent)!r})
convert_brats(root / "brats", root / "raw", 5, "Tumours", normal=root / "hcp")
"""
    assert subprocess.run([sys.executable, "-c", text], check=False, capture_output=True).returncode == 9
    dataset = brats.parent / "raw" / "Dataset005_Tumours"
    assert not (dataset / "dataset.json").exists()
    finished = {path.stem for path in (dataset / "conversion").rglob("*.json")}
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*.nii.gz")}
    convert(brats, normal)
    again = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert (len(finished), len(before), len(again)) == (3, 4, 1)
    assert len(list((dataset / "labelsTs").iterdir())) == 3


def test_all_faults_are_named(brats: Path, normal: Path) -> None:
    lost = brats / "BraTS20_Training_001" / "BraTS20_Training_001_seg.nii.gz"
    content = lost.read_bytes()
    lost.unlink()
    with pytest.raises(UserError, match=r"BraTS20_Training_001_seg\.nii\.gz does not exist; rename it"):
        convert(brats, normal)
    assert not (brats.parent / "raw").exists()
    lost.write_bytes(content)
    head(normal / "whole.nii.gz", spacing=(1, 1, 1))
    values = sitk.ReadImage(str(normal / "whole.nii.gz")) + 1
    sitk.WriteImage(sitk.ConstantPad(values, (9, 9, 9), (9, 9, 9), 1.0), str(normal / "whole.nii.gz"))
    for name, array in (("none", np.zeros((8, 8, 8))), ("flat", np.pad(np.ones((4, 4, 4)), 2))):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(normal / f"{name}.nii.gz"))
    sitk.WriteImage(sitk.GetImageFromArray(np.eye(8)), str(normal / "picture.nii.gz"))
    with pytest.raises(UserError, match=r"4 fault\(s\)") as caught:
        convert(brats, normal)
    for name, reason in (
        ("whole", "give a skull-stripped image"),
        ("none", "give a skull-stripped image"),
        ("flat", "one value only"),
        ("picture", "expected one 3D image"),
    ):
        assert any(f"{name}.nii.gz" in line and reason in line for line in str(caught.value).splitlines())


def test_a_voxel_far_from_the_brain_does_not_move_it(brats: Path, normal: Path) -> None:
    file = brats / "BraTS20_Training_001" / "BraTS20_Training_001_t2.nii.gz"
    clean = volume(convert(brats, normal) / "imagesTs" / "BraTS20_Training_001_0000.nii.gz")
    image = sitk.ReadImage(str(file))
    image[1, 2, 1] = 9999
    sitk.WriteImage(image, str(file))
    again = volume(convert(brats, normal) / "imagesTs" / "BraTS20_Training_001_0000.nii.gz")
    np.testing.assert_array_equal(again, clean)


def test_a_mask_that_marks_nothing_is_refused(brats: Path, normal: Path) -> None:
    mask = brats / "BraTS20_Training_001" / "BraTS20_Training_001_seg.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(mask)) * 0, str(mask))
    with pytest.raises(UserError, match=r"_seg\.nii\.gz marks nothing in the brain of .*_t2\.nii\.gz; replace it"):
        convert(brats, normal)


def test_labels_on_another_grid_are_refused(brats: Path, normal: Path) -> None:
    case = brats / "BraTS20_Training_001" / "BraTS20_Training_001"
    head(brats / "other.nii.gz", lesion=Path(f"{case}_seg.nii.gz"), spacing=(2, 2, 2))
    with pytest.raises(UserError, match=r"_seg\.nii\.gz does not lie on the grid of .*_t2\.nii\.gz; give the files"):
        convert(brats, normal)


@pytest.mark.parametrize(("function", "what"), [(convert_brats, "BraTS"), (convert_isles, "ISLES")])
def test_folders_without_cases(tmp_path: Path, normal: Path, function: Callable[..., Path], what: str) -> None:
    for source in (normal, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=f"holds no case of {what}"):
            function(source, tmp_path / "raw", 5, "Tumours", normal=normal)
    assert not (tmp_path / "raw").exists()


@pytest.fixture
def isles(tmp_path: Path) -> Path:
    for number in (1, 2, 10):
        folder = tmp_path / "isles" / "SISS2015_Training" / str(number)
        image, lesion = (f"VSD.Brain.XX.O.{kind}.{700 + number}" for kind in ("MR_T2", "OT"))
        head(folder / image / f"{image}.nii", lesion=folder / lesion / f"{lesion}.nii", seed=number)
        (folder / "VSD.Brain.XX.O.MR_Flair.9").mkdir()
        (folder / image / "license.txt").write_text("terms")
    return tmp_path / "isles"


@pytest.mark.parametrize("below", [".", "SISS2015_Training"])
def test_the_layout_of_isles(isles: Path, normal: Path, below: str) -> None:
    dataset = convert_isles(isles / below, isles.parent / "raw", 6, "Strokes", normal=normal)
    assert sorted(path.name for path in (dataset / "labelsTs").iterdir()) == [
        f"siss_{number}.nii.gz" for number in ("01", "02", "10")
    ]
    lesion = volume(dataset / "labelsTs" / "siss_10.nii.gz")
    (box,) = ndimage.find_objects((volume(dataset / "imagesTs" / "siss_10_0000.nii.gz") != 0).astype(int))
    offset = np.array(ndimage.center_of_mass(lesion)) - [(axis.start + axis.stop - 1) / 2 for axis in box]
    np.testing.assert_allclose(offset, LESION[::-1], atol=1)


def test_isles_without_a_lesion(isles: Path, normal: Path) -> None:
    (isles / "SISS2015_Training/2/VSD.Brain.XX.O.OT.702/VSD.Brain.XX.O.OT.702.nii").unlink()
    with pytest.raises(UserError, match=r"/2/VSD\.Brain\*\.O\.OT\.\* must hold one NIfTI file"):
        convert_isles(isles, isles.parent / "raw", 6, "Strokes", normal=normal)
