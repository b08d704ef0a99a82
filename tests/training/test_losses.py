import math

import numpy as np
import pytest
import rank_work
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from skimage.measure import block_reduce
from sklearn.metrics import log_loss

from nnood.safety import read_json
from nnood.training.distributed import run_ranks
from nnood.training.losses import LOSSES, DiceAndCrossEntropy, SoftBinaryCrossEntropy, downsample_label, entropy
from nnood.training.signals import StopRequest


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


@pytest.mark.parametrize("shape", [(16, 24), (8, 16, 24)])
def test_hard_labels_stay_hard(shape):
    label = (random(2, 1, *shape) > 0.5).float()
    halves, same = tuple(n // 2 for n in shape), shape
    full, level = downsample_label(label, [same, halves], hard=True)
    assert torch.equal(full, label)
    # The middle of two voxels lies between them: the upper one is taken.
    upper = (slice(None), slice(None), *[slice(1, None, 2)] * len(shape))
    assert torch.equal(level, label[upper])


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


def dice_and_cross_entropy(logits: np.ndarray, label: np.ndarray, *, weight: float, batch_dice: bool) -> float:
    """In closed form: the mean of -t ln p - (1 - t) ln(1 - p), less that of (2 sum(pt) + s) / (sum(p) + sum(t) + s)."""
    p = 1 / (1 + np.exp(-logits))
    cross_entropy = np.mean(-label * np.log(p) - (1 - label) * np.log(1 - p))
    axes = tuple(range(0 if batch_dice else 1, p.ndim))
    dice = (2 * (p * label).sum(axes) + 1e-5) / (p.sum(axes) + label.sum(axes) + 1e-5)
    return weight * (cross_entropy - np.mean(dice))


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("is_soft", [False, True])
@pytest.mark.parametrize(("weight", "shape"), [(1.0, (6, 7)), (0.5, (4, 5, 6))])
def test_dice_and_cross_entropy_in_closed_form(weight, shape, is_soft, batch_dice):
    logits, label = 8 * random(3, 1, *shape) - 4, random(3, 1, *shape, seed=1)
    # The images' shares of anomaly differ, and with them the two ways to sum Dice up.
    label *= torch.tensor([0.2, 1.0, 0.6]).reshape(3, 1, *[1] * len(shape))
    label = label if is_soft else (label > 0.15).float()
    found = DiceAndCrossEntropy(weight, batch_dice=batch_dice, ddp=False)(logits, label).item()
    values = logits.double().numpy(), label.double().numpy()
    assert found == pytest.approx(dice_and_cross_entropy(*values, weight=weight, batch_dice=batch_dice), rel=1e-5)
    assert found != pytest.approx(dice_and_cross_entropy(*values, weight=weight, batch_dice=not batch_dice), rel=1e-3)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_dice_and_cross_entropy_are_stock_nnunets_of_two_outputs(share, batch_dice):
    logit = (8 * random(3, 1, 6, 7) - 4).requires_grad_()
    label = (random(3, 1, 6, 7, seed=1) < share).float()
    dice = {"batch_dice": batch_dice, "do_bg": False, "smooth": 1e-5, "ddp": False}
    stock = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    losses = [
        DiceAndCrossEntropy(1.0, batch_dice=batch_dice, ddp=False)(logit, label),
        stock(torch.cat([torch.zeros_like(logit), logit], dim=1), label),
    ]
    gradients = [torch.autograd.grad(loss, logit)[0] for loss in losses]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_dice_of_a_batch_that_ranks_share_unevenly(tmp_path):
    logits, label = 8 * random(3, 1, 6, 7) - 4, (random(3, 1, 6, 7, seed=1) > 0.7).float()
    arguments = (logits, label, tmp_path)
    run_ranks(rank_work.share_a_batch, arguments, count=2, device=torch.device("cpu"), stop=StopRequest())
    told = [read_json(tmp_path / f"{rank}.json") for rank in range(2)]
    whole = logits.clone().requires_grad_()
    dice = DiceAndCrossEntropy(1.0, batch_dice=True, ddp=False)(whole, label) - SoftBinaryCrossEntropy()(whole, label)
    (expected,) = torch.autograd.grad(dice, whole)
    for part, rank in zip((slice(0, 2), slice(2, 3)), told, strict=True):
        own = logits[part].clone().requires_grad_()
        cross_entropy = SoftBinaryCrossEntropy()(own, label[part])
        assert rank["loss"] == pytest.approx((dice + cross_entropy).item(), rel=1e-5)
        # Gradients are averaged over the ranks afterwards, so each has twice its share of what all compute.
        (gradient,) = torch.autograd.grad(cross_entropy, own)
        torch.testing.assert_close(torch.tensor(rank["gradient"]), gradient + 2 * expected[part], rtol=1e-4, atol=1e-7)


def test_dice_and_cross_entropy_are_computed_in_float32():
    logits = torch.full((1, 1, 300, 300), 0.5, dtype=torch.bfloat16)
    label = torch.ones(1, 1, 300, 300, dtype=torch.bfloat16)
    loss = DiceAndCrossEntropy(1.0, batch_dice=True, ddp=False)(logits, label)
    assert loss.dtype == torch.float32
    expected = dice_and_cross_entropy(np.full((1, 1, 9, 9), 0.5), np.ones((1, 1, 9, 9)), weight=1.0, batch_dice=True)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_losses_that_recipes_name(batch_dice):
    logits, label = 8 * random(2, 1, 6, 7) - 4, random(2, 1, 6, 7, seed=1)
    label[0] = 0
    found = {name: make(batch_dice, False)(logits, label).item() for name, make in LOSSES.items()}
    closed = {
        whole: dice_and_cross_entropy(logits.numpy(), label.numpy(), weight=1.0, batch_dice=whole)
        for whole in (False, True)
    }
    assert closed[False] != pytest.approx(closed[True], rel=1e-3)
    expected = {
        "bce": SoftBinaryCrossEntropy()(logits, label).item(),
        "combo": closed[True] / 2,  # some images of a batch are normal, of which Dice says nothing
        "dice_ce": closed[batch_dice],
    }
    assert found == pytest.approx(expected, rel=1e-4)
