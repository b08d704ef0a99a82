"""Recipes as a person reads them: in a terminal, and in the documentation."""

import json
import textwrap
from collections.abc import Iterable
from pathlib import Path

from nnood.errors import UserError
from nnood.safety import write_text
from nnood.training.recipe import ENDING, PROSE, Recipe

WIDTH = 100


def list_recipes(recipes: Iterable[Recipe]) -> str:
    """One recipe after the other: name, scheme, configuration if it has one, and summary; at most `WIDTH` wide."""
    rows = [("recipe", "scheme", "summary")]
    for recipe in recipes:
        scheme = f"{recipe.scheme}, {recipe.configuration}" if recipe.configuration else recipe.scheme
        rows.append((recipe.name, scheme, recipe.summary))
    first, second = (max(len(row[column]) for row in rows) + 2 for column in (0, 1))
    return "\n".join(
        textwrap.fill(
            summary,
            WIDTH,
            initial_indent=f"{name:{first}}{scheme:{second}}",
            subsequent_indent=" " * (first + second),
            break_on_hyphens=False,
        )
        for name, scheme, summary in rows
    )


def describe_recipe(recipe: Recipe) -> str:
    """A recipe in full: summary, citation and notes as prose, the rest as in its file."""
    labels = {"summary": "", "citation": "Published: ", "notes": "Notes: "}
    prose = [
        textwrap.fill(label + getattr(recipe, key), WIDTH, break_long_words=False, break_on_hyphens=False)
        for key, label in labels.items()
        if getattr(recipe, key)
    ]
    parameters = {key: value for key, value in recipe.to_dict().items() if key not in ("name", *PROSE)}
    return "\n\n".join([recipe.name, *prose, json.dumps(parameters, indent=2)])


def save_recipe(recipe: Recipe, file: Path, *, overwrite: bool = False) -> None:
    """Write a recipe for a user to change.

    Args:
        recipe: The recipe.
        file: The new file.
        overwrite: Whether an existing one may be replaced.

    Raises:
        UserError: If the file would not be taken for a recipe's, is a folder, or exists.
    """
    if file.suffix != ENDING:
        raise UserError(f"-o is {file}, which commands would take for the name of a recipe; end it with {ENDING}.")
    if file.is_dir():
        raise UserError(f"{file} is a folder; name the file to write, such as {file / 'mine.json'}.")
    if file.exists() and not overwrite:
        raise UserError(f"{file} exists; name another file, or replace it with --overwrite.")
    write_text(file, json.dumps(recipe.to_dict(), indent=2, ensure_ascii=False) + "\n")


def table_of_recipes(recipes: Iterable[Recipe]) -> str:
    """Recipes that learn tasks as a table in Markdown, for the documentation."""
    lines = [
        "| recipe | tasks | scheme | label | loss | optimiser, rate, schedule | sample score |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe in recipes:
        if recipe.reconstruction is not None:
            continue
        equal = len(set(recipe.tasks.values())) == 1
        tasks = ", ".join(f"`{name}`" + ("" if equal else f" ({share:g})") for name, share in recipe.tasks.items())
        lines.append(
            f"| `{recipe.name}` | {tasks} | `{recipe.scheme}` | `{recipe.label}` | `{recipe.loss}` "
            f"| `{recipe.optimiser}`, {recipe.learning_rate:g}, `{recipe.schedule}` | `{recipe.sample_score}` |"
        )
    return "\n".join(lines)


def table_of_reconstructions(recipes: Iterable[Recipe]) -> str:
    """Recipes of the reconstruction family as a table in Markdown, for the documentation."""
    lines = [
        "| recipe | encoder | latent, sizes | corruption | KL, entropy | optimiser, rate, schedule | voxel score |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe in recipes:
        if recipe.reconstruction is None:
            continue
        own = recipe.reconstruction
        weights = f"{own.beta:g}, {own.entropy:g}" if own.latent == "gaussian" else ""
        lines.append(
            f"| `{recipe.name}` | `{own.encoder}` | `{own.latent}`, {own.latent_sizes[0]} or {own.latent_sizes[1]} "
            f"| `{own.corruption}` | {weights} | `{recipe.optimiser}`, {recipe.learning_rate:g}, `{recipe.schedule}` "
            f"| `{own.voxel_score}` |"
        )
    return "\n".join(lines)
