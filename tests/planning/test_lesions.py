import logging
from pathlib import Path

import numpy as np
import pytest

from nnood.errors import UserError
from nnood.planning.lesions import LESIONS_FILE, prepare_lesions


def write_mask(file: Path, edge: int) -> None:
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[2 : 2 + edge, 3 : 3 + edge, 4 : 4 + edge] = 1
    file.parent.mkdir(exist_ok=True)
    np.save(file, mask)


def test_small_lesions_are_left_out_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, edge in enumerate((2, 5, 8)):
        write_mask(tmp_path / "masks" / f"{number}.npy", edge)
    with caplog.at_level(logging.WARNING):
        prepare_lesions(tmp_path / "masks", tmp_path, processes=1)
    assert np.load(tmp_path / LESIONS_FILE).shape[0] == 2
    assert "1 lesions of fewer than 27 voxels" in caplog.text


def test_done_once_and_again_when_a_mask_changes(tmp_path: Path) -> None:
    write_mask(tmp_path / "masks" / "a.npy", 6)
    first = prepare_lesions(tmp_path / "masks", tmp_path, processes=1)
    written = (tmp_path / LESIONS_FILE).stat().st_mtime_ns
    assert prepare_lesions(tmp_path / "masks", tmp_path, processes=1) == first
    assert (tmp_path / LESIONS_FILE).stat().st_mtime_ns == written
    write_mask(tmp_path / "masks" / "b.npy", 7)
    assert prepare_lesions(tmp_path / "masks", tmp_path, processes=1) != first
    assert np.load(tmp_path / LESIONS_FILE).shape[0] == 2


def test_bad_masks_are_named(tmp_path: Path) -> None:
    write_mask(tmp_path / "masks" / "a.npy", 6)
    (tmp_path / "masks" / "b.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"b\.npy"):
        prepare_lesions(tmp_path / "masks", tmp_path, processes=1)
    assert not (tmp_path / LESIONS_FILE).exists()


def test_only_small_lesions(tmp_path: Path) -> None:
    write_mask(tmp_path / "masks" / "a.npy", 2)
    with pytest.raises(UserError, match="no lesion of at least 27 voxels"):
        prepare_lesions(tmp_path / "masks", tmp_path, processes=1)


def test_real_lesions(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for file in sorted((real_data / "lesion_masks").glob("*.nii.gz"))[:4]:
        (tmp_path / "masks" / file.name).symlink_to(file)
    prepare_lesions(tmp_path / "masks", tmp_path, processes=1)
    shapes = np.load(tmp_path / LESIONS_FILE)
    assert shapes.shape == (4, 32, 32, 32)
    assert (shapes.reshape(4, -1).max(axis=1) == 255).all()
    share = (shapes > 127).reshape(4, -1).mean(axis=1)
    assert ((share > 0.002) & (share < 0.5)).all()
