"""Shares of a mixture's tasks."""

from typing import Any

import numpy as np
import pytest
import torch

from nnood.tasks import TaskSettings, build_mixture, build_task
from nnood.tasks.donors import Donors
from nnood.tasks.task import Mixture

IMAGES = 20_000
SETTINGS = TaskSettings((8, 8), (0.3, 0.7), (0.4,))


class Counting:
    """Stands in for a task and counts what it is asked for."""

    def __init__(self) -> None:
        self.counts = np.zeros(IMAGES, dtype=int)

    def corrupt(self, targets: list[int], *_: Any) -> None:
        np.add.at(self.counts, np.array(targets, dtype=int), 1)


def counts(weights: tuple[float, ...], normal: float = 0.0) -> np.ndarray:
    """How often each task is asked for each image: (tasks, images)."""
    tasks: Any = tuple(Counting() for _ in weights)
    image = torch.zeros(IMAGES, 1, 1, 1)
    mixture = Mixture(tasks, weights, normal)
    mixture(image, torch.ones(IMAGES, 1, 1, dtype=torch.bool), Donors(), torch.Generator().manual_seed(11))
    return np.stack([task.counts for task in tasks])


def test_shares_follow_the_weights(assert_share):
    first, second, third = counts((1.0, 3.0, 0.0), normal=1.0)
    assert ((first + second) <= 1).all()
    assert_share(first.sum(), IMAGES, 0.2)
    assert_share(second.sum(), IMAGES, 0.6)
    assert_share((first + second == 0).sum(), IMAGES, 0.2)
    assert not third.any()


def test_without_a_share_of_normal_images_every_image_is_for_one_task(assert_share):
    first, second = counts((2.0, 2.0))
    assert (first + second == 1).all()
    assert_share(first.sum(), IMAGES, 0.5)
    # Images are drawn independently of each other.
    assert_share((first[::2] == first[1::2]).sum(), IMAGES // 2, 0.5)


def test_normal_images_are_untouched_and_no_failures():
    image = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    donors = Donors()
    donors.begin_batch([str(i) for i in range(64)], image)
    mixture = build_mixture({"fpi": 1.0}, SETTINGS, normal=1.0)
    result = mixture(image, torch.ones(64, 8, 8, dtype=torch.bool), donors, torch.Generator().manual_seed(0))
    normal = ~result.label.flatten(1).any(dim=1)
    assert 16 < normal.sum() < 48
    assert torch.equal(result.image[normal], image[normal])
    assert result.failed.sum() <= 3


def test_the_settings_reach_every_task():
    mixture = build_mixture({"fpi": 1.0, "sink": 2.0}, TaskSettings((8, 8), (0.3, 0.7), (0.4,), repeat=0.25))
    assert mixture.weights == (1.0, 2.0)
    assert [task.repeat for task in mixture.tasks] == [0.25, 0.25]


@pytest.mark.parametrize("weights", [{}, {"fpi": -1.0}, {"fpi": 0.0}])
def test_senseless_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        build_mixture(weights, SETTINGS)


def test_unknown_task_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'no_such_task'.*fpi.*smooth_intensity"):
        build_task("no_such_task", SETTINGS)
