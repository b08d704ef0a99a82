"""nnU-Net's training loop, made to stop after any step and to go on from there, alone or as one of several ranks."""

import contextlib
import io
from pathlib import Path
from time import monotonic, time
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from nnood.training.checkpoints import load_checkpoint, save_checkpoint, save_latest
from nnood.training.distributed import Team
from nnood.training.log import AnomalyLog
from nnood.training.signals import Stopped, StopRequest

SECONDS_BETWEEN_CHECKPOINTS = 600.0


class ResumableTrainer(nnUNetTrainer):
    """The loop, the state of a run, and its checkpoints; what is learned and how is a matter of the hooks.

    The state is: weights, optimiser, schedule and log; `current_epoch` and `step`, how many are finished; and, within an
    epoch, `rank_state` of each rank. All randomness is seeded anew for each step, so there is no other.

    Attributes:
        team: The ranks of this run; nnU-Net's constructor leaves no room for it. Set before anything is called.
        stop: Whether the run was asked to end; likewise.
        step: Number of finished steps of the current epoch.
        losses: Of these steps, in this rank.
        best: The best `AnomalyLog.figure` so far.
        is_saturated: Whether there is nothing left to learn.
    """

    current_epoch: int

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if not self.is_ddp or device.type == "cpu":
            self.device = device  # nnU-Net would take GPU 0 whichever was asked for, and never several ranks on a CPU
            self.grad_scaler = self.grad_scaler if device.type == "cuda" else None
        self.log = self.logger.local_logger = AnomalyLog()
        self.team, self.stop = Team(), StopRequest()
        self.step = 0
        self.losses: list[float] = []
        self.best = (-1, 0.0)
        self.is_saturated = False
        self.restored_ranks: list[dict[str, Any]] = []
        self.epoch_started = self.saved = 0.0

    # ---- hooks --------------------------------------------------------------------------------------------------

    def on_step_start(self) -> None:
        """Seed everything random from epoch and step."""
        raise NotImplementedError

    def validate(self) -> None:
        """Validate, on rank 0 only; may set `is_saturated`, and must let `Stopped` through."""
        raise NotImplementedError

    def rank_state(self) -> dict[str, Any]:
        """What this rank's steps of the epoch leave to those that follow, in tensors and plain values."""
        return {"losses": self.losses}

    # ---- the loop -----------------------------------------------------------------------------------------------

    def run_training(self) -> None:
        """Train to the end, from wherever a checkpoint left off, within an epoch too.

        Raises:
            Stopped: If the run was asked to end; the latest checkpoint holds all that was done.
        """
        self.on_train_start()
        self.saved = monotonic()
        while self.current_epoch < self.num_epochs and not self.is_saturated:
            if self.step < self.num_iterations_per_epoch:
                self._train_epoch()
            self._validate()
            self.on_epoch_end()
            self.current_epoch, self.step, self.losses = self.current_epoch + 1, 0, []
            self.on_epoch_finished()
        self.on_train_end()

XX
