import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import distributed, nn

from nnood.reconstruction.codebook import ROWS, Codebook, NeighbourPrior, restore

GRIDS = {2: (12, 11), 3: (7, 6, 8)}
KINDS = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed))


def pattern(spatial: int, phase: int = 0) -> torch.Tensor:
    """Codes that repeat along each axis; every code follows from any one neighbour."""
    axes = torch.meshgrid(*[torch.arange(size) for size in GRIDS[spatial]], indexing="ij")
    return (torch.stack([(axis + 1) * places for axis, places in enumerate(axes)]).sum(dim=0) + phase) % KINDS


def patterns(spatial: int, *, noise: float, seed: int) -> torch.Tensor:
    """All phases of the pattern, with some codes replaced by random ones."""
    clean = torch.stack([pattern(spatial, phase) for phase in range(KINDS)])
    wrong = torch.randint(KINDS, clean.shape, generator=generator(seed))
    return torch.where(torch.rand(clean.shape, generator=generator(seed + 1)) < noise, wrong, clean)


@pytest.fixture(scope="module", params=[2, 3])
def trained(request: pytest.FixtureRequest) -> NeighbourPrior:
    """A prior that knows the pattern and that one code in a hundred is another."""
    torch.manual_seed(0)
    prior = NeighbourPrior(KINDS, request.param, features=12)
    optimiser = torch.optim.Adam(prior.parameters(), 0.01)
    for step in range(120):
        optimiser.zero_grad()
        prior.loss(patterns(request.param, noise=0.01, seed=step)).backward()
        optimiser.step()
    return prior.eval()


def spatial_axes(prior: NeighbourPrior) -> int:
    return prior.around.weight.ndim - 2


@pytest.mark.parametrize("spatial", GRIDS)
def test_each_feature_becomes_its_nearest_code(spatial: int) -> None:
    codebook = Codebook(9, 4, spatial).eval()
    codebook.codes.data = random(9, 4)
    features = random(2, 4, *GRIDS[spatial], seed=1)
    found = codebook(features)
    rows = features.movedim(1, -1).reshape(-1, 4).numpy()
    expected = cdist(rows, codebook.codes.detach().numpy(), "sqeuclidean").argmin(axis=1)
    assert found.indices.shape == (2, *GRIDS[spatial])
    assert found.indices.dtype == torch.int64
    np.testing.assert_array_equal(found.indices.ravel().numpy(), expected)
    assert torch.equal(found.features, codebook.look_up(found.indices))
    assert found.features.shape == features.shape


