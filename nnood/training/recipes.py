"""The recipes that there are: nnood's own, the published ones, and those of a user's JSON files."""

from pathlib import Path

from nnood.errors import UserError
from nnood.safety import read_json
from nnood.training.published import PUBLISHED
from nnood.training.recipe import Recipe, check_name

DEFAULT_RECIPE = "nnood"
ENDING = ".json"

NNOOD = Recipe(
    name=DEFAULT_RECIPE,
    summary="nnood's own: a mixture of brighter or darker, foreign, warped and deformed tissue, classic five folds.",
    tasks={"smooth_intensity": 1.0, "mood22_smooth": 1.0, "dag": 1.0, "source": 1.0},
    normal=0.06,
    repeat=0.5,
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (NNOOD, *PUBLISHED)}


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


def read_recipe(file: Path) -> Recipe:
    """Read a user's recipe.

    Raises:
        UserError: If the file is missing or no JSON, or a key is unknown, missing or of a wrong type or value, or the
            name is that of another recipe.
    """
    if not file.is_file():
        raise UserError(f"{file} does not exist; name a recipe, or a file of one.")
    content = read_json(file)
    try:
        if not isinstance(content, dict):
            raise TypeError("it is no list of named entries")
        recipe = Recipe.from_dict(content)
        check_name(recipe.name)
    except KeyError as error:
        raise UserError(f"{file} is no recipe: the key {error} is missing; see nnood_recipes --show.") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{file} is no recipe: {error}; correct it.") from error
    if recipe.name in RECIPES and recipe != RECIPES[recipe.name]:
        raise UserError(f"{file}: name is {recipe.name!r}, which is another recipe; choose another name.")
    return recipe
