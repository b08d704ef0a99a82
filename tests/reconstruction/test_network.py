"""Autoencoders of all recipes: what they learn from, and what they say of patches, against computations by hand."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from skimage.transform import resize
from torch.distributions import Normal, kl_divergence

from nnood.reconstruction import stages
from nnood.reconstruction.corruption import CORRUPT
from nnood.reconstruction.losses import Learned, ReconstructionLoss, gaussian_kl
from nnood.reconstruction.network import LEAST, Autoencoder, Seen
from nnood.reconstruction.patches import with_foreground
from nnood.reconstruction.recipes import RECONSTRUCTING
from nnood.reconstruction.settings import VOXEL_SCORES, Reconstruction

SETTINGS = {recipe.name: recipe.reconstruction for recipe in RECONSTRUCTING if recipe.reconstruction is not None}
BATCH = 2


@dataclass(frozen=True)
class Kind:
    """Patches of a configuration: channels of the images, spatial shape that the network sees, slices of slabs."""

    channels: int
    shape: tuple[int, ...]
    slices: int = 0

    @property
    def k(self) -> int:
        return max(1, self.slices)


# Three have the small form, two the planned one.
KINDS = {
    "2d": Kind(1, (16, 16)),
    "2d, three channels": Kind(3, (36, 12)),
    "3d": Kind(1, (8, 12, 8)),
    "3d, flat": Kind(2, (1, 36, 8)),
    "2.5d": Kind(2, (16, 12), slices=3),
}


def configuration(kind: Kind) -> ConfigurationManager:
    """As nnU-Net plans it: three stages, axes of a single voxel never shrunk."""
    axes = len(kind.shape)
    halved = [1 if edge == 1 else 2 for edge in kind.shape]
    name = f"torch.nn.modules.{{}}{axes}d"
    arguments = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": name.format("conv.Conv"),
        "kernel_sizes": [[3] * axes] * 3,
        "strides": [[1] * axes, halved, halved],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_bias": True,
        "norm_op": name.format("instancenorm.InstanceNorm"),
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    content: dict[str, Any] = {
        "patch_size": [*([kind.slices] if kind.slices else []), *kind.shape],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return ConfigurationManager({**content, "views": [0, 1, 2]} if kind.slices else content)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def foreground_of(kind: Kind, batch: int = BATCH) -> torch.Tensor:
    """(B, *S), with a corner that is outside and other single voxels in each image."""
    inside = random(batch, *kind.shape, seed=11) < 1.5
    inside[(slice(None), *(slice(0, max(1, edge // 4)) for edge in kind.shape))] = False
    return inside


def images_of(kind: Kind, batch: int = BATCH, seed: int = 1) -> torch.Tensor:
    """(B, C * k, *S), of mean 50 and spread 10."""
    return 10 * random(batch, kind.channels * kind.k, *kind.shape, seed=seed) + 50


def patches_of(settings: Reconstruction, kind: Kind, batch: int = BATCH, seed: int = 1) -> torch.Tensor:
    return with_foreground(images_of(kind, batch, seed), foreground_of(kind, batch), settings, slices=kind.k)


def make(settings: Reconstruction, kind: Kind, *, warm: bool = True) -> Autoencoder:
    """A network that knows mean and spread of the images; if warm, as after a training step."""
    torch.manual_seed(0)
    network = Autoencoder(settings, configuration(kind), kind.channels)
    network.image_mean.fill_(50)
    network.image_spread.fill_(10)
    if warm:
        optimiser = torch.optim.Adam(network.parameters(), 1e-3)
        loss_of(network, patches_of(settings, kind, seed=0)).backward()
        optimiser.step()
        optimiser.zero_grad()
    return network


def loss_of(network: Autoencoder, patches: torch.Tensor) -> torch.Tensor:
    settings = network.settings
    learned = network.train()(patches)
    assert isinstance(learned, Learned)
    return ReconstructionLoss(settings.error, settings.beta, settings.entropy)(learned, torch.zeros(()))


def scores_of(network: Autoencoder) -> Iterator[str]:
    """Each voxel score, while it is chosen."""
    for name in network.settings.voxel_scores:
        network.voxel_score = name
        yield name


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    """The small form with fewer features, for the sake of time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "SMALL_FEATURES", (8, 16, 16, 16))
        yield


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(params=SETTINGS)
def settings(request: pytest.FixtureRequest) -> Reconstruction:
    return SETTINGS[request.param]


