"""What autoencoders minimise, against closed forms and torch's own distributions."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch.distributions import Independent, Normal, kl_divergence

from nnood.reconstruction.losses import Learned, ReconstructionLoss, activation_entropy, gaussian_kl, sum_error

SHAPES = [(6, 7), (3, 4, 5)]
EXTREMES = (-20.0, 0.0, 20.0)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def some_of(shape: tuple[int, ...], batch: int = 2) -> torch.Tensor:
    """Some voxels, others in each image."""
    return (random(batch, 1, *shape, seed=7) > 0.3).float()


def learned(shape: tuple[int, ...], **changes: Any) -> Learned:
    """Two images of three channels with a Gaussian latent of five entries."""
    content: dict[str, Any] = {
        "image": random(2, 3, *shape),
        "counted": some_of(shape),
        "reconstructions": [random(2, 3, *shape, seed=1)],
        "mean": random(2, 5, seed=2),
        "log_variance": random(2, 5, seed=3),
        "activation": random(2, 1, *shape, seed=4),
        "codebook": None,
    }
    return Learned(**{**content, **changes})


def loss_of(found: Learned, error: str = "squared", beta: float = 0.0, entropy: float = 0.0) -> torch.Tensor:
    return ReconstructionLoss(error, beta, entropy)(found, torch.zeros(()))


# ---- KL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_kl_is_that_of_two_gaussians(spread: float) -> None:
    mean, log_variance = spread * random(4, 6), spread * random(4, 6, seed=1)
    latent = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    standard = Independent(Normal(torch.zeros(4, 6), torch.ones(4, 6)), 1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), kl_divergence(latent, standard))


def test_kl_of_the_standard_gaussian_alone_is_0() -> None:
    assert gaussian_kl(torch.zeros(1, 6), torch.zeros(1, 6)).item() == 0
    for mean, log_variance in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1)):
        assert gaussian_kl(torch.full((1, 6), mean), torch.full((1, 6), log_variance)).item() > 0.01


# ---- entropy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("level", [-1e4, 0.0, 3.0])
def test_entropy_of_a_constant_map_is_the_log_of_what_counts(shape: tuple[int, ...], level: float) -> None:
    counted = some_of(shape)
    found = activation_entropy(torch.full((2, 1, *shape), level), counted)
    assert counted[0].sum() != counted[1].sum()
    torch.testing.assert_close(found, counted.flatten(1).sum(1).log())


@pytest.mark.parametrize("peak", [50.0, 1e5])
def test_entropy_of_one_enormous_peak_is_0(peak: float) -> None:
    activation = torch.zeros(1, 1, 6, 7)
    activation[0, 0, 2, 3] = peak
    assert activation_entropy(activation, torch.ones(1, 1, 6, 7)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_entropy_is_scipys_over_what_counts(shape: tuple[int, ...]) -> None:
    activation, counted = 3 * random(2, 1, *shape), some_of(shape)
    expected = [
        entropy(np.exp(one[inside > 0].double().numpy())) for one, inside in zip(activation, counted, strict=True)
    ]
    np.testing.assert_allclose(activation_entropy(activation, counted).numpy(), expected, rtol=1e-5)
    wild = torch.where(counted > 0, activation, 1e6)
    assert torch.equal(activation_entropy(wild, counted), activation_entropy(activation, counted))


def test_everything_counts_where_nothing_does() -> None:
    activation, counted = random(2, 1, 6, 7), some_of((6, 7))
    counted[0] = 0
    found = activation_entropy(activation, counted)
    assert found[0] == activation_entropy(activation[:1], torch.ones(1, 1, 6, 7))[0]
    assert found[1] == activation_entropy(activation[1:], counted[1:])[0]


def test_entropy_of_half_precision_is_computed_in_float32() -> None:
    activation = torch.zeros(1, 1, 300, 300, dtype=torch.bfloat16)
    found = activation_entropy(activation, torch.ones(1, 1, 300, 300))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(math.log(90_000), rel=1e-5)


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_errors_by_hand() -> None:
    image = torch.tensor([[[[1.0, 2.0, 3.0]], [[0.0, 0.0, 0.0]]], [[[1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]]]])
    reconstruction = torch.tensor([[[[0.0, 4.0, 9.0]], [[1.0, -1.0, 9.0]]], [[[1.0, 1.0, 1.0]], [[1.0, 1.0, 4.0]]]])
    counted = torch.tensor([[[[1.0, 1.0, 0.0]]], [[[1.0, 1.0, 1.0]]]])
    assert sum_error(image, reconstruction, counted, "absolute").tolist() == [1 + 2 + 1 + 1, 3]
    assert sum_error(image, reconstruction, counted, "squared").tolist() == [(1 + 4 + 1 + 1) / 2, 9 / 2]


@pytest.mark.parametrize("kind", ["absolute", "squared"])
def test_errors_differ_by_a_constant_from_the_log_likelihood(kind: str) -> None:
    image, other = random(2, 3, 6, 7), random(2, 3, 6, 7, seed=1)
    family = torch.distributions.Laplace if kind == "absolute" else Normal
    everything = torch.ones(2, 1, 6, 7)
    likelihood = [family(guess, 1.0).log_prob(image).flatten(1).sum(1) for guess in (other, image)]
    torch.testing.assert_close(sum_error(image, other, everything, kind), likelihood[1] - likelihood[0])


# ---- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("error", ["absolute", "squared"])
def test_loss_in_closed_form(shape: tuple[int, ...], error: str) -> None:
    """The mean over all values of the images, however many count, so that every image weighs the same per voxel."""
    found = learned(shape)
    image, guess, counted = (one.double().numpy() for one in (found.image, found.reconstructions[0], found.counted))
    differences = (image - guess) * counted
    expected = np.abs(differences).mean() if error == "absolute" else (differences**2).mean() / 2
    assert loss_of(found, error).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["absolute", "squared"])
def test_loss_is_the_mean_over_the_batch(kind: str) -> None:
    whole = learned((6, 7))
    alone = []
    for i in range(2):
        parts: dict[str, Any] = {
            key: value[i : i + 1] for key, value in whole._asdict().items() if isinstance(value, torch.Tensor)
        }
        alone.append(learned((6, 7), **parts, reconstructions=[whole.reconstructions[0][i : i + 1]]))
    losses = [loss_of(one, kind, beta=2.0, entropy=0.5).item() for one in (whole, *alone)]
    assert losses[1] != pytest.approx(losses[2], rel=1e-2)
    assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["absolute", "squared"])
def test_what_does_not_count_changes_nothing(kind: str) -> None:
    found = learned((6, 7))
    wild = random(2, 1, 6, 7, seed=9) * 1e3
    changed = found._replace(
        image=torch.where(found.counted > 0, found.image, wild),
        activation=torch.where(found.counted > 0, found.activation, wild),
    )
    expected = loss_of(found, kind, beta=1.0, entropy=0.3)
    assert torch.equal(loss_of(changed, kind, beta=1.0, entropy=0.3), expected)
    inside = found._replace(image=torch.where(found.counted > 0, wild, found.image))
    assert loss_of(inside, kind, beta=1.0, entropy=0.3) > 10 * expected


def test_weights_in_closed_form() -> None:
    found = learned((6, 7))
    values = found.image[0].numel()
    plain = loss_of(found).item()
    assert found.mean is not None
    assert found.log_variance is not None
    latent = Normal(found.mean, (0.5 * found.log_variance).exp())
    kl = kl_divergence(latent, Normal(0.0, 1.0)).sum(1).mean().item()
    spread = activation_entropy(found.activation, found.counted).mean().item()
    assert loss_of(found, beta=3.0).item() == pytest.approx(plain + 3 * kl / values, rel=1e-5)
    assert loss_of(found, entropy=3.0).item() == pytest.approx(plain - 3 * spread / values, rel=1e-5)
    assert kl > 0
    assert spread > 0
    assert loss_of(found._replace(codebook=torch.tensor(0.7))).item() == pytest.approx(plain + 0.7, rel=1e-5)
    assert loss_of(found._replace(mean=None, log_variance=None), beta=3.0).item() == plain


def test_descent_goes_towards_the_prior_and_a_flat_map() -> None:
    mean, log_variance = random(2, 5).requires_grad_(), random(2, 5, seed=1).requires_grad_()
    activation = random(2, 1, 6, 7).requires_grad_()
    found = learned((6, 7), mean=mean, log_variance=log_variance, activation=activation, counted=torch.ones(2, 1, 6, 7))
    loss_of(found, beta=1.0, entropy=1.0).backward()
    for latent in (mean, log_variance):
        assert latent.grad is not None
        assert torch.equal(latent.grad.sign(), latent.sign())
    assert activation.grad is not None
    flat, change = activation.detach().flatten(1), -activation.grad.flatten(1)
    assert (change.gather(1, flat.argmax(1, keepdim=True)) < 0).all()
    assert (flat.std(1) > (flat + change).std(1)).all()


def test_several_reconstructions_weigh_as_much_as_one() -> None:
    one, other = random(2, 3, 6, 7, seed=1), random(2, 3, 6, 7, seed=2)
    losses = [loss_of(learned((6, 7), reconstructions=made)).item() for made in ([one], [other], [one, other])]
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-5)


@pytest.mark.parametrize("error", ["absolute", "squared"])
@pytest.mark.parametrize("level", EXTREMES)
@pytest.mark.parametrize("peak", [0.0, 1e4, -1e30])
@pytest.mark.parametrize("share", ["none", "one", "some", "all"])
def test_gradients_are_finite_for_extreme_inputs(error: str, level: float, peak: float, share: str) -> None:
    counted = {"none": torch.zeros, "all": torch.ones}.get(share, torch.zeros)((2, 1, 6, 7))
    if share == "one":
        counted[:, :, 2, 3] = 1
    if share == "some":
        counted = some_of((6, 7))
    activation = random(2, 1, 6, 7)
    activation[:, :, 2, 3] += peak
    leaves = {
        "mean": 1e3 * random(2, 5),
        "log_variance": torch.full((2, 5), level),
        "activation": activation,
        "guess": 1e4 * random(2, 3, 6, 7, seed=1),
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    guess = leaves.pop("guess")
    loss = loss_of(learned((6, 7), counted=counted, reconstructions=[guess], **leaves), error, beta=10.0, entropy=0.1)
    loss.backward()
    assert math.isfinite(loss.item())
    for name, leaf in {**leaves, "guess": guess}.items():
        assert leaf.grad is not None, name
        assert torch.isfinite(leaf.grad).all(), name
