"""The commands that share models: what they say, and one sentence for what they can't do."""

import logging
import os
import zipfile

import pytest
import torch

from nnood import cli
from nnood.paths import NNUNET_VARIABLES, VARIABLES

NAME = "Dataset101_Shared"
MEMBER = f"nnood_data/results/{NAME}/NnoodTrainer__nnood__3d_fullres/fold_0"


@pytest.fixture
def user(shared, monkeypatch):
    """The current folder, which holds the trained data set."""
    monkeypatch.chdir(shared.raw.parent.parent)
    return shared.raw.parent.parent


@pytest.fixture
def run(monkeypatch, capsys):
    """Call a command in this process; returns status, stdout, stderr."""
    for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
        monkeypatch.setenv(name, "")

    def call(command, *arguments):
        environment, root = dict(os.environ), logging.getLogger()
        handlers, level = root.handlers[:], root.level
        monkeypatch.setattr("sys.argv", [f"nnood_{command}", *map(str, arguments)])
        status = 0
        try:
            getattr(cli, command)()
        except SystemExit as stop:
            status = stop.code
        finally:
            os.environ.update(environment)
            root.handlers[:], root.level = handlers, level
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def refused(run):
    """Call a command that ends with status 2 and one sentence, which holds all parts."""

    def call(words, *parts):
        status, _, err = run(*words)
        assert status == 2, err
        (line,) = err.splitlines()
        assert line.startswith(f"nnood_{words[0]}: error: ")
        assert line.endswith(".")
        assert all(str(part) in line for part in parts), line

    return call


def test_from_one_machine_to_another(user, run, images, tmp_path, monkeypatch):
    status, out, err = run("export", "-d", "101", "-o", "model.zip")
    assert status == 0, err
    assert "Wrote model.zip (8 files of Dataset101_Shared, " in out
    assert "Next: nnood_predict -i IMAGES -o OUTPUT --model model.zip, anywhere" in out
    other = tmp_path / "other"
    other.mkdir()
    (user / "model.zip").rename(other / "model.zip")
    monkeypatch.chdir(other)
    words = ("predict", "-i", images, "-o", "scores", "--device", "cpu")
    status, out, err = run(*words, "--model", "model.zip")
    assert status == 0, err
    assert "Following the inference plan model.zip" in out
    assert "Wrote 2 score maps" in out
    status, out, err = run("install", "model.zip")
    assert status == 0, err
    assert f"Next: nnood_predict -i IMAGES -o OUTPUT -d {NAME}" in out
    status, out, err = run(*words[:4], "installed", *words[5:], "-d", "101")
    assert status == 0, err
    assert "inference_plan.json" in out


def test_options_choose_the_members(user, run):
    assert run("export", "-f", "0", "--checkpoint", "final", "-o", "final.zip")[0] == 0
    with zipfile.ZipFile("final.zip") as archive:
        assert any(name.endswith("fold_0/checkpoint_final.pth") for name in archive.namelist())


def test_what_can_not_be_exported(user, refused):
    refused(("export", "-d", "102", "-o", "model.zip"), "There is no data set '102'")
    refused(("export", "-d", "101", "-o", "model.tar"), "model.tar", "ends with .zip")
    refused(("export", "-d", "101", "-f", "3", "-o", "model.zip"), "no trained fold 3")
    refused(("export", "-o", "model.zip", "--brain", "101"), "--brain and --abdom go with --mood")
    refused(("export", "-o", "none/model.zip", "--plan", "none.json"), "none.json does not exist")
    (user / MEMBER / "checkpoint_best.pth").write_bytes(b"damaged")
    refused(("export", "-d", "101", "-o", "model.zip"), "checkpoint_best.pth is not the checkpoint")
    assert not list(user.glob("*model.zip"))


def test_either_an_archive_or_a_container(user, run):
    for words in ((), ("-o", "model.zip", "--mood", "mood")):
        status, _, err = run("export", *words)
        assert status == 2
        assert err.startswith("usage: nnood_export ")


def test_a_container(user, run, refused):
    status, out, err = run("export", "--mood", "mood", "--brain", "101")
    assert status == 0, err
    assert "Wrote mood, with scripts for brain" in out
    assert "docker build -t nnood_mood mood" in out
    assert (user / "mood" / "run_pixel_brain.sh").exists()
    refused(("export", "--mood", "mood", "--brain", "101"), "mood exists already")
    refused(("export", "--mood", "other"), "--brain", "--abdom")
    refused(("export", "--mood", "other", "-d", "101", "--brain", "101"), "leave out other options")


def test_what_can_not_be_installed(user, refused, model_once):
    refused(("install", "none.zip"), "none.zip does not exist")
    refused(("install", model_once), "holds results already", "--force")
    (user / "bad.zip").write_bytes(model_once.read_bytes()[:1000])
    refused(("install", "bad.zip", "--force"), "bad.zip is damaged")


@pytest.mark.parametrize(
    "option",
    [("-d", "101"), ("-f", "0"), ("-c", "2d"), ("-r", "nnood"), ("--checkpoint", "best"), ("--plan", "p.json")],
)
def test_an_archive_goes_with_nothing_that_says_who_predicts(user, refused, images, model_once, option):
    words = ("predict", "-i", images, "-o", "out", "--model", model_once, *option)
    refused(words, model_once, "holds members and plan already; leave out --model, or -d")
    assert not (user / "out").exists()


def test_a_start_from_elsewhere(user, refused, run):
    words = ("train", "101", "1", "--epochs", "1", "--iterations", "1", "--device", "cpu", "--pretrained")
    refused((*words, "none.pth"), "none.pth does not exist")
    torch.save({"weights": 1}, "other.pth")
    refused((*words, "other.pth"), "other.pth is no checkpoint of nnU-Net v2, nnssl or nnood")
    refused((*words, "other.pth", "-r", "vae"), "--pretrained is for networks with nnU-Net's planned encoder")
    status, out, err = run(*words, f"{MEMBER}/checkpoint_best.pth")
    assert status == 0, err
    assert f"Taken from {MEMBER}/checkpoint_best.pth: " in out
