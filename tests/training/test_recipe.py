"""A recipe of a user's file: what is read is what was written, and every fault is named."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from recipe_files import refused

from nnood.errors import UserError
from nnood.training.recipe import Recipe
from nnood.training.recipes import RECIPES, get_recipe, read_recipe, recipe_name

MINE: dict[str, Any] = {"name": "mine", "summary": "Two tasks.", "tasks": {"fpi": 1, "sink": 0.5}}


@pytest.fixture
def write(tmp_path: Path):
    """Write a file of a recipe, as text or as changes of a good one."""

    def make(content: str | bytes | None = None, **changes: Any) -> Path:
        file = tmp_path / "mine.json"
        text = json.dumps(MINE | changes) if content is None else content
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return make


def test_what_is_left_out_has_the_value_of_the_class(write):
    recipe = read_recipe(write())
    assert (recipe.name, recipe.summary, recipe.tasks) == ("mine", "Two tasks.", {"fpi": 1.0, "sink": 0.5})
    default = Recipe(name="mine", summary="Two tasks.", tasks={"fpi": 1.0, "sink": 0.5})
    assert recipe == default


def test_every_key_is_read(write):
    given = {
        "citation": "Nobody, 2030",
        "notes": "None.",
        "scheme": "paired(2)",
        "configuration": "2.5d",
        "normal": 0.99,
        "repeat": 1,
        "sizes": [0.2, 1],
        "planting": "offline",
        "donors": "Dataset102_Other",
        "label": "binary",
        "loss": "dice_ce",
        "augmentation": "none",
        "foreground_share": 0,
        "optimiser": "sgd",
        "schedule": "polynomial",
        "learning_rate": 1,
        "weight_decay": 0,
        "epochs": 1,
        "iterations": 7,
        "validate_whole_every": 0,
        "stop_at": 0.5,
        "sample_score": "max",
        "reconstruction": None,
    }
    assert given.keys() | MINE.keys() == {field.name for field in fields(Recipe)}
    recipe = read_recipe(write(**given))
    assert {key: getattr(recipe, key) for key in given} == given | {"sizes": (0.2, 1.0)}
    assert all(type(getattr(recipe, key)) is float for key in ("repeat", "learning_rate", "weight_decay"))


def test_a_mark_at_the_beginning_does_no_harm(write):
    assert read_recipe(write(b"\xef\xbb\xbf" + json.dumps(MINE).encode())).name == "mine"


@pytest.mark.parametrize(
    ("key", "wanted"), [("learnig_rate", "learning_rate"), ("Loss", "loss"), ("optimizer", "optimiser")]
)
def test_an_unknown_key_brings_the_closest_to_mind(write, key, wanted):
    sentence = refused(write(**{key: 1}))
    assert repr(key) in sentence
    assert f"the closest known one is {wanted!r}" in sentence


def test_an_unknown_key_that_is_close_to_none_lists_all(write):
    sentence = refused(write(xyz=1))
    assert "'xyz'" in sentence
    assert "foreground_share" in sentence


@pytest.mark.parametrize("key", ["name", "summary", "tasks"])
def test_a_missing_key(write, key):
    content = {name: value for name, value in MINE.items() if name != key}
    assert f"the key '{key}' is missing" in refused(write(json.dumps(content)))


WRONG_TYPES = {
    "a text": (None, 1, True, ["a"], {"a": 1}),
    "a number": ("1", True, [1], {}),
    "a whole number": ("1", True, 1.5, 1.0, None, [1]),
    "named entries": ("fpi", ["fpi"], 1, None),
}
KINDS = {
    **dict.fromkeys(("name", "summary", "citation", "notes", "scheme", "configuration", "planting"), "a text"),
    **dict.fromkeys(("donors", "label", "loss", "augmentation", "optimiser", "schedule", "sample_score"), "a text"),
    **dict.fromkeys(("normal", "repeat", "foreground_share", "learning_rate", "weight_decay", "stop_at"), "a number"),
    **dict.fromkeys(("epochs", "iterations", "validate_whole_every"), "a whole number"),
    "tasks": "named entries",
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, kind in KINDS.items() for value in WRONG_TYPES[kind]], ids=str
)
def test_a_wrong_type(write, key, value):
    sentence = refused(write(**{key: value}))
    assert f"{key} is {value!r}, expected {KINDS[key]}" in sentence


def test_the_types_of_all_keys_are_tried():
    assert KINDS.keys() | {"sizes", "reconstruction"} == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize("sizes", [0.5, "all", [], [0.1], [0.1, 0.2, 0.3], [0.1, "0.2"], [0.1, None]], ids=str)
def test_sizes_of_a_wrong_type(write, sizes):
    assert "sizes is " in refused(write(sizes=sizes))


@pytest.mark.parametrize("sizes", [[0, 0.5], [0.5, 0.2], [0.5, 1.01], [-0.1, 0.5], [math.nan, 0.5], [0.1, math.inf]])
def test_sizes_that_cannot_be(write, sizes):
    assert "sizes is " in refused(write(sizes=sizes))


@pytest.mark.parametrize("key", ["scheme", "planting", "label", "loss", "augmentation", "optimiser", "schedule"])
def test_a_choice_that_does_not_exist(write, key):
    sentence = refused(write(**{key: "soup"}))
    assert f"{key} is 'soup'" in sentence
    assert getattr(RECIPES["nnood"], key) in sentence  # the known ones are listed
    assert f"{key} is ''" in refused(write(**{key: ""}))


def test_a_sample_score_that_does_not_exist(write):
    sentence = refused(write(sample_score="top_7_voxels"))
    assert "sample_score is 'top_7_voxels'" in sentence
    assert "top_100_voxels" in sentence


OUTSIDE = {
    "normal": (-0.01, 0.991, 1),
    "repeat": (-0.01, 1.01),
    "foreground_share": (-0.01, 1.01),
    "learning_rate": (-1, 1e10),
    "weight_decay": (-1e-9, 1e10),
    "epochs": (0, -5, 10**10),
    "iterations": (0, 10**400),
    "validate_whole_every": (-1, 10**10),
    "stop_at": (-0.1, 1.1),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in OUTSIDE.items() for value in values])
def test_a_number_out_of_range(write, key, value):
    shown = value if KINDS[key] == "a whole number" else float(value)
    assert f"{key} is {shown}, expected a number" in refused(write(**{key: value}))


def test_nothing_is_learned_at_a_rate_of_0(write):
    assert "learning_rate is 0, expected a number above 0" in refused(write(learning_rate=0))


@pytest.mark.parametrize("key", [key for key, kind in KINDS.items() if kind == "a number"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_no_number_is_infinite_or_none_at_all(write, key, value):
    text = json.dumps(MINE | {key: "HERE"}).replace('"HERE"', value)
    assert f"{key} is " in refused(write(text))


@pytest.mark.parametrize(
    ("tasks", "parts"),
    [
        ({}, ("tasks is empty",)),
        ({"xyz": 1}, ("tasks names 'xyz'", "smooth_intensity")),
        ({"cutpast": 1}, ("tasks names 'cutpast'", "the closest known one is 'cutpaste'")),
        ({"fpi": 0}, ("fpi", "0.0", "above 0", "left out")),
        ({"fpi": -1}, ("fpi", "-1.0", "above 0")),
        ({"fpi": math.nan}, ("fpi", "nan")),
        ({"fpi": math.inf}, ("fpi", "inf")),
        ({"fpi": "much"}, ("tasks: fpi is 'much'", "a number")),
        ({"fpi": None}, ("tasks: fpi is None", "a number")),
        ({"fpi": 10**400}, ("tasks: fpi is",)),
    ],
    ids=str,
)
def test_tasks_that_cannot_be(write, tasks, parts):
    sentence = refused(write(tasks=tasks))
    for part in parts:
        assert part in sentence


# The last ones are what nnood appends itself: other tasks, donors; and separators of folders' names.
@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "a/b",
        "../a",
        ".hidden",
        "_a",
        "a_",
        "ä",
        "a\n",
        "a*",
        *("mine-fpi", "a+b", "a@Dataset102", "a__b"),
    ],
)
def test_a_name_that_no_folder_could_carry(write, name):
    assert f"name is {name!r}" in refused(write(name=name))


def test_a_name_that_would_be_taken_for_a_file(write):
    assert "name is 'mine.json'" in refused(write(name="mine.json"))


def test_a_name_that_is_too_long(write):
    assert read_recipe(write(name="a" * 60)).name == "a" * 60
    assert "name has 61 characters" in refused(write(name="a" * 61))


@pytest.mark.parametrize("name", ["nnood", "mood22", "NNOOD", "Mood22"])
def test_a_name_that_is_taken(write, name):
    sentence = refused(write(name=name))
    assert f"name is {name!r}" in sentence
    assert "choose another name" in sentence


@pytest.mark.parametrize("name", RECIPES)
def test_an_unchanged_copy_is_no_other_recipe(write, name):
    assert read_recipe(write(json.dumps(RECIPES[name].to_dict()))) == RECIPES[name]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("soup", "not valid JSON"),
        ('{"name": "mine",}', "not valid JSON"),
        (b"\xff\xfe\x00", "UTF-8"),
        ("[]", "named entries"),
        ("null", "named entries"),
        ("3", "named entries"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps(MINE)[:-1] + ', "summary": "Another."}', "the key 'summary' is given twice"),
        ('{"name": "mine", "summary": "", "tasks": {"fpi": 1, "fpi": 2}}', "the key 'fpi' is given twice"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_files_that_hold_no_recipe(write, content, part):
    assert part in refused(write(content))


def test_what_is_no_file(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    assert "is a folder" in refused(tmp_path / "folder.json")


def test_names_pass_and_files_give_theirs(write):
    for name in ("nnood", "nnood-fpi+sink", "nnood@Dataset102", "never_heard_of"):
        assert recipe_name(name) == name
    file = write()
    assert recipe_name(str(file)) == "mine"
    assert get_recipe(str(file)) == read_recipe(file)
    with pytest.raises(UserError, match="the closest known one is 'fpi'"):
        recipe_name(str(write(tasks={"fip": 1.0})))


def test_the_class_itself_checks():
    for key, value in (("loss", "soup"), ("epochs", 0), ("tasks", {"soup": 1.0}), ("sizes", (0.5, 0.1))):
        with pytest.raises(ValueError, match=key):
            replace(RECIPES["nnood"], **{key: value})
