"""nnU-Net's sliding window, several tiles at a time and in the device's fast arithmetic."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnood.network import OneHead
from nnood.precision import autocast_for


class SlidingWindow(nnUNetPredictor):
    """nnU-Net's predictor with batches of tiles; sums stay in float32.

    A batch is as large as in training, so it fits wherever the training did.
    """

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        with autocast_for(self.device):
            return super()._internal_maybe_mirror_and_predict(x).float()

    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: Sequence[tuple[Any, ...]], do_on_device: bool = True
    ) -> torch.Tensor:
        """Predict all tiles and average where they overlap.

        Args:
            data: The image (C, *S).
            slicers: Where each tile lies.
            do_on_device: Whether the sums are kept on the device rather than in the machine's memory.

        Returns:
            Logits (1, *S) float32.
        """
        place = self.device if do_on_device else torch.device("cpu")
        data = data.to(place)
        shape = (self.label_manager.num_segmentation_heads, *data.shape[1:])
        logits, weights = torch.zeros(shape, device=place), torch.zeros(data.shape[1:], device=place)
        weight = compute_gaussian(
            tuple(self.configuration_manager.patch_size),
            sigma_scale=1 / 8,
            value_scaling_factor=10,
            dtype=torch.float32,
            device=place,
        )
        size = self.configuration_manager.batch_size
        for start in range(0, len(slicers), size):
            batch = slicers[start : start + size]
            tiles = torch.stack([data[where] for where in batch]).to(self.device)
            for where, tile in zip(batch, self._internal_maybe_mirror_and_predict(tiles).to(place), strict=True):
                logits[where] += tile * weight
                weights[where[1:]] += weight
        return logits / weights


def make_window(
    network: nn.Module,
    plans: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: dict[str, Any],
    device: torch.device,
    mirror_axes: tuple[int, ...] | None = None,
) -> SlidingWindow:
    """A sliding window around a network with one head.

    Args:
        network: Puts out the full resolution only.
        plans: nnU-Net's plans.
        configuration: One of them.
        dataset_json: In nnU-Net's keys.
        device: Where to compute.
        mirror_axes: Along which predictions of mirrored tiles are averaged.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # on a CPU, nnU-Net says that it is no GPU
        window = SlidingWindow(device=device, use_mirroring=bool(mirror_axes), allow_tqdm=False)
    window.manual_initialization(network, plans, configuration, [], dataset_json, "nnood", mirror_axes)
    window.label_manager = OneHead.of(window.label_manager)
    return window
