from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from nnood.training.log import AnomalyLog

FIGURES = {"voxel_ap": {"fpi": 0.5}, "sample_ap": {"fpi": 0.5}, "whole_voxel_ap": None, "whole_sample_ap": None}


@pytest.mark.parametrize(("losses", "is_cut"), [((0.9, 0.2), True), ((0.7, -0.6), False)])
def test_losses_below_0_such_as_dice_are_in_the_picture(
    losses: tuple[float, ...], is_cut: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AnomalyLog()
    for epoch, loss in enumerate(losses):
        for key in log.my_fantastic_logging:
            log.log(key, FIGURES.get(key, 0.1), epoch)
        log.log("train_losses", loss, epoch)
    lowest: list[float] = []
    original = Figure.savefig

    def saved(self: Figure, *arguments: Any, **options: Any) -> None:
        lowest.append(self.axes[0].get_ylim()[0])
        original(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", saved)
    log.plot_progress_png(str(tmp_path))
    assert (lowest == [0]) == is_cut
    assert lowest[0] <= min(losses)
