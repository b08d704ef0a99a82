"""Labels in closed form, and what all of them promise."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.special import expit, logit
from scipy.stats import norm

from nnood.tasks import TaskSettings
from nnood.tasks.labels import LABELS, MIN_LABEL, MIN_PEAK, Label, close_holes

SIGMA = 0.5


def random_values(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


def label_of(name: str, *sigma: float, saturation: tuple[float, ...] = ()) -> Label:
    return LABELS[name](TaskSettings((8, 8), (0.1, 0.5), sigma or (SIGMA,), label=name, label_saturation=saturation))


def of_change(label: Label, *changes: float, weight: float = 1.0) -> float:
    """The label of a constant change, one number per channel, where closing has nothing to fill."""
    after = torch.tensor(changes, dtype=torch.float32).reshape(-1, 1, 1).expand(-1, 3, 3)
    result = label(torch.zeros(len(changes), 3, 3), after, torch.full((3, 3), weight))
    assert result.shape == (3, 3)
    assert result.dtype == torch.float32
    assert (result == result[0, 0]).all()
    return result[0, 0].item()


def with_a_strong_spot(values: torch.Tensor) -> torch.Tensor:
    """The first voxel changed so strongly that the rest counts as well."""
    values = values.clone()
    values[:, 0, 0] = 100.0
    return values


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_flipped_gaussian_in_closed_form(sigma):
    distances = np.linspace(-4, 4, 161) * sigma
    expected = 1 - norm.pdf(distances, scale=sigma) / norm.pdf(0, scale=sigma)
    for distance, value in zip(distances, expected, strict=True):
        if abs(value - MIN_PEAK) > 1e-3:
            label = of_change(label_of("flipped_gaussian", sigma), distance)
            assert label == pytest.approx(value if value > MIN_PEAK else 0.0, abs=1e-5)


def test_the_channel_that_changes_most_for_its_own_sigma_decides():
    assert of_change(label_of("flipped_gaussian", 10.0, 0.5), 1.0, 1.0) == pytest.approx(1 - math.exp(-2.0))
    assert of_change(label_of("flipped_gaussian", 0.5, 10.0), 1.0, 1.0) == pytest.approx(1 - math.exp(-2.0))


@pytest.mark.parametrize("name", LABELS)
def test_weak_changes_count_beside_a_strong_one_only(name):
    """What is seen is 0.05 at least, in an anomaly that is 0.3 at least somewhere."""
    seen, unseen = (SIGMA * math.sqrt(-2 * math.log(1 - value)) for value in (MIN_LABEL + 0.005, MIN_LABEL - 0.005))
    for change, wanted in ((seen, True), (unseen, False)):
        after = torch.full((1, 8, 8), change)
        assert not label_of(name)(torch.zeros(1, 8, 8), after, torch.ones(8, 8)).any()
        label = label_of(name)(torch.zeros(1, 8, 8), with_a_strong_spot(after), torch.ones(8, 8))
        assert label[0, 0] > 0.9
        assert ((label[4:, 4:] > 0) == wanted).all()


@pytest.mark.parametrize("name", LABELS)
def test_unchanged_voxels_and_those_without_weight_are_exactly_0(name):
    before = random_values((1, 12, 12))
    after = before.clone()
    after[:, :6] += 2
    weight = torch.ones(12, 12)
    weight[:, 8:] = 0
    label = label_of(name)(before, after, weight)
    assert (label[:6, :8] > 0.9).all()
    assert (label[6:] == 0).all()
    assert (label[:, 8:] == 0).all()


@pytest.mark.parametrize("name", LABELS)
def test_no_change_no_label(name):
    before = random_values((2, 5, 6, 7))
    assert not label_of(name, 0.4, 0.4)(before, before.clone(), torch.ones(5, 6, 7)).any()


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("shape", [(9, 9), (5, 6, 7), (1, 8, 8), (1, 1)])
def test_closing_erases_nothing_at_borders(name, shape):
    """A single changed voxel in a corner of the box, or a whole changed box."""
    before = torch.zeros(1, *shape)
    after = before.clone()
    after[(0, *[0] * len(shape))] = 5.0
    label = label_of(name)(before, after, torch.ones(shape))
    assert label.flatten()[0] > 0.9
    assert label.count_nonzero() == 1
    assert (label_of(name)(before, before + 5, torch.ones(shape)) > 0.9).all()


@pytest.mark.parametrize("name", ["flipped_gaussian", "binary", "weight"])
def test_a_hole_of_one_voxel_is_labelled(name):
    after = torch.full((1, 7, 7), 2.0)
    after[:, 3, 3] = 0
    assert (label_of(name)(torch.zeros(1, 7, 7), after, torch.ones(7, 7)) > 0.9).all()


@pytest.mark.parametrize("name", LABELS)
def test_the_unit_of_the_intensities_does_not_matter(name):
    before, after = random_values((2, 2, 10, 10)) * 2
    weight = random_values((10, 10))
    saturation = (0.7, 1.1)
    label = label_of(name, 0.4, 0.3, saturation=saturation)(before, after, weight)
    assert label.any()
    for unit in (1e-3, 512.0):
        scaled = label_of(name, 0.4 * unit, 0.3 * unit, saturation=tuple(unit * s for s in saturation))
        torch.testing.assert_close(scaled(before * unit, after * unit, weight), label, atol=1e-4, rtol=1e-4)
        scaled, plain = label_of(name, 0.4 * unit, 0.3 * unit), label_of(name, 0.4, 0.3)
        expected = plain(before, after, weight)
        torch.testing.assert_close(scaled(before * unit, after * unit, weight), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", LABELS)
def test_labels_grow_with_the_change_and_stay_within_0_and_1(name):
    changes = np.linspace(0, 10, 60) * SIGMA
    labels = [of_change(label_of(name), change) for change in changes]
    assert labels == [of_change(label_of(name), -change) for change in changes]
    assert labels[0] == 0
    assert (np.diff(labels) >= -1e-6).all()
    assert max(labels) <= 1
    assert labels[-1] > 0.98


def test_binary_is_1_wherever_a_change_is_seen():
    label = label_of("binary")
    assert of_change(label, 2 * SIGMA) == 1
    assert of_change(label, 2 * SIGMA, weight=0.1) == 1
    assert of_change(label, 0.1 * SIGMA) == 0


def test_weight_is_the_blends_wherever_a_change_is_seen():
    label = label_of("weight")
    for weight in (0.05, 0.4, 1.0):
        assert of_change(label, 2 * SIGMA, weight=weight) == pytest.approx(weight)
    assert of_change(label, 0.1 * SIGMA) == 0


def test_logistic_in_closed_form():
    """From 0.1 for nothing to 0.99 at saturation, which is the mean over the channels."""
    label = label_of("logistic", 0.1, 0.1, saturation=(2.0, 4.0))
    for first, second in ((0.4, 0.0), (1.0, 2.0), (-2.0, 4.0), (0.5, -6.0)):
        share = (abs(first) / 2 + abs(second) / 4) / 2
        expected = expit(logit(0.1) + (logit(0.99) - logit(0.1)) * share)
        assert of_change(label, first, second) == pytest.approx(expected, abs=1e-5)
    assert of_change(label, 2.0, 4.0) == pytest.approx(0.99, abs=1e-5)


def test_logistic_starts_at_a_tenth():
    label = label_of("logistic", 0.1, saturation=(1e4,))
    assert of_change(label, 0.2) == pytest.approx(0.1, abs=1e-4)


def test_saturation_follows_from_sigma_for_normal_intensities():
    """Sigma is half the median difference; the label is full at the 40th percentile of differences."""
    median, percentile = (norm.ppf(0.5 + share / 2) for share in (0.5, 0.4))
    change = float(2 * SIGMA * percentile / median)
    assert of_change(label_of("logistic"), change) == pytest.approx(0.99, abs=1e-4)
    assert of_change(label_of("logistic", saturation=(change,)), change) == pytest.approx(0.99, abs=1e-4)


@pytest.mark.parametrize("shape", [(20, 17), (9, 12, 10), (1, 12, 10), (2, 2)])
@pytest.mark.parametrize("radius", [1, 2])
def test_close_holes_is_scipys_closing(shape, radius):
    values = random_values(shape)
    closed = close_holes(values, radius).numpy()
    size = (2 * radius + 1,) * len(shape)
    inside = (slice(2 * radius, -2 * radius),) * len(shape)
    np.testing.assert_array_equal(closed[inside], ndimage.grey_closing(values.numpy(), size=size)[inside])
    # With neutral values beyond the border, it is the same everywhere.
    dilated = ndimage.grey_dilation(values.numpy(), size=size, mode="constant", cval=-np.inf)
    np.testing.assert_array_equal(closed, ndimage.grey_erosion(dilated, size=size, mode="constant", cval=np.inf))


def test_nothing_is_erased_at_borders():
    values = random_values((8, 9, 10))
    assert (close_holes(values) >= values).all()
    assert torch.equal(close_holes(torch.ones(5, 5)), torch.ones(5, 5))
