import os
from pathlib import Path

import numpy as np
import pytest

from dataset_conversion.folder import convert_folder
from nnood.datasets import load_dataset
from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import read_image, write_image
from nnood.paths import Roots
from nnood.phantoms import write_demo_dataset
from nnood.planning.plan_and_preprocess import plan_and_preprocess

SHAPE = (4, 5, 6)
GEOMETRY = Geometry.from_spacing(SHAPE, (2, 1, 1))
RNG = np.random.default_rng(3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in", "a.nii.gz", "b.nii.gz")


def write(folder: Path, *names: str, kind: str = "int16") -> Path:
    for name in names:
        write_image(RNG.integers(0, 99, SHAPE).astype(kind), GEOMETRY, folder / name)
    return folder


def convert(source: Path, *, link: bool = True, **options: object) -> Path:
    return convert_folder(source, source.parent / "raw", 7, "Heads", link=link, **options)  # type: ignore[arg-type]


def images(dataset: Path) -> list[Path]:
    return sorted((dataset / "imagesTr").iterdir())


def times(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*.nii.gz")}


@pytest.mark.parametrize("processes", [1, 2])
def test_links_lead_to_the_originals(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    before = times(source)
    monkeypatch.chdir(tmp_path)
    dataset = convert_folder(Path("in"), tmp_path / "raw", 7, "Heads", link=True, processes=processes)
    assert [path.readlink() for path in images(dataset)] == [tmp_path / "in" / "a.nii.gz", tmp_path / "in" / "b.nii.gz"]
    assert times(source) == before
    assert list(load_dataset(dataset.name, Roots(tmp_path / "raw", source, source)).training) == ["a", "b"]


def test_what_would_be_stored_otherwise_is_written(source: Path) -> None:
    write(source, "c.nii", "d.mha")
    write(source, "e.nii.gz", kind="int64")
    tests = write(source.parent / "test", "x_0000.nii.gz", "x_0001.nii.gz", "y_0000.nii.gz", "y_0001.nii.gz")
    with pytest.raises(UserError, match="has 2 channel"):
        convert(source, test=tests)
    dataset = source.parent / "raw" / "Dataset007_Heads"
    assert [path.is_symlink() for path in images(dataset)] == [True, True, False, False, False]
    assert read_image(images(dataset)[4])[0].dtype == np.int32
    assert all(path.is_symlink() for path in (dataset / "imagesTs").iterdir())


def test_masks_are_written(source: Path) -> None:
    labels = source.parent / "labels"
    write_image(np.eye(5, 6, dtype=np.uint8)[None].repeat(4, 0), GEOMETRY, labels / "a.nii.gz")
    dataset = convert(source, test=source, labels=labels)
    assert (dataset / "imagesTs" / "a_0000.nii.gz").is_symlink()
    assert not (dataset / "labelsTs" / "a.nii.gz").is_symlink()


def test_a_damaged_original_is_refused(source: Path) -> None:
    file = source / "a.nii.gz"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"a\.nii\.gz is damaged"):
        convert(source)


def test_a_repeated_command_notices_what_changed(source: Path) -> None:
    dataset = convert(source)
    before = times(dataset)
    assert times(convert(source)) == before
    write(source, "a.nii.gz", kind="int64")
    convert(source)
    assert [path.name for path in images(dataset) if not path.is_symlink()] == ["a_0000.nii.gz"]
    assert times(dataset)[images(dataset)[1]] == before[images(dataset)[1]]
    (source / "b.nii.gz").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"b\.nii\.gz is damaged"):
        convert(source)
    assert [path.name for path in images(dataset)] == ["a_0000.nii.gz"]


def test_links_and_copies_replace_each_other(source: Path) -> None:
    originals = {path: path.read_bytes() for path in source.iterdir()}
    for link in (False, True, False, True):
        dataset = convert(source, link=link)
        assert [path.is_symlink() for path in images(dataset)] == [link, link]
        for path, original in zip(images(dataset), originals, strict=True):
            np.testing.assert_array_equal(read_image(path)[0], read_image(original)[0])
    assert {path: path.read_bytes() for path in source.iterdir()} == originals


def test_a_kill_before_the_receipt_never_writes_through_a_link(source: Path) -> None:
    originals = {path: path.read_bytes() for path in source.iterdir()}
    dataset = convert(source)
    for receipt in (dataset / "conversion" / "imagesTr").iterdir():
        receipt.unlink()
    assert [path.is_symlink() for path in images(convert(source, link=False))] == [False, False]
    assert {path: path.read_bytes() for path in source.iterdir()} == originals


def test_links_follow_a_source_that_moved(source: Path) -> None:
    dataset = convert(source)
    moved = source.rename(source.with_name("moved"))
    with pytest.raises(UserError, match=r"a_0000\.nii\.gz is a link to .*in/a\.nii\.gz, which does not exist"):
        load_dataset(dataset.name, Roots(dataset.parent, source, source))
    convert(moved)
    assert [path.readlink().parent for path in images(dataset)] == [moved, moved]


def test_other_links_that_lead_nowhere_do_not_matter(source: Path) -> None:
    for name in (".#a.nii.gz", "notes.txt"):  # such as an editor leaves
        (source / name).symlink_to("nowhere")
    assert len(images(convert(source))) == 2


def test_no_links_where_the_system_has_none(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "not permitted", "a_0000.nii.gz")

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(PermissionError):
        convert(source)
    assert not list((source.parent / "raw").rglob(".tmp-*"))


def test_planning_reads_links_as_copies(tmp_path: Path) -> None:
    write_demo_dataset(tmp_path / "demo", num_train=3, num_test=0, shape=(16, 20, 16))
    stored = {}
    for link in (False, True):
        roots = Roots.under(tmp_path / str(link))
        convert_folder(tmp_path / "demo" / "imagesTr", roots.raw, 7, "Heads", link=link)
        folder = plan_and_preprocess("7", roots)
        files = sorted(path for path in folder.rglob("*") if path.suffix in (".b2nd", ".gz"))
        stored[link] = {path.relative_to(folder): path.read_bytes() for path in files}
    assert stored[True] == stored[False]
    assert stored[True]
