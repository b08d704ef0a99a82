"""nnood: self-configuring anomaly localisation for medical images, trained on normal images only.

The public surface is what `__all__` lists: the commands' verbs as functions, and `Predictor` for single images. Each
name is loaded when it is first used, so that importing nnood costs nothing and changes nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnood.errors import UserError as UserError
    from nnood.evaluation.evaluate import evaluate as evaluate
    from nnood.inference.array_predictor import Predictor as Predictor
    from nnood.inference.array_predictor import ScoreResult as ScoreResult
    from nnood.inference.selection.find_best import find_best_configuration as find_best_configuration
    from nnood.paths import Roots as Roots
    from nnood.planning.plan_and_preprocess import plan_and_preprocess as plan_and_preprocess
    from nnood.training.train import train as train

__version__ = "0.1.0"

_HOMES = {
    "Predictor": "nnood.inference.array_predictor",
    "Roots": "nnood.paths",
    "ScoreResult": "nnood.inference.array_predictor",
    "UserError": "nnood.errors",
    "evaluate": "nnood.evaluation.evaluate",
    "find_best_configuration": "nnood.inference.selection.find_best",
    "plan_and_preprocess": "nnood.planning.plan_and_preprocess",
    "train": "nnood.training.train",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nnood' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