@pytest.fixture(scope="module")
def networks() -> dict[Any, Autoencoder]:
    """Those that were made so far."""
    return {}


@pytest.fixture
def network(settings: Reconstruction, kind: Kind, networks: dict[Any, Autoencoder]) -> Autoencoder:
    """A warm one in evaluation mode; what a test changes besides the voxel score, it changes back."""
    if (settings, kind) not in networks:
        networks[settings, kind] = make(settings, kind)
    return networks[settings, kind].eval()


def test_the_recipes_have_what_is_tested_here() -> None:
    assert {settings.latent for settings in SETTINGS.values()} == {"plain", "gaussian", "codebook"}
    assert {settings.encoder for settings in SETTINGS.values()} == {"planned", "residual", "unet"}
    assert {name for settings in SETTINGS.values() for name in settings.voxel_scores} == set(VOXEL_SCORES)


# ---- training -------------------------------------------------------------------------------------------------------


def test_training_gives_what_is_learned_with_finite_gradients(settings: Reconstruction, kind: Kind) -> None:
    network, patches = make(settings, kind), patches_of(settings, kind)
    learned = network.train()(patches)
    assert isinstance(learned, Learned)
    shape = (BATCH, kind.channels * kind.k, *kind.shape)
    assert learned.image.shape == shape
    assert learned.counted.shape == learned.activation.shape == (BATCH, 1, *kind.shape)
    assert [one.shape for one in learned.reconstructions] == [shape] * (2 if settings.corruption == "squares" else 1)
    assert (learned.mean is not None) == (learned.log_variance is not None) == (settings.latent == "gaussian")
    assert (learned.codebook is not None) == (settings.latent == "codebook")
    loss = ReconstructionLoss(settings.error, settings.beta, settings.entropy)(learned, torch.zeros(()))
    loss.backward()
    assert math.isfinite(loss.item())
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            assert "seg_layers" in name  # nnU-Net's outputs at coarser resolutions
            continue
        assert parameter.grad is not None, name  # several ranks would wait for it
        assert torch.isfinite(parameter.grad).all(), name
        if not name.endswith("bias"):  # those before a normalisation have none
            assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", [KINDS["2d"], KINDS["2.5d"]])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_nothing_or_everything_is_foreground(settings: Reconstruction, kind: Kind, level: float) -> None:
    network = make(settings, kind, warm=False)
    inside = torch.full((BATCH, *kind.shape), bool(level))
    patches = with_foreground(images_of(kind), inside, settings, slices=kind.k)
    loss = loss_of(network, patches)
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(torch.isfinite(one.grad).all() for one in network.parameters() if one.grad is not None)
    with torch.no_grad():
        network.eval()
        for name in scores_of(network):
            logits = network(patches)
            assert torch.isfinite(logits).all(), name
            assert level or (logits == logits.new_tensor(LEAST).log()).all(), name
        assert all(torch.isfinite(part).all() for part in network.values(network.see(patches)))


def test_only_gaussian_latents_are_sampled() -> None:
    kind = KINDS["2d"]
    for name in ("ae", "vae", "vqvae"):
        network, patches = make(SETTINGS[name], kind), patches_of(SETTINGS[name], kind)
        first, second = (network.train()(patches).reconstructions[0] for _ in range(2))
        assert torch.equal(first, second) == (name != "vae")


