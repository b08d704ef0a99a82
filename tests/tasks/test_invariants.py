"""What every task promises, checked for each name in the table and for a mixture of them all."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from nnood.tasks import TASKS, TaskSettings, build_mixture, build_task
from nnood.tasks.donors import Donors
from nnood.tasks.labels import LABELS
from nnood.tasks.task import ComposedTask, Corrupted, Mixture

MIXTURE = "mixture of all"
SHAPES = [(24, 20), (16, 20, 12), (1, 24, 20), (5, 24, 20)]

pytestmark = pytest.mark.parametrize("name", [*TASKS, MIXTURE])


@dataclass
class Case:
    image: torch.Tensor
    foreground: torch.Tensor
    settings: TaskSettings

    def donors(self) -> Donors:
        """A bank of other cases, then the batch."""
        donors = Donors()
        generator = torch.Generator().manual_seed(99)
        others = torch.randn(self.image.shape, generator=generator) * self.settings.label_sigma[0] / 0.4
        donors.begin_batch([f"other {i}" for i in range(len(others))], others.to(self.image))
        donors.begin_batch([f"case {i}" for i in range(len(self.image))], self.image)
        return donors

    def corrupt(self, name: str, seed: int = 0) -> Corrupted:
        return self.corrupt_by(build(name, self.settings), seed)

    def corrupt_by(self, task: ComposedTask | Mixture, seed: int) -> Corrupted:
        return task(self.image, self.foreground, self.donors(), torch.Generator().manual_seed(seed))


def build(name: str, settings: TaskSettings) -> ComposedTask | Mixture:
    if name == MIXTURE:
        return build_mixture(dict.fromkeys(TASKS, 1.0), settings)
    return build_task(name, settings)


def lesions() -> torch.Tensor:
    """Two templates: a ball, and two blobs side by side."""
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 3, indexing="ij")
    ball = z**2 + y**2 + x**2 < 0.9
    blobs = (z**2 + y**2 + (x.abs() - 0.5) ** 2) < 0.2
    return torch.stack([ball, blobs]).to(torch.uint8) * 255


def make_case(
    shape: tuple[int, ...], *, channels: int = 1, batch: int = 4, dtype: torch.dtype = torch.float32, unit: float = 1.0
) -> Case:
    image = torch.randn(batch, channels, *shape, generator=torch.Generator().manual_seed(7)) * unit
    sigma = (0.4 * unit,) * channels
    settings = TaskSettings(extent=shape, fractions=(0.3, 0.7), label_sigma=sigma, lesions=lesions())
    return Case(image.to(dtype), torch.ones(batch, *shape, dtype=torch.bool), settings)


def recording(task: ComposedTask | Mixture, touched: torch.Tensor) -> ComposedTask | Mixture:
    """The same task; marks in `touched` (B, C, *S) every voxel at which a blend's weight is not zero."""
    if isinstance(task, Mixture):
        parts: Any = tuple(recording(part, touched) for part in task.tasks)
        return replace(task, tasks=parts)

    def blend(
        old: torch.Tensor, new: torch.Tensor, depth: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        after, weight = task.blend(old, new, depth, generator)
        # `old` is a view of the batch: the same view of `touched` is the same place.
        here = touched.as_strided(old.shape, old.stride(), old.storage_offset())
        here |= weight > 0
        return after, weight

    return replace(task, blend=blend)


def assert_consistent(case: Case, result: Corrupted) -> None:
    """Labelled and changed, or failed and untouched; nothing else."""
    assert torch.isfinite(result.image).all()
    assert result.label.min() >= 0
    assert result.label.max() <= 1
    labelled = result.label.flatten(1).any(dim=1)
    assert torch.equal(result.failed, ~labelled)
    assert torch.equal(result.image[result.failed], case.image[result.failed])
    changed = (result.image != case.image).any(dim=1, keepdim=True)
    assert changed.flatten(1).any(dim=1)[labelled].all()
    # Closing fills single unchanged voxels among changed ones.
    assert changed[result.label > 0].float().mean() > 0.9 or result.failed.all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("channels", "batch"), [(1, 1), (1, 4), (2, 3), (3, 2), (4, 2)])
