"""What a trained autoencoder says of whole normal cases: values of their patches, and the scale of its scores."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from nnood.inference.sliding_window import SlidingWindow
from nnood.reconstruction.network import Autoencoder, PatchValues
from nnood.reconstruction.settings import VOXEL_SCORES

LEAST_FOREGROUND = 0.01  # of a patch that says something of the case


class PatchCollector(nn.Module):
    """Stands in for an autoencoder in a sliding window, and keeps what is known of each patch.

    Attributes:
        network: The autoencoder.
        found: Of the patches so far.
    """

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network
        self.found: list[PatchValues] = []

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Keep the values of patches; returns no scores (B, 1, *S)."""
        self.found.append(PatchValues(*(part.float().cpu() for part in self.network.values(self.network.see(patches)))))
        return patches.new_zeros(len(patches), 1, *patches.shape[2:])

    def of_case(self, window: SlidingWindow, case: torch.Tensor) -> PatchValues:
        """Of the patches of a case that hold some foreground; of all of them if none does.

        Args:
            window: With this module as its network, and without mirroring.
            case: (C + 1, Z, Y, X).
        """
        self.found = []
        window.predict_sliding_window_return_logits(case)
        values = PatchValues(*(torch.cat(part) for part in zip(*self.found, strict=True)))
        chosen = values.share >= LEAST_FOREGROUND
        return PatchValues(*(part[chosen] for part in values)) if chosen.any() else values


@torch.no_grad()
def measure_scales(
    network: Autoencoder, window: SlidingWindow, cases: Iterable[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """Set each scale to the median of the score over the foreground of normal cases.

    Args:
        network: Its scales are overwritten.
        window: With this network, and without mirroring.
        cases: Cases (C + 1, Z, Y, X) for the network, and their foreground (Z, Y, X).
    """
    before = network.voxel_score
    medians: dict[str, list[torch.Tensor]] = {name: [] for name in network.settings.voxel_scores}
    network.scales.fill_(1.0)
    for case, foreground in cases:
        inside = foreground if foreground.any() else torch.ones_like(foreground)
        for name, found in medians.items():
            network.voxel_score = name
            logits = window.predict_sliding_window_return_logits(case)[0].cpu()
            found.append(logits[inside].float().median())
    network.voxel_score = before
    for name, found in medians.items():
        network.scales[VOXEL_SCORES.index(name)] = float(torch.stack(found).mean().exp())


def gather_values(
    cases: Iterable[torch.Tensor], of_case: Callable[[torch.Tensor], PatchValues], *, most: int
) -> PatchValues:
    """Values of the patches of the first cases that have enough, evenly thinned out.

    Args:
        cases: (C + 1, Z, Y, X) each.
        of_case: From a case to its values.
        most: At most so many patches.
    """
    gathered, count = [], 0
    for case in cases:
        gathered.append(of_case(case))
        count += len(gathered[-1].error)
        if count >= most:
            break
    found = PatchValues(*(torch.cat(part) for part in zip(*gathered, strict=True)))
    kept = torch.linspace(0, count - 1, min(count, most)).round().long()
    return PatchValues(*(part[kept] for part in found))
