"""Train one fold, in this process or in several."""

import contextlib
import copy
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nnood.reconstruction.trainer import ReconstructionTrainer
from nnood.training.distributed import Team, run_ranks
from nnood.training.recipe import Recipe
from nnood.training.settings import TrainingSettings
from nnood.training.signals import StopRequest
from nnood.training.trainer import NnoodTrainer


@dataclass(frozen=True)
class FoldRun:
    """All that decides a run.

    Attributes:
        plans: Of the data set.
        configuration: To train.
        name: What follows `fold_` in the name of the folder.
        dataset_json: In nnU-Net's keys.
        settings: Recipe, cases, tasks and seed.
        checkpoint: File to go on from; None: from the very start.
        device: Where to compute; of several ranks, the type counts only.
        pretrained: Checkpoint whose encoder the network starts with; None: it starts anew.
    """

    plans: dict[str, Any]
    configuration: str
    name: str
    dataset_json: dict[str, Any]
    settings: TrainingSettings
    checkpoint: Path | None
    device: torch.device
    pretrained: Path | None = None


def trainer_of(recipe: Recipe) -> type[NnoodTrainer]:
    """Which trainer a recipe needs; the folders of its members bear its name, as nnU-Net has it."""
    return NnoodTrainer if recipe.reconstruction is None else ReconstructionTrainer


def make_trainer(team: Team, stop: StopRequest, run: FoldRun) -> NnoodTrainer:
    """The trainer of a run, ready for `run_training`.

    Args:
        team: The ranks that train together.
        stop: How it is asked to end.
        run: What to train.
    """
    own = copy.deepcopy(run.plans)
    own["nnood"]["training"] = run.settings.to_dict()
    own["plans_name"] = run.settings.recipe.name  # nnU-Net builds the folder's name from it
    own["continue_training"] = run.checkpoint is not None
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = trainer_of(run.settings.recipe)(own, run.configuration, run.name, run.dataset_json, run.device)
    trainer.team, trainer.stop, trainer.pretrained = team, stop, run.pretrained
    if run.checkpoint is not None:
        trainer.load_checkpoint(str(run.checkpoint))
    return trainer


def run_fold(team: Team, stop: StopRequest, run: FoldRun) -> None:
    """Train as one of the ranks.

    Args:
        team: The ranks that train together.
        stop: How it is asked to end.
        run: What to train.

    Raises:
        Stopped: If it was asked to end; a checkpoint was written.
    """
    make_trainer(team, stop, run).run_training()


def train_fold(run: FoldRun, stop: StopRequest, *, ranks: int) -> None:
    """Train one fold.

    Args:
        run: What to train.
        stop: How it is asked to end.
        ranks: Number of processes, one device each; 1: this process.

    Raises:
        Stopped: If it was asked to end; a checkpoint was written.
    """
    if ranks == 1:
        run_fold(Team(), stop, run)
    else:
        run_ranks(run_fold, (run,), count=ranks, device=run.device, stop=stop)
