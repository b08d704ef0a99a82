import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from nnood.errors import UserError
from nnood.inference.calibration import IDENTITY, Calibration, Threshold
from nnood.inference.ensembling import RANK_LEVELS
from nnood.inference.inference_plan import InferencePlan, PlannedMember, load_plan
from nnood.inference.postprocessing import Step
from nnood.inference.selection.report import format_candidates, format_plan
from nnood.safety import write_json

FOLDER = "NnoodTrainer__nnood__3d_fullres"
QUANTILES = tuple(level**4 for level in RANK_LEVELS)


def plan(**changes: Any) -> InferencePlan:
    content: dict[str, Any] = {
        "dataset": "Dataset101_Tiny",
        "members": (
            PlannedMember(FOLDER, "0", "checkpoint_best.pth", "0" * 64, QUANTILES),
            PlannedMember(FOLDER, "1_seed2", "checkpoint_best.pth", "1f" * 32, QUANTILES),
        ),
        "combination": "rank_mean",
        "steps": (Step("smooth", {"sigma_mm": 1.5}), Step("restrict_to_foreground", {"dilation_mm": 2.0})),
        "sample_score": "top_1_percent",
        "within_foreground": True,
        "calibration": Calibration((0.0, 0.25, 1.0), (0.0, 0.5, 1.0)),
        "thresholds": (
            Threshold("voxel", 0.01, 0.25, 0.2, 0.3, True),
            Threshold("sample", 0.05, 0.5, 0.4, 0.6, False),
        ),
        "plans": {FOLDER: "ab" * 32},
        "candidates": [{"stage": "members", "name": "all 2", "voxel_ap": 0.5, "gain": None, "chosen": True}],
        "notes": ["A sentence."],
    }
    return InferencePlan(**{**content, **changes})


def test_a_plan_survives_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "inference_plan.json"
    write_json(file, plan().to_dict())
    assert load_plan(file) == plan()


def test_what_is_told_of_a_plan() -> None:
    text = plan().describe()
    for part in (f"{FOLDER}/fold_1_seed2/checkpoint_best.pth", "rank_mean", "smooth (sigma_mm 1.5)", "top_1_percent"):
        assert part in text
    assert "within the foreground" in text
    assert "Calibrated: yes" in text
    assert "Calibrated: no" in plan(calibration=IDENTITY).describe()


def test_candidates_and_notes_decide_nothing() -> None:
    assert plan(candidates=[], notes=[]).decisive() == plan().decisive()
    assert plan(steps=()).decisive() != plan().decisive()


def test_the_foreground_is_needed_by_a_step_or_by_the_sample_score() -> None:
    smooth = (Step("smooth", {"sigma_mm": 1.0}),)
    assert plan(within_foreground=False).needs_foreground
    assert plan(steps=smooth).needs_foreground
    assert not plan(steps=smooth, within_foreground=False).needs_foreground


def test_thresholds_are_found_by_level_and_rate() -> None:
    found = plan().threshold("voxel", 0.01)
    assert found is not None
    assert found.value == 0.25
    assert plan().threshold("voxel", 0.05) is None


def set_to(*path: str | int, value: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        place: Any = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def without(key: str) -> Any:
    return lambda content: content.pop(key)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (without("members"), ["lacks 'members'"]),
        (without("plans"), ["lacks 'plans'"]),
        (without("schema_version"), ["schema version None", "needs 2"]),
        (set_to("schema_version", value=7), ["schema version 7", "needs 2"]),
        (set_to("stepps", value=[]), ["stepps"]),
        (set_to("dataset", value=5), ["dataset"]),
        (set_to("dataset", value="../other"), ["dataset", "../other"]),
        (set_to("members", value=[]), ["members"]),
        (set_to("members", value={}), ["members", "a list"]),
        (set_to("members", value=["fold_0"]), ["members", "fold_0"]),
        (set_to("members", 1, "fold", value=1), ["fold", "a text"]),
        (set_to("members", 1, "fold", value="../fold_1"), ["fold", "../fold_1"]),
        (set_to("members", 1, "folder", value=".."), ["folder", "'..'"]),
        (set_to("members", 1, "folder", value="elsewhere"), ["elsewhere", "plans"]),
        (set_to("members", 1, "checkpoint", value="a/b"), ["checkpoint", "a/b"]),
        (set_to("members", 1, "fold", value="0"), ["fold_0", "twice"]),
        (set_to("members", 1, "sha256", value="abc"), ["sha256", "abc"]),
        (set_to("members", 1, "quantiles", value=[]), ["quantiles", "rank_mean"]),
        (set_to("members", 1, "quantiles", value=[0.1, 0.2]), ["quantiles", str(len(RANK_LEVELS))]),
        (set_to("members", 1, "quantiles", value=[0.5] * 58 + [0.4]), ["rising quantiles"]),
        (set_to("members", 1, "quantiles", 0, value="a"), ["quantiles", "a number"]),
        (set_to("combination", value="soup"), ["combination", "soup", "median"]),
        (set_to("steps", 0, "kind", value="soup"), ["soup", "smooth"]),
        (set_to("steps", 0, "parameters", value={"sigma": 1}), ["sigma_mm"]),
        (set_to("steps", value=None), ["steps"]),
        (set_to("sample_score", value="median"), ["sample_score", "top_100_voxels"]),
        (set_to("within_foreground", value="yes"), ["within_foreground", "true or false"]),
        (set_to("calibration", "values", value=[0, 2, 1]), ["values", "rise"]),
        (set_to("calibration", "scores", value=[0, 1]), ["as many scores as values"]),
        (set_to("thresholds", 0, "level", value="slice"), ["level", "slice"]),
        (set_to("thresholds", 0, "rate", value=None), ["rate", "a number"]),
        (set_to("thresholds", 0, "value", value=math.inf), ["value"]),
        (set_to("plans", FOLDER, value=3), [FOLDER, "a text"]),
        (set_to("candidates", value=[1]), ["candidates"]),
        (set_to("notes", value=[1]), ["notes"]),
    ],
)
def test_a_plan_that_was_edited_wrongly_gets_one_sentence(tmp_path: Path, change: Any, parts: list[str]) -> None:
    content = copy.deepcopy(plan().to_dict())
    change(content)
    file = tmp_path / "inference_plan.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        load_plan(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert message.endswith(".")
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_gain_without_an_error_says_why() -> None:
    known = {"stage": "smoothing", "name": "none", "voxel_ap": 0.1, "gain": None, "error": None, "chosen": True}
    candidates = [known, {**known, "name": "sigma_mm 1", "gain": 0.2, "chosen": False}]
    judged = dataclasses.replace(plan(), candidates=candidates)
    assert [line.split()[-1] for line in format_candidates(judged).splitlines()[1:]] == ["chosen", "cases"]
    assert "| sigma_mm 1 | 0.1000 | +0.2000 | too few cases |" in format_plan(judged)


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plan\.json does not exist; correct the name"):
        load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("text", ["[]", "null", "5", '"plan"', "{"])
def test_a_file_that_is_no_plan(tmp_path: Path, text: str) -> None:
    file = tmp_path / "inference_plan.json"
    file.write_text(text)
    with pytest.raises(UserError, match=str(file)):
        load_plan(file)
