"""What the tests of the tasks share: seeded randomness, and regions for textures to work on."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from nnood.tasks.placement import Placement
from nnood.tasks.shapes import Outline
from nnood.tasks.textures import Region


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    return lambda seed: torch.Generator().manual_seed(seed)


@pytest.fixture
def make_region() -> Callable[..., Region]:
    """Makes the region of an image (C, *S): by default the whole of it, of depth 1, a voxel being 1 mm."""

    def make(
        image: torch.Tensor,
        box: Sequence[slice] | None = None,
        *,
        outline: Outline | None = None,
        scale: Sequence[float] = (),
        spacing: Sequence[float] = (),
    ) -> Region:
        whole = tuple(slice(0, n) for n in image.shape[1:])
        values = image[(slice(None), *(box or whole))]
        return Region(
            image=image,
            values=values.float(),
            placement=Placement(tuple(box or whole), outline or Outline(torch.ones(values.shape[1:]))),
            target=0,
            scale=torch.tensor(scale or (1.0,) * len(image)),
            spacing=tuple(spacing) or (1.0,) * (image.ndim - 1),
        )

    return make


@pytest.fixture
def assert_share() -> Callable[[int, int, float], None]:
    """Checks that `hits` of `count` are a given share, within 4.5 standard deviations (one in 150,000 would be out)."""

    def check(hits: int, count: int, share: float) -> None:
        assert hits / count == pytest.approx(share, abs=4.5 * math.sqrt(share * (1 - share) / count))

    return check


@pytest.fixture
def positions_image() -> Callable[[Sequence[int]], torch.Tensor]:
    """Makes an image (D, *S) whose values are the voxels' own positions: what reads it shows where it reads."""
    return lambda shape: torch.from_numpy(np.indices(tuple(shape)).astype(np.float32))