def test_contract(name: str, shape: tuple[int, ...], channels: int, batch: int) -> None:
    case = make_case(shape, channels=channels, batch=batch)
    image, foreground = case.image.clone(), case.foreground.clone()
    touched = torch.zeros_like(case.image, dtype=torch.bool)
    result = case.corrupt_by(recording(build(name, case.settings), touched), seed=0)
    assert result.image.shape == case.image.shape
    assert result.image.dtype == case.image.dtype
    assert result.label.shape == (batch, 1, *shape)
    assert result.label.dtype == torch.float32
    assert torch.equal(case.image, image)
    assert torch.equal(case.foreground, foreground)
    assert_consistent(case, result)
    assert not result.failed.all()
    outside = ~touched.any(dim=1, keepdim=True)
    assert outside.any()
    assert torch.equal(result.image[outside.expand_as(image)], image[outside.expand_as(image)])
    assert not result.label[outside].any()


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_every_label_keeps_the_contract(name: str, shape: tuple[int, ...], label: str) -> None:
    """Another label changes nothing but the label, and is of the same voxels."""
    case = make_case(shape, channels=2)
    default = case.corrupt(name, seed=2)
    case.settings = replace(case.settings, label=label)
    touched = torch.zeros_like(case.image, dtype=torch.bool)
    result = case.corrupt_by(recording(build(name, case.settings), touched), seed=2)
    assert result.label.dtype == torch.float32
    assert result.label.shape == (len(case.image), 1, *shape)
    assert_consistent(case, result)
    assert not result.failed.all()
    assert torch.equal(result.image, default.image)
    assert torch.equal(result.label > 0, default.label > 0)
    assert not result.label[~touched.any(dim=1, keepdim=True)].any()


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_bfloat16(name: str, shape: tuple[int, ...]) -> None:
    case = make_case(shape, channels=2, dtype=torch.bfloat16)
    result = case.corrupt(name)
    assert result.image.dtype == torch.bfloat16
    assert result.label.dtype == torch.float32
    assert_consistent(case, result)
    assert not result.failed.all()


def test_the_seed_decides(name: str) -> None:
    case = make_case((16, 20, 12))
    first, again, other = case.corrupt(name, 3), case.corrupt(name, 3), case.corrupt(name, 4)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.label, again.label)
    assert not torch.equal(first.image, other.image)
    assert not torch.equal(first.label, other.label)


def test_global_randomness_is_neither_used_nor_touched(name: str) -> None:
    case = make_case((24, 20))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = case.corrupt(name)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(first.image, case.corrupt(name).image)


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_no_foreground_is_a_counted_failure(name: str, shape: tuple[int, ...]) -> None:
    case = make_case(shape)
    case.foreground[:] = False
    result = case.corrupt(name)
    assert result.failed.all()
    assert torch.equal(result.image, case.image)
    assert not result.label.any()


@pytest.mark.parametrize("shape", SHAPES)
def test_one_percent_of_foreground(name: str, shape: tuple[int, ...]) -> None:
    case = make_case(shape)
    flat = case.foreground.view(len(case.foreground), -1)
    flat[:] = False
    flat[:, flat.shape[1] // 2 :][:, : max(1, flat.shape[1] // 100)] = True
    result = case.corrupt(name)
    assert_consistent(case, result)
    assert not result.failed.all()


@pytest.mark.parametrize("shape", SHAPES)
def test_extent_larger_than_the_patch(name: str, shape: tuple[int, ...]) -> None:
    case = make_case(shape)
    case.settings = replace(case.settings, extent=tuple(5 * n for n in shape), fractions=(0.5, 1.0))
    result = case.corrupt(name)
    assert_consistent(case, result)
    assert not result.failed.all()


@pytest.mark.parametrize("shape", SHAPES)
def test_object_smaller_than_the_anomaly(name: str, shape: tuple[int, ...]) -> None:
    case = make_case(shape)
    case.foreground[:] = False
    case.foreground[(slice(None), *(slice(n // 2, n // 2 + 2) for n in shape))] = True
    result = case.corrupt(name)
    assert_consistent(case, result)
    assert not result.failed.all()


def test_unit_of_the_intensities_does_not_matter(name: str) -> None:
    label, scaled = (make_case((16, 20, 12), unit=unit).corrupt(name, seed=1).label for unit in (1.0, 0.01))
    assert label.any()
    # Rounding may carry a voxel across the threshold below which a change counts as none.
    assert ((label - scaled).abs() > 1e-4).float().mean() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("generator_device", ["cpu", "cuda"])
def test_gpu(name: str, generator_device: str) -> None:
    case = make_case((16, 20, 12), channels=2)
    expected = case.corrupt(name, seed=5)
    case.image, case.foreground = case.image.cuda(), case.foreground.cuda()
    generator = torch.Generator(generator_device).manual_seed(5)
    result = build(name, case.settings)(case.image, case.foreground, case.donors(), generator)
    assert result.image.is_cuda
    assert result.label.is_cuda
    assert_consistent(case, result)
    if generator_device == "cpu":
        torch.testing.assert_close(result.image.cpu(), expected.image)
