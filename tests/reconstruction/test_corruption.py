"""What images are corrupted by: where, how much, how smooth, and that nothing else changes."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import ndimage

from nnood.reconstruction import corruption
from nnood.reconstruction.corruption import COARSE, CORRUPT, MOST_SQUARES, NOISE, add_coarse_noise, mask_squares

SHAPES = [(28, 28), (64, 48), (16, 24, 20), (4, 40, 40)]
TINY = [(1, 1), (2, 3), (1, 32), (1, 1, 1), (1, 32, 32), (3, 1, 2), (7, 9, 8)]
Corruption = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@pytest.fixture(params=CORRUPT)
def corrupt(request: pytest.FixtureRequest) -> Corruption:
    return CORRUPT[request.param]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ball(shape: tuple[int, ...], batch: int) -> torch.Tensor:
    """A foreground (B, 1, *S) in the middle."""
    axes = [(2 * torch.arange(edge) + 1) / edge - 1 for edge in shape]
    distance = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0)
    return (distance < 0.7).float().expand(batch, 1, *shape).clone()


# ---- of all kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*SHAPES, *TINY])
def test_shape_and_input_are_kept_and_each_image_is_changed(corrupt: Corruption, shape: tuple[int, ...]) -> None:
    image, foreground = random(3, 2, *shape), ball(shape, 3)
    before = image.clone(), foreground.clone()
    for seed in range(20):
        torch.manual_seed(seed)
        changed = corrupt(image, foreground)
        assert torch.equal(image, before[0])
        assert torch.equal(foreground, before[1])
        assert changed.shape == image.shape
        assert changed.dtype == image.dtype
        assert torch.isfinite(changed).all()
        assert (changed != image).flatten(1).any(1).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_seed_decides(corrupt: Corruption, shape: tuple[int, ...]) -> None:
    image, foreground = random(2, 1, *shape), ball(shape, 2)
    made = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        made.append(corrupt(image, foreground))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_images_of_a_batch_are_changed_in_different_ways(corrupt: Corruption) -> None:
    torch.manual_seed(0)
    image = random(1, 1, 28, 28).expand(4, 1, 28, 28)
    changed = corrupt(image, torch.ones(4, 1, 28, 28))
    for one in range(4):
        for other in range(one):
            assert not torch.equal(changed[one], changed[other])


# ---- squares --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*SHAPES, *TINY])
def test_squares_are_boxes_of_0_no_longer_than_a_quarter_of_an_edge(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corruption, "MOST_SQUARES", 1)
    image = random(1, 2, *shape) + 9  # nothing is 0
    for seed in range(50):
        torch.manual_seed(seed)
        changed = mask_squares(image, ball(shape, 1))
        masked = changed[0] == 0
        assert torch.equal(masked[0], masked[1])
        assert torch.equal(changed[0, ~masked], image[0, ~masked])
        (box,) = ndimage.find_objects(masked[0].int().numpy())
        assert masked[0][box].all()
        for part, edge in zip(box, shape, strict=True):
            assert part.stop - part.start <= max(1, edge / 4)


@pytest.mark.parametrize("shape", SHAPES)
def test_there_are_one_to_three_squares_in_a_bounded_share_of_the_image(shape: tuple[int, ...]) -> None:
    counts = set()
    image = torch.ones(1, 1, *shape)
    for seed in range(100):
        torch.manual_seed(seed)
        masked = mask_squares(image, image)[0, 0] == 0
        assert 0 < masked.float().mean() <= MOST_SQUARES * math.prod(max(1 / edge, 1 / 4) for edge in shape)
        counts.add(ndimage.label(masked.numpy())[1])
    assert counts == {1, 2, 3}


def test_squares_come_in_all_sizes_and_everywhere() -> None:
    shape, images = (28, 28), 2000
    torch.manual_seed(0)
    masked = mask_squares(torch.ones(images, 1, *shape), torch.ones(images, 1, *shape))[:, 0] == 0
    often = masked.float().mean(0)
    assert (often > 0).all()  # the corners too
    middle = often[8:20, 8:20]
    assert middle.std() < 0.25 * middle.mean()
    assert {1, 4, 9, 16, 25, 36} <= set(masked.flatten(1).sum(1).tolist())


# ---- noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_is_added_inside_only(shape: tuple[int, ...]) -> None:
    image, foreground = random(2, 3, *shape), ball(shape, 2)
    torch.manual_seed(0)
    changed = add_coarse_noise(image, foreground) != image
    inside = foreground.expand_as(image) > 0
    assert not changed[~inside].any()
    assert changed[inside].float().mean() > 0.99


def drawn(shape: tuple[int, ...], *, batch: int, seeds: int) -> torch.Tensor:
    """Noise alone (seeds * B, *S)."""
    nothing = torch.zeros(batch, 1, *shape)
    made = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        made.append(add_coarse_noise(nothing, nothing + 1)[:, 0])
    return torch.cat(made)


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.ravel(), other.ravel()]))[0, 1])


@pytest.mark.parametrize("shape", [(64, 48), (24, 32, 24)])
def test_noise_has_the_stated_spread_on_its_grid_and_is_smooth(shape: tuple[int, ...]) -> None:
    """Linear interpolation at t between two values of variance 1 has the variance (1 - t)^2 + t^2, 2/3 on average."""
    noise = drawn(shape, batch=8, seeds=20)
    assert abs(noise.mean()) < 0.1 * NOISE
    expected = NOISE * math.sqrt(2 / 3) ** len(shape)
    assert noise.std().item() == pytest.approx(expected, rel=0.12)
    for axis in range(1, len(shape) + 1):
        edge = noise.shape[axis]
        lags = {lag: (noise.narrow(axis, 0, edge - lag), noise.narrow(axis, lag, edge - lag)) for lag in (1, 2, 16)}
        found = {lag: correlation(*pair) for lag, pair in lags.items()}
        assert found[1] > 0.95
        assert found[1] > found[2] > 0.85
        assert abs(found[16]) < 0.1


def test_noise_of_channels_and_images_is_independent() -> None:
    torch.manual_seed(0)
    noise = add_coarse_noise(torch.zeros(40, 3, 48, 48), torch.ones(40, 1, 48, 48))
    assert abs(correlation(noise[:, 0], noise[:, 1])) < 0.1
    assert abs(correlation(noise[:20], noise[20:])) < 0.1


def test_the_grid_lies_anywhere() -> None:
    """Bends are at other voxels in each draw."""
    bends = set()
    for seed in range(60):
        torch.manual_seed(seed)
        noise = add_coarse_noise(torch.zeros(1, 1, 40, 40, dtype=torch.float64), torch.ones(1, 1, 40, 40))[0, 0]
        bent = noise.diff(n=2, dim=0).abs().amax(1) > 1e-6
        places = (bent.nonzero().ravel() % COARSE).unique().tolist()
        assert len(places) <= 2  # a bend lies between two voxels
        bends |= set(places)
    assert bends == set(range(COARSE))
