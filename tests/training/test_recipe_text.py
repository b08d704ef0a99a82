"""What a person reads of recipes, in a terminal and in the documentation."""

import json
import re
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest

from nnood.errors import UserError
from nnood.reconstruction.settings import Reconstruction
from nnood.training.recipe import Recipe
from nnood.training.recipe_text import (
    describe_recipe,
    list_recipes,
    save_recipe,
    table_of_recipes,
    table_of_reconstructions,
)
from nnood.training.recipes import RECIPES, read_recipe

DOCUMENTATION = Path(__file__).parents[2] / "documentation"
REFERENCE = DOCUMENTATION / "reference"


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_list_holds_every_recipe_and_fits_a_terminal() -> None:
    lines = list_recipes(RECIPES.values()).splitlines()
    assert max(map(len, lines)) <= 100
    starts = [line for line in lines[1:] if not line.startswith(" ")]
    assert [line.split()[0] for line in starts] == list(RECIPES)
    for line, recipe in zip(starts, RECIPES.values(), strict=True):
        assert recipe.scheme in line
        assert not recipe.configuration or recipe.configuration in line
        assert recipe.summary.startswith(line[lines[0].index("summary") :])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_in_full(name: str) -> None:
    recipe = RECIPES[name]
    text = describe_recipe(recipe)
    assert max(map(len, text.splitlines())) <= 100
    for part in (recipe.name, recipe.summary, recipe.citation, recipe.notes):
        assert words(part) in words(text)
    parameters = json.loads(text[text.index("{") :])
    assert (
        Recipe.from_dict(parameters | {key: getattr(recipe, key) for key in ("name", "summary", "citation", "notes")})
        == recipe
    )


def test_what_is_written_can_be_edited_and_read(tmp_path: Path) -> None:
    file = tmp_path / "new" / "mine.json"
    save_recipe(RECIPES["cutpaste"], file)
    assert read_recipe(file) == RECIPES["cutpaste"]
    text = file.read_text(encoding="utf-8")
    assert "Müller" in text
    file.write_text(text.replace('"name": "cutpaste"', '"name": "mine"').replace("2500", "7"), encoding="utf-8")
    assert read_recipe(file) == replace(RECIPES["cutpaste"], name="mine", epochs=7)
    assert [path.name for path in file.parent.iterdir()] == ["mine.json"]


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text("precious")
    with pytest.raises(UserError, match=r"mine.json exists; .*--overwrite"):
        save_recipe(RECIPES["fpi"], file)
    assert file.read_text() == "precious"
    save_recipe(RECIPES["fpi"], file, overwrite=True)
    assert read_recipe(file) == RECIPES["fpi"]
    with pytest.raises(UserError, match=r"end it with \.json"):
        save_recipe(RECIPES["fpi"], tmp_path / "mine.txt")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        save_recipe(RECIPES["fpi"], tmp_path / "folder.json", overwrite=True)


def test_shares_are_shown_where_they_differ() -> None:
    equal = replace(RECIPES["nnood"], tasks={"fpi": 2.0, "sink": 2.0})
    other = replace(equal, tasks={"fpi": 2.0, "sink": 0.5})
    assert "| `fpi`, `sink` |" in table_of_recipes([equal])
    assert "| `fpi` (2), `sink` (0.5) |" in table_of_recipes([other])


def test_the_documentation_holds_the_table_as_it_is() -> None:
    table = table_of_recipes(RECIPES.values())
    page = REFERENCE / "recipes.md"
    assert table in page.read_text(encoding="utf-8"), f"{page} is out of date; its table must be:\n{table}"


def test_the_documentation_holds_the_table_of_reconstructions() -> None:
    table = table_of_reconstructions(RECIPES.values())
    page = REFERENCE / "reconstruction.md"
    assert table in page.read_text(encoding="utf-8"), f"{page} is out of date; its table must be:\n{table}"


def test_the_documentation_explains_every_key_of_a_reconstruction() -> None:
    page = (REFERENCE / "reconstruction.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*)\|$", page[page.index("## Settings") :], flags=re.MULTILINE)
    known = {key: json.loads(value.strip(" `")) for key, value in rows}
    assert known == Reconstruction().to_dict()


def test_the_documentation_explains_every_key() -> None:
    page = (REFERENCE / "recipes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*)\|$", page[page.index("## Keys") :], flags=re.MULTILINE)
    assert [key for key, _ in rows] == [field.name for field in fields(Recipe)]
    defaults = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}
    assert {key: json.loads(value.strip(" `")) for key, value in rows if value.strip()} == defaults


def test_the_guides_example_is_a_recipe(tmp_path: Path) -> None:
    page = (DOCUMENTATION / "how_to" / "write_a_recipe.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)
    file = tmp_path / "mine.json"
    file.write_text(example, encoding="utf-8")
    recipe = read_recipe(file)
    assert recipe.name not in RECIPES
    assert f"`{recipe.name}`" in page
