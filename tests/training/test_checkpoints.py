import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from nnood.errors import UserError
from nnood.safety import read_json, sha256
from nnood.training.checkpoints import load_checkpoint, save_checkpoint

CPU = torch.device("cpu")


class Killed(BaseException):
    """Stands in for a kill: nothing catches it."""


def content(epoch: int) -> dict[str, Any]:
    return {"weights": {"a": torch.full((50, 3), float(epoch))}, "epoch": epoch, "log": [{"fpi": 0.5}, None]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fold_0" / "checkpoint_latest.pth"


def test_round_trip(path: Path) -> None:
    for epoch in (1, 2):
        save_checkpoint(content(epoch), path)
        loaded = load_checkpoint(path, CPU)
        assert torch.equal(loaded.pop("weights")["a"], content(epoch)["weights"]["a"])
        assert loaded == {"epoch": epoch, "log": [{"fpi": 0.5}, None]}
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "checkpoint_latest.pth",
        "checkpoint_latest.sha256.json",
    ]


def test_nothing_but_plain_values_is_loaded(path: Path) -> None:
    save_checkpoint({"object": Path("anything")}, path)
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(path, CPU)


@pytest.mark.parametrize("position", [0.0, 0.5, 0.999])
def test_a_flipped_byte_is_refused(path: Path, position: float) -> None:
    save_checkpoint(content(1), path)
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"checkpoint_latest\.pth does not agree"):
        load_checkpoint(path, CPU)


def test_missing_files_are_named(path: Path) -> None:
    with pytest.raises(UserError, match=r"checkpoint_latest\.pth does not exist"):
        load_checkpoint(path, CPU)
    save_checkpoint(content(1), path)
    path.with_suffix(".sha256.json").unlink()
    with pytest.raises(UserError, match="does not agree"):
        load_checkpoint(path, CPU)


def kill_before_rename(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target == path:
            raise Killed
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)


def test_a_kill_between_hash_and_rename_leaves_the_old_one_loadable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(content(1), path)
    with monkeypatch.context() as patch:
        kill_before_rename(patch, path)
        for epoch in (2, 3):
            with pytest.raises(Killed):
                save_checkpoint(content(epoch), path)
            assert len(read_json(path.with_suffix(".sha256.json"))) == 2
            assert load_checkpoint(path, CPU)["epoch"] == 1
    save_checkpoint(content(4), path)
    assert load_checkpoint(path, CPU)["epoch"] == 4


def test_saving_never_vouches_for_a_damaged_predecessor(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(content(1), path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    kill_before_rename(monkeypatch, path)
    with pytest.raises(Killed):
        save_checkpoint(content(2), path)
    assert sha256(path) not in read_json(path.with_suffix(".sha256.json"))
    with pytest.raises(UserError, match="does not agree"):
        load_checkpoint(path, CPU)
