import pytest
import torch

from nnood.tasks import TaskSettings, build_task
from nnood.tasks.donors import Donors
from nnood.tasks.shapes import Placement
from nnood.tasks.textures import Region, SmoothOffset


@pytest.fixture
def region() -> Region:
    depth = torch.linspace(-0.5, 1, 31)[None]
    values = torch.randn(2, 1, 31, generator=torch.Generator().manual_seed(0))
    return Region(values, values, Placement((slice(0, 1), slice(0, 31)), depth), 0, torch.tensor([0.5, 4.0]))


@pytest.mark.parametrize("plateau", [0.2, 1.0])
def test_smooth_offset_in_closed_form(region: Region, plateau: float) -> None:
    texture = SmoothOffset(strength=(1.5, 1.5), plateau=(plateau, plateau))
    depth = region.placement.depth
    signs = set()
    for seed in range(20):
        offset = texture(region, Donors(), torch.Generator().manual_seed(seed)) - region.values
        sign = offset[0, 0, -1].sign()
        signs.add(sign.item())
        t = (depth / plateau).clamp(0, 1)
        for channel, scale in enumerate((0.5, 4.0)):
            torch.testing.assert_close(
                offset[channel], sign * 1.5 * scale * (3 * t**2 - 2 * t**3), atol=1e-5, rtol=1e-5
            )
            full = offset[channel][depth >= plateau]
            torch.testing.assert_close(full, (sign * 1.5 * scale).expand_as(full), atol=1e-5, rtol=1e-5)
        assert (offset[:, depth <= 0] == 0).all()
    assert signs == {-1.0, 1.0}


def test_strength_is_drawn_from_its_range(region: Region) -> None:
    texture = SmoothOffset(strength=(0.5, 2.5))
    offsets = [
        (texture(region, Donors(), torch.Generator().manual_seed(seed)) - region.values)[0, 0, -1].abs().item() / 0.5
        for seed in range(100)
    ]
    assert 0.5 <= min(offsets) < 0.7
    assert 2.3 < max(offsets) <= 2.5


@pytest.mark.parametrize("shape", [(30, 26), (14, 20, 16)])
def test_fpi_is_a_convex_combination_in_a_cuboid(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    image, donor = torch.randn(2, 1, 2, *shape, generator=generator)
    donors = Donors()
    donors.begin_batch(["donor"], donor)
    donors.begin_batch(["target"], image)
    task = build_task("fpi", TaskSettings(shape, (0.3, 0.6), (0.3, 0.3)))
    factors = []
    for seed in range(20):
        result = task(image, torch.ones(1, *shape, dtype=torch.bool), donors, torch.Generator().manual_seed(seed))
        changed = (result.image != image)[0].any(dim=0)
        if result.failed[0]:
            continue
        where = changed.nonzero()
        box = (slice(None), *(slice(a, b + 1) for a, b in zip(where.amin(0), where.amax(0), strict=True)))
        x, d, y = (values[0][box] for values in (image, donor, result.image))
        a = ((y - x) / (d - x)).median()
        torch.testing.assert_close(y, (1 - a) * x + a * d, atol=1e-4, rtol=1e-4)
        assert changed[box[1:]].float().mean() > 0.999
        factors.append(a.item())
    assert len(factors) >= 15
    assert 0.05 <= min(factors) < 0.35
    assert 0.65 < max(factors) <= 0.95
