import errno
from pathlib import Path

import numpy as np
import pytest

from nnood.planning.storage import CaseStore, case_files, save_case
from nnood.safety import describe_files

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def arrays(seed: int, shape: tuple[int, ...] = (11, 13, 9)) -> Arrays:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(2, *shape)).astype(np.float32)
    foreground = rng.integers(-1, 2, size=(1, *shape)).astype(np.int16)
    return image, foreground, np.argwhere(foreground == 1).astype(np.int32)


def save(folder: Path, case: str, values: Arrays) -> None:
    save_case(folder, case, *values, patch_size=(8, 8, 8))


@pytest.mark.parametrize("shape", [(11, 13, 9), (1, 20, 30)])
def test_round_trip_is_bit_identical(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = arrays(0, shape)
    save_case(tmp_path, "a", *values, patch_size=shape if shape[0] > 1 else shape[1:])
    image, foreground, _, properties = CaseStore(str(tmp_path), ["a"]).load_case("a")
    for read, expected in zip((image, foreground, properties["class_locations"][1]), values, strict=True):
        assert read.dtype == expected.dtype
        np.testing.assert_array_equal(read[:], expected)


def test_only_the_three_files_are_left_and_none_is_pickled(tmp_path: Path) -> None:
    save(tmp_path, "a", arrays(0))
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(case_files(tmp_path, "a"))
    np.load(case_files(tmp_path, "a")[2], allow_pickle=False)
    assert CaseStore.get_identifiers(str(tmp_path)) == ["a"]


def test_a_full_disk_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "a", arrays(0))
    before = describe_files(case_files(tmp_path, "a"))
    write = CaseStore.save_case

    def full(*values: object, **options: object) -> None:
        write(*values, **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CaseStore, "save_case", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, "a", arrays(1))
    assert describe_files(case_files(tmp_path, "a")) == before
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3


def test_what_reads_back_differently_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "a", arrays(0))
    before = describe_files(case_files(tmp_path, "a"))
    write = CaseStore.save_case

    def damaging(image: np.ndarray, *values: object, **options: object) -> None:
        write(np.zeros_like(image), *values, **options)

    monkeypatch.setattr(CaseStore, "save_case", damaging)
    with pytest.raises(OSError, match=r"a could not be written completely; is the disk full\?"):
        save(tmp_path, "a", arrays(1))
    assert describe_files(case_files(tmp_path, "a")) == before
