"""What users of the Python interface rely on: its names and arguments, that importing is free, and any start method."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import nnood
from nnood.phantoms import write_demo_dataset

# A change of these is a change for users: say so in CHANGELOG.md.
SURFACE = {
    "Predictor": ("model", "roots", "device"),
    "Predictor.__call__": ("self", "image", "spacing"),
    "Roots": ("raw", "preprocessed", "results"),
    "ScoreResult": ("score_map", "sample_score", "mask"),
    "evaluate": ("predictions", "labels", "threshold", "rounds", "progress"),
    "find_best_configuration": (
        *("dataset", "roots", "recipes", "configurations", "folds", "checkpoint", "max_cases", "processes", "device"),
    ),
    "plan_and_preprocess": (
        *("dataset", "roots", "configurations", "processes", "gpu_memory_target", "base_features", "overwrite"),
    ),
    "train": (
        *("dataset", "folds", "roots", "configuration", "recipe", "tasks", "donors", "epochs", "iterations"),
        *("whole_every", "go_on", "device", "seeds", "num_gpus", "pretrained"),
    ),
}

SPAWNED = """
import multiprocessing
import os
import torch
import nnood
from nnood.training import loading, trainer

def with_workers(loader, device, seed):  # as beside a GPU
    return loading.feed(loader, torch.device("mps"), seed)

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    os.environ["nnUNet_n_proc_DA"] = "1"
    trainer.feed = with_workers
    small = {"base_features": 4, "gpu_memory_target": 0.5}
    nnood.plan_and_preprocess(101, processes=2, **small)
    (fold,) = nnood.train(101, 0, epochs=1, iterations=1, device="cpu")
    plan = nnood.find_best_configuration(101, max_cases=1, device="cpu")
    result = nnood.Predictor(101, device="cpu")(torch.rand(16, 24, 18).numpy(), (1.0, 1.0, 1.0))
    print("score", result.sample_score, result.mask.shape)
"""


def python(script: str, folder: Path, environment: dict[str, str]) -> str:
    """What a script prints, run in a process of its own."""
    file = folder / "script.py"
    file.write_text(script)
    done = subprocess.run([sys.executable, str(file)], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_these():
    classes = {name.split(".")[0] for name in SURFACE}
    assert set(nnood.__all__) == classes | {"UserError", "__version__"}
    assert dir(nnood) == sorted(nnood.__all__)


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_their_arguments_are_these(name):
    found = nnood
    for part in name.split("."):
        found = getattr(found, part)
    assert tuple(inspect.signature(found).parameters) == SURFACE[name]


def test_there_is_no_other_name():
    with pytest.raises(AttributeError, match="no attribute 'Preditor'"):
        nnood.Preditor  # noqa: B018


def test_importing_costs_and_changes_nothing(tmp_path, clean_environment):
    script = """
import os, sys
before = dict(os.environ), set(sys.modules)
import nnood
heavy = {"torch", "numpy", "nnunetv2", "SimpleITK", "matplotlib"} & (set(sys.modules) - before[1])
print(heavy or "light", dict(os.environ) == before[0], os.listdir(".") == ["script.py"])
"""
    assert python(script, tmp_path, clean_environment).split() == ["light", "True", "True"]


def test_type_checkers_see_the_types():
    assert (Path(nnood.__file__).parent / "py.typed").is_file()


def test_all_verbs_work_under_the_spawn_start_method(tmp_path, clean_environment):
    write_demo_dataset(
        tmp_path / "nnood_data" / "raw" / "Dataset101_Spawned", num_train=5, num_test=0, shape=(16, 24, 18)
    )
    printed = python(SPAWNED, tmp_path, clean_environment)
    assert "score" in printed
    assert "(16, 24, 18)" in printed
