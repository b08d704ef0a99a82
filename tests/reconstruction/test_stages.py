"""Depth, widths and sizes of encoders and decoders, against tables by hand; what comes out has the patch's size."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from nnood.reconstruction.stages import SMALL_FEATURES, Decoder, build_encoder, is_small, plan_stages

FEATURES = [4, 8, 12, 16, 20]


def planned(*strides: tuple[int, ...], kernels: list[tuple[int, ...]] | None = None) -> dict[str, Any]:
    """nnU-Net's arguments of a network, as they come from JSON: lists."""
    return {
        "n_stages": len(strides),
        "features_per_stage": FEATURES[: len(strides)],
        "kernel_sizes": [list(one) for one in kernels or [(3,) * len(strides[0])] * len(strides)],
        "strides": [list(stride) for stride in strides],
        "n_conv_per_stage": [2] * len(strides),
    }


IN_PLANE = planned((1, 1), (2, 2), (2, 2), (2, 2), (2, 2))
FLAT = planned((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), kernels=[(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)])
CUBES = planned((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))

# Patch size, plan, and by hand the sizes of the stages. At most 32 voxels along each edge: the small form.
SIZES: dict[str, tuple[tuple[int, ...], dict[str, Any], list[tuple[int, ...]]]] = {
    "28x28": ((28, 28), IN_PLANE, [(14, 14), (7, 7), (7, 7), (7, 7)]),
    "32x32": ((32, 32), IN_PLANE, [(16, 16), (8, 8), (4, 4), (2, 2)]),
    "30x16": ((30, 16), IN_PLANE, [(15, 8), (15, 4), (15, 2), (15, 1)]),
    "64x48": ((64, 48), IN_PLANE, [(64, 48), (32, 24), (16, 12), (8, 6), (4, 3)]),
    "33x32": ((33, 32), IN_PLANE, [(33, 32), (33, 16), (33, 8), (33, 4), (33, 2)]),
    "24x32x24": ((24, 32, 24), CUBES, [(12, 16, 12), (6, 8, 6), (3, 4, 3), (3, 2, 3)]),
    "1x32x32": ((1, 32, 32), FLAT, [(1, 16, 16), (1, 8, 8), (1, 4, 4), (1, 2, 2)]),
    "4x40x40": ((4, 40, 40), FLAT, [(4, 40, 40), (4, 20, 20), (4, 10, 10), (2, 5, 5)]),
    "1x1": ((1, 1), IN_PLANE, [(1, 1)] * 4),
    "2x2": ((2, 2), IN_PLANE, [(1, 1)] * 4),
    "3x3": ((3, 3), IN_PLANE, [(3, 3)] * 4),
    "1x2x3": ((1, 2, 3), CUBES, [(1, 1, 3)] * 4),
    "1x1x1": ((1, 1, 1), CUBES, [(1, 1, 1)] * 4),
    "1x40": ((1, 40), IN_PLANE, [(1, 40), (1, 20), (1, 10), (1, 5), (1, 5)]),
}


@pytest.fixture(params=SIZES)
def case(request: pytest.FixtureRequest) -> tuple[tuple[int, ...], dict[str, Any], list[tuple[int, ...]]]:
    return SIZES[request.param]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("patch_size", "expected"),
    [((32, 32), True), ((28, 1), True), ((33, 1), False), ((1, 32, 33), False), ((32, 32, 32), True)],
)
def test_small_is_at_most_32_along_each_edge(patch_size: tuple[int, ...], expected: bool) -> None:
    assert is_small(patch_size) is expected


@pytest.mark.parametrize("patch_size", [(28, 28), (32, 32), (24, 32, 24), (1, 32, 32)])
def test_tiny_patches_get_four_convolutions_whatever_was_planned(patch_size: tuple[int, ...]) -> None:
    for plan in (IN_PLANE, CUBES):
        stages = plan_stages(plan, patch_size)
        assert stages.features == SMALL_FEATURES
        assert stages.kernels == ((3,) * len(patch_size),) * 4
        encoder = build_encoder(stages, 3, residual=False)
        convolutions = [one for one in encoder.modules() if isinstance(one, nn.Conv2d | nn.Conv3d)]
        assert [one.out_channels for one in convolutions] == [32, 64, 128, 256]
        assert convolutions[0].in_channels == 3


