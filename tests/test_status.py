"""`nnood_status`: what exists of a data set, and the next command, from the first image to the inference plan."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from nnood import Roots, UserError
from nnood.inference.calibration import Calibration
from nnood.inference.inference_plan import PLAN_FILE, InferencePlan, PlannedMember
from nnood.safety import write_json
from nnood.status import find_stages, next_step
from nnood.training.choices import with_tasks
from nnood.training.recipe import Recipe
from nnood.training.recipes import NNOOD, RECIPES
from nnood.training.schemes import Fold
from nnood.training.settings import TrainingSettings

NAME = "Dataset999_Phantoms"
MEMBERS = "NnoodTrainer__nnood__3d_fullres"


def status(roots: Roots) -> tuple[str, str]:
    """What is told, and the next step."""
    stages = find_stages("999", roots)
    return "\n".join(stage.text for stage in stages), next_step(stages, "999")


def fold(roots: Roots, name: str, *, folder: str = MEMBERS, checkpoint: str = "checkpoint_final.pth") -> Path:
    """Make the folder of a fold that got as far as a checkpoint."""
    made = roots.results / NAME / folder / f"fold_{name}"
    made.mkdir(parents=True)
    (made / checkpoint).write_bytes(b"weights")
    return made / checkpoint


def plan(roots: Roots) -> Path:
    """Write an inference plan of fold 0."""
    member = PlannedMember(MEMBERS, "0", "checkpoint_final.pth", "0" * 64)
    content = InferencePlan(
        NAME, (member,), "mean", (), "max", False, Calibration((0.0, 1.0), (0.0, 1.0)), (), {MEMBERS: "0" * 64}
    )
    write_json(roots.results / NAME / PLAN_FILE, content.to_dict())
    return roots.results / NAME / PLAN_FILE


def test_raw_images_are_planned_next(planned, tmp_path):
    roots = Roots(planned.raw, tmp_path / "no_preprocessed", tmp_path / "no_results")
    text, step = status(roots)
    assert "6 normal cases of 1 channel(s), 0 test cases" in text
    assert "not planned yet" in text
    assert step == "nnood_plan_and_preprocess -d 999"


def test_an_interrupted_conversion_goes_on_next(planned):
    (planned.raw / NAME / "dataset.json").unlink()
    text, step = status(planned)
    assert "incomplete" in text
    assert "nnood_convert again" in step


def test_an_interrupted_planning_goes_on_next(planned):
    (planned.preprocessed / NAME / "nnoodPlans.json").unlink()
    text, step = status(planned)
    assert "Plan: interrupted" in text
    assert step == "nnood_plan_and_preprocess -d 999"


def test_a_planned_data_set_is_trained_next(planned):
    text, step = status(planned)
    assert "6 cases" in text
    assert "3d_fullres (preprocessed, the default)" in text
    assert "none trained yet" in text
    assert step == "nnood_train 999 0"


def chosen(recipe: Recipe, **changes: Any) -> TrainingSettings:
    seed, pretrained = changes.pop("seed", 0), changes.pop("pretrained", "")
    fold = Fold(("a",), ("b",), tuple(recipe.tasks), tuple(recipe.tasks))
    return TrainingSettings(dataclasses.replace(recipe, **changes), fold, seed, pretrained)


STOPPED = {
    "1": (chosen(NNOOD), "nnood_train 999 1 -c 3d_fullres --continue"),
    "1_seed2": (chosen(NNOOD, seed=2), "nnood_train 999 1 -c 3d_fullres --seeds 2 --continue"),
    "0": (
        chosen(NNOOD, epochs=6, iterations=60, validate_whole_every=0),
        "nnood_train 999 0 -c 3d_fullres --epochs 6 --iterations 60 --whole_every 0 --continue",
    ),
    "all": (chosen(RECIPES["nsa"]), "nnood_train 999 all -c 3d_fullres -r nsa --continue"),
    "2": (
        chosen(with_tasks(RECIPES["vae"], ["sink", "fpi"]), epochs=3),
        "nnood_train 999 2 -c 3d_fullres -r vae -t sink,fpi --epochs 3 --continue",
    ),
    "3": (
        chosen(NNOOD, name="nnood@Dataset102", donors="Dataset102_Other"),
        "nnood_train 999 3 -c 3d_fullres --donors Dataset102_Other --continue",
    ),
}


@pytest.mark.parametrize("name", STOPPED)
def test_a_stopped_fold_goes_on_next(planned, name):
    settings, expected = STOPPED[name]
    made = fold(planned, name, checkpoint="checkpoint_latest.pth")
    write_json(made.with_name("settings.json"), settings.to_dict())
    text, step = status(planned)
    assert f"{name} " in text
    assert "stopped" in text
    assert step == expected


@pytest.mark.parametrize(
    "settings",
    [chosen(NNOOD, learning_rate=0.1), chosen(NNOOD, name="mine"), chosen(NNOOD, pretrained="0" * 64)],
    ids=["changed", "own", "pretrained"],
)
def test_a_run_that_settings_do_not_tell_is_found_in_the_log(planned, settings):
    made = fold(planned, "0", checkpoint="checkpoint_latest.pth")
    write_json(made.with_name("settings.json"), settings.to_dict())
    assert "nnood_train.log" in status(planned)[1]


def test_a_fold_in_training_is_waited_for(planned):
    folder = fold(planned, "0", checkpoint="checkpoint_latest.pth").parent
    write_json(folder / "running.json", {"process": os.getpid(), "host": os.uname().nodename})
    text, step = status(planned)
    assert "running" in text
    assert step == "wait for fold 0 of nnood, 3d_fullres, which is being trained"


def test_finished_folds_are_judged_next(planned):
    fold(planned, "0")
    text, step = status(planned)
    assert "Inference plan: none" in text
    assert step == "nnood_find_best_configuration -d 999"


def test_folds_that_leave_nothing_out_predict_at_once(planned):
    fold(planned, "all")
    assert status(planned)[1] == "nnood_predict -d 999 -i IMAGES -o SCORES"


def test_with_a_plan_images_are_predicted_next(planned):
    checkpoint, file = fold(planned, "0"), plan(planned)
    os.utime(checkpoint, (1e9, 1e9))
    text, step = status(planned)
    assert str(file) in text
    assert step == "nnood_predict -d 999 -i IMAGES -o SCORES"


def test_a_plan_older_than_a_network_is_made_again(planned):
    fold(planned, "0")
    os.utime(plan(planned), (1e9, 1e9))
    text, step = status(planned)
    assert "1 network(s) were finished after it was made" in text
    assert step == "nnood_find_best_configuration -d 999"


def test_an_installed_model_predicts(planned, tmp_path):
    roots = Roots(tmp_path / "none", tmp_path / "none", planned.results)
    fold(planned, "0", checkpoint="checkpoint_best.pth")
    plan(planned)
    (planned.results / NAME / "manifest.json").write_text("{}")
    text, step = status(roots)
    assert "installed from an archive" in text
    assert "stopped" not in text
    assert step == "nnood_predict -d 999 -i IMAGES -o SCORES"


def test_damaged_files_and_unknown_data_sets_are_named(planned):
    with pytest.raises(UserError, match="no data set '998'"):
        find_stages("998", planned)
    (planned.preprocessed / NAME / "nnoodPlans.json").write_text("{")
    with pytest.raises(UserError, match=r"nnoodPlans\.json"):
        find_stages("999", planned)
