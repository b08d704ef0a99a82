"""nnU-Net's sliding window, several tiles at a time and in the device's fast arithmetic, from one side or several."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn
from torch.nn.functional import pad

from nnood.network import OneHead
from nnood.precision import autocast_for
from nnood.views import View, views_of

# Scores this near to 0 or 1 are taken as no nearer, so that their logits are finite.
SURE = 1e-6


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
            tiles = torch.stack([self._tile(data, where) for where in batch]).to(self.device)
            for where, tile in zip(batch, self._internal_maybe_mirror_and_predict(tiles).to(place), strict=True):
                logits[where] += tile * weight
                weights[where[1:]] += weight
        return logits / weights

    def _tile(self, data: torch.Tensor, where: tuple[Any, ...]) -> torch.Tensor:
        """What the network sees at a place."""
        return data[where]


class SlabWindow(SlidingWindow):
    """Slices with their neighbours, slice by slice from each side; the mean of the sides' scores, as logits.

    Attributes:
        views: The sides.
    """

    views: tuple[View, ...] = ()
    allowed_mirroring_axes: tuple[int, ...] | None

    def predict_sliding_window_return_logits(self, input_image: torch.Tensor) -> torch.Tensor:
        """Predict a volume (C, Z, Y, X); returns logits (1, Z, Y, X) float32."""
        stored = self.allowed_mirroring_axes
        total = torch.zeros(1, *input_image.shape[1:])
        try:
            for view in self.views:
                self.allowed_mirroring_axes = view.planar_axes(stored or ()) or None
                logits = super().predict_sliding_window_return_logits(view.turn(input_image))
                if len(self.views) == 1:
                    return view.turn_back(logits)
                total += view.turn_back(torch.sigmoid(logits)).to(total.device)
        finally:
            self.allowed_mirroring_axes = stored
        return torch.logit(total / len(self.views), eps=SURE)

    def _tile(self, data: torch.Tensor, where: tuple[Any, ...]) -> torch.Tensor:
        """A slice's part of the slab around it, its slices as channels; beyond the border all is 0."""
        channels, middle, *plane = where
        view = self.views[0]
        first, end = middle - view.beyond, middle + view.beyond + 1
        inside = slice(max(first, 0), min(end, data.shape[1]))
        missing = (inside.start - first, end - inside.stop)
        return view.fold(pad(data[channels, inside, *plane], (0, 0, 0, 0, *missing)))


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
        mirror_axes: Along which predictions of mirrored tiles are averaged; of slabs, stored axes.
    """
    views = views_of(configuration)
    kind = SlabWindow if views[0].slices else SlidingWindow
    with contextlib.redirect_stdout(io.StringIO()):  # on a CPU, nnU-Net says that it is no GPU
        window = kind(device=device, use_mirroring=bool(mirror_axes), allow_tqdm=False)
    if isinstance(window, SlabWindow):
        # For nnU-Net, tiles are parts of slices; what lies beside these is added to each.
        window.views, content = views, configuration.configuration
        configuration = ConfigurationManager({**content, "patch_size": content["patch_size"][1:]})
    window.manual_initialization(network, plans, configuration, [], dataset_json, "nnood", mirror_axes)
    window.label_manager = OneHead.of(window.label_manager)
    return window
