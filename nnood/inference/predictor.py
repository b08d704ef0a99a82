"""nnU-Net's sliding window with trained members: one image in, one score map per member out."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnood.geometry import Geometry
from nnood.inference.export import map_back
from nnood.inference.members import Member, plans_digest, settings_of
from nnood.inference.sliding_window import make_window
from nnood.network import build_network
from nnood.plan import NnoodPlan
from nnood.planning.foreground import foreground_mask
from nnood.planning.preprocessor import preprocess_image
from nnood.reconstruction.measure import PatchCollector
from nnood.reconstruction.network import Autoencoder, PatchValues
from nnood.reconstruction.patch_scores import PATCH_COMBINATIONS, PatchScorer
from nnood.reconstruction.patches import knows_foreground, with_foreground
from nnood.reconstruction.settings import Reconstruction
from nnood.training.checkpoints import load_checkpoint


def reconstruction_of(member: Member) -> Reconstruction | None:
    """How a member reconstructs; None if it learned tasks."""
    return settings_of(member).recipe.reconstruction


def _key(member: Member) -> tuple[Any, ...]:
    """What members of a group have in common."""
    return (
        member.configuration,
        plans_digest(member.plans, member.configuration),
        reconstruction_of(member),
    )


class _Group:
    """Members that share plans, configuration and kind of network, and so the preprocessed image."""

    def __init__(self, member: Member, device: torch.device) -> None:
        """Build the network.

        Args:
            member: One of them.
            device: Where to compute.
        """
        self._dataset_json = member.dataset_json
        self._plans = PlansManager(member.plans)
        self._configuration = self._plans.get_configuration(member.configuration)
        self._reconstruction = reconstruction_of(member)
        self._device = device
        self._collector: PatchCollector | None = None
        self._method = NnoodPlan.from_dict(member.plans["nnood"]).foreground_method
        self._network: Any = (
            build_network(self._configuration, member.channels, deep_supervision=False)
            if self._reconstruction is None
            else Autoencoder(self._reconstruction, self._configuration, member.channels)
        )
        self._window = make_window(self._network, self._plans, self._configuration, member.dataset_json, device)

    def preprocess(self, image: np.ndarray, geometry: Geometry) -> tuple[torch.Tensor, dict[str, Any]]:
        """The image (C, *S) on the network's grid, for autoencoders with its foreground, and the way back."""
        foreground = None
        if self._reconstruction is not None and knows_foreground(self._method):
            foreground = foreground_mask(image, self._method)[None].astype(np.int8)
        data, segmentation, properties = preprocess_image(
            image, foreground, geometry, self._plans, self._configuration, self._dataset_json
        )
        prepared = torch.from_numpy(data)
        if self._reconstruction is not None:
            inside = None if foreground is None else torch.from_numpy(segmentation == 1)
            prepared = with_foreground(prepared[None], inside, self._reconstruction)[0]
        return prepared, properties

    def scores(
        self, data: torch.Tensor, weights: dict[str, Any], mirror_axes: tuple[int, ...], voxel_score: str
    ) -> torch.Tensor:
        """What one member says: (1, *S) in [0, 1], on the network's grid."""
        self._window.list_of_parameters = [weights]
        self._window.use_mirroring = bool(mirror_axes)
        self._window.allowed_mirroring_axes = mirror_axes or None
        if self._reconstruction is not None:
            self._network.voxel_score = voxel_score or self._reconstruction.voxel_score
        return torch.sigmoid(self._window.predict_logits_from_preprocessed_data(data).float())

    def patch_values(self, data: torch.Tensor, weights: dict[str, Any]) -> PatchValues:
        """What an autoencoder knows of the image's patches besides maps."""
        self._network.load_state_dict(weights)
        if self._collector is None:
            self._collector = PatchCollector(self._network)
            planned = self._plans, self._configuration, self._dataset_json
            self._patch_window = make_window(self._collector, *planned, self._device)
        return self._collector.of_case(self._patch_window, data)

    def map_back(self, scores: torch.Tensor, properties: dict[str, Any]) -> np.ndarray:
        """The score map (Z, Y, X) on the image's grid."""
        return map_back(scores, properties, self._plans, self._configuration)


