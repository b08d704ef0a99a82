"""The console commands: parse, call one function, word the errors. No logic."""

from nnood.cli.data import convert, plan_and_preprocess, tasks
from nnood.cli.evaluation import evaluate, make_benchmark, report
from nnood.cli.prediction import predict
from nnood.cli.training import demo, train

__all__ = [
    "convert",
    "demo",
    "evaluate",
    "make_benchmark",
    "plan_and_preprocess",
    "predict",
    "report",
    "tasks",
    "train",
]
