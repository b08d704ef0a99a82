"""The console commands: parse, call one function, word the errors. No logic."""

from nnood.cli.conversion import convert
from nnood.cli.data import cross_validation, plan_and_preprocess, tasks
from nnood.cli.evaluation import evaluate, make_benchmark, report
from nnood.cli.prediction import apply_postprocessing, ensemble, predict
from nnood.cli.recipes import recipes
from nnood.cli.selection import find_best_configuration
from nnood.cli.sharing import export, install
from nnood.cli.status import status
from nnood.cli.training import demo, train

__all__ = [
    "apply_postprocessing",
    "convert",
    "cross_validation",
    "demo",
    "ensemble",
    "evaluate",
    "export",
    "find_best_configuration",
    "install",
    "make_benchmark",
    "plan_and_preprocess",
    "predict",
    "recipes",
    "report",
    "status",
    "tasks",
    "train",
]
