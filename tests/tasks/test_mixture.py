import math
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

    def corrupt(self, targets: list[int], result: Any, *_: Any) -> Any:
        np.add.at(self.counts, np.array(targets, dtype=int), 1)
        return result


def counts(weights: tuple[float, ...], **options: float) -> np.ndarray:
    """How often each task is asked for each image: (tasks, images)."""
    tasks: Any = tuple(Counting() for _ in weights)
    image = torch.zeros(IMAGES, 1, 1, 1)
    mixture = Mixture(tasks, weights, **options)  # type: ignore[arg-type]
    mixture(image, torch.ones(IMAGES, 1, 1, dtype=torch.bool), Donors(), torch.Generator().manual_seed(11))
    return np.stack([task.counts for task in tasks])


def assert_share(hits: np.ndarray, share: float) -> None:
    """Within 4.5 standard deviations of a binomial share: one in 150,000 right implementations would fail."""
    assert hits.mean() == pytest.approx(share, abs=4.5 * math.sqrt(share * (1 - share) / hits.size))


def test_shares_follow_the_weights():
    first, second, third = counts((1.0, 3.0, 0.0), normal=1.0)
    assert ((first + second) <= 1).all()
    assert_share(first == 1, 0.2)
    assert_share(second == 1, 0.6)
    assert_share(first + second == 0, 0.2)
    assert not third.any()


def test_number_of_anomalies_with_repetition():
    first, second = counts((1.0, 1.0), normal=0.5, repeat=0.5)
    number = first + second
    assert_share(number == 0, 0.2)
    planted = number[number > 0]
    for anomalies, share in ((1, 0.5), (2, 0.25), (3, 0.125), (4, 0.125)):
        assert_share(planted == anomalies, share)
    # 1 + 1/2 + 1/4 + 1/8; the variance of that truncated geometric number is 1.109.
    assert planted.mean() == pytest.approx(1.875, abs=4.5 * math.sqrt(1.109 / planted.size))
    # Each repetition draws its task anew.
    pairs = first[number == 2]
    assert_share(pairs == 1, 0.5)


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


@pytest.mark.parametrize("weights", [{}, {"fpi": -1.0}, {"fpi": 0.0}])
def test_senseless_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        build_mixture(weights, SETTINGS)


def test_unknown_task_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'no_such_task'.*fpi.*smooth_intensity"):
        build_task("no_such_task", SETTINGS)
