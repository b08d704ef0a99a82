import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnood import safety
from nnood.errors import UserError, one_error


def test_atomic_write_replaces_the_file_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "new_folder" / "a.txt"
    safety.write_text(path, "first")
    safety.write_text(path, "second")
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def _fill_the_disk(path: Path) -> None:
    with safety.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")


def test_failure_keeps_the_previous_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    safety.write_text(path, "good")
    with pytest.raises(OSError, match="No space"):
        _fill_the_disk(path)
    assert path.read_text() == "good"
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_keeps_the_ending(tmp_path: Path) -> None:
    with safety.atomic_path(tmp_path / "a.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("x")


def test_killed_writer_leaves_the_old_file_and_a_leftover_that_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    safety.write_text(path, "good")
    script = (
        "import os, signal, sys; from pathlib import Path; from nnood.safety import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(safety.__file__).parents[1]
    subprocess.run([sys.executable, "-c", script, str(path)], cwd=root, check=False)
    assert path.read_text() == "good"
    assert len(list(tmp_path.iterdir())) == 2
    safety.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_remove_leftovers_spares_living_processes_and_other_files(tmp_path: Path) -> None:
    kept = [tmp_path / f".tmp-{os.getpid()}-a", tmp_path / ".tmp-odd", tmp_path / "a"]
    gone = tmp_path / f".tmp-{10**30}-a"
    for path in (*kept, gone):
        path.write_text("x")
    safety.remove_leftovers(tmp_path)
    safety.remove_leftovers(tmp_path / "missing")
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_json_holds_plain_values_only(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    content = {1: np.float32(0.5), "b": np.arange(2), "c": (Path("x"), np.bool_(True)), "d": [float("nan"), np.inf]}
    safety.write_json(path, content)
    assert safety.read_json(path) == {"1": 0.5, "b": [0, 1], "c": ["x", True], "d": [None, None]}


@pytest.mark.parametrize("content", [b'{"a": 1', b"\xff\xfe\xff"])
def test_broken_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        safety.read_json(path)


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json does not exist"):
        safety.read_json(tmp_path / "a.json")


def test_digest_depends_on_content_not_on_order() -> None:
    assert safety.digest_of({"a": 1, "b": [2]}) == safety.digest_of({"b": (2,), "a": np.int64(1)})
    assert safety.digest_of({"a": 1}) != safety.digest_of({"a": 2})


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert safety.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class Step:
    """A finished step with one input, one output and a receipt."""

    def __init__(self, folder: Path) -> None:
        self.receipt, self.input, self.output = folder / "receipt.json", folder / "input", folder / "output"
        self.input.write_text("question")
        self.output.write_text("answer")
        safety.write_receipt(
            self.receipt, settings={"a": 1}, inputs=[self.input], outputs=[self.output], result={"found": 3}
        )

    def result(self, a: int = 1) -> dict | None:
        return safety.read_receipt(self.receipt, settings={"a": a}, inputs=[self.input], outputs=[self.output])


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return Step(tmp_path)


def test_receipt_of_an_unchanged_step_gives_its_result(step: Step) -> None:
    assert step.result() == {"found": 3}


def test_receipt_is_void_after_other_settings(step: Step) -> None:
    assert step.result(a=2) is None


@pytest.mark.parametrize("file", ["input", "output"])
@pytest.mark.parametrize("change", ["removed", "longer", "other content of the same size"])
def test_receipt_is_void_after_a_change(step: Step, file: str, change: str) -> None:
    path: Path = getattr(step, file)
    text = path.read_text()
    path.unlink()
    if change != "removed":
        path.write_text(text + "!" if change == "longer" else text.upper())
    assert step.result() is None


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"settings": 1}', '{"settings": '])
def test_damaged_receipt_counts_as_none(step: Step, content: str) -> None:
    step.receipt.write_text(content)
    assert step.result() is None


@pytest.mark.parametrize("key", ["inputs", "outputs"])
@pytest.mark.parametrize("value", [None, 3, [], {"input": 3, "output": 3}])
def test_receipt_with_nonsense_inside_counts_as_none(step: Step, key: str, value: object) -> None:
    content = json.loads(step.receipt.read_text())
    step.receipt.write_text(json.dumps(content | {key: value}))
    assert step.result() is None


def test_one_error_lists_all_faults() -> None:
    one_error([])
    with pytest.raises(UserError, match=r"^only one$"):
        one_error(["only one"])
    with pytest.raises(UserError, match="2 faults were found:\n  - a\n  - b"):
        one_error(["a", "b"])
