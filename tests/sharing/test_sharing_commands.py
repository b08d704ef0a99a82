"""The commands that share models: what they say, and one sentence for what they can't do."""

import zipfile

import pytest
import torch

NAME = "Dataset101_Shared"
MEMBER = f"nnood_data/results/{NAME}/NnoodTrainer__nnood__3d_fullres/fold_0"


@pytest.fixture
def user(shared, monkeypatch):
    """The current folder, which holds the trained data set."""
    monkeypatch.chdir(shared.raw.parent.parent)
    return shared.raw.parent.parent


def test_from_one_machine_to_another(user, run, images, tmp_path, monkeypatch):
    _, status, out, err = run("export", "-d", "101", "-o", "model.zip")
    assert status == 0, err
    assert "Wrote model.zip (8 files of Dataset101_Shared, " in out
    assert "Next: nnood_predict -i IMAGES -o OUTPUT --model model.zip, anywhere" in out
    other = tmp_path / "other"
    other.mkdir()
    (user / "model.zip").rename(other / "model.zip")
    monkeypatch.chdir(other)
    words = ("predict", "-i", images, "-o", "scores", "--device", "cpu")
    _, status, out, err = run(*words, "--model", "model.zip")
    assert status == 0, err
    assert "Following the inference plan model.zip" in out
    assert "Wrote 2 score maps" in out
    _, status, out, err = run("install", "model.zip")
    assert status == 0, err
    assert f"Next: nnood_predict -i IMAGES -o OUTPUT -d {NAME}" in out
    _, status, out, err = run(*words[:4], "installed", *words[5:], "-d", "101")
    assert status == 0, err
    assert "inference_plan.json" in out


def test_options_choose_the_members(user, run):
    assert run("export", "-f", "0", "--checkpoint", "final", "-o", "final.zip").status == 0
    with zipfile.ZipFile("final.zip") as archive:
        assert any(name.endswith("fold_0/checkpoint_final.pth") for name in archive.namelist())


def test_what_can_not_be_exported(user, run):
    run("export", "-d", "102", "-o", "model.zip").names("There is no data set '102'")
    run("export", "-d", "101", "-o", "model.tar").names("model.tar", "ends with .zip")
    run("export", "-d", "101", "-f", "3", "-o", "model.zip").names("no trained fold 3")
    run("export", "-o", "model.zip", "--brain", "101").names("--brain and --abdom go with --mood")
    run("export", "-o", "none/model.zip", "--plan", "none.json").names("none.json does not exist")
    (user / MEMBER / "checkpoint_best.pth").write_bytes(b"damaged")
    run("export", "-d", "101", "-o", "model.zip").names("checkpoint_best.pth is not the checkpoint")
    assert not list(user.glob("*model.zip"))


def test_either_an_archive_or_a_container(user, run):
    for words in ((), ("-o", "model.zip", "--mood", "mood")):
        _, status, _, err = run("export", *words)
        assert status == 2
        assert err.startswith("usage: nnood_export ")


def test_a_container(user, run):
    _, status, out, err = run("export", "--mood", "mood", "--brain", "101")
    assert status == 0, err
    assert "Wrote mood, with scripts for brain" in out
    assert "docker build -t nnood_mood mood" in out
    assert (user / "mood" / "run_pixel_brain.sh").exists()
    run("export", "--mood", "mood", "--brain", "101").names("mood exists already")
    run("export", "--mood", "other").names("--brain", "--abdom")
    run("export", "--mood", "other", "-d", "101", "--brain", "101").names("leave out other options")


def test_what_can_not_be_installed(user, run, model_once):
    run("install", "none.zip").names("none.zip does not exist")
    run("install", model_once).names("holds results already", "--force")
    (user / "bad.zip").write_bytes(model_once.read_bytes()[:1000])
    run("install", "bad.zip", "--force").names("bad.zip is damaged")


@pytest.mark.parametrize(
    "option",
    [("-d", "101"), ("-f", "0"), ("-c", "2d"), ("-r", "nnood"), ("--checkpoint", "best"), ("--plan", "p.json")],
)
def test_an_archive_goes_with_nothing_that_says_who_predicts(user, run, images, model_once, option):
    words = ("predict", "-i", images, "-o", "out", "--model", model_once, *option)
    run(*words).names(model_once, "holds members and plan already; leave out --model, or -d")
    assert not (user / "out").exists()


def test_a_start_from_elsewhere(user, run):
    words = ("train", "101", "1", "--epochs", "1", "--iterations", "1", "--device", "cpu", "--pretrained")
    run(*words, "none.pth").names("none.pth does not exist")
    torch.save({"weights": 1}, "other.pth")
    run(*words, "other.pth").names("other.pth is no checkpoint of nnU-Net v2, nnssl or nnood")
    run(*words, "other.pth", "-r", "vae").names("--pretrained is for networks with nnU-Net's planned encoder")
    _, status, out, err = run(*words, f"{MEMBER}/checkpoint_best.pth")
    assert status == 0, err
    assert f"Taken from {MEMBER}/checkpoint_best.pth: " in out
