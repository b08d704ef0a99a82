"""One training on several devices: one process (rank) each, which agree on everything but their batches."""

import contextlib
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException

from nnood.errors import UserError
from nnood.safety import write_text
from nnood.training.signals import Stopped, StopRequest, listen

# Rank 0 may validate for hours while the others wait.
PATIENCE = timedelta(days=30)
SECONDS_BETWEEN_LOOKS = 0.2
FAULT_FILE = "fault.txt"


@dataclass(frozen=True)
class Team:
    """The ranks of one training, seen from one of them. Every method must be called by all ranks alike.

    Attributes:
        rank: Number of this process; 0 validates and writes.
        size: Number of ranks.
        group: For messages on the CPU, beside the devices' own exchange of gradients; None if there is one rank only.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """For each flag, whether it is set in any rank."""
        if self.size == 1:
            return list(flags)
        numbers = torch.tensor(flags, dtype=torch.int32)
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX, group=self.group)
        return [bool(number) for number in numbers]

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order, on rank 0; nothing on the others."""
        if self.size == 1:
            return [value]
        values = [None] * self.size if self.rank == 0 else None
        distributed.gather_object(value, values, dst=0, group=self.group)
        return values or []

    def share(self, value: Any) -> Any:
        """The value of rank 0, on all ranks."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self.group)
        return values[0]


def refuse_team(count: int, device: torch.device, batch_size: int) -> None:
    """Check a wanted number of ranks.

    Args:
        count: Of ranks, at least 1.
        device: Its type is where all of them compute.
        batch_size: Planned for all of them together.

    Raises:
        UserError: If there are not as many devices, or not an image of the batch for each.
    """
    if count == 1:
        return
    if device.type not in ("cuda", "cpu"):
        raise UserError(f"-num_gpus {count} needs GPUs of CUDA, not the device {device}; leave it out.")
    if device.type == "cuda" and count > torch.cuda.device_count():
        raise UserError(f"-num_gpus {count} is more than the {torch.cuda.device_count()} that there are; use fewer.")
    if device.index:
        raise UserError(f"-num_gpus {count} takes the first {count} GPUs, not {device}; use --device cuda with it.")
    if count > batch_size:
        raise UserError(f"-num_gpus {count} is more than the {batch_size} images of a planned batch; use fewer.")


def run_ranks(
    work: Callable[..., None], arguments: tuple[Any, ...], *, count: int, device: torch.device, stop: StopRequest
) -> None:
    """Do the same work in several processes at once.

    Args:
        work: A function of a module, called with `Team`, `StopRequest` and the arguments in each process.
        arguments: Further ones.
        count: Of processes.
        device: Its type says how they exchange gradients.
        stop: What is asked of this process is asked of all.

    Raises:
        Stopped: If they were asked to end.
        UserError: What one of them raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.spawn(
            _rank,
            args=(work, arguments, count, device.type, folder, max(1, torch.get_num_threads() // count)),
            nprocs=count,
            join=False,
        )
        try:
            _wait(context, stop)
        except ProcessExitedException as error:
            stop.check()  # asked before it could listen
            fault = Path(folder) / FAULT_FILE
            if fault.exists():
                raise UserError(fault.read_text(encoding="utf-8")) from error
            raise
    stop.check()


def _wait(context: ProcessContext, stop: StopRequest) -> None:
    """Wait for the processes to end; hand a request to end on to each, once."""
    told = False
    while not context.join(timeout=SECONDS_BETWEEN_LOOKS):
        if stop.requested and not told:
            told = True
            for process in context.processes:
                if process.is_alive():
                    os.kill(process.pid, signal.SIGTERM)


def _rank(
    rank: int,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
    count: int,
    kind: str,
    folder: str,
    threads: int,
) -> None:
    """What one process does."""
    warnings.simplefilter("ignore")  # as in the commands
    torch.set_num_threads(threads)
    if kind == "cuda":
        torch.cuda.set_device(rank)
    try:
        with listen() as stop, _join(rank, count, kind, folder) as team:
            work(team, stop, *arguments)
    except Stopped:
        return
    except (UserError, OSError) as error:
        write_text(Path(folder) / FAULT_FILE, str(error))
        raise SystemExit(1) from error


@contextlib.contextmanager
def _join(rank: int, count: int, kind: str, folder: str) -> Iterator[Team]:
    """Meet the other ranks. After an error nothing is tidied up: that could wait for ranks that are gone."""
    distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=(Path(folder) / "rendezvous").as_uri(),
        rank=rank,
        world_size=count,
    )
    yield Team(rank, count, distributed.new_group(backend="gloo", timeout=PATIENCE))
    distributed.destroy_process_group()
