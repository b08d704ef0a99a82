import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import nnood.evaluation
from nnood.errors import UserError
from nnood.evaluation.benchmark import artefacts as benchmark_artefacts
from nnood.evaluation.benchmark import deformations, intensities
from nnood.evaluation.benchmark.kinds import KINDS, PRESETS, choose_kinds, describe_kinds
from nnood.evaluation.benchmark.lesions import Lesion, draw_lesion, read_lesion
from nnood.evaluation.benchmark.planting import VARIANTS, case_seed, plant
from nnood.evaluation.benchmark.shapes import MIN_OVERLAP, Region, ball_of, blob, diameters, place
from nnood.evaluation.benchmark.shapes import lesion as lesion_shape
from nnood.evaluation.benchmark.subjects import VISIBLE, Draw, Planted, Subject, changed_share
from nnood.geometry import Geometry
from nnood.images import write_image
from nnood.tasks import TASKS

LOCAL = [name for name, kind in KINDS.items() if not kind.whole_image and name != "missing_slices"]
WHOLE = [name for name, kind in KINDS.items() if kind.whole_image]
NUMBER = 7


def _tissue(
    shape: tuple[int, int, int], channels: int, spacing: tuple[float, ...], *, radius: float = 0.45, factor: float = 1.0
) -> Subject:
    """Smooth tissue in an ellipsoid before a background of 0."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[(np.arange(n) - (n - 1) / 2) / n for n in shape], indexing="ij"))
    foreground = np.square(grid).sum(axis=0) <= radius**2
    sigmas = [0.0 if n == 1 else 1.2 for n in shape]
    image = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), sigmas) for _ in range(channels)])
    image = np.where(foreground, 100 + 40 * image / image.std() + rng.normal(size=image.shape), 0) * factor
    return Subject.of(image.astype(np.float32), foreground, spacing)


def _lesion() -> Lesion:
    grid = np.indices((9, 14, 11)) - np.reshape((4, 6, 5), (3, 1, 1, 1))
    inside = np.square(grid / np.reshape((4, 6, 5), (3, 1, 1, 1))).sum(axis=0) <= 1
    inside[:, 8:, 6:] = False
    return Lesion(inside, (3.0, 1.0, 1.0))


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "picture": lambda: _tissue((1, 28, 33), 1, (1.0, 1.0, 1.0)),
    "rgb": lambda: _tissue((1, 28, 33), 3, (1.0, 0.5, 0.5)),
    "volume": lambda: _tissue((22, 24, 20), 1, (1.0, 1.0, 1.0)),
    "two_channels": lambda: _tissue((12, 24, 20), 2, (2.0, 1.0, 1.0)),
    "flat": lambda: _tissue((5, 40, 36), 1, (6.0, 1.0, 1.0), radius=0.5),
    "tiny": lambda: _tissue((20, 20, 20), 1, (1.0, 1.0, 1.0), radius=0.06),
    "large_scale": lambda: _tissue((22, 24, 20), 1, (1.0, 1.0, 1.0), factor=1e6),
    "small_scale": lambda: _tissue((22, 24, 20), 1, (1.0, 1.0, 1.0), factor=1e-3),
}


def _plant(kind: str, subject: Subject, seed: int = 0, number: int = NUMBER) -> Planted:
    lesion = _lesion() if KINDS[kind].needs == "masks" else None
    return plant(kind, subject, case_seed(seed, kind, number, "case"), lesion)


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return SUBJECTS[request.param]()


@pytest.mark.parametrize("kind", KINDS)
def test_invariants(kind: str, subject: Subject) -> None:
    before = subject.image.copy()
    planted = _plant(kind, subject)
    assert np.array_equal(subject.image, before)
    assert planted.image.dtype == np.float32
    assert np.isfinite(planted.image).all()
    assert planted.mask.dtype == bool
    assert planted.mask.any()
    assert planted.image.shape == (len(before), *planted.mask.shape)
    assert 0 <= planted.changed <= 1
    assert np.isfinite(planted.strength)
    if kind in WHOLE:
        assert planted.mask.all()
        assert planted.size_mm is None
    else:
        assert np.array_equal(planted.image[:, ~planted.mask], before[:, ~planted.mask])
        assert planted.size_mm is not None
        assert planted.size_mm > 0
    if kind in LOCAL:
        assert not (planted.mask & ~subject.foreground).any()
    again = _plant(kind, subject)
    assert np.array_equal(planted.image, again.image)
    assert np.array_equal(planted.mask, again.mask)
    assert (planted.size_mm, planted.strength) == (again.size_mm, again.strength)


@pytest.mark.parametrize("name", ["picture", "volume", "two_channels", "flat"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "foreign"])
def test_the_image_changes_and_another_seed_changes_it_otherwise(kind: str, name: str) -> None:
    subject = SUBJECTS[name]()
    first = _plant(kind, subject)
    assert first.changed > 0.2
    images = [_plant(kind, subject, seed).image for seed in range(1, 6)]
    assert not all(np.array_equal(first.image, image) for image in images)


@pytest.mark.parametrize("kind", KINDS)
def test_the_unit_of_intensities_does_not_matter(kind: str) -> None:
    # A power of two scales floating-point numbers exactly.
    subject, scaled = (_tissue((16, 18, 14), 1, (1.0,) * 3, factor=factor) for factor in (1.0, 2.0**20))
    first, second = _plant(kind, subject), _plant(kind, scaled)
    assert np.array_equal(first.mask, second.mask)
    assert first.changed == second.changed
    np.testing.assert_allclose(second.image, first.image * 2.0**20, rtol=1e-6, atol=1e-3 * 2.0**20)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 6), (1, 3, 2), (2, 5, 1), (3, 3, 3)])
def test_tiny_and_constant_images_neither_crash_nor_hang(kind: str, shape: tuple[int, int, int]) -> None:
    for value in (0.0, 7.0, 3e38):
        image = np.full((2, *shape), value, dtype=np.float32)
        planted = _plant(kind, Subject.of(image, np.ones(shape, dtype=bool), (5.0, 1.0, 1.0)))
        assert planted.mask.any()
        assert np.isfinite(planted.image).all()


def test_no_code_of_the_training_tasks() -> None:
    files = sorted((Path(nnood.evaluation.__file__).parent / "benchmark").glob("*.py"))
    assert len(files) > 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                assert not name.startswith(("nnood.tasks", "nnood.training", "nnood.planning.lesions", "torch"))


def test_kinds_and_presets_are_complete() -> None:
    for kind in KINDS.values():
        assert "strength" in kind.summary
        assert set(kind.close_to) <= set(TASKS)
        assert kind.source
    assert {name: len(kinds) for name, kinds in PRESETS.items()} == {
        **{"fpi": 6, "autoseg": 2, "mood22": 2, "toy": 4},
        **{"mood": 17, "all": len(KINDS)},
    }
    assert not set(PRESETS) & set(KINDS)


def test_kinds_are_described() -> None:
    lines = describe_kinds().splitlines()
    assert {line.split()[0] for line in lines if line and not line.startswith(" ")} == {*KINDS, "Presets", *PRESETS}
    assert "needs a folder of lesion masks (--masks)" in next(line for line in lines if line.startswith("lesions"))
    assert lines[lines.index(next(line for line in lines if line.startswith("sink"))) + 1].endswith("tasks sink")


def test_choose_kinds() -> None:
    assert choose_kinds(["toy", "noise"], []) == (("noise", *PRESETS["toy"]), ())
    chosen, left_out = choose_kinds(["all"], [])
    assert left_out == ("lesions", "foreign")
    assert set(chosen) | set(left_out) == set(KINDS)
    assert choose_kinds(["all"], ["masks", "foreign"]) == (tuple(KINDS), ())
    with pytest.raises(UserError, match=r"no kind of anomaly 'nois'; known are noise, .*presets fpi, "):
        choose_kinds(["nois"], [])
    with pytest.raises(UserError, match=r"lesions needs a folder of lesion masks \(--masks\)"):
        choose_kinds(["fpi", "lesions"], [])
    with pytest.raises(UserError, match=r"foreign needs another data set \(--foreign\)"):
        choose_kinds(["foreign"], ["masks"])
    with pytest.raises(UserError, match="No kind of anomaly was named"):
        choose_kinds([], [])


# ---- closed forms -----------------------------------------------------------------------------------------------


def _block(values: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Subject:
    return Subject.of(values.astype(np.float32), np.ones(values.shape[1:], dtype=bool), spacing)


def _ramp(shape: tuple[int, int, int]) -> np.ndarray:
    """A value per voxel that is linear in its coordinates."""
    z, y, x = np.indices(shape)
    return (10000.0 * z + 100 * y + x)[None]


def _draw(seed: int = 0, variant: int = 0) -> Draw:
    return Draw(np.random.default_rng(seed), variant)


def _central(subject: Subject, diameter: float) -> Region:
    """A ball in the middle of the image."""
    centre = tuple(n // 2 for n in subject.foreground.shape)
    only = np.zeros_like(subject.foreground)
    only[centre] = True
    middle = Subject(subject.image, only, subject.spacing, subject.low, subject.scale)
    region = place(middle, ball_of(subject, diameter), _draw())
    shape = ball_of(subject, diameter)
    return Region(region.box, shape.weight, centre, diameter)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.7)])
def test_a_ball_has_the_volume_of_a_ball(spacing: tuple[float, ...]) -> None:
    subject = _block(np.random.default_rng(0).normal(size=(1, 20, 50, 60)), spacing)
    inside = ball_of(subject, 36.0).weight > 0
    assert inside.sum() * np.prod(spacing) == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.02)


def test_a_disc_has_the_area_of_a_disc() -> None:
    subject = _block(np.random.default_rng(0).normal(size=(1, 1, 90, 90)), (1.0, 0.5, 2.0))
    inside = ball_of(subject, 40.0).weight > 0
    assert inside.shape[0] == 1
    assert inside.sum() * 0.5 * 2.0 == pytest.approx(np.pi * 20**2, rel=0.02)


def test_placement_keeps_half_of_the_shape_in_the_foreground() -> None:
    subject = SUBJECTS["volume"]()
    for seed in range(30):
        shape = ball_of(subject, 14.0)
        region = place(subject, shape, _draw(seed))
        inside = region.weight > 0
        assert inside.sum() >= MIN_OVERLAP * (shape.weight > 0).sum()
        assert subject.foreground[region.box][inside].all()


def test_sizes_follow_the_foreground_and_are_never_below_three_voxels() -> None:
    assert diameters(_block(np.zeros((1, 40, 60, 80)))) == (6.0, 20.0)
    assert diameters(_block(np.zeros((1, 1, 10, 12)))) == (3.0, 5.0)
    smallest, largest = diameters(_block(np.zeros((1, 5, 100, 100)), (6.0, 1.0, 1.0)))
    assert smallest == 18
    assert largest == 27
    assert diameters(_block(np.zeros((1, 2, 2, 2))))[0] == 3


def test_addition_adds_the_same_everywhere() -> None:
    subject = _block(np.random.default_rng(0).normal(50, 10, size=(2, 16, 16, 16)))
    planted = _plant("addition", subject)
    for channel in range(2):
        added = (planted.image[channel].astype(float) - subject.image[channel])[planted.mask]
        expected = planted.strength * subject.scale[channel].item()
        np.testing.assert_allclose(added, expected, atol=1e-4)
    assert 0.1 <= abs(planted.strength) <= 0.6


def test_noise_has_the_stated_deviation() -> None:
    subject = _block(np.random.default_rng(0).normal(50, 10, size=(1, 40, 40, 40)))
    region = _central(subject, 30.0)
    values, strength = intensities.add_noise(subject, region, _draw())
    noise = (values - region.values(subject))[:, region.weight > 0]
    assert noise.std() == pytest.approx(strength * subject.scale.item(), rel=0.03)
    assert abs(noise.mean()) < 0.03 * noise.std()


def test_smooth_edges_fade_without_a_step() -> None:
    subject = _block(np.random.default_rng(0).normal(0, 1e-3, size=(1, 1, 120, 120)) + 50)
    object.__setattr__(subject, "scale", np.full((1, 1, 1, 1), 10.0))
    planted = _plant("smooth_addition", subject)
    added = np.abs(planted.image - subject.image)[0, 0]
    plateau = abs(planted.strength) * 10
    assert added.max() == pytest.approx(plateau, rel=0.01)
    rim = planted.mask[0] & ~ndimage.binary_erosion(planted.mask[0], border_value=1)
    assert added[rim].max() < 0.45 * plateau


def test_blur_is_the_gaussian_filter_of_the_whole_image() -> None:
    subject = _block(np.random.default_rng(0).normal(size=(1, 30, 32, 34)), (2.0, 1.0, 1.0))
    region = _central(subject, 10.0)
    values, sigma = intensities.blur(subject, region, _draw())
    whole = ndimage.gaussian_filter(
        subject.image[0].astype(float), (sigma / 2, sigma, sigma), mode="nearest", truncate=3
    )
    inner = region.weight > 0
    np.testing.assert_allclose(values[0][inner], whole[region.box][inner], atol=1e-6)


def test_spheres_go_through_twenty_combinations() -> None:
    subject = SUBJECTS["volume"]()
    found = set()
    for number in range(VARIANTS):
        planted = _plant("spheres", subject, number=number)
        found.add((planted.size_mm, planted.strength))
        level = subject.low.item() + planted.strength * subject.scale.item()
        np.testing.assert_allclose(planted.image[:, planted.mask], level, rtol=1e-5)
    assert len(found) == 20
    assert len({size for size, _ in found}) == 4
    assert {strength for _, strength in found} == {0, 0.25, 0.5, 0.75, 1}


def test_random_shapes_are_connected_and_all_differ() -> None:
    subject = SUBJECTS["volume"]()
    shapes = [blob(subject, _draw(seed)).weight > 0 for seed in range(20)]
    assert all(ndimage.label(shape, np.ones((3, 3, 3)))[1] == 1 for shape in shapes)
    assert len({shape.tobytes() for shape in shapes}) == 20


def test_several_shapes() -> None:
    subject = _block(np.random.default_rng(0).normal(size=(1, 1, 128, 128)))
    counts = {_plant("several_shapes", subject, number=number).strength for number in range(VARIANTS)}
    assert counts == {2, 3, 4, 5}


def test_a_tumour_is_darker_inside_than_around() -> None:
    subject = _block(np.random.default_rng(0).normal(50, 1, size=(1, 30, 30, 30)))
    planted = _plant("tumour", subject)
    depth = ndimage.distance_transform_edt(np.pad(planted.mask, 1))[1:-1, 1:-1, 1:-1]
    core = planted.mask & (depth > 0.8 * depth.max())
    ring = planted.mask & (depth > 0.2 * depth.max()) & (depth < 0.4 * depth.max())
    assert planted.image[0][core].mean() < 50 - 0.5 * planted.strength * subject.scale.item()
    assert planted.image[0][ring].mean() > 50


def test_lesions_have_five_contrasts_both_ways() -> None:
    subject = _block(np.random.default_rng(0).normal(50, 5, size=(1, 24, 24, 24)))
    found = {_plant("lesions", subject, number=number).strength for number in range(10)}
    assert len(found) == 10
    assert sum(strength < 0 for strength in found) == 5
    assert len({abs(strength) for strength in found}) == 5


def test_a_lesion_keeps_its_form() -> None:
    inside = np.zeros((40, 40, 40), dtype=bool)
    inside[5:35, 15:25, 18:22] = True
    lesion = Lesion(inside[5:35, 15:25, 18:22], (1.0, 1.0, 1.0))
    subject = _block(np.random.default_rng(0).normal(size=(1, 80, 80, 80)), (1.0, 1.0, 1.0))
    mask = lesion_shape(subject, Draw(np.random.default_rng(0), 0, lesion)).weight > 0
    extents = sorted(part.stop - part.start for part in ndimage.find_objects(mask.astype(int))[0])
    assert extents[2] / extents[1] == pytest.approx(3, rel=0.25)
    assert extents[1] / extents[0] == pytest.approx(2.5, rel=0.35)


def test_in_2d_the_largest_section_is_taken() -> None:
    inside = np.zeros((5, 9, 9), dtype=bool)
    inside[:, 4, 4] = True
    inside[3, 1:8, 2:7] = True
    assert Lesion(inside, (1.0, 1.0, 1.0)).fitted((1, 2)).inside.sum() == 35


def test_reading_lesions(tmp_path: Path) -> None:
    geometry = Geometry.from_spacing((10, 12, 14), (3.0, 1.0, 2.0))
    mask = np.zeros((10, 12, 14), dtype=np.uint8)
    mask[0, 0, 0] = 1
    write_image(mask, geometry, tmp_path / "small.nii.gz")
    mask[2:6, 3:8, 4:10] = 1
    write_image(mask, geometry, tmp_path / "large.nii.gz")
    small, large = tmp_path / "small.nii.gz", tmp_path / "large.nii.gz"
    assert read_lesion(small) is None
    lesion = read_lesion(large)
    assert lesion is not None
    assert lesion.inside.shape == (4, 5, 6)
    assert lesion.spacing == (3.0, 1.0, 2.0)
    assert draw_lesion([small, large], 3).inside.all()
    with pytest.raises(UserError, match="none of 1 masks has a lesion of at least 27 connected voxels"):
        draw_lesion([small], 3)


def test_reflection_is_its_own_mirror() -> None:
    subject = _block(_ramp((17, 17, 17)))
    region = _central(subject, 9.0)
    values, _ = deformations.reflection(subject, region, _draw())
    twice, _ = deformations.reflection(_with(subject, region, values), region, _draw())
    assert not np.array_equal(values, region.values(subject))
    assert np.array_equal(twice, region.values(subject))
    assert sum(np.array_equal(values, np.flip(region.values(subject), axis)) for axis in (1, 2, 3)) == 1


def _with(subject: Subject, region: Region, values: np.ndarray) -> Subject:
    image = subject.image.copy()
    image[(slice(None), *region.box)] = values
    return Subject(image, subject.foreground, subject.spacing, subject.low, subject.scale)


def test_shift_takes_its_values_from_the_stated_distance() -> None:
    subject = _block(_ramp((40, 40, 40)))
    region = _central(subject, 9.0)
    values, strength = deformations.shift(subject, region, _draw())
    difference = np.unique(values - region.values(subject))
    assert len(difference) == 1
    z, rest = divmod(difference.item() + 5050, 10000)
    y, x = divmod(rest, 100)
    assert np.linalg.norm((z, y - 50, x - 50)) == pytest.approx(strength * 9.0)
    assert 0.2 < strength < 1.1


def test_shift_takes_its_values_from_the_foreground() -> None:
    image = np.random.default_rng(0).uniform(10, 20, size=(1, 1, 60, 60))
    image[..., 12:] = -5
    subject = Subject.of(image.astype(np.float32), image[0] > 0, (1.0, 1.0, 1.0))
    for seed in range(30):
        region = place(subject, ball_of(subject, 9.0), _draw(seed))
        values, _ = deformations.shift(subject, region, _draw(seed))
        assert (values[:, region.weight > 0] > 0).mean() >= MIN_OVERLAP


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
@pytest.mark.parametrize("kind", ["sink", "source"])
def test_radial_deformations_map_a_ramp_by_their_equation(kind: str, spacing: tuple[float, ...]) -> None:
    subject = _block(_ramp((31, 31, 31)), spacing)
    region = _central(subject, 20.0)
    values, k = getattr(deformations, kind)(subject, region, _draw())
    offsets = np.indices(region.weight.shape) + np.reshape([part.start - 15 for part in region.box], (3, 1, 1, 1))
    u = np.sqrt(np.square(offsets * np.reshape(spacing, (3, 1, 1, 1))).sum(axis=0)) / 10
    inside = (u <= 1) & (u > 0)
    wanted = u / (1 - k + k * u) if kind == "sink" else (1 - k) * u / (1 - k * u)
    # Linear interpolation is exact on a ramp.
    place_in_ramp = 15 + offsets[:, inside] * (wanted[inside] / u[inside])
    np.testing.assert_allclose(values[0][inside], np.array([10000, 100, 1]) @ place_in_ramp, rtol=1e-6)
    assert (wanted[inside & (u < 1)] > u[inside & (u < 1)]).all() == (kind == "sink")


def test_slice_shuffle_keeps_the_slices_but_none_in_its_place() -> None:
    subject = _block(np.random.default_rng(0).normal(size=(1, 24, 24, 24)))
    planted = _plant("slice_shuffle", subject)
    box = ndimage.find_objects(planted.mask.astype(int))[0]
    before, after = subject.image[0][box], planted.image[0][box]
    assert planted.mask[box].all()
    shuffled = []
    for axis in range(3):
        own, other = np.moveaxis(before, axis, 0), np.moveaxis(after, axis, 0)
        same = sorted(part.tobytes() for part in own) == sorted(part.tobytes() for part in other)
        shuffled.append(same and not any(np.array_equal(a, b) for a, b in zip(own, other, strict=True)))
    assert sum(shuffled) == 1
    assert planted.strength == box[shuffled.index(True)].stop - box[shuffled.index(True)].start >= 3


def test_orientation_keeps_the_values_and_turns_the_spacing_along() -> None:
    subject = _block(np.random.default_rng(0).normal(size=(1, 6, 8, 10)), (3.0, 2.0, 1.0))
    turned, degrees = 0, set()
    for seed in range(60):
        planted = benchmark_artefacts.orientation(subject, _draw(seed))
        degrees.add(planted.strength)
        assert np.array_equal(np.sort(planted.image, axis=None), np.sort(subject.image, axis=None))
        extents = [n * edge for n, edge in zip(planted.mask.shape, planted.spacing, strict=True)]
        assert sorted(extents) == sorted([18.0, 16.0, 10.0])
        turned += planted.mask.shape != subject.foreground.shape
        if planted.mask.shape == subject.foreground.shape:
            assert not np.array_equal(planted.image, subject.image)
    assert degrees == {0, 90, 180, 270}
    assert 0 < turned < 60


def test_missing_slices_are_slices_of_the_object_at_the_lowest_value() -> None:
    subject = SUBJECTS["two_channels"]()
    planted = _plant("missing_slices", subject)
    inside = planted.mask.any(axis=(1, 2))
    np.testing.assert_array_equal(planted.mask[inside], subject.foreground[inside])
    assert inside.sum() == planted.strength == planted.size_mm / 2.0
    assert np.ptp(np.flatnonzero(inside)) + 1 == inside.sum()
    for before, after in zip(subject.image, planted.image, strict=True):
        assert (after[planted.mask] == before.min()).all()


def test_ghosts_are_a_modulation_of_k_space() -> None:
    subject = _block(np.random.default_rng(0).uniform(10, 20, size=(2, 1, 60, 64)))
    planted = benchmark_artefacts.ghosting(subject, _draw(1))
    errors = []
    for axis in (2, 3):
        n = subject.image.shape[axis]
        before, after = (
            np.moveaxis(np.fft.fft(image, axis=axis), axis, -1) for image in (subject.image, planted.image)
        )
        for shift in {round(n / count) for count in range(2, 7)}:
            factors = 1 - planted.strength * (1 - np.cos(2 * np.pi * np.arange(n) * shift / n))
            errors.append(np.abs(after - factors * before).max())
    assert sorted(errors)[0] < 1e-2 < 1 < sorted(errors)[1]


def test_a_bias_field_multiplies_what_lies_above_the_lowest_value() -> None:
    subject = _block(np.random.default_rng(0).uniform(10, 20, size=(1, 20, 20, 20)))
    planted = benchmark_artefacts.bias_field(subject, _draw())
    lowest = subject.image.min()
    above = subject.image > lowest + 1
    field = np.log((planted.image[above] - lowest) / (subject.image[above] - lowest))
    assert field.max() == pytest.approx(planted.strength, rel=0.05)
    assert field.min() == pytest.approx(-planted.strength, rel=0.05)


def test_spikes_are_few_frequencies() -> None:
    subject = _block(np.random.default_rng(0).normal(size=(1, 16, 18, 20)))
    planted = benchmark_artefacts.spike_noise(subject, _draw())
    spectrum = np.abs(np.fft.fftn((planted.image - subject.image)[0]))
    assert 2 <= (spectrum > 0.1 * spectrum.max()).sum() <= 6
    assert spectrum[0, 0, 0] < 1e-4 * spectrum.max()


def test_changed_share_counts_visible_voxels() -> None:
    image = np.linspace(0, 100, 101).reshape(1, 1, 1, -1)
    subject = _block(image)
    after = subject.image.copy()
    mask = np.zeros(image.shape[1:], dtype=bool)
    mask[..., 40:50] = True
    after[..., 40:44] += 1.02 * VISIBLE * subject.scale.item()
    after[..., 44:50] += 0.98 * VISIBLE * subject.scale.item()
    assert changed_share(subject, after, mask) == pytest.approx(0.4)