class MapPredictor:
    """Turns images into score maps, one member after the other; keeps all weights, and nothing of an image."""

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        """Load all members, verified.

        Args:
            members: Who predicts; they may differ in plans and configuration.
            device: Where to compute.

        Raises:
            UserError: If a checkpoint is missing or damaged.
        """
        # One file may stand for several members, each with another voxel score.
        files = dict.fromkeys(member.file for member in members)
        loaded = {file: load_checkpoint(file, torch.device("cpu")) for file in files}
        contents = [loaded[member.file] for member in members]
        self._weights: list[dict[str, Any]] = [content["network_weights"] for content in contents]
        self._mirror_axes = [tuple(content["mirror_axes"]) for content in contents]
        self._patches = [content.get("patches", {}) for content in contents]
        self._scorers: dict[int, PatchScorer] = {}
        self._voxel_scores = [member.voxel_score for member in members]
        keys = [_key(member) for member in members]
        self._groups: dict[tuple[Any, ...], _Group] = {}
        for member, key in zip(members, keys, strict=True):
            if key not in self._groups:
                self._groups[key] = _Group(member, device)
        self._keys = keys

    def maps(
        self, image: np.ndarray, geometry: Geometry, chosen: Sequence[int] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Predict one image with each member on its own. The image is preprocessed once for all that share plans.

        Args:
            image: Values (C, Z, Y, X) as `nnood.images.read_case` gives them.
            geometry: Of the image.
            chosen: Numbers of the members; all of them if None.

        Yields:
            Number of the member and its score map (Z, Y, X) float32 in [0, 1], 0 outside of what the network saw.
        """
        for key, numbers in self._by_group(chosen).items():
            group = self._groups[key]
            data, properties = group.preprocess(image, geometry)
            for number in numbers:
                scores = self._scores(group, data, number)
                yield number, group.map_back(scores, properties)

    def mean(self, image: np.ndarray, geometry: Geometry, chosen: Sequence[int] | None = None) -> np.ndarray:
        """The mean of `maps`, resampled once for all members that share plans.

        Args:
            image: Values (C, Z, Y, X).
            geometry: Of the image.
            chosen: Numbers of the members; all of them if None.

        Returns:
            Score map (Z, Y, X) float32 in [0, 1].
        """
        groups = self._by_group(chosen)
        total = np.zeros(image.shape[1:], dtype=np.float64)
        for key, numbers in groups.items():
            group = self._groups[key]
            data, properties = group.preprocess(image, geometry)
            summed = torch.zeros(1, *data.shape[1:])
            for number in numbers:
                summed += self._scores(group, data, number)
            total += len(numbers) * group.map_back(summed / len(numbers), properties).astype(np.float64)
        return (total / sum(map(len, groups.values()))).astype(np.float32)

    def patch_values(
        self, image: np.ndarray, geometry: Geometry, chosen: Sequence[int]
    ) -> Iterator[tuple[int, PatchValues]]:
        """What autoencoders know of an image's patches besides maps.

        Args:
            image: Values (C, Z, Y, X).
            geometry: Of the image.
            chosen: Numbers of the members.

        Yields:
            Number of the member, and the values of the patches that hold some foreground.
        """
        for key, numbers in self._by_group(chosen).items():
            group = self._groups[key]
            data, _ = group.preprocess(image, geometry)
            for number in numbers:
                yield number, group.patch_values(data, self._weights[number])

    def patch_score(
        self, image: np.ndarray, geometry: Geometry, chosen: Sequence[int], score: str, combination: str
    ) -> float:
        """The sample score of an image by its patches, averaged over members.

        Args:
            image: Values (C, Z, Y, X).
            geometry: Of the image.
            chosen: Numbers of the members.
            score: One of `PATCH_SCORES`.
            combination: One of `PATCH_COMBINATIONS`.

        Returns:
            In [0, 1].
        """
        combine, found = PATCH_COMBINATIONS[combination], []
        for number, values in self.patch_values(image, geometry, chosen):
            if number not in self._scorers:
                self._scorers[number] = PatchScorer(self._patches[number])
            found.append(combine(self._scorers[number](score, values)))
        return float(np.mean(found))

    def _scores(self, group: _Group, data: torch.Tensor, number: int) -> torch.Tensor:
        return group.scores(data, self._weights[number], self._mirror_axes[number], self._voxel_scores[number])

    def _by_group(self, chosen: Sequence[int] | None) -> dict[tuple[Any, ...], list[int]]:
        """The chosen members of each group."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for number in range(len(self._keys)) if chosen is None else chosen:
            groups.setdefault(self._keys[number], []).append(number)
        return groups
