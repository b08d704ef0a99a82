import numpy as np
import pytest
from scipy import ndimage

from nnood.evaluation.histogram import coarse_bins_of, coarse_scores
from nnood.evaluation.metrics import Counts, auroc
from nnood.evaluation.objects import (
    FALSE_ALARM_RATES,
    best_threshold,
    detect,
    label_objects,
    overlap_weights,
    share_found,
)

SHAPES = [(40, 44), (14, 18, 20)]


def _label(mask: np.ndarray) -> list[np.ndarray]:
    """Each connected piece as a mask of its own; diagonal neighbours are connected."""
    numbers, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return [numbers == number for number in range(1, count + 1)]


def _slow_detect(scores: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[list[bool], int]:
    """Whether each object is found, and the false alarms, by comparing every region with every object."""
    regions = _label(scores >= threshold)
    found = [
        any(10 * (region & one).sum() >= (region | one).sum() for region in regions if (region & one).any())
        for one in _label(truth)
    ]
    return found, sum(10 * (region & truth).sum() < region.sum() for region in regions)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Smooth noise whose ranks are evenly spread over [0, 1]."""
    values = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    return (values.argsort(axis=None).argsort().reshape(shape) / (values.size - 1)).astype(np.float32)


def _scene(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Several objects, and scores that are partly right."""
    rng = np.random.default_rng(seed)
    truth = _smooth(rng, shape, 1.5) > 0.93
    scores = 0.5 * _smooth(rng, shape, 1.0) + 0.5 * ndimage.gaussian_filter(truth.astype(np.float32), 1.0)
    return np.clip(scores, 0, 1), truth


def _detect(scores: np.ndarray, truth: np.ndarray, *thresholds: float) -> tuple[list[list[bool]], list[int]]:
    found = detect(scores, *label_objects(truth), np.array(thresholds))
    return found.found.tolist(), found.false_alarms.tolist()


@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
@pytest.mark.parametrize("seed", range(4))
def test_objects_are_connected_pieces(shape: tuple[int, ...], seed: int) -> None:
    truth = np.random.default_rng(seed).uniform(size=shape) < 0.08
    objects, sizes = label_objects(truth)
    pieces = _label(truth)
    assert sorted(sizes.tolist()) == sorted(int(piece.sum()) for piece in pieces)
    assert not objects[~truth].any()
    for piece in pieces:
        (number,) = np.unique(objects[piece])
        assert sizes[number - 1] == piece.sum()
    expected = np.zeros(shape)
    for piece in pieces:
        expected[piece] = 1 / piece.sum()
    np.testing.assert_allclose(overlap_weights(objects, sizes), expected[truth])


@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
@pytest.mark.parametrize("seed", range(4))
def test_detections_agree_with_a_slow_comparison_of_all_pairs(shape: tuple[int, ...], seed: int) -> None:
    scores, truth = _scene(shape, seed)
    thresholds = np.quantile(scores, [0.999, 0.99, 0.97, 0.93, 0.85, 0.7, 0.4, 0.0])
    found = detect(scores, *label_objects(truth), thresholds)
    for row, threshold in enumerate(thresholds):
        # The objects' numbers may differ, so each is looked up by its voxels.
        numbers = [label_objects(truth)[0][piece][0] - 1 for piece in _label(truth)]
        expected, false_alarms = _slow_detect(scores, truth, threshold)
        assert found.found[row][numbers].tolist() == expected
        assert found.false_alarms[row] == false_alarms
    assert len(set(found.found.sum(axis=1))) > 2
    assert len(set(found.false_alarms)) > 2


def test_an_overlap_of_exactly_a_tenth_finds() -> None:
    truth = np.zeros((30, 30), dtype=bool)
    truth[2:4, 2:7] = True  # ten voxels
    for inside, outside, expected in ((1, 0, True), (2, 10, True), (2, 11, False)):
        scores = np.zeros(truth.shape)
        scores[3, 7 - inside : 7 + outside] = 1
        assert _detect(scores, truth, 0.5)[0] == [[expected]], (inside, outside)


def test_a_region_of_exactly_a_tenth_anomalous_is_no_false_alarm() -> None:
    truth = np.zeros((30, 30), dtype=bool)
    truth[2:20, 2:20] = True
    for outside, expected in ((9, 0), (10, 1)):
        scores = np.zeros(truth.shape)
        scores[5, 19 : 20 + outside] = 1
        assert _detect(scores, truth, 0.5) == ([[False]], [expected])


def test_fragments_of_an_object_neither_find_nor_alarm() -> None:
    truth = np.zeros((30, 30), dtype=bool)
    truth[5:25, 5:25] = True
    scores = np.zeros(truth.shape)
    scores[6:24:4, 6:24:4] = 1
    assert _detect(scores, truth, 0.5) == ([[False]], [0])


def test_one_region_over_two_objects_finds_both() -> None:
    truth = np.zeros((12, 30), dtype=bool)
    truth[4:8, 4:10] = truth[4:8, 16:22] = True
    scores = np.zeros(truth.shape)
    scores[4:8, 4:22] = 1
    assert _detect(scores, truth, 0.5) == ([[True, True]], [0])


def test_flooding_the_image_finds_nothing() -> None:
    truth = np.zeros((20, 20, 20), dtype=bool)
    truth[4:8, 4:8, 4:8] = True
    assert _detect(np.ones(truth.shape), truth, 0.5, 1.0) == ([[False], [False]], [1, 1])


def test_a_constant_map_is_one_region_or_none() -> None:
    truth = np.zeros((10, 10), dtype=bool)
    truth[:5] = True
    assert _detect(np.full(truth.shape, 0.3), truth, 0.31, 0.3) == ([[False], [True]], [0, 0])


def test_diagonal_voxels_are_one_region() -> None:
    nothing = np.zeros((6, 6, 6), dtype=bool)
    scores = np.zeros(nothing.shape)
    scores[range(6), range(6), range(6)] = 1
    assert _detect(scores, nothing, 0.5)[1] == [1]
    assert _detect(scores[0] + np.eye(6), nothing[0], 0.5)[1] == [1]


def test_without_objects_every_region_is_a_false_alarm() -> None:
    truth = np.zeros((9, 9), dtype=bool)
    objects, sizes = label_objects(truth)
    assert (objects.shape, objects.any(), sizes.size) == (truth.shape, np.False_, 0)
    scores = np.zeros(truth.shape)
    scores[1, 1], scores[5, 5] = 0.9, 0.6
    found = detect(scores, objects, sizes, np.array([0.95, 0.8, 0.5, 0.0]))
    assert found.found.shape == (4, 0)
    assert found.false_alarms.tolist() == [0, 1, 2, 1]


def _slow_aupro(scores: list[np.ndarray], truths: list[np.ndarray], limit: float) -> float:
    """Mean overlap over the objects of all images against the false positive rate, at every distinct score."""
    normal = np.concatenate([one[~truth] for one, truth in zip(scores, truths, strict=True)])
    objects = [one[piece] for one, truth in zip(scores, truths, strict=True) for piece in _label(truth)]
    thresholds = np.unique(np.concatenate([one.ravel() for one in scores]))[::-1]
    false = np.array([0, *((normal >= t).mean() for t in thresholds)])
    overlap = np.array([0, *(np.mean([(inside >= t).mean() for inside in objects]) for t in thresholds)])
    kept = false <= limit
    x, y = [*false[kept], limit], [*overlap[kept], np.interp(limit, false, overlap)]
    return np.trapezoid(y, x) / limit


@pytest.mark.parametrize("shape", [(24, 26), (9, 10, 11)], ids=["2D", "3D"])
@pytest.mark.parametrize("decimals", [1, 2], ids=["heavy ties", "ties"])
def test_aupro_by_mean_overlap_of_all_regions(shape: tuple[int, ...], decimals: int) -> None:
    scenes = [_scene(shape, seed) for seed in range(3)]
    # Of sixteenths and so on, which coarse bins keep apart.
    scores = [np.round(one * 8**decimals).astype(np.float32) / 8**decimals for one, _ in scenes]
    truths = [truth for _, truth in scenes]
    positives, negatives = np.zeros(len(coarse_scores())), np.zeros(len(coarse_scores()))
    for one, truth in zip(scores, truths, strict=True):
        np.add.at(positives, coarse_bins_of(one[truth]), overlap_weights(*label_objects(truth)))
        np.add.at(negatives, coarse_bins_of(one[~truth]), 1)
    assert positives.sum() == pytest.approx(sum(len(_label(truth)) for truth in truths))
    expected = _slow_aupro(scores, truths, 0.3)
    found = auroc(Counts(coarse_scores(), positives, negatives), limit=0.3)
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0.2 < expected < 0.98


def _random_detections(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Found objects and false alarms per case for five resamples and twelve thresholds, with ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 6, size=(5, 12)), rng.integers(0, 24, size=(5, 12)) / 4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.125, 1, 4])
def test_most_objects_at_a_rate_of_false_alarms(seed: int, rate: float) -> None:
    found, false_alarms = _random_detections(seed)
    shares = share_found(found, np.full(5, 7), best_threshold(found, false_alarms, rate))
    for row in range(5):
        allowed = [hits for hits, alarms in zip(found[row], false_alarms[row], strict=True) if alarms <= rate]
        assert shares[row] == pytest.approx(max(allowed, default=0) / 7)


def test_no_threshold_without_too_many_false_alarms() -> None:
    found, false_alarms = np.array([[3, 4], [3, 4]]), np.array([[2.0, 3.0], [1.0, 9.0]])
    index = best_threshold(found, false_alarms, 1)
    assert index.tolist() == [-1, 0]
    assert share_found(found, np.array([4, 4]), index).tolist() == [0, 0.75]
    assert np.isnan(share_found(found, np.array([0, 0]), index)).all()


def test_more_false_alarms_never_find_less() -> None:
    found, false_alarms = _random_detections(9)
    shares = [share_found(found, np.full(5, 6), best_threshold(found, false_alarms, r)) for r in FALSE_ALARM_RATES]
    assert (np.diff(shares, axis=0) >= 0).all()
    assert (np.diff(shares, axis=0) > 0).any()
