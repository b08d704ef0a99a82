"""Recipes: named, complete training set-ups."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from nnood.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training, besides the data and nnU-Net's plan.

    Attributes:
        name: By which a user asks for it.
        summary: One line on what it is and where it comes from.
        scheme: How folds are made (`nnood.training.schemes.SCHEMES`).
        tasks: Task name to its share of the training images.
        normal: Share of training images left normal, relative to the same sum.
        repeat: Probability of one more anomaly in the image after each, up to four; None: as each task's paper has it.
        label: What the network must say (`nnood.tasks.labels.LABELS`).
        donors: Name of another preprocessed data set that lends all foreign patches; if empty, cases of the same do.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Of AdamW.
        epochs: Number of epochs.
        iterations: Training steps per epoch.
        validate_whole_every: Epochs from one validation on whole cases to the next; 0: never.
        stop_at: Voxel average precision on patches with the training tasks at which training ends; None: it never does.
    """

    name: str
    summary: str
    scheme: str
    tasks: dict[str, float]
    normal: float
    repeat: float | None
    learning_rate: float
    weight_decay: float
    epochs: int
    iterations: int
    label: str = "flipped_gaussian"
    donors: str = ""
    validate_whole_every: int = 50
    stop_at: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Recipe":
        """Read a recipe back."""
        return cls(**content)


DEFAULT_RECIPE = "nnood"

NNOOD = Recipe(
    name=DEFAULT_RECIPE,
    summary="Mixture of brighter or darker, foreign, warped and deformed tissue, classic five folds.",
    scheme="per_task",
    tasks={"smooth_intensity": 1.0, "mood22_smooth": 1.0, "dag": 1.0, "source": 1.0},
    normal=0.25,
    repeat=0.5,
    learning_rate=3e-3,
    weight_decay=1e-5,
    epochs=1000,
    iterations=250,
)


def _many_tasks(trained: int) -> Recipe:
    """Folds paired with tasks: each network trains on some of five tasks and is validated on the others."""
    return replace(
        NNOOD,
        name=f"many_tasks_{trained}of5",
        summary=f'{trained} of 5 pairs of fold and task; Baugh et al., "Many tasks make light work", MICCAI 2023.',
        scheme=f"paired({trained})",
        tasks=dict.fromkeys(("poisson_inter", "poisson_intra", "sink", "source", "smooth_intensity"), 1.0),
        normal=0.0,
        repeat=None,
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (NNOOD, _many_tasks(1), _many_tasks(2), _many_tasks(3), _many_tasks(4))
}


def get_recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        UserError: If there is none of that name.
    """
    if name not in RECIPES:
        raise UserError(f"There is no recipe {name!r}; known are {', '.join(RECIPES)}.")
    return RECIPES[name]
