"""A model is installed whole or not at all, and what was there before is not lost."""

import os
import shutil

import pytest
import torch
from same_runs import Killed

from nnood.errors import UserError
from nnood.inference.predict import find_model, predict
from nnood.paths import Roots
from nnood.safety import write_json
from nnood.sharing import export_model, installing
from nnood.sharing.installing import install_model
from nnood.training.checkpoints import load_checkpoint

NAME = "Dataset101_Shared"
DEAD = 2**22 + 1  # no process has this number


@pytest.fixture
def roots(tmp_path):
    """Another machine's."""
    return Roots.under(tmp_path / "elsewhere")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_predicts_bit_by_bit_as_at_home(model_once, shared_once, images, roots, tmp_path):
    folder = install_model(model_once, roots)
    assert folder == roots.results / NAME
    assert names(roots.results) == [NAME]
    assert names(folder) == [
        "NnoodTrainer__nnood__3d_fullres",
        *("dataset_fingerprint.json", "inference_plan.json", "manifest.json", "recipes"),
    ]
    home = predict(images, tmp_path / "home", find_model(shared_once, dataset="101"), device="cpu")
    away = predict(images, tmp_path / "away", find_model(roots, dataset="101"), device="cpu")
    assert away == home
    for file in (tmp_path / "home").glob("*.nii.gz*"):
        assert (tmp_path / "away" / file.name).read_bytes() == file.read_bytes()


def test_an_installed_model_is_exported_as_it_came(model_once, roots, tmp_path):
    install_model(model_once, roots)
    export_model(find_model(roots, dataset="101"), roots, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == model_once.read_bytes()


def test_members_are_found_without_the_plan(model_once, roots):
    install_model(model_once, roots)
    planned = find_model(roots, dataset="101", recipe="nnood", configuration="3d_fullres", folds=["0"])
    assert load_checkpoint(planned.members[0].file, torch.device("cpu"))["network_weights"]


def test_results_are_replaced_only_if_asked_to(model_once, roots):
    install_model(model_once, roots)
    write_json(roots.results / NAME / "mine.json", [])
    with pytest.raises(UserError, match=r"holds results already; add --force"):
        install_model(model_once, roots)
    assert (roots.results / NAME / "mine.json").exists()
    install_model(model_once, roots, force=True)
    assert names(roots.results) == [NAME]
    assert not (roots.results / NAME / "mine.json").exists()
    assert find_model(roots, dataset="101").file


@pytest.mark.parametrize("root", ["raw", "preprocessed", "results"])
def test_another_data_set_of_the_same_id_is_in_the_way(model_once, roots, root):
    other = getattr(roots, root) / "Dataset101_Other"
    other.mkdir(parents=True)
    for force in (False, True):
        with pytest.raises(UserError, match=r"Dataset101_Other has the same id"):
            install_model(model_once, roots, force=force)
    assert not (roots.results / NAME).exists()
    assert other.is_dir()


def test_the_raw_data_of_the_same_data_set_are_not(model_once, roots):
    (roots.raw / NAME).mkdir(parents=True)
    assert install_model(model_once, roots).is_dir()


def test_an_empty_folder_is_not_in_the_way(model_once, roots):
    (roots.results / NAME).mkdir(parents=True)
    assert names(install_model(model_once, roots))


def die(*arguments, **options):
    raise Killed


def kill_in(monkeypatch, owner, name, call=1):
    """A function dies at its n-th call, and nothing that was to be done afterwards is done."""
    original, calls = getattr(owner, name), []

    def mortal(*arguments, **options):
        calls.append(name)
        if len(calls) == call:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, mortal)
    monkeypatch.setattr("nnood.sharing.workshop.shutil.rmtree", die)
    monkeypatch.setattr(installing, "_take_back", die)
    monkeypatch.setattr("nnood.sharing.workshop.os.getpid", lambda: DEAD)


KILLS = [
    ("nnood.sharing.archive.ModelArchive", "_unpack", 1),
    ("nnood.sharing.archive.ModelArchive", "_unpack", 5),
    ("nnood.sharing.installing", "load_model", 1),
    ("nnood.sharing.installing", "flush_all", 1),
    ("pathlib.Path", "rename", 1),
    ("nnood.sharing.installing", "flush", 1),
]
PUT_ASIDE = ("pathlib.Path", "rename", 2)  # only what was there before is


@pytest.mark.parametrize(
    ("before", "owner", "name", "call"),
    [(before, *kill) for before in (False, True) for kill in KILLS] + [(True, *PUT_ASIDE)],
)
def test_a_kill_leaves_nothing_or_all(model_once, roots, owner, name, call, before, monkeypatch):
    """What is there afterwards is the old or the new, and the next call ends with the new alone."""
    if before:
        install_model(model_once, roots)
        write_json(roots.results / NAME / "mine.json", [])
    with monkeypatch.context() as patch:
        module, _, last = owner.rpartition(".")
        found = __import__(module, fromlist=[last])
        kill_in(patch, getattr(found, last), name, call)
        with pytest.raises(Killed):
            install_model(model_once, roots, force=True)
    between = before and (name, call) == ("rename", 2)
    if before or name == "flush":
        assert (roots.results / NAME).exists() != between
    leftover = roots.results / f".nnood-installing-{DEAD}"
    assert leftover.is_dir()
    if between:  # a call that is refused brings the old results back, too
        with pytest.raises(UserError, match="add --force"):
            install_model(model_once, roots)
        assert (roots.results / NAME / "mine.json").exists()
    install_model(model_once, roots, force=True)
    assert names(roots.results) == [NAME]
    assert not (roots.results / NAME / "mine.json").exists()
    assert find_model(roots, dataset="101").file


def test_the_folder_of_a_living_call_stays(model_once, roots):
    living = roots.results / f".nnood-installing-{os.getppid()}"
    living.mkdir(parents=True)
    install_model(model_once, roots)
    assert living.is_dir()


def test_a_full_disk_leaves_nothing(model_once, roots, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnood.sharing.archive.ModelArchive._unpack", full)
    with pytest.raises(OSError, match="No space"):
        install_model(model_once, roots)
    assert not names(roots.results)


def test_results_that_could_not_be_replaced_are_put_back(model_once, roots, monkeypatch):
    install_model(model_once, roots)
    write_json(roots.results / NAME / "mine.json", [])
    rename, calls = shutil.os.rename, []

    def fail_second(source, target, **options):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(source, target, **options)

    monkeypatch.setattr("os.rename", fail_second)
    with pytest.raises(OSError, match="Input/output"):
        install_model(model_once, roots, force=True)
    assert (roots.results / NAME / "mine.json").exists()
    assert names(roots.results) == [NAME]
