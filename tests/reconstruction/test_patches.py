"""Images with their foreground: the order of channels, the noise around, how batches become patches."""

from typing import Any

import pytest
import torch

from nnood.planning.foreground import COMPUTED_METHODS
from nnood.reconstruction.patches import Preparer, knows_foreground, with_foreground
from nnood.reconstruction.settings import Reconstruction
from nnood.views import View

NOISE, KEEP = Reconstruction(background="noise"), Reconstruction(background="keep")
CPU = torch.device("cpu")
# Spatial shape, channels, slices.
KINDS = [((40, 50), 1, 1), ((40, 50), 3, 1), ((12, 14, 16), 2, 1), ((40, 50), 2, 3)]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mask(*shape: int) -> torch.Tensor:
    return random(*shape, seed=3) > 0.2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> tuple[tuple[int, ...], int, int]:
    return request.param


def made(kind: tuple[tuple[int, ...], int, int], settings: Reconstruction, batch: int = 3, **options: Any) -> Any:
    """An image, its foreground and the patch made of them."""
    shape, channels, slices = kind
    image, inside = 50 + 10 * random(batch, channels * slices, *shape), mask(batch, *shape)
    return image, inside, with_foreground(image, inside, settings, slices=slices, **options)


# ---- with_foreground ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [NOISE, KEEP])
def test_channels_keep_their_places_and_the_foreground_comes_last(
    kind: tuple[tuple[int, ...], int, int], settings: Reconstruction
) -> None:
    shape, channels, slices = kind
    image, inside, patch = made(kind, settings)
    assert patch.shape == (3, (channels + 1) * slices, *shape)
    assert patch.dtype == torch.float32
    for place in range(channels * slices):
        assert torch.equal(patch[:, place][inside], image[:, place][inside])
    for place in range(channels * slices, (channels + 1) * slices):
        assert torch.equal(patch[:, place], inside.float())


def test_what_is_kept_is_unchanged(kind: tuple[tuple[int, ...], int, int]) -> None:
    _, channels, slices = kind
    image, _, patch = made(kind, KEEP)
    assert torch.equal(patch[:, : channels * slices], image)


@pytest.mark.parametrize("seed", [None, 5])
def test_noise_of_mean_0_and_spread_1_lies_outside(kind: tuple[tuple[int, ...], int, int], seed: int | None) -> None:
    _, channels, slices = kind
    _, inside, patch = made(kind, NOISE, generator=None if seed is None else generator(seed))
    for place in range(channels * slices):
        noise = patch[:, place][~inside]
        assert abs(noise.mean()) < 0.1
        assert noise.std().item() == pytest.approx(1, abs=0.1)
        assert abs(torch.corrcoef(torch.stack([noise[1:], noise[:-1]]))[0, 1]) < 0.1


def test_channels_and_slices_have_noise_of_their_own(kind: tuple[tuple[int, ...], int, int]) -> None:
    _, channels, slices = kind
    _, inside, patch = made(kind, NOISE)
    for place in range(1, channels * slices):
        pair = torch.stack([patch[:, one][~inside] for one in (0, place)])
        assert abs(torch.corrcoef(pair)[0, 1]) < 0.1


def test_without_a_generator_the_noise_is_always_the_same(kind: tuple[tuple[int, ...], int, int]) -> None:
    """Whatever else draws numbers, and in every image of every batch, or predictions would depend on the batch."""
    _, channels, slices = kind
    torch.manual_seed(1)
    image, inside, first = made(kind, NOISE)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(with_foreground(image, inside, NOISE, slices=slices), first)
    assert torch.equal(torch.get_rng_state(), state)
    alone = [with_foreground(image[i : i + 1], inside[i : i + 1], NOISE, slices=slices) for i in range(3)]
    assert torch.equal(torch.cat(alone), first)
    nothing = with_foreground(image, torch.zeros_like(inside), NOISE, slices=slices)[:, : channels * slices]
    assert torch.equal(nothing[0], nothing[1])
    assert torch.equal(nothing[0], nothing[2])


def test_a_generator_draws_other_noise_for_each_image(kind: tuple[tuple[int, ...], int, int]) -> None:
    shape, _, slices = kind
    image, inside = torch.zeros(2, slices, *shape), torch.zeros(2, *shape, dtype=torch.bool)
    draws = [with_foreground(image, inside, NOISE, slices=slices, generator=generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0][0], draws[0][1])
    continued = generator()
    twice = [with_foreground(image, inside, NOISE, slices=slices, generator=continued) for _ in range(2)]
    assert not torch.equal(*twice)


