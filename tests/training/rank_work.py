"""What ranks do in tests; apart from these, as each rank imports the module anew."""

import time
from pathlib import Path

import torch

from nnood.errors import UserError
from nnood.safety import write_json
from nnood.training.distributed import Team
from nnood.training.losses import LOSSES
from nnood.training.signals import StopRequest


def wait_for_a_request(team: Team, stop: StopRequest, output: Path) -> None:
    """Agree on everything, then wait until asked to end."""
    assert team.share(team.rank) == 0
    assert team.gather(team.rank) == ([0, 1] if team.rank == 0 else [])
    assert team.any((team.rank == 1, False)) == [True, False]
    (output / str(team.rank)).touch()
    while not any(team.any((stop.requested,))):
        time.sleep(0.01)
    while not stop.requested:  # the request reaches each of them
        time.sleep(0.01)
    stop.check()


def fail(team: Team, stop: StopRequest) -> None:
    """Find a fault of the user's."""
    raise UserError("This is wrong; do that.")


def share_a_batch(team: Team, stop: StopRequest, logits: torch.Tensor, label: torch.Tensor, output: Path) -> None:
    """Compute nnU-Net's loss of a batch of which the first rank has one image more."""
    part = slice(0, 2) if team.rank == 0 else slice(2, 3)
    logit = logits[part].clone().requires_grad_()
    loss = LOSSES["dice_ce"](True, True)(logit, label[part])
    loss.backward()
    assert logit.grad is not None
    write_json(output / f"{team.rank}.json", {"loss": float(loss), "gradient": logit.grad.tolist()})
