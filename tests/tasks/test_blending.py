"""Blends in closed form. Poisson blending has tests of its own."""

import numpy as np
import pytest
import torch
from scipy import stats

from nnood.tasks import TaskSettings, build_task
from nnood.tasks.blending import Interpolate, paste
from nnood.tasks.poisson import Poisson


@pytest.fixture
def values(seeded):
    """Old and new values, and depths of either sign."""
    old, new = torch.randn(2, 3, 8, 9, generator=seeded(0))
    return old, new, torch.rand(8, 9, generator=seeded(1)) * 2.5 - 1


def test_pasting_takes_the_new_inside_and_keeps_the_old_outside(values, seeded):
    old, new, depth = values
    after, weight = paste(old, new, depth, seeded(0))
    np.testing.assert_array_equal(after.numpy(), np.where(depth.numpy() > 0, new.numpy(), old.numpy()))
    np.testing.assert_array_equal(weight.numpy(), depth.numpy() > 0)


@pytest.mark.parametrize("edge", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("factor", [0.05, 0.4, 1.0])
def test_interpolation_in_closed_form(values, seeded, edge, factor):
    old, new, depth = values
    after, weight = Interpolate((factor, factor), edge=edge)(old, new, depth, seeded(0))
    expected = factor * (np.clip(depth.numpy() / edge, 0, 1) if edge else depth.numpy() > 0)
    np.testing.assert_allclose(weight.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(after.numpy(), (1 - expected) * old.numpy() + expected * new.numpy(), atol=1e-5)
    outside = (depth <= 0).expand_as(old)
    assert torch.equal(after[outside], old[outside])


@pytest.mark.parametrize("blend", [paste, Interpolate((0.3, 1.0)), Poisson()])
def test_inputs_are_left_alone(values, seeded, blend):
    old, new, depth = (tensor.clone() for tensor in values)
    blend(old, new, depth, seeded(0))
    for before, after in zip(values, (old, new, depth), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("blend", [paste, Interpolate((1.0, 1.0)), Interpolate((0.5, 1.0), edge=1.0)])
def test_new_values_that_are_not_finite_do_not_leak_out(values, seeded, blend):
    old, new, depth = values
    after, _ = blend(old, torch.where(depth > 0, new, torch.inf), depth, seeded(0))
    assert torch.isfinite(after).all()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("fpi", 0.05, 0.95),
        ("autoseg", 0.05, 0.95),
        ("pii", 0.05, 0.95),
        ("mood22_hard", 0.3, 1.0),
        ("mood22_smooth", 0.3, 1.0),
        ("dag", 0.3, 1.0),
    ],
)
def test_factors_of_the_published_tasks_are_uniform(name, low, high, seeded):
    """All of these blends are linear in their factor: how far the image goes towards what a factor of 1 would give."""
    blend = build_task(name, TaskSettings((8, 8), (0.3, 0.7), (0.4,))).blend
    old, new = torch.zeros(1, 6, 6), torch.rand(1, 6, 6, generator=seeded(0)) + 1
    depth = torch.ones(6, 6)
    whole = new if isinstance(blend, Interpolate) else Poisson()(old, new, depth, seeded(0))[0]
    voxel = int(whole.abs().argmax())
    factors = [
        (blend(old, new, depth, seeded(seed))[0].flatten() / whole.flatten())[voxel].item() for seed in range(500)
    ]
    assert stats.kstest(factors, stats.uniform(low, high - low).cdf).pvalue > 1e-3
