"""From tiny trained members to the inference plan: whole, killed in the middle, and with wrong input."""

import dataclasses
import functools
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from nnood.errors import UserError
from nnood.inference.calibration import IDENTITY
from nnood.inference.inference_plan import PLAN_FILE, InferencePlan, PlannedMember, load_plan
from nnood.inference.predict import find_model, predict
from nnood.inference.predictor import MapPredictor
from nnood.inference.selection import find_best
from nnood.inference.selection.find_best import FOLDER, RECORD, find_best_configuration
from nnood.inference.selection.groups import find_groups, member_numbers
from nnood.inference.selection.images import Image, ImageMaker, fold_of, list_images
from nnood.inference.selection.report import draw_plan, format_candidates, format_plan
from nnood.paths import NNUNET_VARIABLES, VARIABLES, Roots
from nnood.planning.storage import foreground_file
from nnood.safety import TEMPORARY_PREFIX, read_json, write_json
from nnood.training.checkpoints import BEST
from nnood.training.settings import SETTINGS_FILE

NAME = "Dataset101_Members"
VOLUMES, SLICES = (f"NnoodTrainer__nnood__{configuration}" for configuration in ("3d_fullres", "2d"))


def run(roots, **options):
    return find_best_configuration(NAME, roots, **options)


@pytest.fixture(scope="module")
def chosen_once(trained_once, tmp_path_factory):
    """The results after the selection among all three members; not to be changed."""
    results = tmp_path_factory.mktemp("chosen") / "results"
    shutil.copytree(trained_once.results, results)
    roots = Roots(trained_once.raw, trained_once.preprocessed, results)
    with pytest.MonkeyPatch.context() as environment:
        for variable in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
            environment.setenv(variable, "")
        run(roots)
    return roots


@pytest.fixture
def chosen(chosen_once, tmp_path):
    """A copy of them to change at will."""
    shutil.copytree(chosen_once.results, tmp_path / "chosen")
    return Roots(chosen_once.raw, chosen_once.preprocessed, tmp_path / "chosen")


@pytest.fixture
def own(trained, tmp_path):
    """Members, raw and preprocessed data to change at will."""
    for part in ("raw", "preprocessed"):
        shutil.copytree(getattr(trained, part), tmp_path / part)
    return Roots(tmp_path / "raw", tmp_path / "preprocessed", trained.results)


@pytest.fixture
def counted(monkeypatch):
    """Counts predictions; `limit` ends the run when so many are done, as a kill would."""

    class Counter:
        done, limit = 0, 10**9

    maps = MapPredictor.maps

    def counting(self, *arguments):
        for number, scores in maps(self, *arguments):
            if Counter.done >= Counter.limit:
                raise KeyboardInterrupt
            Counter.done += 1
            yield number, scores

    monkeypatch.setattr(MapPredictor, "maps", counting)
    return Counter


@pytest.fixture
def no_prediction(monkeypatch):
    """What is refused is refused before any network is loaded."""

    def fail(*_):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(MapPredictor, "__init__", fail)


# ---- the whole ------------------------------------------------------------------------------------------------------


def test_everything_is_written_and_nothing_is_left_over(chosen_once):
    results = chosen_once.results / NAME
    plan = load_plan(results / PLAN_FILE)
    assert {member.folder for member in plan.members} <= {VOLUMES, SLICES}
    assert {entry["stage"] for entry in plan.candidates} >= {
        *("configuration", "members", "combination", "smoothing", "sample score")
    }
    for entry in plan.candidates:
        if entry["chosen"] and entry["gain"] is not None:
            assert entry["gain"] > entry["error"]
    assert {(one.level, one.rate) for one in plan.thresholds} == {
        (level, rate) for level in ("voxel", "sample") for rate in (0.01, 0.05)
    }
    assert len(plan.calibration.scores) > 2
    page = (results / "inference_plan.md").read_text()
    for entry in plan.candidates:
        assert entry["name"] in page
    with Picture.open(results / "inference_plan.png") as picture:
        assert min(picture.size) > 300
    assert sorted(path.name for path in results.iterdir()) == sorted(
        [VOLUMES, SLICES, PLAN_FILE, RECORD, "inference_plan.md", "inference_plan.png"]
    )


