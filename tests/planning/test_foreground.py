from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nnood.images import read_case
from nnood.planning.foreground import BackgroundStatistics, background_statistics, choose_method, foreground_mask

SHAPES = [(1, 64, 72), (32, 36, 40), (5, 48, 48)]


def ball(shape: tuple[int, ...], radius: float = 0.7) -> np.ndarray:
    """An ellipsoid; an ellipse in each slice of a flat volume."""
    grid = np.meshgrid(*[np.linspace(-1, 1, n) if n > 5 else np.zeros(n) for n in shape], indexing="ij")
    return np.sqrt(np.square(grid).sum(axis=0)) < radius


def tissue(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Texture between about 60 and 140."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), [min(2, n / 8) for n in shape])
    return 100 + 15 * field / field.std()


def ball_in_noise(shape: tuple[int, ...], unit: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    truth = ball(shape)
    image = np.where(truth, tissue(rng, shape), np.abs(rng.normal(0, 4, shape)))
    return (image * unit)[None].astype(np.float32), truth


def ball_in_zeros(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    truth = ball(shape)
    return np.where(truth, tissue(np.random.default_rng(4), shape), 0)[None].astype(np.float32), truth


def method_of(*images: np.ndarray) -> str:
    return choose_method([background_statistics(image) for image in images])[0]


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e5])
def test_ball_in_noise(shape: tuple[int, ...], unit: float) -> None:
    image, truth = ball_in_noise(shape, unit)
    assert method_of(image) == "otsu"
    assert dice(foreground_mask(image, "otsu"), truth) > 0.95


@pytest.mark.parametrize("shape", SHAPES)
def test_ball_in_exact_zeros(shape: tuple[int, ...]) -> None:
    image, truth = ball_in_zeros(shape)
    assert method_of(image) == "nonzero"
    assert dice(foreground_mask(image, "nonzero"), truth) > 0.99


@pytest.mark.parametrize("shape", SHAPES)
def test_texture_everywhere(shape: tuple[int, ...]) -> None:
    image = tissue(np.random.default_rng(5), shape)[None].astype(np.float32)
    assert method_of(image) == "whole"
    assert foreground_mask(image, "whole").all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("make", "method"), [(ball_in_noise, "otsu"), (ball_in_zeros, "nonzero")])
def test_holes_are_filled(make, method: str, shape: tuple[int, ...]) -> None:
    image, truth = make(shape)
    hole = ball(shape, 0.3)
    image[0][hole] = 0
    mask = foreground_mask(image, method)
    assert mask[hole].all()
    assert dice(mask, truth) > 0.95


def test_channels_are_joined() -> None:
    first, truth = ball_in_zeros((16, 32, 32))
    image = np.concatenate([first, 1000 * first[:, :, ::-1]])
    image[0, :, :16] = 0
    assert method_of(image) == "nonzero"
    assert dice(foreground_mask(image, "nonzero"), truth) > 0.99


def test_never_empty() -> None:
    constant = np.ones((1, 8, 8, 8), np.float32)
    for method in ("otsu", "nonzero", "whole"):
        assert foreground_mask(constant, method).all()
    assert foreground_mask(0 * constant, "nonzero").all()
    assert method_of(constant) == "whole"


def test_the_majority_decides() -> None:
    zero, uniform = BackgroundStatistics(1, 0.05, 1, 1), BackgroundStatistics(1, 0.05, 0, 1)
    none = BackgroundStatistics(0.1, 0.5, 0, 0.3)
    assert choose_method([zero, zero, none])[0] == "nonzero"
    assert choose_method([uniform, zero, none])[0] == "otsu"
    assert choose_method([uniform, none])[0] == "whole"


def few(folder: Path) -> list[np.ndarray]:
    if not folder.is_dir():
        pytest.skip(f"there is no {folder.name} in the real data")
    return [read_case([file], 1)[0] for file in islice(sorted(folder.glob("*.nii*")), 0, None, 10)][:5]


def test_hippocampus_has_no_background(real_data: Path) -> None:
    assert method_of(*few(real_data / "hippocampus" / "images")) == "whole"


def test_heads_of_ixi_lie_in_air(real_data: Path) -> None:
    images = few(real_data / "ixi_2mm" / "t1")
    assert method_of(*images) == "otsu"
    for image in images[:2]:
        assert 0.2 < foreground_mask(image, "otsu").mean() < 0.7