def test_more_features_than_are_compared_at_a_time() -> None:
    codebook = Codebook(3, 2, 2).eval()
    codebook.codes.data = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    nearest = torch.randint(3, (1, 2, ROWS // 2 + 7), generator=generator())
    assert torch.equal(codebook(codebook.look_up(nearest).detach() + 0.1).indices, nearest)


@pytest.mark.parametrize("spatial", GRIDS)
def test_gradient_passes_straight_through(spatial: int) -> None:
    features = random(2, 4, *GRIDS[spatial]).requires_grad_()
    weight = random(*features.shape, seed=2)
    codebook = Codebook(9, 4, spatial)
    (codebook(features).features * weight).sum().backward()
    assert features.grad is not None
    assert torch.equal(features.grad, weight)
    assert codebook.codes.grad is None


def test_loss_and_its_gradients_by_hand() -> None:
    codebook = Codebook(2, 2, 2).eval()
    codebook.codes.data = torch.tensor([[0.0, 0.0], [4.0, 4.0]])
    features = torch.tensor([[1.0, 3.0], [0.0, 4.0]])[None, :, None].requires_grad_()  # vectors (1, 0) and (3, 4)
    found = codebook(features)
    assert found.indices.tolist() == [[[0, 1]]]
    assert found.loss.item() == pytest.approx(1.25 * (1 + 1) / 4)
    found.loss.backward()
    # Four elements: the derivative of a squared difference d over the mean is 2 d / 4, a quarter of it for features.
    assert features.grad is not None
    assert features.grad[0, :, 0].tolist() == [[0.125, -0.125], [0.0, 0.0]]
    assert codebook.codes.grad is not None
    assert codebook.codes.grad.tolist() == [[-0.5, 0.0], [0.5, 0.0]]


def test_codes_are_published_ones_at_first() -> None:
    torch.manual_seed(0)
    codes = Codebook(50, 40, 2).codes
    assert codes.abs().max().item() <= 1 / 50
    assert codes.std().item() == pytest.approx(1 / 50 / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("spatial", GRIDS)
def test_first_training_batch_gives_the_codes(spatial: int) -> None:
    features = random(2, 4, *GRIDS[spatial]) + 30
    features[0] = 30  # an empty image counts once
    codebook = Codebook(20, 4, spatial)
    before = codebook.codes.detach().clone()
    codebook.eval()(features)
    assert torch.equal(codebook.codes, before)
    torch.manual_seed(3)
    codebook.train()(features)
    started = codebook.codes.detach().clone()
    rows = {tuple(row) for row in features.movedim(1, -1).reshape(-1, 4).tolist()}
    assert {tuple(row) for row in started.tolist()} <= rows
    assert len({tuple(row) for row in started.tolist()}) == 20
    codebook(features + 1)
    assert torch.equal(codebook.codes, started)
    again = Codebook(20, 4, spatial)
    torch.manual_seed(3)
    again(features)
    assert torch.equal(again.codes, started)


def test_fewer_features_than_codes() -> None:
    codebook = Codebook(20, 4, 2)
    before = codebook.codes.detach().clone()
    features = random(1, 4, 1, 3)
    assert torch.equal(codebook(features).features, features)
    assert torch.equal(codebook.codes[3:], before[3:])


def test_checkpoint_says_that_the_codes_were_started() -> None:
    torch.manual_seed(0)
    codebook, prior = Codebook(20, 4, 2), NeighbourPrior(20, 2)
    prior.loss(codebook(random(2, 4, 12, 11)).indices)
    torch.manual_seed(1)
    other, other_prior = Codebook(20, 4, 2), NeighbourPrior(20, 2)
    other.load_state_dict(codebook.state_dict())
    other_prior.load_state_dict(prior.state_dict())
    other(random(2, 4, 12, 11, seed=1))
    assert torch.equal(other.codes, codebook.codes)
    assert other_prior.unlikely.item() == prior.unlikely.item() != math.log(20)


def test_all_ranks_start_from_the_codes_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def receive(codes: torch.Tensor, source: int) -> None:
        codes.fill_(7 + source)

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "broadcast", receive)
    codebook = Codebook(5, 2, 2)
    codebook(random(1, 2, 4, 4))
    assert torch.equal(codebook.codes, torch.full((5, 2), 7.0))


def test_features_of_another_shape_are_refused() -> None:
    for shape in ((2, 4, 5, 5, 5), (2, 3, 5, 5)):
        with pytest.raises(ValueError, match=r"Expected features \(B, 4, \*G\) on a grid of 2 axes, but got the shape"):
            Codebook(9, 4, 2)(torch.zeros(shape))


@pytest.mark.parametrize("spatial", GRIDS)
def test_gradients_are_finite_and_computed_in_float32(spatial: int) -> None:
    codebook, prior = Codebook(99, 4, spatial), NeighbourPrior(99, spatial, features=8)
    features = (1e3 * random(2, 4, *GRIDS[spatial])).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = codebook(features)
        found_log_probabilities = prior(found.indices)
        loss = found.loss + found.features.square().mean() + prior.loss(found.indices)
    loss.backward()
    without = codebook(features)
    assert torch.equal(found.indices, without.indices)
    assert torch.equal(found.features, without.features)
    assert torch.equal(found.loss, without.loss)
    assert torch.equal(found_log_probabilities, prior(found.indices))
    for name, tensor in [("features", features), *codebook.named_parameters(), *prior.named_parameters()]:
        assert tensor.grad is not None, name
        assert torch.isfinite(tensor.grad).all(), name
        assert tensor.grad.any(), name


@pytest.mark.parametrize("spatial", GRIDS)
def test_prior_does_not_see_the_code_itself(spatial: int) -> None:
    torch.manual_seed(0)
    prior = NeighbourPrior(KINDS, spatial, features=8)
    codes = pattern(spatial)[None]
    place = (0, *[size // 2 for size in GRIDS[spatial]])
    changed = codes.clone()
    changed[place] = (codes[place] + 1) % KINDS
    with torch.no_grad():
        difference = (prior(changed) - prior(codes)).abs().amax(dim=1)
    offset = torch.stack([index - centre for index, centre in zip(difference.nonzero().T, place, strict=True)])
    assert difference[place] == 0
    assert offset.abs().max() == 2
    assert offset.shape[1] == 5**spatial - 1  # all neighbours that the kernel reaches, and no other place


@pytest.mark.parametrize("spatial", GRIDS)
def test_surprise_and_loss(spatial: int) -> None:
    torch.manual_seed(0)
    prior = NeighbourPrior(KINDS, spatial, features=8)
    codes = patterns(spatial, noise=0.3, seed=0)
    with torch.no_grad():
        log_probabilities, surprise, loss = prior(codes), prior.surprise(codes), prior.loss(codes)
    assert log_probabilities.shape == (len(codes), KINDS, *GRIDS[spatial])
    torch.testing.assert_close(log_probabilities.exp().sum(dim=1), torch.ones(codes.shape))
    expected = -(torch.nn.functional.one_hot(codes, KINDS).movedim(-1, 1) * log_probabilities).sum(dim=1)
    torch.testing.assert_close(surprise, expected)
    assert loss.item() == pytest.approx(expected.mean().item())
    threshold = 0.99 * math.log(KINDS) + 0.01 * np.quantile(expected.numpy(), 0.98)
    assert prior.unlikely.item() == pytest.approx(threshold, rel=1e-6)
    with torch.no_grad():
        prior.eval().loss(codes)
    assert prior.unlikely.item() == pytest.approx(threshold, rel=1e-6)


def test_planted_codes_are_surprising_and_mended(trained: NeighbourPrior) -> None:
    spatial = spatial_axes(trained)
    place = tuple(size // 2 for size in GRIDS[spatial])
    for phase in range(KINDS):
        codes = pattern(spatial, phase)[None]
        wrong = codes.clone()
        wrong[(0, *place)] = (codes[(0, *place)] + 1 + phase % (KINDS - 1)) % KINDS
        with torch.no_grad():
            surprise = trained.surprise(wrong)[0]
        others = surprise.clone()
        others[place] = -math.inf
        assert surprise[place] > 2
        assert surprise[place] > others.max()
        threshold = float(surprise[place] + others.max()) / 2
        restored = restore(wrong, trained, threshold, 3, generator())
        assert restored.shape == (3, *codes.shape)
        assert restored.dtype == torch.int64
        assert torch.equal(restored, codes.expand(3, *codes.shape))


def test_a_blob_of_wrong_codes_is_mended(trained: NeighbourPrior) -> None:
    spatial = spatial_axes(trained)
    codes = patterns(spatial, noise=0, seed=0)
    wrong = codes.clone()
    wrong[(slice(None), *[slice(3, 5)] * spatial)] = 0
    restored = restore(wrong, trained, 1.0, 4, generator())
    before, after = (wrong != codes).float().mean().item(), (restored != codes).float().mean().item()
    assert after < before / 4


@pytest.mark.parametrize("spatial", GRIDS)
def test_likely_codes_stay(spatial: int) -> None:
    """Also where a code becomes unlikely by what the first sweep puts beside it."""
    torch.manual_seed(0)
    prior = NeighbourPrior(KINDS, spatial, features=8).eval()
    codes = patterns(spatial, noise=0.2, seed=5)
    with torch.no_grad():
        is_likely = prior.surprise(codes) <= 1.6
    assert 0.1 < is_likely.float().mean() < 0.9
    restored = restore(codes, prior, 1.6, 2, generator())
    assert torch.equal(restored[:, is_likely], codes[is_likely].expand(2, -1))
    with torch.no_grad():
        assert (prior.surprise(restored[0])[is_likely] > 1.6).any()
    assert (restored != codes).any()
    assert torch.equal(restore(codes, prior, math.inf, 1, generator())[0], codes)


@pytest.mark.parametrize("spatial", GRIDS)
def test_restorations_do_not_depend_on_the_batch(spatial: int) -> None:
    torch.manual_seed(0)
    prior = NeighbourPrior(KINDS, spatial, features=8).eval()
    codes = patterns(spatial, noise=0.2, seed=5)
    together = restore(codes, prior, 1.6, 3, generator(7))
    alone = [restore(image[None], prior, 1.6, 3, generator(7)) for image in codes]
    assert torch.equal(together, torch.cat(alone, dim=1))
    assert torch.equal(together, restore(codes.flip(0), prior, 1.6, 3, generator(7)).flip(1))
    for other in (restore(codes, prior, 1.6, 3, generator(8)), together.roll(1, 0), codes.expand_as(together)):
        assert (together != other).float().mean() > 0.1


@pytest.mark.parametrize(
    ("likely", "shares"), [(0.0, [0.5, 0.0, 0.3, 0.2]), (0.8, [0.75, 0.0, 0.15, 0.1]), (1.4, [0.6, 0.0, 0.36, 0.04])]
)
def test_draws_follow_the_prior(likely: float, shares: list[float]) -> None:
    """A prior that is the same everywhere: of what the first sweep drew, the second replaces what is still unlikely."""
    prior = NeighbourPrior(4, 2, features=8).eval()
    head = prior.rest[-1]
    assert isinstance(head, nn.Conv2d)
    assert head.bias is not None
    head.weight.data.zero_()
    head.bias.data.copy_(torch.tensor([0.5, 1e-30, 0.3, 0.2]).log())  # -log p: 0.7, 69, 1.2, 1.6
    drawn = restore(torch.ones(1, 80, 80, dtype=torch.int64), prior, likely, 5, generator())
    found = torch.bincount(drawn.ravel(), minlength=4) / drawn.numel()
    torch.testing.assert_close(found, torch.tensor(shares), atol=0.01, rtol=0)
    assert found[1] == 0
