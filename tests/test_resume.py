"""Kill -9 at any moment, start again: it goes on, nothing finished is done twice, and the result is the same."""

import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from nnood.errors import UserError
from nnood.inference.predict import find_model, predict
from nnood.inference.predictor import MapPredictor
from nnood.paths import NNUNET_VARIABLES, VARIABLES, Roots
from nnood.phantoms import write_demo_dataset
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.training.checkpoints import BEST, FINAL, LATEST, PREVIOUS, find_newest, load_checkpoint
from nnood.training.train import train

DATASET = "Dataset999_Phantoms"
CASES, TEST_CASES, EPOCHS, ITERATIONS = 6, 4, 6, 2
PLANNING = ["-d", "999", "--base_features", "4", "--gpu_memory_target", "0.5"]
TRAINING = ["999", "0", "--epochs", str(EPOCHS), "--iterations", str(ITERATIONS), "--device", "cpu"]
FOLD = Path(DATASET) / "NnoodTrainer__nnood__3d_fullres" / "fold_0"

# Runs each command over and over; every run kills itself (SIGKILL) when it is about to rename its n-th finished file,
# until one run gets through. All renames that took place are listed in a file.
STORM = """
import json, os, signal, sys
from pathlib import Path
import dataset_conversion, nnood.inference.predict, nnood.planning.plan_and_preprocess, nnood.training.train
from nnood import cli

def make_mortal(pattern, number, record):
    rename, seen = Path.replace, []
    def replace(self, target):
        if Path(target).match(pattern):
            seen.append(target)
            if len(seen) == number:
                os.kill(os.getpid(), signal.SIGKILL)
        result = rename(self, target)
        with open(record, "a") as file:
            file.write(os.path.relpath(target) + "\\n")
        return result
    Path.replace = replace

deaths = {}
for command, (arguments, pattern, number) in json.loads(sys.argv[1]).items():
    deaths[command] = 0
    while True:
        child = os.fork()
        if not child:
            make_mortal(pattern, number, f"{command}.renamed")
            sys.argv = [command, *arguments]
            getattr(cli, command)()
            sys.stdout.flush()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status) or deaths[command] > 30:
            break
        deaths[command] += 1
    if status:
        sys.exit(f"{command} ended with {status} after {deaths[command]} deaths")
print(json.dumps(deaths))
"""


def train_fold(roots, **options):
    return train("999", ["0"], roots, **{"epochs": EPOCHS, "iterations": ITERATIONS, **options})[0]


def model_of(roots, checkpoint=BEST):
    return find_model(roots, dataset=None, recipe=None, configuration=None, folds=[], checkpoint=checkpoint)


def predict_tests(roots, output):
    return predict(roots.raw / DATASET / "imagesTs", output, model_of(roots), device=torch.device("cpu"))


def weights(fold, checkpoint):
    return load_checkpoint(fold / checkpoint, torch.device("cpu"))["network_weights"]


def assert_same_network(one, other, checkpoint):
    ours, theirs = weights(one, checkpoint), weights(other, checkpoint)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def times(folder, pattern="*"):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob(pattern)) if path.is_file()}


def writes(renamed, pattern):
    """How often each file of a folder was written."""
    return [
        count for file, count in renamed.items() if fnmatch(file, pattern) and "/" not in file[pattern.index("*") :]
    ]