def test_the_restoration_of_what_is_masked_is_not_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORRUPT, "squares", lambda image, foreground: image + foreground)
    kind, settings = KINDS["2d"], SETTINGS["cevae"]
    network, patches = make(settings, kind).train(), patches_of(settings, kind)
    first, second = (network(patches).reconstructions for _ in range(2))
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_what_is_corrupted_is_to_be_restored() -> None:
    kind = KINDS["2d"]
    for name in ("cevae", "dae"):
        network, patches = make(SETTINGS[name], kind), patches_of(SETTINGS[name], kind)
        learned, seen = network.train()(patches), network.see(patches)
        assert torch.equal(learned.image, seen.image)
        torch.manual_seed(5)
        shown = []
        network.encoder.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))  # noqa: B023
        network(patches)
        clean = [torch.equal(one, seen.image) for one in shown]
        assert clean == ([True, False] if name == "cevae" else [False])


# ---- scores ---------------------------------------------------------------------------------------------------------


def test_logits_of_every_voxel_score(settings: Reconstruction, kind: Kind, network: Autoencoder) -> None:
    """With the median as scale, half of what is inside is above one half."""
    patches, inside = patches_of(settings, kind), foreground_of(kind)[:, None]
    found = {}
    with torch.no_grad():
        for name in scores_of(network):
            score = network.score(network.see(patches), name)
            scale = score[inside].median()
            network.scales[VOXEL_SCORES.index(name)] = scale
            logits = found[name] = network(patches)
            network.scales.fill_(1)
            assert logits.shape == (BATCH, 1, *kind.shape)
            assert logits.dtype == torch.float32
            assert torch.isfinite(logits).all(), name
            assert (logits[~inside] == logits.new_tensor(LEAST).log()).all(), name
            assert torch.sigmoid(logits[inside]).median().item() == pytest.approx(0.5, abs=1e-3), name
            between = (score / scale > 1e-5) & (score / scale < 1e5) & inside
            assert between.sum() > 0.98 * inside.sum(), name
            expected = np.log(score[between].double().numpy()) - math.log(scale)
            np.testing.assert_allclose(logits[between], expected, atol=1e-4)
    for one, other in itertools.combinations(found, 2):
        assert not torch.equal(found[one], found[other]), (one, other)