def test_others_have_the_planned_depth_widths_and_strides() -> None:
    stages = plan_stages(FLAT, (4, 40, 40))
    assert stages.features == (4, 8, 12, 16)
    assert stages.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))
    assert stages.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))
    for residual in (False, True):
        encoder = build_encoder(stages, 2, residual=residual)
        widths = {tuple(one.weight.shape) for one in encoder.modules() if isinstance(one, nn.Conv3d)}
        assert {(16, 12, 3, 3, 3), (16, 16, 3, 3, 3), (4, 4, 1, 3, 3)} <= widths


@pytest.mark.parametrize("residual", [False, True])
def test_sizes_by_hand_are_those_of_the_network(
    case: tuple[tuple[int, ...], dict[str, Any], list[tuple[int, ...]]], residual: bool
) -> None:
    patch_size, plan, sizes = case
    stages = plan_stages(plan, patch_size)
    assert stages.sizes == sizes
    found = build_encoder(stages, 3, residual=residual)(random(2, 3, *patch_size))
    assert [tuple(one.shape) for one in found] == [
        (2, width, *size) for width, size in zip(stages.features, sizes, strict=True)
    ]
    assert stages.values == found[-1][0].numel() == stages.features[-1] * math.prod(sizes[-1])


@pytest.mark.parametrize("residual", [False, True])
def test_decoders_give_back_exactly_the_patch(
    case: tuple[tuple[int, ...], dict[str, Any], list[tuple[int, ...]]], residual: bool
) -> None:
    patch_size, plan, _ = case
    stages = plan_stages(plan, patch_size)
    image = random(2, 3, *patch_size).requires_grad_()
    encoder, decoder = build_encoder(stages, 3, residual=residual), Decoder(stages, 3)
    found = decoder(encoder(image)[-1])
    assert found.shape == image.shape
    assert found.dtype == torch.float32
    found.square().sum().backward()
    for name, parameter in (*encoder.named_parameters(), *decoder.named_parameters()):
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("most", [1, 2, 4, 8, 100])
def test_stages_that_shrink_by_too_much_are_left_out(
    case: tuple[tuple[int, ...], dict[str, Any], list[tuple[int, ...]]], most: int
) -> None:
    patch_size, plan, sizes = case
    stages = plan_stages(plan, patch_size, most_stride=most)
    fitting = [size for size in sizes if max(e / s for e, s in zip(patch_size, size, strict=True)) <= most]
    # The first stage is there in any case, as there is no network without one.
    assert stages.sizes == (fitting or sizes[:1])
    assert len(stages.features) == len(stages.kernels) == len(stages.strides) == len(stages.sizes)
    image = random(2, 3, *patch_size)
    assert Decoder(stages, 3)(build_encoder(stages, 3, residual=False)(image)[-1]).shape == image.shape


def test_every_voxel_of_the_code_reaches_the_image() -> None:
    """No path beside the code: of two images with the same code there is one reconstruction, and codes differ."""
    stages = plan_stages(IN_PLANE, (64, 48))
    decoder = Decoder(stages, 1).eval()
    code = random(1, stages.features[-1], 4, 3).requires_grad_()
    image = decoder(code)
    for place in ((0, 0), (63, 47), (20, 30)):
        (gradient,) = torch.autograd.grad(image[(0, 0, *place)], code, retain_graph=True)
        row, column = (coordinate // 16 for coordinate in place)
        assert gradient[0, :, row, column].any()


def test_brightness_of_an_image_reaches_the_code() -> None:
    """Normalised image by image, all constant images would look the same."""
    for patch_size, residual in (((28, 28), False), ((64, 48), False), ((64, 48), True)):
        torch.manual_seed(0)
        encoder = build_encoder(plan_stages(IN_PLANE, patch_size), 1, residual=residual)
        images = torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1, 1).expand(3, 1, *patch_size).contiguous()
        codes = encoder(images)[-1].flatten(1)
        assert (torch.pdist(codes) > 0.1 * codes.norm(dim=1).mean()).all()


def test_images_are_not_rounded() -> None:
    stages = plan_stages(IN_PLANE, (28, 28))
    decoder = Decoder(stages, 1).eval()
    code = random(1, stages.features[-1], 7, 7)
    with torch.autocast("cpu", torch.bfloat16):
        image = decoder(code)
    assert image.dtype == torch.float32
    assert not torch.equal(image, image.bfloat16().float())
