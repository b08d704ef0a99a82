import shutil
from pathlib import Path

import pytest

from nnood.errors import UserError
from nnood.inference.inference_plan import InferencePlan, default_plan
from nnood.inference.members import Member, find_members, members_of_plan, plans_digest
from nnood.paths import Roots
from nnood.safety import read_json, sha256, write_json

NAME = "Dataset101_Members"  # of `trained_once`
FULL, FLAT = "NnoodTrainer__nnood__3d_fullres", "NnoodTrainer__nnood__2d"


def found(roots: Roots, **options: object) -> list[Member]:
    return find_members(roots, **{"dataset": None, "recipe": None, "configuration": None, **options})


def whole_plan(roots: Roots) -> InferencePlan:
    return default_plan([*found(roots, configuration="3d_fullres"), *found(roots, configuration="2d")])


def copy_fold(roots: Roots, name: str) -> None:
    folder = roots.results / NAME / FULL
    shutil.copytree(folder / "fold_0", folder / name)


def test_every_finished_fold_of_the_default_configuration(trained: Roots) -> None:
    copy_fold(trained, "fold_all")
    copy_fold(trained, "fold_1_seed2")
    copy_fold(trained, "fold_2")
    (trained.results / NAME / FULL / "fold_2" / "checkpoint_final.pth").unlink()
    members = found(trained)
    assert [member.fold for member in members] == ["0", "1", "1_seed2"]
    for member in members:
        assert member.file == member.folder / f"fold_{member.fold}" / "checkpoint_best.pth"
        assert (member.folder.name, member.configuration, member.channels) == (FULL, "3d_fullres", 1)
        assert member.plans["dataset_name"] == NAME


def test_folds_by_name(trained: Roots) -> None:
    copy_fold(trained, "fold_all")
    copy_fold(trained, "fold_1_seed2")
    assert [member.fold for member in found(trained, folds=["all"])] == ["all"]
    assert [member.fold for member in found(trained, folds=["1_seed2", "0", "0"])] == ["1_seed2", "0"]
    with pytest.raises(UserError, match=r"no trained fold 3; trained are 0, 1, 1_seed2, all, use nnood_train"):
        found(trained, folds=["0", "3"])


def test_the_fold_on_all_cases_is_used_alone(trained: Roots) -> None:
    copy_fold(trained, "fold_all")
    for number in (0, 1):
        shutil.rmtree(trained.results / NAME / FULL / f"fold_{number}")
    assert [member.fold for member in found(trained)] == ["all"]


def test_members_of_a_plan_come_in_its_order_from_several_folders(trained_once: Roots) -> None:
    plan = whole_plan(trained_once)
    members = members_of_plan(plan, trained_once)
    assert [(member.folder.name, member.fold) for member in members] == [(FULL, "0"), (FULL, "1"), (FLAT, "0")]
    assert [sha256(member.file) for member in members] == [member.sha256 for member in plan.members]


def drop_fold(folder: Path) -> Path:
    shutil.rmtree(folder / "fold_1")
    return folder / "fold_1" / "checkpoint_best.pth"


def drop_folder(folder: Path) -> Path:
    shutil.rmtree(folder)
    return folder / "fold_0" / "checkpoint_best.pth"


def cut_checkpoint(folder: Path) -> Path:
    file = folder / "fold_1" / "checkpoint_best.pth"
    file.write_bytes(file.read_bytes()[:-1000])
    return file


def change_plans(folder: Path) -> Path:
    file = folder / "plans.json"
    plans = read_json(file)
    plans["configurations"]["3d_fullres"]["spacing"][0] *= 2
    write_json(file, plans)
    return file


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop_fold, "does not exist, but the inference plan counts on it"),
        (drop_folder, "does not exist, but the inference plan counts on it"),
        (cut_checkpoint, "is not the checkpoint that the inference plan was made with"),
        (change_plans, "holds other plans than when the inference plan was made"),
    ],
)
def test_members_that_are_not_as_they_were_are_refused(trained: Roots, change, reason: str) -> None:
    plan = whole_plan(trained)
    file = change(trained.results / NAME / FULL)
    with pytest.raises(UserError, match=rf"{file} {reason}.*nnood_find_best_configuration again\.$"):
        members_of_plan(plan, trained)


def test_what_may_change_in_plans_without_a_member_changing(trained_once: Roots) -> None:
    plans = found(trained_once)[0].plans
    before = plans_digest(plans, "3d_fullres")
    other = {**plans, "plans_name": "recipe", "continue_training": True}
    other["nnood"] = {**plans["nnood"], "training": {"seed": 1}, "lesions": "ab", "configurations": {}}
    other["configurations"] = {"3d_fullres": plans["configurations"]["3d_fullres"]}
    assert plans_digest(other, "3d_fullres") == before
    assert plans_digest({**plans, "transpose_forward": [2, 1, 0]}, "3d_fullres") != before
