"""nnU-Net's training loop, made to stop after any step and to go on from there, alone or as one of several ranks."""

import contextlib
import io
import sys
from pathlib import Path
from time import monotonic, time
from typing import Any

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from nnood.training.checkpoints import BEST, load_checkpoint, save_checkpoint, save_latest
from nnood.training.distributed import Team
from nnood.training.log import AnomalyLog
from nnood.training.signals import Stopped, StopRequest

SECONDS_BETWEEN_CHECKPOINTS = 600.0


class ResumableTrainer(nnUNetTrainer):
    """The loop, the state of a run, and its checkpoints; what is learned and how is a matter of the hooks.

    The state is: weights, optimiser, schedule and log; `current_epoch` and `step`, how many are finished; and, within
    an epoch, `rank_state` of each rank. All randomness is seeded anew for each step, so there is no other, and a run
    that stopped ends just like one that did not. Beside a GPU, where worker processes race for the next batch, no run
    is like another; the state is whole all the same.

    Attributes:
        team: The ranks of this run; nnU-Net's constructor leaves no room for it. Set before anything is called.
        stop: Whether the run was asked to end; likewise.
        step: Number of finished steps of the current epoch.
        losses: Of these steps, in this rank.
        best: The best `AnomalyLog.figure` so far.
        is_saturated: Whether there is nothing left to learn.
    """

    current_epoch: int
    is_ddp: bool
    network: Any
    grad_scaler: Any

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

    def validate(self) -> bool:
        """Validate, on rank 0 only, letting `Stopped` through; returns whether there is nothing left to learn."""
        raise NotImplementedError

    def rank_state(self) -> dict[str, Any]:
        """What this rank's steps of the epoch leave to those that follow, in tensors and plain values."""
        return {"losses": self.losses}

    def shut_down(self) -> None:
        """End the loader's processes, if there are any."""
        if isinstance(self.dataloader_train, NonDetMultiThreadedAugmenter):
            self.dataloader_train._finish()

    # ---- set-up -------------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Build network, optimiser and loss; share batch and gradients with the other ranks."""
        # nnU-Net wraps networks for several GPUs only, never for several processes on a CPU.
        is_ddp, self.is_ddp = self.is_ddp, False
        super().initialize()
        self.is_ddp = is_ddp
        if not is_ddp:
            return
        with contextlib.redirect_stdout(io.StringIO()):
            self._set_batch_size_and_oversample()
        gpus = [self.device.index] if self.device.type == "cuda" else None
        if gpus:
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
        self.network = DistributedDataParallel(self.network, device_ids=gpus)
        self.loss = self._build_loss()  # there is one for several ranks

    def own_network(self) -> nn.Module:
        """The network without the other ranks."""
        return self.network.module if self.is_ddp else self.network

    def plain_network(self) -> Any:
        """The network without any wrapper."""
        network = self.own_network()
        return network._orig_mod if isinstance(network, OptimizedModule) else network

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
            self._finish_epoch()
        self.on_train_end()

    def _train_epoch(self) -> None:
        """What is left of the epoch's steps."""
        if self.step == 0:
            self.on_epoch_start()
        self.on_train_epoch_start()
        while self.step < self.num_iterations_per_epoch:
            self.on_step_start()
            self.losses.append(float(self.train_step(self._next_batch())["loss"]))
            self.step += 1
            if self.step < self.num_iterations_per_epoch:
                self._look_up()
        self.on_train_epoch_end([])

    def _look_up(self) -> None:
        """Between two steps: end if asked to, write a checkpoint if the last is old."""
        is_old = self.local_rank == 0 and monotonic() - self.saved > SECONDS_BETWEEN_CHECKPOINTS
        is_to_stop, is_old = self.team.any((self.stop.requested, is_old))
        if is_to_stop:
            self._end_early()
        if is_old:
            self.save_latest()

    def _end_early(self) -> None:
        """Write a checkpoint, and end."""
        self.save_latest()
        self.shut_down()
        text = f"asked to end after step {self.step} of epoch {self.current_epoch + 1}; --continue goes on there."
        self.print_to_log_file(text)
        raise Stopped(text)

    def _next_batch(self) -> dict[str, Any]:
        try:
            return next(self.dataloader_train)
        except RuntimeError:
            # SIGTERM to the whole group of processes ends the loader's workers at once.
            if self.stop.requested and self.team.size == 1:
                self._end_early()
            raise

    def on_epoch_start(self) -> None:
        """Remember when the epoch began."""
        self.epoch_started = time()
        self.log.log("epoch_start_timestamps", self.epoch_started, self.current_epoch)

    def _validate(self) -> None:
        """Validate on rank 0 while the others wait; all then know whether to go on."""
        is_stopped = is_saturated = False
        if self.local_rank == 0:
            try:
                is_saturated = self.validate()
            except Stopped:
                is_stopped = True
        is_stopped, self.is_saturated = self.team.share((is_stopped, is_saturated))
        if is_stopped:
            self._end_early()

    def _finish_epoch(self) -> None:
        """Count the epoch, and write the latest and perhaps the best checkpoint."""
        self.current_epoch, self.step, self.losses = self.current_epoch + 1, 0, []
        if self.local_rank == 0 and self.log.figure > self.best:
            self.best = self.log.figure
            self.save_checkpoint(str(Path(self.output_folder) / BEST))
        self.save_latest()

    # ---- files --------------------------------------------------------------------------------------------------

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = False, add_timestamp: bool = True) -> None:
        """Write to the log file; to the console only what a user must see, above any progress bar."""
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)
        if also_print_to_console and self.local_rank == 0 and "log" in self.__dict__:  # its constructor greets
            tqdm.write(" ".join(map(str, args)))
            sys.stdout.flush()  # into a file, lines would otherwise wait for each other

    def save_latest(self) -> None:
        """Write where the run is, keeping the checkpoint before. Within an epoch, all ranks must call it."""
        content = self._content()
        if self.local_rank == 0:
            save_latest(content, Path(self.output_folder))
        self.saved = monotonic()

    def save_checkpoint(self, filename: str) -> None:
        """Write where the run is to another file."""
        if self.local_rank == 0:
            save_checkpoint(self._content(), Path(filename))

    def _content(self) -> dict[str, Any]:
        """The state of the run: tensors and plain values only."""
        within = 0 < self.step < self.num_iterations_per_epoch
        return {
            "network_weights": self.plain_network().state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "schedule_state": self.lr_scheduler.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "best": list(self.best),
            "is_saturated": self.is_saturated,
            "current_epoch": self.current_epoch,
            "step": self.step,
            "seconds": time() - self.epoch_started,
            "ranks": self.team.gather(self.rank_state()) if within else [],
            "mirror_axes": list(self.inference_allowed_mirroring_axes or ()),
        }

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Go on from a checkpoint file."""
        if not self.was_initialized:
            self.initialize()
        content = load_checkpoint(Path(filename_or_checkpoint), torch.device("cpu"))
        self.plain_network().load_state_dict(content["network_weights"])
        self.optimizer.load_state_dict(content["optimizer_state"])
        self.lr_scheduler.load_state_dict(content["schedule_state"])
        if self.grad_scaler is not None and content["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(content["grad_scaler_state"])
        self.logger.load_checkpoint(content["logging"])
        self.best, self.is_saturated = (content["best"][0], content["best"][1]), content["is_saturated"]
        self.current_epoch, self.step = content["current_epoch"], content["step"]
        self.restored_ranks = content["ranks"]
        if self.step:  # time passes for the epoch only while it is trained
            self.epoch_started = time() - content["seconds"]
            self.log.log("epoch_start_timestamps", self.epoch_started, self.current_epoch)
