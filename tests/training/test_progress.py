import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nnood.errors import UserError
from nnood.safety import read_json, write_json
from nnood.training.progress import fold_states, format_states, mark_running

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def running(folder: Path, process: Any, host: Any = HOST) -> None:
    write_json(folder / "running.json", {"process": process, "host": host})


def test_states(tmp_path: Path, dead: int) -> None:
    touch(tmp_path / "fold_0", "checkpoint_latest.pth", "checkpoint_final.pth")
    running(tmp_path / "fold_1", os.getppid())
    running(tmp_path / "fold_2", dead, "another-computer")
    running(tmp_path / "fold_3", dead)
    touch(tmp_path / "fold_3", "checkpoint_best.pth")
    touch(tmp_path / "fold_4", "checkpoint_latest.pth")
    running(tmp_path / "fold_5", dead)
    touch(tmp_path / "fold_6", "training_log_1.txt")
    touch(tmp_path / "fold_all", "checkpoint_final.pth")
    running(tmp_path / "fold_all", os.getppid())
    states = fold_states(tmp_path, [*map(str, range(8)), "all"])
    assert states == {
        **{"0": "done", "1": "running", "2": "running", "3": "stopped", "4": "stopped"},
        **{"5": "missing", "6": "missing", "7": "missing", "all": "done"},
    }
    assert fold_states(tmp_path / "nowhere", ["0"]) == {"0": "missing"}


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"process": "12", "host": "h"}', '{"process": 0, "host": "h"}'])
def test_a_file_that_names_no_process_stops_nobody(tmp_path: Path, content: str) -> None:
    fold = tmp_path / "fold_0"
    touch(fold, "checkpoint_latest.pth")
    (fold / "running.json").write_text(content)
    assert fold_states(tmp_path, ["0"]) == {"0": "stopped"}
    with mark_running(fold):
        assert fold_states(tmp_path, ["0"]) == {"0": "running"}


def test_the_table(tmp_path: Path) -> None:
    done, stopped = tmp_path / "fold_0", tmp_path / "fold_10"
    touch(done, "checkpoint_final.pth")
    write_json(done / "validation" / "summary.json", {"mean_voxel_ap": 0.61251})
    (done / "training_log_1.txt").write_text("Epoch 1\nEpoch 1/2 (3 s): loss\nEpoch 2\nEpoch 2/2 (3 s): loss\n")
    touch(stopped, "checkpoint_latest.pth")
    (stopped / "training_log_1.txt").write_text("2026-01-01: Epoch 7/1000 (3 s)\n")
    (stopped / "training_log_2.txt").write_text("started again\n")
    assert format_states(tmp_path, ["0", "3", "10"]).splitlines() == [
        "fold  state    epoch   voxel AP",
        "0     done     2/2     0.613",
        "3     missing",
        "10    stopped  7/1000",
    ]


@pytest.mark.parametrize("summary", [{}, {"mean_voxel_ap": None}, []])
def test_a_summary_without_a_figure(tmp_path: Path, summary: Any) -> None:
    touch(tmp_path / "fold_0", "checkpoint_final.pth")
    write_json(tmp_path / "fold_0" / "validation" / "summary.json", summary)
    assert format_states(tmp_path, ["0"]).splitlines()[1] == "0     done"


def test_a_running_fold_is_marked_until_the_end(tmp_path: Path) -> None:
    fold = tmp_path / "fold_0"
    with mark_running(fold):
        assert read_json(fold / "running.json") == {"process": os.getpid(), "host": HOST}
    assert not list(fold.iterdir())


def test_the_mark_goes_when_training_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), mark_running(tmp_path):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_fold_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from nnood.training.progress import mark_running\n"
        "with mark_running(pathlib.Path(sys.argv[1])):\n"
        "    print('marked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "marked\n"
        before = (tmp_path / "running.json").read_bytes()
        with pytest.raises(UserError, match=rf"trained by the process {other.pid} on {HOST}; wait .* delete running"):
            mark_running(tmp_path).__enter__()
        assert (tmp_path / "running.json").read_bytes() == before
        other.kill()
    with mark_running(tmp_path):  # a process that was killed is in nobody's way
        assert read_json(tmp_path / "running.json")["process"] == os.getpid()


def test_of_two_that_start_at_the_same_moment_one_goes_on(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from nnood.training.progress import TakenError, mark_running\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "marks = []\n"
        "for fold in range(20):\n"
        "    try:\n"
        "        marks.append(mark_running(pathlib.Path(sys.argv[1]) / str(fold)))\n"
        "        marks[-1].__enter__()\n"
        "        print('marked', fold, flush=True)\n"
        "    except TakenError:\n"
        "        print('taken', fold, flush=True)\n"
        "sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:
        both = (one, other)
        for process in both:
            assert process.stdout.readline() == "ready\n"
        for process in both:
            process.stdin.write("\n")
            process.stdin.flush()
        lines = [[process.stdout.readline().split() for _ in range(20)] for process in both]
        for process in both:
            process.stdin.close()
    for fold, outcomes in enumerate(zip(*lines, strict=True)):
        assert sorted(outcomes) == [["marked", str(fold)], ["taken", str(fold)]]


def test_another_computers_process_is_taken_to_live(tmp_path: Path, dead: int) -> None:
    running(tmp_path, dead, "another-computer")
    with pytest.raises(UserError, match=rf"the process {dead} on another-computer"):
        mark_running(tmp_path).__enter__()


def test_a_mark_that_another_process_took_over_stays(tmp_path: Path) -> None:
    with mark_running(tmp_path):
        running(tmp_path, os.getppid())
    assert (tmp_path / "running.json").exists()