def test_prediction_follows_the_plan(chosen_once, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    first = sorted((chosen_once.raw / NAME / "imagesTs").iterdir())[0]
    shutil.copy(first, images)
    planned = find_model(chosen_once, dataset=NAME)
    assert planned.file == chosen_once.results / NAME / PLAN_FILE
    scores = predict(images, tmp_path / "scores", planned, device=torch.device("cpu"), save_mask=True)
    assert len(scores) == 1
    assert 0 <= next(iter(scores.values())) <= 1
    assert len(list((tmp_path / "scores" / "masks").glob("*.nii.gz"))) == 1


def test_running_again_gives_the_same_plan(chosen):
    file = chosen.results / NAME / PLAN_FILE
    before = file.read_bytes()
    run(chosen)
    assert file.read_bytes() == before


def test_a_killed_run_goes_on_where_it_stopped(trained, chosen_once, counted):
    """Killed twice; each score map is predicted once, and the plan is that of a run that was never killed."""
    results = trained.results / NAME
    members = [member for group in find_groups(results, (), (), (), BEST).values() for member in group]
    images = list_images([fold_of(member) for member in members], max_cases=40)
    total = sum(len(image.judges) for image in images)
    for limit in (2, total - 1):
        counted.limit = limit
        with pytest.raises(KeyboardInterrupt):
            run(trained)
        assert counted.done == limit
        assert not (results / PLAN_FILE).exists()
        assert (results / FOLDER).is_dir()
    counted.limit = 10**9
    leftover = results / f"{TEMPORARY_PREFIX}999999999-inference_plan.png"
    leftover.write_bytes(b"half")
    run(trained)
    assert counted.done == total
    assert (results / PLAN_FILE).read_bytes() == (chosen_once.results / NAME / PLAN_FILE).read_bytes()
    assert not leftover.exists()
    assert not (results / FOLDER).exists()


def test_a_kill_while_the_plan_is_written_does_not_make_it_a_stranger(chosen, monkeypatch):
    results = chosen.results / NAME
    file, previous = results / PLAN_FILE, find_best._known_plan(results)
    before = file.read_bytes()
    other = dataclasses.replace(load_plan(file), notes=["Another one."])

    def killed(path, content):
        if path.name == PLAN_FILE:
            raise KeyboardInterrupt
        write_json(path, content)

    write = functools.partial(find_best._write, other, [Image("case", "normal", (0,))], np.array([0.5]), results)
    with monkeypatch.context() as patch:
        patch.setattr(find_best, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            write(previous)
    assert file.read_bytes() == before
    assert find_best._known_plan(results) == previous
    write(previous)
    assert load_plan(file) == other
    assert len(find_best._known_plan(results)) == 1


def test_folds_configurations_and_recipes_restrict_the_members(trained):
    results = trained.results / NAME

    def found(recipes=(), configurations=(), folds=()):
        groups = find_groups(results, recipes, configurations, folds, BEST)
        return {name: [member.fold for member in members] for name, members in groups.items()}

    assert found() == {"nnood 3d_fullres": ["0", "1"], "nnood 2d": ["0"]}
    assert next(iter(found())) == "nnood 3d_fullres"  # the default one
    assert found(folds=["0"]) == {"nnood 3d_fullres": ["0"], "nnood 2d": ["0"]}
    assert found(configurations=["2d"]) == {"nnood 2d": ["0"]}
    with pytest.raises(UserError, match="no finished fold that fits"):
        found(recipes=["soup"])
    with pytest.raises(UserError, match="no trained fold 7"):
        found(folds=["7"])
    shutil.copytree(results / VOLUMES / "fold_0", results / VOLUMES / "fold_all")
    shutil.copytree(results / VOLUMES, results / f"{VOLUMES}__mine")
    (results / "notes__of__mine").mkdir()
    assert found() == {"nnood 3d_fullres": ["0", "1"], "nnood 2d": ["0"]}
    groups = find_groups(results, (), (), (), BEST)
    assert member_numbers(groups) == {"nnood 3d_fullres": (0, 1), "nnood 2d": (2,)}


def test_a_plan_without_any_figure_can_be_shown(tmp_path):
    plan = InferencePlan(
        dataset=NAME,
        members=(PlannedMember(VOLUMES, "0", BEST, "0" * 64),),
        combination="mean",
        steps=(),
        sample_score="max",
        within_foreground=False,
        calibration=IDENTITY,
        thresholds=(),
        plans={VOLUMES: "0" * 64},
        candidates=[{"stage": "members", "name": "all", "voxel_ap": None, "gain": None, "error": None, "chosen": True}],
        notes=["There was nothing to compare."],
    )
    for text in (format_plan(plan), format_candidates(plan)):
        assert "members" in text
        assert "None" not in text
    assert "There was nothing to compare." in format_plan(plan)
    with warnings.catch_warnings(action="error"):
        draw_plan(plan, [Image("case", "normal", (0,))], np.array([np.nan]), tmp_path / "plan.png")
    with Picture.open(tmp_path / "plan.png") as picture:
        assert min(picture.size) > 300


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_prediction")
@pytest.mark.parametrize("how", ["edited", "broken", "put there by hand"])
def test_an_edited_plan_is_refused_and_stays(chosen, how):
    results = chosen.results / NAME
    content = read_json(results / PLAN_FILE)
    if how == "edited":
        content["sample_score"] = "max" if content["sample_score"] != "max" else "mean"
        write_json(results / PLAN_FILE, content)
    elif how == "broken":
        (results / PLAN_FILE).write_text("{")
    else:
        (results / RECORD).unlink()
    before = (results / PLAN_FILE).read_bytes()
    with pytest.raises(UserError, match=PLAN_FILE):
        run(chosen)
    assert (results / PLAN_FILE).read_bytes() == before


def test_a_plan_that_was_only_laid_out_anew_is_not_edited(chosen):
    file = chosen.results / NAME / PLAN_FILE
    file.write_text(json.dumps(read_json(file)))
    assert find_best._known_plan(file.parent) != []


@pytest.mark.usefixtures("no_prediction")
def test_a_case_that_vanished_is_named(own):
    held_out = read_json(own.results / NAME / VOLUMES / "fold_0" / SETTINGS_FILE)["fold"]["val_cases"][0]
    (own.raw / NAME / "imagesTr" / f"{held_out}_0000.nii.gz").unlink()
    description = read_json(own.raw / NAME / "dataset.json")
    write_json(own.raw / NAME / "dataset.json", description | {"numTraining": description["numTraining"] - 1})
    with pytest.raises(UserError, match=f"no training case {held_out} any more"):
        run(own)


@pytest.mark.usefixtures("no_prediction")
def test_a_missing_foreground_is_named(own):
    held_out = read_json(own.results / NAME / VOLUMES / "fold_0" / SETTINGS_FILE)["fold"]["val_cases"][0]
    foreground_file(own.preprocessed / NAME, held_out).unlink()
    with pytest.raises(UserError, match=f"{held_out}.nii.gz does not exist; run nnood_plan_and_preprocess"):
        run(own)


@pytest.mark.usefixtures("no_prediction")
def test_members_that_leave_nothing_out_are_refused(trained):
    for file in (trained.results / NAME).glob(f"*/fold_*/{SETTINGS_FILE}"):
        content = read_json(file)
        content["fold"]["val_cases"] = content["fold"]["train_cases"]
        write_json(file, content)
    with pytest.raises(UserError, match="leaves cases out"):
        run(trained)


@pytest.mark.usefixtures("no_prediction")
def test_members_of_different_foregrounds_are_not_compared(trained):
    file = trained.results / NAME / SLICES / "plans.json"
    plans = read_json(file)
    plans["nnood"]["foreground_method"] = "whole" if plans["nnood"]["foreground_method"] != "whole" else "otsu"
    write_json(file, plans)
    with pytest.raises(UserError, match="foreground method"):
        run(trained)


@pytest.mark.usefixtures("no_prediction")
def test_another_number_of_channels_is_refused(own):
    description = read_json(own.raw / NAME / "dataset.json")
    for file in sorted((own.raw / NAME / "imagesTr").glob("*_0000.nii.gz")):
        shutil.copy(file, file.with_name(file.name.replace("_0000", "_0001")))
    write_json(own.raw / NAME / "dataset.json", description | {"channel_names": {"0": "MRI", "1": "MRI"}})
    with pytest.raises(UserError, match="2 channels but"):
        run(own)


def test_a_task_that_can_plant_nothing_is_left_out(trained, monkeypatch):
    """Images in which a task could plant nothing are no anomalies that a member missed."""
    make, seen = ImageMaker.__call__, []

    def failing(self, case, task):
        values, geometry, truth, foreground = make(self, case, task)
        if task == "cutout":
            seen.append(case)
            return make(self, case, "normal")
        return values, geometry, truth, foreground

    monkeypatch.setattr(ImageMaker, "__call__", failing)
    judged = []
    choose = find_best.choose_ensemble

    def choosing(sampled, *arguments):
        judged.extend(entry.image.task for entry in sampled.images)
        return choose(sampled, *arguments)

    monkeypatch.setattr(find_best, "choose_ensemble", choosing)
    run(trained, configurations=["2d"])
    assert seen
    assert "cutout" not in judged
    assert "normal" in judged
    assert np.unique(judged).size >= 3
