"""The sliding window over slices with their neighbours: networks that tell where they were looking."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.special import expit, logit
from torch import nn

from nnood.inference.members import find_members, plans_digest
from nnood.inference.sliding_window import SlidingWindow, make_window
from nnood.paths import Roots

NAME = "Dataset101_Members"  # of `trained_once`
CPU = torch.device("cpu")
Predict = Callable[..., np.ndarray]


class Answer(nn.Module):
    """A network that is a function."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.function(image).clone()


@pytest.fixture
def predict(trained_once: Roots) -> Predict:
    """Logits (Z, Y, X) of a function of slabs (B, C * k, H, W) on an image (C, Z, Y, X)."""
    (member, *_) = find_members(trained_once, dataset=NAME, recipe="nnood", configuration="2d")

    def call(
        image: np.ndarray,
        function: Callable[[torch.Tensor], torch.Tensor],
        views: list[int],
        patch: tuple[int, ...] = (3, 8, 12),
        mirror: tuple[int, ...] | None = None,
    ) -> np.ndarray:
        planned = {**member.plans["configurations"]["2.5d"], "views": views, "patch_size": list(patch), "batch_size": 3}
        plans = PlansManager({**member.plans, "configurations": {"2.5d": planned}})
        configuration: Any = plans.get_configuration("2.5d")
        window = make_window(Answer(function), plans, configuration, member.dataset_json, CPU, mirror)
        logits = window.predict_sliding_window_return_logits(torch.from_numpy(image))
        assert logits.shape == (1, *image.shape[1:])
        assert logits.dtype == torch.float32
        assert window.allowed_mirroring_axes == mirror
        return logits[0].numpy()

    return call


def volume(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=2, size=shape).astype(np.float32)


@pytest.mark.parametrize("views", [[0], [1], [2], [0, 1, 2]])
@pytest.mark.parametrize("shape", [(11, 17, 23), (2, 30, 9), (1, 5, 7)])
@pytest.mark.parametrize("slices", [1, 3, 5])
def test_the_middle_slice_is_placed_right(
    predict: Predict, views: list[int], shape: tuple[int, ...], slices: int
) -> None:
    image = volume(2, *shape)
    for channel in (0, 1):
        middle = channel * slices + slices // 2
        found = predict(image, lambda x, n=middle: x[:, n : n + 1], views, (slices, 8, 12))
        np.testing.assert_allclose(found, image[channel], atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_lie_along_the_view_and_beyond_the_border_is_nothing(predict: Predict, axis: int) -> None:
    image = volume(1, 6, 9, 13)
    before, after = (predict(image, lambda x, n=n: x[:, n : n + 1], [axis]) for n in (0, 2))
    padded = np.pad(image[0], [(1, 1) if n == axis else (0, 0) for n in range(3)])
    size = image.shape[1 + axis]
    np.testing.assert_allclose(before, padded.take(range(size), axis), atol=1e-5)
    np.testing.assert_allclose(after, padded.take(range(2, size + 2), axis), atol=1e-5)


def test_the_sides_scores_are_averaged_rather_than_their_logits(predict: Predict) -> None:
    image = volume(1, 7, 8, 9)
    found = predict(image, lambda x: x[:, :1], [0, 1, 2])
    shifted = []
    for axis, size in enumerate(image.shape[1:]):
        padded = np.pad(image[0], [(1, 0) if n == axis else (0, 0) for n in range(3)])
        shifted.append(padded.take(range(size), axis).astype(float))
    expected = logit(np.mean(expit(shifted), axis=0))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(expected - np.mean(shifted, axis=0)).max() > 0.5


def test_certain_scores_stay_finite(predict: Predict) -> None:
    found = predict(volume(1, 4, 9, 9), lambda x: torch.full_like(x[:, :1], 1e4), [0, 1, 2])
    assert np.isfinite(found).all()
    assert expit(found).min() > 0.99999


@pytest.mark.parametrize("stored", [(0,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_mirrored_along_the_stored_axes(predict: Predict, axis: int, stored: tuple[int, ...]) -> None:
    image = volume(1, 8, 8, 8)

    def from_above(x: torch.Tensor) -> torch.Tensor:
        """Each pixel's neighbours before it, in both directions."""
        return x[:, 1:2].roll(1, dims=-1) + x[:, 1:2].roll(1, dims=-2)

    found = predict(image, from_above, [axis], (3, 8, 8), stored)
    planar = [n for n in range(3) if n != axis]
    expected = sum(
        (np.roll(image[0], 1, n) + np.roll(image[0], -1, n)) / 2 if n in stored else np.roll(image[0], 1, n)
        for n in planar
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_other_windows_are_as_they_were(trained_once: Roots) -> None:
    for configuration in ("2d", "3d_fullres"):
        (member, *_) = find_members(trained_once, dataset=NAME, recipe="nnood", configuration=configuration)
        plans = PlansManager(member.plans)
        window = make_window(nn.Identity(), plans, plans.get_configuration(configuration), member.dataset_json, CPU)
        assert type(window) is SlidingWindow


def test_views_belong_to_what_a_plan_counts_on(trained_once: Roots) -> None:
    (member, *_) = find_members(trained_once, dataset=NAME, recipe="nnood", configuration="2d")
    slabs = member.plans["configurations"]["2.5d"]
    others = {**member.plans["configurations"], "2.5d": {**slabs, "views": [0]}}
    assert slabs["views"] == [0, 1, 2]
    changed = {**member.plans, "configurations": others}
    assert plans_digest(changed, "2.5d") != plans_digest(member.plans, "2.5d")
    assert plans_digest(changed, "2d") == plans_digest(member.plans, "2d")