def test_images_of_a_batch_do_not_touch_each_other(settings: Reconstruction, kind: Kind, network: Autoencoder) -> None:
    patches = patches_of(settings, kind)
    wild = patches.clone()
    wild[-1, :-1] = torch.where(foreground_of(kind)[-1], 1e6 * random(*kind.shape), wild[-1, :-1])
    with torch.no_grad():
        for name in scores_of(network):
            together, beside = (network.score(network.see(one), name) for one in (patches, wild))
            alone = torch.cat([network.score(network.see(one), name) for one in patches.split(1)])
            nearly = 1e-4 * float(alone.max())
            torch.testing.assert_close(together, alone, rtol=1e-3, atol=nearly, msg=name)
            torch.testing.assert_close(beside[:-1], alone[:-1], rtol=1e-3, atol=nearly, msg=name)
            assert torch.isfinite(network(wild)).all(), name
        values = [network.values(network.see(one)) for one in (patches, wild, *patches.split(1))]
    for whole, beside, *parts in zip(*values, strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(whole[:-1], beside[:-1], rtol=1e-3, atol=1e-4)
    if settings.latent != "codebook":
        assert (torch.pdist(values[0].codes) > 1e-4 * values[0].codes.norm()).all()


def test_scores_in_inference_mode_are_those_outside_of_it(
    settings: Reconstruction, kind: Kind, network: Autoencoder
) -> None:
    patches = patches_of(settings, kind)
    for name in scores_of(network):
        outside = network(patches).detach()
        with torch.inference_mode():
            inside = network(patches.clone())
        torch.testing.assert_close(inside, outside, msg=name)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("kind", ["kl_gradient", "elbo_gradient"])
def test_gradients_do_not_vanish_in_half_precision(kind: str, networks: dict[Any, Autoencoder]) -> None:
    settings, shape = SETTINGS["vae"], KINDS["2d"]
    network = networks.setdefault((settings, shape), make(settings, shape)).eval()
    seen = network.see(patches_of(settings, shape))
    expected = network.score(seen, kind)
    for precision in (torch.float16, torch.bfloat16):
        with torch.inference_mode(), torch.autocast("cpu", precision):
            torch.testing.assert_close(network.score(seen, kind), expected, rtol=1e-4, atol=0)


def by_hand(network: Autoencoder, image: torch.Tensor) -> torch.Tensor:
    """Reconstruction of what the network sees, from the mean of its latent."""
    stages = network.encoder(image)
    if network.settings.encoder == "unet":
        return network.decoder(stages)
    latent = network.to_latent(stages[-1].flatten(1))
    if network.settings.latent == "gaussian":
        latent = latent[:, : latent.shape[1] // 2]
    return network.decoder(network.from_latent(latent).reshape(stages[-1].shape))


@pytest.mark.parametrize("settings", [one for one in SETTINGS.values() if one.latent != "codebook"], indirect=False)
def test_residuals_by_hand(settings: Reconstruction, kind: Kind, networks: dict[Any, Autoencoder]) -> None:
    network = networks.setdefault((settings, kind), make(settings, kind)).eval()
    seen = network.see(patches_of(settings, kind))
    with torch.no_grad():
        residual = seen.image - by_hand(network, seen.image)
        if kind.slices:  # channels are (channel, slice); of the slices, the middle one counts
            residual = residual[:, kind.slices // 2 :: kind.slices]
        assert residual.shape[1] == kind.channels
        for name, expected in (("absolute", residual.abs()), ("squared", residual**2)):
            torch.testing.assert_close(network.score(seen, name), expected.mean(1, keepdim=True))


def test_residuals_of_codes_that_are_restored(kind: Kind, networks: dict[Any, Autoencoder]) -> None:
    settings = SETTINGS["vqvae"]
    network = networks.setdefault((settings, kind), make(settings, kind)).eval()
    seen, before = network.see(patches_of(settings, kind)), network.prior.unlikely.clone()
    with torch.no_grad():
        found = network.codebook(network.to_latent(network.encoder(seen.image)[-1]))
        plain = network.decoder(network.from_latent(found.features))
        made = {}
        for threshold in (math.inf, -math.inf):  # no code is unlikely, or every one
            network.prior.unlikely.fill_(threshold)
            made[threshold] = network.reconstruct(network.encode(seen.image))
        network.prior.unlikely.copy_(before)
    torch.testing.assert_close(made[math.inf], plain)
    assert (made[-math.inf] - plain).abs().mean() > 1e-4 * plain.abs().mean()


@pytest.mark.parametrize("recipe", ["constrained_vae", "dae", "vae"])
def test_the_activation_is_that_of_the_second_stage(recipe: str, networks: dict[Any, Autoencoder]) -> None:
    settings, kind = SETTINGS[recipe], KINDS["2d, three channels"]
    network = networks.setdefault((settings, kind), make(settings, kind)).eval()
    seen = network.see(patches_of(settings, kind))
    with torch.no_grad():
        second = network.encoder(seen.image)[1].mean(1)
        found = network.score(seen, "activation")
    assert tuple(second.shape[1:]) == (18, 6)
    expected = [resize(one.numpy(), kind.shape, order=1, mode="edge", anti_aliasing=False) for one in second]
    np.testing.assert_allclose(found[:, 0].log(), expected, atol=1e-5)


def objective(network: Autoencoder, seen: Seen, term: str) -> torch.Tensor:
    """What is minimised, of one image: error, KL divergence or their weighted sum, without sampling."""
    encoded = network.encode(seen.image)
    difference = (seen.image - network._decode(encoded, sampled=False)) * seen.counted
    error = (0.5 * difference.square() if network.settings.error == "squared" else difference.abs()).sum()
    if term == "error":
        return error
    assert encoded.log_variance is not None
    spread = (0.5 * encoded.log_variance).exp()
    kl = kl_divergence(Normal(encoded.code, spread), Normal(0.0, 1.0)).sum()
    return kl if term == "kl" else error + network.settings.beta * kl


def gradient_scores() -> list[tuple[str, str]]:
    return [
        (recipe, name)
        for recipe, settings in SETTINGS.items()
        for name in settings.voxel_scores
        if name.endswith("_gradient")
    ]


@pytest.mark.parametrize(("recipe", "name"), gradient_scores())
def test_gradients_are_autograds(recipe: str, name: str, kind: Kind, networks: dict[Any, Autoencoder]) -> None:
    settings = SETTINGS[recipe]
    network = networks.setdefault((settings, kind), make(settings, kind)).eval()
    seen = network.see(patches_of(settings, kind))
    image = seen.image.clone().requires_grad_()
    total = sum(
        objective(network, Seen(image[i : i + 1], seen.counted[i : i + 1], seen.foreground[i : i + 1]), name[:-9])
        for i in range(BATCH)
    )
    assert isinstance(total, torch.Tensor)
    (gradient,) = torch.autograd.grad(total, image)
    if kind.slices:
        gradient = gradient[:, kind.slices // 2 :: kind.slices]
    expected = gradient.abs().mean(1, keepdim=True)
    found = network.score(seen, name)
    scale = expected.max().item()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * scale)
    residual = network.score(seen, "absolute")
    both = network.score(seen, f"{name}_x_residual")
    torch.testing.assert_close(both, expected * residual, rtol=1e-3, atol=1e-4 * scale * residual.max().item())


@pytest.mark.parametrize(("recipe", "name"), [one for one in gradient_scores() if one[0] in ("ae", "vae")])
def test_gradients_are_finite_differences(recipe: str, name: str, networks: dict[Any, Autoencoder]) -> None:
    settings, kind = SETTINGS[recipe], KINDS["2d"]
    network = networks.setdefault((settings, kind), make(settings, kind)).eval()
    seen = network.see(patches_of(settings, kind, batch=1))
    found = network.score(seen, name)[0, 0]
    step, expected = 2e-2, []
    places = [(3 * i % 16, (7 * i + i // 16) % 16) for i in range(40)]
    for row, column in places:
        ends = []
        for sign in (-1, 1):
            image = seen.image.clone()
            image[0, 0, row, column] += sign * step
            with torch.no_grad():
                ends.append(objective(network, seen._replace(image=image), name[:-9]).item())
        expected.append(abs(ends[1] - ends[0]) / (2 * step))
    rows, columns = zip(*places, strict=True)
    given = found[list(rows), list(columns)].numpy()
    # Bends of the network's activations lie within the step of some voxels.
    assert np.median(np.abs(given - expected) / np.abs(expected).max()) < 0.01
    assert np.corrcoef(given, expected)[0, 1] > 0.99


def test_values_of_patches_by_hand(settings: Reconstruction, kind: Kind, network: Autoencoder) -> None:
    inside = foreground_of(kind)
    inside[0] = torch.arange(inside[0].numel()).reshape(kind.shape) % 4 == 0
    seen = network.see(with_foreground(images_of(kind), inside, settings, slices=kind.k))
    with torch.no_grad():
        found = network.values(seen)
        encoded = network.encode(seen.image)
        difference = (seen.image - network._decode(encoded, sampled=False)).double()
    for number, foreground in enumerate(inside):
        errors = difference[number][:, foreground]
        errors = errors**2 / 2 if settings.error == "squared" else errors.abs()
        assert found.error[number].item() == pytest.approx(errors.mean().item(), rel=1e-4)
        extra = 0.0
        if encoded.log_variance is not None:
            latent = encoded.code[number : number + 1], encoded.log_variance[number : number + 1]
            extra = settings.beta * gaussian_kl(*latent).item()
        if encoded.indices is not None:
            extra = network.prior.surprise(encoded.indices[number : number + 1]).sum().item()
        assert (extra != 0) == (settings.latent != "plain")
        assert found.elbo[number].item() == pytest.approx((errors.sum().item() + extra) / errors.numel(), rel=1e-4)
    torch.testing.assert_close(found.share, inside.flatten(1).float().mean(1))
    torch.testing.assert_close(found.codes, encoded.code)


def test_weights_come_back_with_all_that_scores_depend_on(
    settings: Reconstruction, kind: Kind, network: Autoencoder
) -> None:
    torch.manual_seed(1)
    other, patches = Autoencoder(settings, configuration(kind), kind.channels).eval(), patches_of(settings, kind)
    network.voxel_score = other.voxel_score
    network.scales.copy_(torch.arange(1.0, 1 + len(VOXEL_SCORES)))
    with torch.no_grad():
        assert not torch.allclose(other(patches), network(patches))
        other.load_state_dict(network.state_dict())
        torch.testing.assert_close(other(patches), network(patches))
    network.scales.fill_(1)


# ---- foreground and intensities -------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", ["noise", "keep"])
def test_mean_and_spread_standardise_the_foreground_only(kind: Kind, background: str) -> None:
    settings = dataclasses.replace(SETTINGS["ae"], background=background)
    network = make(settings, kind, warm=False)
    mean, spread = 50 + torch.arange(float(kind.channels)), 10 + torch.arange(float(kind.channels))
    network.image_mean.copy_(mean)
    network.image_spread.copy_(spread)
    image, inside = images_of(kind), foreground_of(kind)
    patches = with_foreground(image, inside, settings, slices=kind.k)
    seen = network.see(patches)
    assert torch.equal(seen.foreground, inside[:, None].float())
    assert torch.equal(seen.counted, seen.foreground if background == "noise" else torch.ones_like(seen.foreground))
    for channel, number in itertools.product(range(kind.channels), range(kind.k)):
        index = channel * kind.k + number
        standardised = (image[:, index] - mean[channel]) / spread[channel]
        torch.testing.assert_close(seen.image[:, index][inside], standardised[inside])
        outside = patches[:, index] if background == "noise" else standardised
        torch.testing.assert_close(seen.image[:, index][~inside], outside[~inside])


def test_of_a_slab_the_middle_slice_is_scored_and_each_slice_has_a_foreground_of_its_own() -> None:
    """In the sliding window, where slices are those of a case."""
    kind, settings = KINDS["2.5d"], SETTINGS["ae"]
    network, patches = make(settings, kind), patches_of(settings, kind)
    inside = torch.stack([foreground_of(kind).roll(number, 1) for number in range(3)], 1)
    patches[:, 6:] = inside.float()
    seen = network.see(patches)
    assert torch.equal(seen.foreground, inside[:, 1:2].float())
    assert torch.equal(seen.counted, seen.foreground)
    for place in range(6):
        where = inside[:, place % 3]
        torch.testing.assert_close(seen.image[:, place][where], (patches[:, place][where] - 50) / 10)
        assert torch.equal(seen.image[:, place][~where], patches[:, place][~where])


@pytest.mark.parametrize("kind", [KINDS["2d"], KINDS["2.5d"]])
def test_what_lies_outside_of_the_foreground_changes_nothing(settings: Reconstruction, kind: Kind) -> None:
    inside = foreground_of(kind)
    image = images_of(kind)
    other = torch.where(inside[:, None], image, 1e3 * random(*image.shape, seed=9))
    patches = [with_foreground(one, inside, settings, slices=kind.k) for one in (image, other)]
    assert torch.equal(*patches)
    kept = dataclasses.replace(settings, background="keep")
    results = []
    for chosen in (settings, kept):
        for one in (image, other):
            network = make(chosen, kind, warm=False)
            shown = with_foreground(one, inside, chosen, slices=kind.k)
            torch.manual_seed(2)
            loss = loss_of(network, shown).item()
            with torch.no_grad():
                results.append((loss, network.eval()(shown)))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert results[2][0] != pytest.approx(results[3][0], rel=1e-2)
    assert not torch.allclose(results[2][1], results[3][1])


def test_errors_where_nothing_counts_are_no_part_of_the_loss() -> None:
    kind = KINDS["2d, three channels"]
    settings = SETTINGS["ae"]
    network, inside = make(settings, kind), foreground_of(kind)
    learned = network.train()(with_foreground(images_of(kind), inside, settings))
    loss = ReconstructionLoss(settings.error, 0.0, 0.0)
    (gradient,) = torch.autograd.grad(loss(learned, inside), learned.reconstructions[0])
    outside = ~inside[:, None].expand_as(gradient)
    assert not gradient[outside].any()
    assert gradient[~outside].all()


# ---- learning -------------------------------------------------------------------------------------------------------


def learn(settings: Reconstruction, images: list[torch.Tensor]) -> Autoencoder:
    """A network trained on batches of normal images (B, 1, H, W), in standard deviations already."""
    network = make(settings, Kind(1, tuple(images[0].shape[2:])), warm=False)
    network.image_mean.fill_(0)
    network.image_spread.fill_(1)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for step, batch in enumerate(images):
        torch.manual_seed(step)
        optimiser.zero_grad()
        loss_of(network, with_foreground(batch, None, settings)).backward()
        optimiser.step()
    return network.eval()


def error_of(network: Autoencoder, images: torch.Tensor) -> float:
    with torch.no_grad():
        return network.values(network.see(with_foreground(images, None, network.settings))).error.mean().item()


def assert_lesion_is_found(network: Autoencoder, images: torch.Tensor) -> None:
    """A bright square in each image scores higher than what lies around it."""
    lesion = images.clone()
    lesion[..., 5:9, 7:11] += 4
    with torch.no_grad():
        score = network.score(network.see(with_foreground(lesion, None, network.settings)), "absolute")
    for one, where in zip(score, lesion != images, strict=True):
        assert one[where].mean() > 3 * one[~where].mean()


def constant(levels: torch.Tensor) -> torch.Tensor:
    return levels.view(-1, 1, 1, 1).expand(-1, 1, 16, 16).clone()


@pytest.mark.parametrize("recipe", ["ae", "vae", "vqvae"])
def test_constant_images_are_learned_and_a_lesion_in_one_is_found(recipe: str) -> None:
    """Of every brightness; without any lesion in training."""
    generator = torch.Generator().manual_seed(0)
    batches = [constant(torch.randn(8, generator=generator)) for _ in range(150)]
    images = constant(torch.linspace(-1.5, 1.5, 7))
    network, fresh = (learn(SETTINGS[recipe], part) for part in (batches, batches[:1]))
    before, after = error_of(fresh, images), error_of(network, images)
    assert after < before / 10
    if recipe != "vqvae":  # two by two codes have no say in where
        assert_lesion_is_found(network, images)


def test_what_a_denoiser_removes_is_found() -> None:
    column, row = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    image = torch.sin(column / 2) + torch.cos(row / 3)
    images = ((image - image.mean()) / image.std()).expand(4, 1, 16, 16)
    network, fresh = (learn(SETTINGS["dae"], [images] * steps) for steps in (150, 1))
    before, after = error_of(fresh, images), error_of(network, images)
    assert after < before / 5
    assert_lesion_is_found(network, images)
