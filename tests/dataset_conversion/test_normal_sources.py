"""Hippocampi and IXI: sources of normal images only, of which a part is held out."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dataset_conversion.hippocampus import convert_hippocampus
from dataset_conversion.hold_out import hold_out
from dataset_conversion.ixi import convert_ixi
from nnood.datasets import load_dataset
from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import read_image, write_image
from nnood.paths import Roots

SHAPE = (4, 5, 6)
GEOMETRY = Geometry.from_spacing(SHAPE, (1, 1, 1))
RNG = np.random.default_rng(0)


def write(folder: Path, *names: str) -> Path:
    for name in names:
        write_image(RNG.integers(0, 99, SHAPE).astype(np.uint8), GEOMETRY, folder / name)
    return folder


def cases(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix("_0000.nii.gz") for path in folder.iterdir())


@pytest.mark.parametrize("seed", range(10))
def test_a_group_is_never_on_both_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = {f"case{number}": f"g{rng.integers(12):02d}" for number in range(40)}
    training, tests = hold_out(groups, groups, Path("in"))
    sides = [{groups[case] for case in side} for side in (training, tests)]
    assert not sides[0] & sides[1]
    assert sorted(training + tests) == sorted(groups)
    names = sorted(set(groups.values()))
    assert sides[1] == set(names[int(0.8 * len(names)) :])


def test_one_image_is_too_few() -> None:
    with pytest.raises(UserError, match=r"in holds 1 normal image\(s\); training needs 2 or more"):
        hold_out(["a"], {}, Path("in"))


@pytest.mark.parametrize("below", ["Task04_Hippocampus/imagesTr", "imagesTr", "images", "."])
def test_layouts_of_hippocampi(tmp_path: Path, below: str) -> None:
    names = [f"hippocampus_{number:03d}.nii.gz" for number in (1, 3, 4, 6, 7, 8, 11, 14, 15, 17)]
    folder = write(tmp_path / "in" / below, *names)
    (folder / "._hippocampus_001.nii.gz").write_bytes(b"of macOS")
    write(tmp_path / "in" / "labelsTr", names[0])
    dataset = convert_hippocampus(tmp_path / "in", tmp_path / "raw", 4, "Hippocampus")
    assert cases(dataset / "imagesTs") == ["hippocampus_015", "hippocampus_017"]
    assert len(cases(dataset / "imagesTr")) == 8
    assert (dataset / "labelsTs.csv").read_text() == "case,label\nhippocampus_015,0\nhippocampus_017,0\n"
    assert not (dataset / "groups.csv").exists()
    with pytest.raises(UserError, match=r"There is no hippocampus_\*\.nii\.gz in .*; give the unpacked Task04"):
        convert_hippocampus(tmp_path / "raw", tmp_path / "raw", 4, "Hippocampus")


@pytest.mark.parametrize(("below", "joint"), [("IXI-T2", "-"), ("t2", "_"), (".", "-")])
def test_layouts_of_ixi(tmp_path: Path, below: str, joint: str, caplog: pytest.LogCaptureFixture) -> None:
    people = ("IXI002-Guys-0828", "IXI012-HH-1211", "IXI012-HH-1212", "IXI013-HH-1212", "IXI014-HH-1236")
    folder = write(tmp_path / "in" / below, *(f"{person}{joint}T2.nii.gz" for person in people))
    write(folder, f"IXI015-HH-1258{joint}PD.nii.gz")
    dataset = convert_ixi(tmp_path / "in", tmp_path / "raw", 4, "Heads", modality="T2")
    assert cases(dataset / "imagesTr") == [f"{person}{joint}T2" for person in people[:4]]
    assert cases(dataset / "imagesTs") == [f"{people[4]}{joint}T2"]
    assert f"1 images are of no T2, such as IXI015-HH-1258{joint}PD; left out" in caplog.text
    rows = (dataset / "groups.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["IXI002", "IXI012", "IXI012", "IXI013"]
    assert load_dataset(dataset.name, Roots(tmp_path / "raw", tmp_path, tmp_path)).channel_names == ("T2",)
    with pytest.raises(
        UserError, match=r"There is no IXI\*\[-_\]T1\.nii\.gz in .*; give the folder of IXI's T1 images"
    ):
        convert_ixi(tmp_path / "in", tmp_path / "raw", 4, "Heads")


def test_links_are_made_and_bad_images_named(tmp_path: Path) -> None:
    source = write(tmp_path / "in", *(f"hippocampus_{number:03d}.nii.gz" for number in range(5)))
    bad = source / "hippocampus_001.nii.gz"
    bad.write_bytes(bad.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"1 fault\(s\)[\s\S]*hippocampus_001\.nii\.gz is damaged"):
        convert_hippocampus(source, tmp_path / "raw", 4, "Hippocampus", link=True)
    write(source, bad.name)
    dataset = convert_hippocampus(source, tmp_path / "raw", 4, "Hippocampus", link=True)
    assert all(path.is_symlink() for folder in ("imagesTr", "imagesTs") for path in (dataset / folder).iterdir())


@pytest.mark.parametrize(
    ("function", "folder", "count"), [(convert_hippocampus, "hippocampus/images", 2), (convert_ixi, "ixi_2mm/t1", 1)]
)
def test_real_images(real_data: Path, tmp_path: Path, function: object, folder: str, count: int) -> None:
    (tmp_path / "in").mkdir()
    files = sorted((real_data / folder).glob("*.nii.gz"))[: 5 * count]
    for file in files:
        shutil.copy(file, tmp_path / "in")
    for link in (False, True):
        dataset = function(tmp_path / "in", tmp_path / "raw", 4, "Real", link=link)  # type: ignore[operator]
        assert cases(dataset / "imagesTs") == [file.name.removesuffix(".nii.gz") for file in files[-count:]]
        for file in files:
            case = file.name.removesuffix(".nii.gz")
            (stored,) = dataset.glob(f"images*/{case}_0000.nii.gz")
            assert stored.is_symlink() == link
            for one, other in zip(read_image(stored), read_image(file), strict=True):
                np.testing.assert_array_equal(one, other) if isinstance(one, np.ndarray) else one.matches(other)


def test_the_layouts_of_the_real_data(real_data: Path, tmp_path: Path) -> None:
    hippocampi = convert_hippocampus(real_data / "hippocampus", tmp_path / "raw", 4, "Hippocampus", link=True)
    assert (len(cases(hippocampi / "imagesTr")), len(cases(hippocampi / "imagesTs"))) == (208, 52)
    heads = convert_ixi(real_data / "ixi_2mm", tmp_path / "raw", 5, "IXI", link=True)
    assert (len(cases(heads / "imagesTr")), len(cases(heads / "imagesTs"))) == (32, 8)
