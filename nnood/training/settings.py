"""What one training run is made of, besides data and plan: travels inside `plans["nnood"]["training"]`."""

from dataclasses import dataclass
from typing import Any

from nnood.training.cross_validation import Fold
from nnood.training.recipe import Recipe

SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class TrainingSettings:
    """Attributes of one run.

    Attributes:
        recipe: The recipe, with epochs and iterations as the user wants them.
        fold: Cases and tasks.
        seed: Of augmentation, anomalies and initial weights.
        pretrained: SHA-256 of the checkpoint whose encoder the network starts with; empty: it starts anew.
    """

    recipe: Recipe
    fold: Fold
    seed: int
    pretrained: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        content = {"recipe": self.recipe.to_dict(), "fold": self.fold.to_dict(), "seed": self.seed}
        return content | ({"pretrained": self.pretrained} if self.pretrained else {})

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "TrainingSettings":
        """Read the settings back."""
        return cls(
            recipe=Recipe.from_dict(content["recipe"]),
            fold=Fold.from_dict(content["fold"]),
            seed=int(content["seed"]),
            pretrained=str(content.get("pretrained", "")),
        )
