"""`nnood_status`: what exists of a data set, and the next command, from the first image to the inference plan."""

import os
from pathlib import Path

import pytest

from nnood import Roots, UserError
from nnood.inference.calibration import Calibration
from nnood.inference.inference_plan import PLAN_FILE, InferencePlan, PlannedMember
from nnood.safety import write_json
from nnood.status import find_stages, next_step

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


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("1", MEMBERS, "nnood_train 999 1 -c 3d_fullres --continue"),
        ("1_seed2", MEMBERS, "nnood_train 999 1 -c 3d_fullres --seeds 2 --continue"),
        ("all", "NnoodTrainer__nsa__2d", "nnood_train 999 all -r nsa -c 2d --continue"),
    ],
)
def test_a_stopped_fold_goes_on_next(planned, name, folder, expected):
    fold(planned, name, folder=folder, checkpoint="checkpoint_latest.pth")
    text, step = status(planned)
    assert f"{name} " in text
    assert "stopped" in text
    assert step == expected


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
