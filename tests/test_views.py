import numpy as np
import pytest
import torch

from nnood.tasks.settings import TaskSettings
from nnood.views import View

ORDERS = {0: (0, 1, 2), 1: (1, 0, 2), 2: (2, 0, 1)}


@pytest.mark.parametrize(("axis", "order"), ORDERS.items())
def test_a_view_turns_its_axis_to_the_front_and_back(axis: int, order: tuple[int, ...]) -> None:
    image = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    view = View(axis, 3)
    turned = view.turn(image)
    np.testing.assert_array_equal(turned, np.transpose(image.numpy(), (0, *(1 + n for n in order))))
    assert torch.equal(view.turn_back(turned), image)


def test_slices_of_a_channel_become_neighbouring_channels() -> None:
    slab = torch.arange(2 * 2 * 3).reshape(2, 2, 3, 1, 1)  # images, channels, slices
    view = View(1, 3)
    assert view.fold(slab).flatten(1).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert view.fold(slab[0]).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert view.middle(slab[:, 0]).flatten().tolist() == [1, 7]


def test_a_plain_view_leaves_everything_as_it_is() -> None:
    view, patch = View(), torch.rand(1, 2, 3, 4, 5)
    settings = TaskSettings((3, 4, 5), (0.1, 0.5), (1.0, 2.0))
    assert view.fold(patch) is patch
    assert view.middle(patch[:, 0]).shape == (1, 3, 4, 5)
    assert view.settings(settings) is settings
    assert view.seen_axes((0, 1)) == (0, 1)


@pytest.mark.parametrize(("axis", "planar"), [(0, (1,)), (1, (0, 1)), (2, (0,))])
def test_stored_axes_are_found_in_the_slices(axis: int, planar: tuple[int, ...]) -> None:
    view, marked = View(axis, 3), torch.zeros(1, 4, 5, 6)
    stored = (0, 2)
    assert view.planar_axes(stored) == planar
    sizes = [marked.shape[1 + n] for n in stored]
    assert sorted(view.turn(marked).shape[1 + n] for n in view.seen_axes(stored)) == sizes
    assert [view.turn(marked).shape[2 + n] for n in planar] == [n for n in sizes if n != marked.shape[1 + axis]]


@pytest.mark.parametrize(("axis", "rows", "columns"), [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_settings_are_those_of_the_slices(axis: int, rows: int, columns: int) -> None:
    stored = TaskSettings((10, 20, 30), (0.1, 0.5), (1.0, 2.0), spacing=(3.0, 2.0, 1.0), label_saturation=(0.5, 0.6))
    seen = View(axis, 3).settings(stored)
    assert seen.extent == (stored.extent[rows], stored.extent[columns])
    assert seen.spacing == (stored.spacing[rows], stored.spacing[columns])
    assert seen.label_sigma == (1.0, 1.0, 1.0, 2.0, 2.0, 2.0)
    assert seen.label_saturation == (0.5, 0.5, 0.5, 0.6, 0.6, 0.6)
    assert seen.fractions == stored.fractions


def test_a_slab_has_a_middle() -> None:
    with pytest.raises(ValueError, match="odd number of slices"):
        View(0, 4)
    with pytest.raises(ValueError, match="axis from 0 to 2"):
        View(3, 3)