def leftovers(folder):
    return list(folder.rglob(".tmp-*"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / DATASET
    write_demo_dataset(folder, num_train=CASES, num_test=0, shape=(16, 24, 16))
    (folder / "imagesTs").mkdir(exist_ok=True)
    for number in range(TEST_CASES):
        name = f"phantom_{number:03d}_0000.nii.gz"
        shutil.copy(folder / "imagesTr" / name, folder / "imagesTs" / name)
    return folder


@pytest.fixture(scope="module")
def smooth(raw, tmp_path_factory):
    """What uninterrupted runs make."""
    folder = tmp_path_factory.mktemp("smooth")
    roots = Roots.under(folder / "nnood_data")
    shutil.copytree(raw, roots.raw / DATASET)
    with pytest.MonkeyPatch.context() as patch:
        for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
            patch.setenv(name, "")
        plan_and_preprocess("999", roots, base_features=4, gpu_memory_target=0.5)
        fold = train_fold(roots)
        scores = predict_tests(roots, folder / "scores")
    return SimpleNamespace(folder=folder, roots=roots, fold=fold, scores=scores)


@pytest.fixture(scope="module")
def stormy(raw, tmp_path_factory, clean_environment):
    """What the same commands make when each is killed again and again while it writes."""
    folder = tmp_path_factory.mktemp("stormy")
    roots = Roots.under(folder / "nnood_data")
    shutil.copytree(raw, roots.raw / DATASET)
    images = str(roots.raw / DATASET / "imagesTs")
    jobs = {
        "convert": (["folder", "-i", images, "-d", "7", "-n", "Killed", "-np", "1"], "*", 4),
        "plan_and_preprocess": ([*PLANNING, "-np", "1"], "*", 12),
        "train": ([*TRAINING, "--continue"], LATEST, 5),
        "predict": (["-i", images, "-o", "scores", "--device", "cpu"], "*", 5),
    }
    done = subprocess.run(
        [sys.executable, "-c", STORM, json.dumps(jobs)],
        cwd=folder,
        env=clean_environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    renamed = {command: Counter((folder / f"{command}.renamed").read_text().splitlines()) for command in jobs}
    deaths = json.loads(done.stdout.splitlines()[-1])
    return SimpleNamespace(folder=folder, roots=roots, deaths=deaths, renamed=renamed, fold=roots.results / FOLD)


@pytest.fixture
def copy(smooth, tmp_path):
    """A copy of the finished run, to damage at will."""
    shutil.copytree(smooth.roots.raw.parent, tmp_path / "nnood_data")
    return Roots.under(tmp_path / "nnood_data")


# ---- killed again and again ---------------------------------------------------------------------------------------


def test_conversion_survives_kills_and_finishes_every_case_once(stormy):
    assert stormy.deaths["convert"] >= 2
    target = "nnood_data/raw/Dataset007_Killed"
    assert writes(stormy.renamed["convert"], f"{target}/conversion/imagesTr/*.json") == [1] * TEST_CASES
    assert json.loads((stormy.folder / target / "dataset.json").read_text())["numTraining"] == TEST_CASES
    for original in (stormy.roots.raw / DATASET / "imagesTs").iterdir():
        files = (original, stormy.folder / target / "imagesTr" / original.name)
        np.testing.assert_array_equal(*(sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files))
    assert not leftovers(stormy.roots.raw)


def test_preprocessing_survives_kills_and_finishes_every_case_once(smooth, stormy):
    assert stormy.deaths["plan_and_preprocess"] >= 3
    folders = ("foreground", "foreground/survey", "nnoodPlans_3d_fullres/properties")
    for receipts in (f"nnood_data/preprocessed/{DATASET}/{folder}/*.json" for folder in folders):
        assert writes(stormy.renamed["plan_and_preprocess"], receipts) == [1] * CASES
    ours, theirs = stormy.roots.preprocessed / DATASET, smooth.roots.preprocessed / DATASET
    for name in ("nnoodPlans.json", "dataset_fingerprint.json", "case_list.json", "dataset.json"):
        assert json.loads((ours / name).read_text()) == json.loads((theirs / name).read_text())
    arrays = sorted(path.relative_to(theirs) for path in theirs.rglob("*.b2nd"))
    assert len(arrays) == 2 * CASES
    for name in arrays:
        np.testing.assert_array_equal(blosc2.open(str(ours / name))[:], blosc2.open(str(theirs / name))[:])
    assert not leftovers(ours / "nnoodPlans_3d_fullres")


def test_preprocessing_leaves_nothing_of_killed_runs(stormy):
    assert not leftovers(stormy.roots.preprocessed)


def test_training_survives_kills_and_does_every_finished_epoch_once(smooth, stormy):
    assert stormy.deaths["train"] == 2
    # Each epoch writes it twice: before the validation on whole cases, and at its end.
    assert stormy.renamed["train"][f"nnood_data/results/{FOLD}/{LATEST}"] == 2 * EPOCHS
    assert stormy.renamed["train"][f"nnood_data/results/{FOLD}/{FINAL}"] == 1
    for checkpoint in (FINAL, BEST):
        assert_same_network(stormy.fold, smooth.fold, checkpoint)
    ours, theirs = (load_checkpoint(fold / FINAL, torch.device("cpu")) for fold in (stormy.fold, smooth.fold))
    assert ours["current_epoch"] == theirs["current_epoch"] == EPOCHS
    for key in ("train_losses", "val_losses", "mean_voxel_ap", "lrs"):
        np.testing.assert_allclose(ours["logging"][key], theirs["logging"][key], atol=1e-6)
        assert len(ours["logging"][key]) == EPOCHS
    assert not leftovers(stormy.roots.results)


def test_prediction_survives_kills_and_finishes_every_case_once(smooth, stormy):
    assert stormy.deaths["predict"] >= 2
    assert writes(stormy.renamed["predict"], "scores/.receipts/*.json") == [1] * TEST_CASES
    for case, score in smooth.scores.items():
        assert float((stormy.folder / "scores" / f"{case}.nii.gz.txt").read_text()) == pytest.approx(score, abs=1e-6)
        maps = [
            sitk.GetArrayFromImage(sitk.ReadImage(f"{f}/scores/{case}.nii.gz")) for f in (stormy.folder, smooth.folder)
        ]
        np.testing.assert_allclose(*maps, rtol=0, atol=1e-6)
    assert not leftovers(stormy.folder / "scores")


def test_a_training_killed_from_outside_goes_on_where_it_was(smooth, copy, caplog, clean_environment):
    shutil.rmtree(copy.results)
    fold, command = copy.results / FOLD, Path(sys.executable).parent / "nnood_train"
    process = subprocess.Popen(
        [command, *TRAINING], cwd=copy.raw.parents[1], env=clean_environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (fold / LATEST).exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the training was over before it could be killed"
    assert not (fold / FINAL).exists()
    newest = find_newest(fold)
    assert (0, 0) < (newest.epoch, newest.step) < (EPOCHS, 0)
    with pytest.raises(UserError, match=r"unfinished run; add --continue"):
        train_fold(copy)
    with caplog.at_level(logging.INFO):
        train_fold(copy, go_on=True)
    assert f"Going on after epoch {newest.epoch}" in caplog.text
    assert_same_network(fold, smooth.fold, FINAL)


# ---- started again after it was finished ----------------------------------------------------------------------------


def test_planning_again_writes_no_case_again(copy):
    before = times(copy.preprocessed, "*.b2nd") | times(copy.preprocessed, "*.nii.gz")
    plans = json.loads((copy.preprocessed / DATASET / "nnoodPlans.json").read_text())
    plan_and_preprocess("999", copy, base_features=4, gpu_memory_target=0.5)
    assert times(copy.preprocessed, "*.b2nd") | times(copy.preprocessed, "*.nii.gz") == before
    assert json.loads((copy.preprocessed / DATASET / "nnoodPlans.json").read_text()) == plans


def test_a_finished_fold_is_neither_trained_again_nor_overwritten(copy, caplog):
    before = times(copy.results)
    with pytest.raises(UserError, match=r"finished network; add --continue .* or move the folder away"):
        train_fold(copy)
    with caplog.at_level(logging.INFO):
        train_fold(copy, go_on=True)
    assert "finished already" in caplog.text
    assert times(copy.results) == before


@pytest.mark.parametrize("other", [{"epochs": EPOCHS + 1}, {"iterations": ITERATIONS + 1}, {"whole_every": 1}])
def test_going_on_with_other_settings_is_refused(copy, other):
    before = times(copy.results)
    (copy.results / FOLD / FINAL).unlink()
    with pytest.raises(UserError, match=r"fold_0 was started with other settings"):
        train_fold(copy, go_on=True, **other)
    assert times(copy.results).items() <= before.items()


def test_every_trains_only_what_is_not_finished(copy):
    before = times(copy.results / FOLD)
    for number in (1, 2):  # as if they had been trained
        shutil.copytree(copy.results / FOLD, copy.results / FOLD.with_name(f"fold_{number}"))
    train("999", ["every"], copy, epochs=1, iterations=1)
    folds = sorted((copy.results / FOLD).parent.glob("fold_*"))
    assert len(folds) == 5
    assert all((fold / FINAL).exists() for fold in folds)
    assert times(copy.results / FOLD) == before


def test_a_run_killed_before_its_last_write_ends_with_everything(smooth, copy):
    fold = copy.results / FOLD
    for name in (FINAL, "checkpoint_final.sha256.json", "validation/summary.json"):
        (fold / name).unlink()
    train_fold(copy, go_on=True)
    assert_same_network(fold, smooth.fold, FINAL)
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert summary == json.loads((smooth.fold / "validation" / "summary.json").read_text())


def test_with_the_final_checkpoint_everything_else_is_there(copy, monkeypatch):
    fold = copy.results / FOLD
    for name in (FINAL, "checkpoint_final.sha256.json", "validation/summary.json"):
        (fold / name).unlink()
    monkeypatch.setattr("nnood.training.trainer.NnoodTrainer._write_summary", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_fold(copy, go_on=True)
    assert not (fold / FINAL).exists(), "the fold counts as finished, but its summary will never be written"


def test_predicting_again_does_nothing(smooth, monkeypatch):
    before = times(smooth.folder / "scores")

    def fail(*_, **__):
        raise AssertionError("a network was loaded although there was nothing to do")

    monkeypatch.setattr(MapPredictor, "__init__", fail)
    assert predict_tests(smooth.roots, smooth.folder / "scores") == smooth.scores
    assert times(smooth.folder / "scores") == before


def test_a_damaged_prediction_is_made_anew_and_the_others_are_left(copy, smooth, tmp_path):
    output = tmp_path / "scores"
    shutil.copytree(smooth.folder / "scores", output)
    before = times(output)
    damaged = output / "phantom_001.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert predict_tests(copy, output) == smooth.scores
    after = times(output)
    assert {path.name for path in after if after[path] != before[path]} == {
        "phantom_001.nii.gz",
        "phantom_001.nii.gz.txt",
        "phantom_001.json",
        "prediction.json",  # the members lie in another folder now
    }


# ---- changed or damaged in between ----------------------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["phantom_001.b2nd", "phantom_001_seg.b2nd", "properties/phantom_001.npy"])
def test_training_refuses_a_changed_preprocessed_case_and_planning_mends_it(copy, name):
    file = copy.preprocessed / DATASET / "nnoodPlans_3d_fullres" / name
    intact, others = file.read_bytes(), times(copy.preprocessed, "phantom_000*.b2nd")
    flip(file)
    with pytest.raises(UserError, match=r"case phantom_001 was changed or damaged .* nnood_plan_and_preprocess"):
        train("999", ["1"], copy, epochs=1, iterations=1)
    assert not (copy.results / FOLD).with_name("fold_1").exists()
    plan_and_preprocess("999", copy, base_features=4, gpu_memory_target=0.5)
    assert file.read_bytes() == intact
    assert times(copy.preprocessed, "phantom_000*.b2nd") == others


def test_training_refuses_a_missing_preprocessed_case(copy):
    (copy.preprocessed / DATASET / "nnoodPlans_3d_fullres" / "phantom_002.b2nd").unlink()
    with pytest.raises(UserError, match=r"case phantom_002"):
        train("999", ["1"], copy, epochs=1, iterations=1)


def test_planning_refuses_a_changed_image(copy):
    image = copy.raw / DATASET / "imagesTr" / "phantom_003_0000.nii.gz"
    shutil.copy(image.with_name("phantom_004_0000.nii.gz"), image)
    with pytest.raises(UserError, match=r"phantom_003_0000.nii.gz was changed .* --overwrite"):
        plan_and_preprocess("999", copy, base_features=4, gpu_memory_target=0.5)


def test_going_on_refuses_a_damaged_checkpoint(copy):
    fold = copy.results / FOLD
    (fold / FINAL).unlink()
    for name in (LATEST, PREVIOUS, BEST):
        flip(fold / name)
    before = times(fold)
    with pytest.raises(UserError, match=r"checkpoint_latest.pth does not agree with its recorded hash"):
        train_fold(copy, go_on=True)
    assert times(fold) == before


def test_predicting_refuses_a_damaged_checkpoint(copy, tmp_path):
    flip(copy.results / FOLD / BEST)
    with pytest.raises(UserError, match=r"checkpoint_best.pth does not agree with its recorded hash"):
        predict_tests(copy, tmp_path / "scores")


def test_another_configuration_leaves_the_members_as_they_are(copy):
    plans = (copy.results / FOLD).parent / "plans.json"
    before = plans.read_bytes()
    plan_and_preprocess("999", copy, configurations=["2d"], base_features=4, gpu_memory_target=0.5)
    train("999", ["1"], copy, epochs=1, iterations=1)
    assert plans.read_bytes() == before
    train("999", ["0"], copy, configuration="2d", epochs=1, iterations=1)
    assert model_of(copy).members[0].configuration == "3d_fullres"


def test_other_plans_do_not_mix_with_the_members(copy):
    plan_and_preprocess("999", copy, base_features=6, gpu_memory_target=0.5, overwrite=True)
    with pytest.raises(UserError, match=r"holds members of other plans"):
        train("999", ["1"], copy, epochs=1, iterations=1)
