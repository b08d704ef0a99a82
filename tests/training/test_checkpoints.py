import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from nnood import safety
from nnood.errors import UserError
from nnood.safety import read_json, sha256
from nnood.training import checkpoints
from nnood.training.checkpoints import (
    BEST,
    LATEST,
    PREVIOUS,
    find_newest,
    load_checkpoint,
    save_checkpoint,
    save_latest,
)

CPU = torch.device("cpu")


class Killed(BaseException):
    """Stands in for a kill: nothing catches it."""


def content(epoch: int) -> dict[str, Any]:
    weights = {"a": torch.full((50, 3), float(epoch))}
    return {"weights": weights, "epoch": epoch, "log": [{"fpi": 0.5}, None], "current_epoch": epoch, "step": 0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fold_0" / "checkpoint_latest.pth"


def test_round_trip(path: Path) -> None:
    for epoch in (1, 2):
        save_checkpoint(content(epoch), path)
        loaded = load_checkpoint(path, CPU)
        assert torch.equal(loaded.pop("weights")["a"], content(epoch)["weights"]["a"])
        assert loaded == {"epoch": epoch, "log": [{"fpi": 0.5}, None], "current_epoch": epoch, "step": 0}
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


def test_what_reads_back_differently_is_no_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(content(1), path)
    flush = checkpoints.flush

    def bad_disk(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        flush(file)

    monkeypatch.setattr(checkpoints, "flush", bad_disk)
    for write in (lambda: save_checkpoint(content(2), path), lambda: save_latest(content(2), path.parent)):
        with pytest.raises(OSError, match=r"checkpoint_latest\.pth could not be written completely"):
            write()
    assert load_checkpoint(path, CPU)["epoch"] == 1
    assert not list(path.parent.glob(".tmp-*"))


# ---- two of the latest ----------------------------------------------------------------------------------------------


def test_the_latest_two_are_kept(path: Path) -> None:
    folder = path.parent
    for epoch in (1, 2, 3):
        save_latest(content(epoch), folder)
    assert [load_checkpoint(folder / name, CPU)["epoch"] for name in (LATEST, PREVIOUS)] == [3, 2]
    assert len(list(folder.iterdir())) == 4


def test_a_kill_at_any_moment_leaves_a_newest_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever touches the disk is counted; the n-th time the process dies, before or after it was done."""
    folder = path.parent
    for epoch in (1, 2):
        save_latest(content(epoch), folder)
    files = {file: file.read_bytes() for file in folder.iterdir()}
    survivors, deaths = set(), 0
    for moment in range(100):
        for is_done in (False, True):
            for file in folder.iterdir():
                file.unlink()
            for file, data in files.items():
                file.write_bytes(data)
            with monkeypatch.context() as patch:
                make_mortal(patch, moment, is_done=is_done)
                try:
                    save_latest(content(3), folder)
                except Killed:
                    deaths += 1
            newest = find_newest(folder)
            assert newest is not None
            assert newest.epoch >= 2, f"the newest was lost at {moment}"
            assert load_checkpoint(newest.path, CPU)["epoch"] == newest.epoch
            survivors.add(newest.epoch)
            save_latest(content(4), folder)
            assert load_checkpoint(folder / PREVIOUS, CPU)["epoch"] in (newest.epoch, 1, 2)
            assert load_checkpoint(path, CPU)["epoch"] == 4
        if deaths < 2 * (moment + 1):
            break
    assert deaths > 12
    assert survivors == {2, 3}


def make_mortal(patch: pytest.MonkeyPatch, moment: int, *, is_done: bool) -> None:
    """Die at the moment-th of all writes, renames and flushes."""
    seen: list[str] = []

    def mortal(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def die(*arguments: Any, **options: Any) -> Any:
            seen.append(name)
            if len(seen) - 1 == moment and not is_done:
                raise Killed
            result = original(*arguments, **options)
            if len(seen) - 1 == moment:
                raise Killed
            return result

        patch.setattr(owner, name, die)

    for owner, name in ((Path, "replace"), (Path, "write_bytes"), (Path, "write_text"), (safety.os, "fsync")):
        mortal(owner, name)


def test_a_damaged_latest_does_not_take_the_place_of_an_intact_one(path: Path) -> None:
    folder = path.parent
    for epoch in (1, 2):
        save_latest(content(epoch), folder)
    path.write_bytes(b"half")
    save_latest(content(3), folder)
    assert [load_checkpoint(folder / name, CPU)["epoch"] for name in (LATEST, PREVIOUS)] == [3, 1]


def test_the_newest_that_verifies_is_found(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = path.parent
    assert find_newest(folder) is None
    for epoch in (1, 2):
        save_latest(content(epoch) | {"step": 7}, folder)
    save_checkpoint(content(2), folder / BEST)
    found = find_newest(folder)
    assert found is not None
    assert (found.path.name, found.epoch, found.step) == (LATEST, 2, 7)
    for name, expected in ((LATEST, BEST), (BEST, PREVIOUS)):
        caplog.clear()
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
        found = find_newest(folder)
        assert found is not None
        assert found.path.name == expected
        assert f"{folder / name} does not agree" in caplog.text
    (folder / PREVIOUS).with_suffix(".sha256.json").write_text("half")
    with pytest.raises(UserError, match=r"checkpoint_latest\.pth does not agree .* no other checkpoint") as error:
        find_newest(folder)
    assert "\n" not in str(error.value)
