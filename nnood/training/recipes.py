"""The recipes that there are: nnood's own, the published ones, and those of a user's JSON files."""

import json
from pathlib import Path
from typing import Any

from nnood.errors import UserError
from nnood.reconstruction.recipes import RECONSTRUCTING
from nnood.training.published import PUBLISHED
from nnood.training.recipe import ENDING, Recipe, check_name

DEFAULT_RECIPE = "nnood"

NNOOD = Recipe(
    name=DEFAULT_RECIPE,
    summary="nnood's own: a mixture of brighter or darker, foreign, warped and deformed tissue, classic five folds.",
    tasks={"smooth_intensity": 1.0, "mood22_smooth": 1.0, "dag": 1.0, "source": 1.0},
    notes="What it was compared with: documentation/explanation/default_recipe.md.",
    normal=0.06,
    repeat=0.5,
    label="binary",
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (NNOOD, *PUBLISHED, *RECONSTRUCTING)}


def get_recipe(name: str) -> Recipe:
    """Look a recipe up, or read it from a JSON file.

    Args:
        name: A key of `RECIPES`, or a file whose name ends with `.json`.

    Raises:
        UserError: If there is none of that name, or the file is faulty; the message names the key.
    """
    if name.endswith(ENDING):
        return read_recipe(Path(name))
    if name not in RECIPES:
        raise UserError(
            f"There is no recipe {name!r}; known are {', '.join(RECIPES)}, and files that end with {ENDING}."
        )
    return RECIPES[name]


def recipe_name(text: str) -> str:
    """The name that the members of a recipe carry.

    Args:
        text: The name itself, with what a user changed of the recipe (`nnood-fpi`, `nnood@Dataset102`) or not; or a
            file whose name ends with `.json`.

    Raises:
        UserError: If the file is faulty.
    """
    return read_recipe(Path(text)).name if text.endswith(ENDING) else text


def read_recipe(file: Path) -> Recipe:
    """Read a user's recipe.

    Raises:
        UserError: If the file is missing or no JSON, or a key is unknown, missing, given twice, or of a wrong type or
            value, or the name is that of another recipe.
    """
    text = _read_text(file)
    try:
        content = json.loads(text, object_pairs_hook=_named_once)
        if not isinstance(content, dict):
            raise TypeError("it holds something else than named entries in braces")
        recipe = Recipe.from_dict(content)
        check_name(recipe.name)
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not valid JSON ({error}); correct it there.") from error
    except KeyError as error:
        raise UserError(
            f"{file} is no recipe: the key {error} is missing; add it, nnood_recipes --show {DEFAULT_RECIPE} has an "
            "example."
        ) from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{file} is no recipe: {error}; correct it.") from error
    except RecursionError as error:
        raise UserError(f"{file} is no recipe: it is nested too deeply; correct it.") from error
    # There are file systems for which upper and lower case are the same.
    taken = [known for name, known in RECIPES.items() if name.lower() == recipe.name.lower()]
    if taken and recipe != taken[0]:
        raise UserError(
            f"{file}: name is {recipe.name!r}, which is another recipe, whose networks and folds must not be mixed "
            "with yours; choose another name."
        )
    return recipe


def _read_text(file: Path) -> str:
    if file.is_dir():
        raise UserError(f"{file} is a folder; name a recipe, or a file of one.")
    if not file.is_file():
        raise UserError(f"{file} does not exist; name a recipe, or a file of one.")
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors put a mark at the beginning
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not valid JSON ({error}); save it as text in UTF-8.") from error
    if not text.strip():
        raise UserError(f"{file} is empty; nnood_recipes --show {DEFAULT_RECIPE} -o FILE writes one to start from.")
    return text


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Named entries; the later of two of the same name would silently win."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is given twice")
    return content