@pytest.mark.parametrize("settings", [NOISE, KEEP])
@pytest.mark.parametrize("drawn", [None, generator()])
def test_everything_is_inside_where_no_foreground_is_known(
    kind: tuple[tuple[int, ...], int, int], settings: Reconstruction, drawn: torch.Generator | None
) -> None:
    shape, channels, slices = kind
    image = random(2, channels * slices, *shape)
    patch = with_foreground(image, None, settings, slices=slices, generator=drawn)
    assert torch.equal(patch, torch.cat([image, torch.ones(2, slices, *shape)], 1))


def test_the_image_itself_is_not_touched(kind: tuple[tuple[int, ...], int, int]) -> None:
    shape, channels, slices = kind
    image, inside = random(2, channels * slices, *shape), mask(2, *shape)
    with_foreground(image, inside, NOISE, slices=slices).mul_(7)
    assert torch.equal(image, random(2, channels * slices, *shape))
    assert torch.equal(inside, mask(2, *shape))


def test_foreground_can_be_found_by_methods_that_compute_it_only() -> None:
    assert {method for method in (*COMPUTED_METHODS, "given", "whole") if knows_foreground(method)} == {
        "nonzero",
        "otsu",
    }


# ---- Preparer -------------------------------------------------------------------------------------------------------


def preparer(settings: Reconstruction = NOISE, *, slices: int = 0, has_foreground: bool = True) -> Preparer:
    views = tuple(View(axis, slices) for axis in ((0, 1, 2) if slices else (0,)))
    found = Preparer(settings, views, has_foreground=has_foreground, device=CPU)
    found.start_epoch(0)
    found.start_step(0)
    return found


@pytest.mark.parametrize("shape", [(20, 24), (6, 20, 24)])
def test_batches_of_the_loader(shape: tuple[int, ...]) -> None:
    """Beyond the image's border and outside of the foreground, the loader's target is 0 or -1."""
    image, target = random(2, 3, *shape), torch.where(mask(2, 1, *shape), 1, torch.where(mask(1, 1, *shape), 0, -1))
    patches, foreground = preparer()({"data": image, "target": target, "view": 0})
    assert torch.equal(foreground, (target == 1).float())
    assert torch.equal(patches[:, 3:], foreground)
    inside = (target == 1).expand_as(image)
    assert torch.equal(patches[:, :3][inside], image[inside])
    assert patches[:, :3][~inside].std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("view", [0, 1, 2])
def test_slabs_of_the_loader(view: int) -> None:
    image, target = random(2, 2, 3, 20, 24, seed=5), mask(2, 1, 3, 20, 24).long()
    patches, foreground = preparer(slices=3)({"data": image, "target": target, "view": view})
    assert patches.shape == (2, 9, 20, 24)
    assert foreground.shape == (2, 1, 20, 24)
    middle = target[:, 0, 1] == 1
    assert torch.equal(foreground[:, 0], middle.float())
    for channel in range(2):
        for number in range(3):
            inside = target[:, 0, number] == 1
            assert torch.equal(patches[:, 3 * channel + number][inside], image[:, channel, number][inside])
            assert not torch.equal(patches[:, 3 * channel + number][~inside], image[:, channel, number][~inside])
    assert torch.equal(patches[:, 6:], target[:, 0].float())


@pytest.mark.parametrize("slices", [0, 3])
def test_without_a_known_foreground_everything_counts(slices: int) -> None:
    shape = (3, 20, 24) if slices else (20, 24)
    image, target = random(2, 2, *shape), mask(2, 1, *shape).long()
    patches, _ = preparer(slices=slices, has_foreground=False)({"data": image, "target": target, "view": 0})
    slabs = patches.unflatten(1, (3, -1))
    assert torch.equal(slabs[:, :2].reshape(image.shape), image)
    assert (slabs[:, 2] == 1).all()
    assert (preparer(has_foreground=False).case(image[0], mask(*shape))[-1] == 1).all()


def test_steps_are_seeded_and_differ() -> None:
    batch = {"data": random(2, 1, 20, 24), "target": mask(2, 1, 20, 24).long(), "view": 0}
    prepare = preparer()
    made = []
    for seed in (1, 2, 1):
        prepare.start_step(seed)
        made.append(prepare(batch)[0])
    assert torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[1])
    assert not torch.equal(prepare(batch)[0], made[2])


def test_validation_patches_and_whole_cases_are_the_same_each_time() -> None:
    prepare = preparer()
    image, inside = random(2, 2, 6, 20, 24), mask(2, 6, 20, 24)
    first, case = prepare.patches(image, inside), prepare.case(image[0], inside[0])
    prepare.start_step(7)
    assert torch.equal(prepare.patches(image, inside), first)
    assert torch.equal(prepare.case(image[0], inside[0]), case)
    assert case.shape == (3, 6, 20, 24)
    assert torch.equal(case[-1], inside[0].float())


def test_nothing_is_left_from_one_step_to_the_next() -> None:
    prepare = preparer()
    assert prepare.failed == 0
    assert prepare.state() == {}
    prepare.restore({"losses": [1.0]})
    assert prepare.state() == {}
