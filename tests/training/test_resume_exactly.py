"""A training that is killed at any point and started again ends as if it had never stopped, bit by bit."""

import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from same_runs import assert_same, killed_at

from nnood.errors import UserError
from nnood.paths import Roots
from nnood.safety import read_json, write_json
from nnood.training import resumable, signals, whole_cases
from nnood.training.checkpoints import BEST, FINAL, LATEST, PREVIOUS, find_newest, load_checkpoint
from nnood.training.fold_folder import fold_name
from nnood.training.train import train
from nnood.training.trainer import NnoodTrainer

CPU = torch.device("cpu")
EPOCHS, ITERATIONS = 2, 4
LENGTHS = {"epochs": EPOCHS, "iterations": ITERATIONS}
FOLD = Path("Dataset999_Phantoms") / "NnoodTrainer__nnood-fpi__3d_fullres" / "fold_0"


def train_fold(roots: Roots, **options: Any) -> Path:
    return train("999", ["0"], roots, **{**LENGTHS, "tasks": ["fpi"], **options})[0]


@pytest.fixture(scope="module")
def smooth(tiny_once: Roots, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fold of a run that never stopped."""
    roots = Roots(tiny_once.raw, tiny_once.preprocessed, tmp_path_factory.mktemp("smooth"))
    with pytest.MonkeyPatch.context() as environment:
        for name in ("nnood", "nnUNet"):
            for part in ("raw", "preprocessed", "results"):
                environment.setenv(f"{name}_{part}", "")
        return train_fold(roots)


def assert_same_run(one: Path, other: Path) -> None:
    for name in (FINAL, BEST):
        assert_same(load_checkpoint(one / name, CPU), load_checkpoint(other / name, CPU), name)
    assert read_json(one / "validation" / "summary.json") == read_json(other / "validation" / "summary.json")


# Where to die, at which call since the last start, and which epoch and step are then the last on the disk.
DEATHS = [
    (NnoodTrainer, "train_step", 2, (0, 1)),
    (NnoodTrainer, "train_step", 3, (0, 3)),
    (whole_cases.WholeCases, "_plant", 1, (0, ITERATIONS)),
    (NnoodTrainer, "train_step", 3, (1, 2)),
    (NnoodTrainer, "_write_summary", 1, (EPOCHS, 0)),
]


def test_a_run_killed_again_and_again_ends_like_one_that_was_not(
    smooth: Path, tiny: Roots, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)  # a checkpoint after every step
    for owner, name, call, (epoch, step) in DEATHS:
        with killed_at(owner, name, call):
            train_fold(tiny, go_on=True)
        newest = find_newest(tiny.results / FOLD)
        assert newest is not None
        assert (newest.epoch, newest.step) == (epoch, step)
    with caplog.at_level(logging.INFO):
        assert_same_run(train_fold(tiny, go_on=True), smooth)
    assert f"Going on after epoch {EPOCHS}." in caplog.text


def test_between_checkpoints_steps_are_repeated(smooth: Path, tiny: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed_at(NnoodTrainer, "train_step", 7):  # the last checkpoint is the first epoch's
        train_fold(tiny)
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    with killed_at(NnoodTrainer, "train_step", 3):
        train_fold(tiny, go_on=True)
    assert_same_run(train_fold(tiny, go_on=True), smooth)


def test_a_damaged_checkpoint_is_left_out(
    smooth: Path, tiny: Roots, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    with killed_at(NnoodTrainer, "train_step", 4):
        train_fold(tiny)
    fold = tiny.results / FOLD
    latest = fold / LATEST
    latest.write_bytes(latest.read_bytes()[:1000])
    fold = train_fold(tiny, go_on=True)
    assert f"{latest} does not agree with its recorded hash" in caplog.text
    assert_same_run(fold, smooth)
    for file in (FINAL, LATEST, PREVIOUS, BEST):
        (fold / file).write_bytes(b"half")
    with pytest.raises(UserError, match=r"checkpoint_latest\.pth does not agree .* no other checkpoint"):
        train_fold(tiny, go_on=True)
    assert (fold / FINAL).read_bytes() == b"half"


def test_patches_of_lenders_are_the_same_again(tiny: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny.preprocessed / "Dataset999_Phantoms", tiny.preprocessed / "Dataset998_Others")
    plans = tiny.preprocessed / "Dataset998_Others" / "nnoodPlans.json"
    write_json(plans, read_json(plans) | {"dataset_name": "Dataset998_Others"})
    options: dict[str, Any] = {"donors": "998", "epochs": 1, "iterations": 3}
    expected = train_fold(tiny, **options)
    again = Roots(tiny.raw, tiny.preprocessed, tiny.results / "again")
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    with killed_at(NnoodTrainer, "train_step", 2):
        train_fold(again, **options)
    assert_same_run(train_fold(again, go_on=True, **options), expected)


# ---- SIGTERM --------------------------------------------------------------------------------------------------------


def test_sigterm_ends_the_command_with_143_and_it_goes_on(
    smooth: Path, tiny: Roots, clean_environment: dict[str, str]
) -> None:
    fold = tiny.results / FOLD
    command: list[Any] = [Path(sys.executable).parent / "nnood_train", "999", "0", "-t", "fpi", "--device", "cpu"]
    command += [word for key, value in LENGTHS.items() for word in (f"--{key}", str(value))]
    process = subprocess.Popen(
        command,
        cwd=tiny.raw.parents[1],
        env=clean_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (fold / LATEST).exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert said.count("\n") == 1
    assert said.startswith("nnood_train: error: asked to end after step")
    content = load_checkpoint(fold / LATEST, CPU)
    assert (0, 0) < (content["current_epoch"], content["step"]) < (EPOCHS, 0)
    assert not (fold / FINAL).exists()
    assert_same_run(train_fold(tiny, go_on=True), smooth)


def test_sigterm_between_validation_batches(smooth: Path, tiny: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    original = whole_cases.WholeCases._plant

    def asked(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return original(*arguments, **options)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(whole_cases.WholeCases, "_plant", asked)
    with pytest.raises(signals.Stopped) as stopped:
        train_fold(tiny)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    fold = tiny.results / FOLD
    assert load_checkpoint(fold / LATEST, CPU)["step"] == ITERATIONS
    assert_same_run(train_fold(tiny, go_on=True), smooth)


def test_only_the_main_thread_listens() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with signals.listen() as stop:
            found.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, before)]


# ---- seeds ----------------------------------------------------------------------------------------------------------


def test_each_seed_has_a_folder_and_weights_of_its_own(tiny: Roots, smooth: Path) -> None:
    folds = train("999", ["0"], tiny, tasks=["fpi"], epochs=1, iterations=1, whole_every=0, seeds=(0, 7, 7))
    assert [fold.name for fold in folds] == ["fold_0", "fold_0_seed7"]
    assert fold_name("all", 3) == "all_seed3"
    first, other = (load_checkpoint(fold / FINAL, CPU)["network_weights"] for fold in folds)
    assert not any(torch.equal(first[key], other[key]) for key in first if "conv.weight" in key)
    assert read_json(folds[1] / "settings.json")["seed"] == 7
    assert read_json(folds[0] / "validation" / "summary.json")["best_figure"] == "mean_voxel_ap"
