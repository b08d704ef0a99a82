"""The command that shows what can be trained."""

import argparse
from pathlib import Path

from nnood.cli.console import Command, ConsoleCommand, make_parser
from nnood.cli.messages import say
from nnood.errors import UserError
from nnood.paths import Roots


@ConsoleCommand
def recipes() -> Command:
    """`nnood_recipes`: list the recipes, show one, check a user's, or write one to start from."""
    parser = make_parser(
        "nnood_recipes",
        "List the recipes, that is the methods that nnood_train can train; show one, or check a file of yours.",
        "nnood_recipes --show nnood -o mine.json",
    )
    parser.add_argument("--show", metavar="RECIPE", help="show one in full: its name, or a JSON file, which is checked")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="JSON file to write it to, for --show")
    parser.add_argument("--overwrite", action="store_true", help="replace that file if it exists")

    def run(arguments: argparse.Namespace, roots: Roots) -> None:
        from nnood.training.recipe_text import describe_recipe, list_recipes, save_recipe
        from nnood.training.recipes import RECIPES, get_recipe

        if arguments.show is None:
            if arguments.output or arguments.overwrite:
                raise UserError("-o and --overwrite go with --show; expected --show RECIPE -o FILE.json.")
            say(list_recipes(RECIPES.values()))
            say("Next: nnood_recipes --show RECIPE, or nnood_train DATASET every -r RECIPE")
            return
        recipe = get_recipe(arguments.show)
        if arguments.output is None:
            say(describe_recipe(recipe))
            return
        save_recipe(recipe, arguments.output, overwrite=arguments.overwrite)
        say(f"Wrote {arguments.output}; first of all, change its name, which is {recipe.name!r}.")
        say(f"Next: nnood_recipes --show {arguments.output}, which checks what you changed")

    return parser, run
