"""What commands say, on the screen and in the log beside their results."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnood import __version__
from nnood.cli.messages import keep_log, say, start_messages


def start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["nnood_train", "101", "0", "-r", "my recipe.json"])
    start_messages("nnood_train")


def test_the_log_has_all_from_the_first_message_on(tmp_path, capsys, monkeypatch):
    start(monkeypatch)
    say("before the folder is known")
    keep_log(tmp_path / "results")
    say("before the folder is there: 100 %s")
    assert not (tmp_path / "results").exists()
    (tmp_path / "results").mkdir()
    logging.getLogger("nnood.training").info("Epoch %d", 3)
    lines = (tmp_path / "results" / "nnood_train.log").read_text().splitlines()
    said = ["before the folder is known", "before the folder is there: 100 %s", "Epoch 3"]
    assert [line.split(" ", 2)[2] for line in lines] == [
        f"nnood {__version__}: nnood_train 101 0 -r 'my recipe.json'",
        *said,
    ]
    assert capsys.readouterr().out.splitlines() == said


def test_a_second_call_adds_to_the_log_and_a_removed_folder_does_no_harm(tmp_path, monkeypatch):
    start(monkeypatch)
    (tmp_path / "nnood_train.log").write_text("earlier\n")
    keep_log(tmp_path)
    say("later")
    lines = (tmp_path / "nnood_train.log").read_text().splitlines()
    assert lines[0] == "earlier"
    assert lines[-1].endswith("later")
    (tmp_path / "nnood_train.log").unlink()
    tmp_path.rmdir()
    say("nowhere")
    tmp_path.mkdir()
    say("again")
    assert [line.split(" ", 2)[2] for line in (tmp_path / "nnood_train.log").read_text().splitlines()] == [
        "nowhere",
        "again",
    ]


def command(name: str, *arguments: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen:
    script = f"from nnood.cli import {name}; import sys; sys.argv[0] = 'nnood_{name}'; {name}()"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=folder, env=environment, **pipes)


def test_the_log_of_a_failed_command_has_the_traceback(tmp_path, clean_environment):
    (tmp_path / "scores").mkdir()
    (tmp_path / "labels.csv").write_text("case,label\na,2\n")
    arguments = ("-p", "scores", "-l", "labels.csv")
    process = command("evaluate", *arguments, folder=tmp_path, environment=clean_environment)
    _, err = process.communicate(timeout=120)
    log = (tmp_path / "scores" / "nnood_evaluate.log").read_text()
    assert process.returncode == 2
    assert "Traceback" not in err
    assert "Traceback" in log
    assert err.split("error: ")[1].strip() in log


def test_who_stops_reading_ends_a_command_quietly(tmp_path, clean_environment):
    process = command("recipes", folder=tmp_path, environment=clean_environment)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=120) == 0
    assert os.listdir(tmp_path) == []  # noqa: PTH208 -- hidden files too
