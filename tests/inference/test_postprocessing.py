import numpy as np
import pytest
from scipy import ndimage
from skimage import measure

from nnood.geometry import Geometry
from nnood.inference.postprocessing import STEPS, Step, apply_steps, spacing_of

SPACING = (3.0, 1.0, 1.5)


def scores(shape=(9, 20, 22), seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def body(shape=(9, 20, 22)):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(n // 3, n // 3 + max(1, n // 4)) for n in shape)] = True
    return mask


def apply(values, step, foreground=None, spacing=SPACING):
    before = values.copy()
    result = apply_steps(values, [step], foreground=foreground, spacing=spacing)
    np.testing.assert_array_equal(values, before)
    assert result.dtype == np.float32
    assert result.shape == values.shape
    assert 0 <= result.min() <= result.max() <= 1
    return result


def distances(mask, spacing):
    """Of every voxel to the nearest one of the mask, by comparing all with all."""
    grid = np.stack(np.indices(mask.shape), axis=-1) * np.array(spacing)
    inside = grid[mask]
    return np.array([np.sqrt(((inside - point) ** 2).sum(axis=1).min()) for point in grid.reshape(-1, 3)]).reshape(
        mask.shape
    )


@pytest.mark.parametrize("shape", [(9, 20, 22), (1, 20, 22), (9, 1, 22)])
@pytest.mark.parametrize("distance", [0.0, 2.9, 3.0, 4.5, 100.0])
def test_restriction_by_distance(shape, distance):
    values, mask = scores(shape), body(shape)
    result = apply(values, Step("restrict_to_foreground", {"dilation_mm": distance}), mask)
    np.testing.assert_array_equal(result, np.where(distances(mask, SPACING) <= distance + 1e-5, values, 0))


def test_restriction_to_nothing_leaves_nothing():
    empty = np.zeros((9, 20, 22), dtype=bool)
    assert not apply(scores(), Step("restrict_to_foreground", {"dilation_mm": 5.0}), empty).any()


@pytest.mark.parametrize("sigma", [0.0, 1.0, 4.0])
def test_smoothing_is_a_gaussian_in_millimetres(sigma):
    values = scores()
    expected = values.astype(np.float64)
    for axis, mm in enumerate(SPACING):
        if sigma:
            expected = ndimage.gaussian_filter1d(expected, sigma / mm, axis=axis, mode="nearest")
    np.testing.assert_allclose(apply(values, Step("smooth", {"sigma_mm": sigma})), expected, atol=1e-6)


def test_smoothing_keeps_the_mass_of_a_point_and_its_width():
    point = np.zeros((41, 61, 51), np.float32)
    point[20, 30, 25] = 1
    blurred = apply(point, Step("smooth", {"sigma_mm": 4.0}), spacing=(2.0, 1.0, 1.5)).astype(np.float64)
    assert blurred.sum() == pytest.approx(1, abs=1e-4)
    for axis, mm in enumerate((2.0, 1.0, 1.5)):
        profile = blurred.sum(axis=tuple(other for other in range(3) if other != axis))
        position = (np.arange(len(profile)) - len(profile) // 2) * mm
        assert np.sqrt((profile * position**2).sum()) == pytest.approx(4, rel=0.02)


def test_nothing_is_smoothed_across_a_single_slice():
    values = scores((1, 20, 22))
    result = apply(values, Step("smooth", {"sigma_mm": 2.0}), spacing=(0.01, 1.0, 1.5))
    expected = ndimage.gaussian_filter(values[0].astype(np.float64), (2.0, 2.0 / 1.5), mode="nearest")
    np.testing.assert_allclose(result[0], expected, atol=1e-6)


@pytest.mark.parametrize("volume", [0.0, 4.6, 9.0, 9.1, 40.0, 1e6])
def test_small_regions_are_lowered_to_just_below_the_threshold(volume):
    values = np.where(scores() > 0.8, scores(seed=1), 0).astype(np.float32)
    threshold = 0.3
    result = apply(values, Step("remove_small", {"threshold": threshold, "volume_mm3": volume}))
    regions = measure.label(values >= np.float32(threshold), connectivity=3)
    expected = values.copy()
    for region in measure.regionprops(regions):
        if region.area * 4.5 < volume:
            expected[regions == region.label] = np.nextafter(np.float32(threshold), np.float32(0))
    np.testing.assert_array_equal(result, expected)
    assert (result[values < threshold] == values[values < threshold]).all()
    assert volume == 0 or (result < values).any()


def test_a_slice_counts_as_one_millimetre_thick_and_corners_connect():
    values = np.zeros((1, 10, 10), np.float32)
    values[0, 2, 2] = values[0, 3, 3] = 0.5
    step = Step("remove_small", {"threshold": 0.5, "volume_mm3": 2.0})
    for thickness in (0.1, 1.0, 7.0):
        np.testing.assert_array_equal(apply(values, step, spacing=(thickness, 1.0, 1.0)), values)
    assert (
        apply(values, Step("remove_small", {"threshold": 0.5, "volume_mm3": 2.1}), spacing=(7.0, 1.0, 1.0)).max() < 0.5
    )


def test_all_voxels_may_be_one_region():
    values = np.full((3, 4, 5), 0.5, np.float32)
    kept = apply(values, Step("remove_small", {"threshold": 0.5, "volume_mm3": 270.0}))
    np.testing.assert_array_equal(kept, values)
    assert (apply(values, Step("remove_small", {"threshold": 0.5, "volume_mm3": 271.0})) < 0.5).all()


def test_steps_are_taken_in_their_order():
    steps = [Step("restrict_to_foreground", {"dilation_mm": 0.0}), Step("smooth", {"sigma_mm": 3.0})]
    values, mask = scores(), body()
    one, other = (apply_steps(values, order, foreground=mask, spacing=SPACING) for order in (steps, steps[::-1]))
    assert (one[~mask] > 0).any()
    assert not other[~mask].any()
    none = apply_steps(values, [], foreground=None, spacing=SPACING)
    np.testing.assert_array_equal(none, values)
    assert none is not values


def test_a_step_without_the_foreground_it_needs():
    with pytest.raises(ValueError, match="foreground"):
        apply_steps(scores(), [Step("restrict_to_foreground", {"dilation_mm": 0.0})], foreground=None, spacing=SPACING)


def test_steps_are_read_back():
    for kind, known in STEPS.items():
        step = Step(kind, dict.fromkeys(known.least, 0.5))
        assert Step.from_dict(step.to_dict()) == step
        assert step.needs_foreground == (kind == "restrict_to_foreground")
        assert kind in step.describe()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "soup", "parameters": {}}, "smooth.*soup"),
        ({"kind": "smooth", "parameters": {}}, "sigma_mm.*none"),
        ({"kind": "smooth", "parameters": {"sigma_mm": 1, "more": 2}}, "more"),
        ({"kind": "smooth", "parameters": {"sigma_mm": "1"}}, "number for sigma_mm"),
        ({"kind": "smooth", "parameters": {"sigma_mm": True}}, "number for sigma_mm"),
        ({"kind": "smooth", "parameters": {"sigma_mm": float("nan")}}, "number for sigma_mm"),
        ({"kind": "smooth", "parameters": {"sigma_mm": -1}}, "sigma_mm of the step smooth >= 0"),
        ({"kind": "remove_small", "parameters": {"threshold": 0, "volume_mm3": 1}}, "threshold"),
        ({"kind": "smooth"}, "kind and parameters"),
        ({"kind": [], "parameters": {}}, "kind"),
    ],
)
def test_what_is_no_step(content, message):
    with pytest.raises(ValueError, match=message):
        Step.from_dict(content)


def test_spacing_in_the_order_of_arrays():
    assert spacing_of(Geometry.from_spacing((4, 5, 6), (3.0, 2.0, 1.0))) == (3.0, 2.0, 1.0)
    assert spacing_of(Geometry.from_spacing((5, 6), (2.0, 0.5))) == (1.0, 2.0, 0.5)
