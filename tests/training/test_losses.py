import math

import numpy as np
import pytest
import torch
from skimage.measure import block_reduce
from sklearn.metrics import log_loss

from nnood.training.losses import SoftBinaryCrossEntropy, downsample_label, entropy


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6)])
def test_cross_entropy_in_closed_form(shape):
    logits, label = 8 * random(2, 1, *shape) - 4, random(2, 1, *shape, seed=1)
    p, t = torch.sigmoid(logits).double(), label.double()
    expected = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    assert SoftBinaryCrossEntropy()(logits, label).item() == pytest.approx(expected.item(), rel=1e-5)


def test_cross_entropy_is_scikit_learns_for_binary_labels():
    logits, label = 8 * random(2, 1, 9, 9) - 4, (random(2, 1, 9, 9, seed=1) > 0.7).float()
    expected = log_loss(label.ravel().numpy(), torch.sigmoid(logits).ravel().numpy())
    assert SoftBinaryCrossEntropy()(logits, label).item() == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_is_computed_in_float32_and_finite_for_extreme_logits():
    logits = torch.tensor([[[[-1e4, 1e4]]]], dtype=torch.bfloat16, requires_grad=True)
    loss = SoftBinaryCrossEntropy()(logits, torch.tensor([[[[1.0, 0.5]]]]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert math.isfinite(loss.item())
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("shape", [(16, 24), (8, 16, 24)])
def test_downsampling_is_block_averaging(shape):
    label = random(2, 1, *shape)
    smaller = [shape, tuple(n // 2 for n in shape), (shape[0] // 2, *[n // 4 for n in shape[1:]])]
    levels = downsample_label(label, smaller)
    assert torch.equal(levels[0], label)
    for level, target in zip(levels[1:], smaller[1:], strict=True):
        block = (1, 1, *[n // m for n, m in zip(shape, target, strict=True)])
        np.testing.assert_allclose(level.numpy(), block_reduce(label.numpy(), block, np.mean), atol=1e-6)
        assert level.mean().item() == pytest.approx(label.mean().item(), rel=1e-5)


@pytest.mark.parametrize("prior", [0.001, 0.02, 0.5, 0.9])
def test_entropy_is_the_loss_of_the_best_constant(prior):
    label = torch.full((1, 1, 50, 50), prior)
    losses = [
        SoftBinaryCrossEntropy()(torch.full_like(label, math.log(p / (1 - p))), label).item()
        for p in (prior, 0.8 * prior, min(1.1 * prior, 0.999))
    ]
    assert entropy(prior) == pytest.approx(losses[0], rel=1e-4)
    assert min(losses) == losses[0]


@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_entropy_of_certainty_is_0(prior):
    assert entropy(prior) == 0
