"""Several ranks train one network; on the CPU here, where they exchange gradients through gloo."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import rank_work
import torch

from nnood.errors import UserError
from nnood.paths import Roots, set_nnunet_roots
from nnood.plan import CASE_LIST_FILE
from nnood.safety import read_json, write_json
from nnood.training import checkpoints, planting
from nnood.training.checkpoints import FINAL, LATEST, PREVIOUS, load_checkpoint
from nnood.training.choices import load_plans, with_lengths, with_tasks
from nnood.training.cross_validation import load_folds
from nnood.training.distributed import Team, refuse_team, run_ranks
from nnood.training.fold_run import FoldRun, make_trainer
from nnood.training.recipes import get_recipe
from nnood.training.settings import TrainingSettings
from nnood.training.signals import Stopped, StopRequest, listen
from nnood.training.train import train

CPU = torch.device("cpu")
NAME = "Dataset999_Phantoms"
RANKS = 2


def fold_run(roots: Roots, checkpoint: Path | None = None) -> FoldRun:
    recipe = with_lengths(with_tasks(get_recipe("nnood"), ["fpi"]), 2, 3, 0)
    folder = roots.preprocessed / NAME
    settings = TrainingSettings(recipe, load_folds(folder, recipe, read_json(folder / CASE_LIST_FILE))[0], 0)
    plans, dataset = load_plans(roots, NAME), read_json(folder / "dataset.json")
    return FoldRun(plans, "3d_fullres", "0", dataset, settings, checkpoint, CPU)


def train_three_times(team: Team, stop: StopRequest, roots: Roots, output: Path) -> None:
    """As one rank: a whole run; one that rank 1 asks to end; and what is left of that. Tells what happened."""
    cases, written = [], []
    original, write = planting.Planter.__call__, checkpoints._write_verified

    def planted(self: planting.Planter, batch: dict[str, Any]) -> Any:
        cases.append([len(batch["keys"]), float(batch["data"].sum())])
        return original(self, batch)

    planting.Planter.__call__ = planted  # type: ignore[method-assign]
    checkpoints._write_verified = lambda *content: written.append(1) or write(*content)  # type: ignore[func-returns-value]
    set_nnunet_roots(Roots(roots.raw, roots.preprocessed, roots.results / "whole"))
    trainer = make_trainer(team, stop, fold_run(roots))
    trainer.run_training()
    weights = torch.cat([weight.detach().flatten() for weight in trainer.network.parameters()])
    told = {"weights": float(weights.double().sum()), "cases": list(cases), "written": len(written)}

    set_nnunet_roots(Roots(roots.raw, roots.preprocessed, roots.results / "parts"))
    trainer = make_trainer(team, stop, fold_run(roots))
    step = trainer.train_step

    def asked(batch: dict[str, Any]) -> dict[str, Any]:
        stop.requested = team.rank == 1 and (trainer.current_epoch, trainer.step) == (1, 1)
        return step(batch)

    trainer.train_step = asked  # type: ignore[method-assign]
    try:
        trainer.run_training()
    except Stopped:
        told["stopped"] = [trainer.current_epoch, trainer.step]
    stop.requested = False
    latest = Path(trainer.output_folder) / LATEST
    make_trainer(team, stop, fold_run(roots, latest)).run_training()
    write_json(output / f"{team.rank}.json", told)


def test_ranks_train_one_network_stop_together_and_go_on_exactly(tiny: Roots, tmp_path: Path) -> None:
    run_ranks(train_three_times, (tiny, tmp_path), count=RANKS, device=CPU, stop=StopRequest())
    told = [read_json(tmp_path / f"{rank}.json") for rank in range(RANKS)]
    assert told[0]["weights"] == told[1]["weights"]
    assert [len(rank["cases"]) for rank in told] == [8 + 6, 8 + 6]  # the prior's batches, and the steps'
    planned = read_json(tiny.preprocessed / NAME / "nnoodPlans.json")["configurations"]["3d_fullres"]["batch_size"]
    assert [sum(pair) for pair in zip(*([size for size, _ in rank["cases"]] for rank in told), strict=True)] == [
        planned
    ] * 14
    assert not {value for _, value in told[0]["cases"]} & {value for _, value in told[1]["cases"]}
    assert told[0]["written"] > 0
    assert told[1]["written"] == 0
    assert [rank["stopped"] for rank in told] == [[1, 2]] * RANKS
    fold = Path(NAME) / "NnoodTrainer__nnood-fpi__3d_fullres" / "fold_0"
    one, other = (load_checkpoint(tiny.results / run / fold / FINAL, CPU) for run in ("whole", "parts"))
    assert load_checkpoint(tiny.results / "parts" / fold / PREVIOUS, CPU)["step"] == 2
    for key, weight in one["network_weights"].items():
        assert torch.equal(weight, other["network_weights"][key]), key
    for key in ("train_losses", "val_losses", "mean_voxel_ap"):
        assert one["logging"][key] == other["logging"][key]


def test_sigterm_reaches_all_ranks(tmp_path: Path) -> None:
    def ask() -> None:
        while len(list(tmp_path.iterdir())) < RANKS:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    with listen() as stop, pytest.raises(Stopped):
        run_ranks(rank_work.wait_for_a_request, (tmp_path,), count=RANKS, device=CPU, stop=stop)


def test_a_fault_of_the_user_comes_through() -> None:
    with pytest.raises(UserError, match=r"^This is wrong; do that\.$"):
        run_ranks(rank_work.fail, (), count=1, device=CPU, stop=StopRequest())


def test_too_many_ranks_are_refused(tiny: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_team(1, torch.device("mps"), 2)
    refuse_team(2, CPU, 2)
    with pytest.raises(UserError, match=r"-num_gpus 3 is more than the 2 images of a planned batch"):
        refuse_team(3, CPU, 2)
    with pytest.raises(UserError, match=r"-num_gpus 99 is more than the \d+ that there are"):
        refuse_team(99, torch.device("cuda"), 200)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UserError, match=r"takes the first 2 GPUs, not cuda:1"):
        refuse_team(2, torch.device("cuda:1"), 2)
    with pytest.raises(UserError, match=r"needs GPUs of CUDA, not the device mps"):
        refuse_team(2, torch.device("mps"), 2)
    with pytest.raises(UserError, match=r"-num_gpus 99 is more than"):
        train("999", ["0"], tiny, num_gpus=99)
    assert not tiny.results.exists()


def test_one_rank_agrees_with_itself() -> None:
    team = Team()
    assert (team.any((True, False)), team.gather("a"), team.share("b")) == ([True, False], ["a"], "b")
