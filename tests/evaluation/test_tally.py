import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from nnood.evaluation import rows as rows_module
from nnood.evaluation.histogram import coarse_scores
from nnood.evaluation.objects import FALSE_ALARM_RATES, Detections, detect, label_objects
from nnood.evaluation.tally import CaseTally, Tallies, resample, tally_voxels
from nnood.scores import sample_score

SHAPE = (9, 16, 18)
THRESHOLDS = np.array([0.5, 0.45, 0.4, 0.375, 0.35, 0.3])

Scene = tuple[np.ndarray, np.ndarray]


def _scene(seed: int, *, anomalous: bool, shape: tuple[int, ...] = SHAPE) -> Scene:
    """A noisy score map that is partly right, and the truth. Its scores are so few that no coarse bin holds two."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 1.2)
    truth = (field > np.quantile(field, 0.95)) & anomalous
    truth[: len(truth) // 3] = False
    scores = ndimage.gaussian_filter(0.25 * truth + 0.5 * rng.uniform(size=shape), 0.6)
    return np.clip(np.round(scores * 128) / 128, 0, 1).astype(np.float32), truth


def _tally(scene: Scene) -> CaseTally:
    scores, truth = scene
    voxels, _ = tally_voxels(scores, truth, 2.0)
    voxels.detections = detect(scores, *label_objects(truth), THRESHOLDS)
    return CaseTally(bool(truth.any()), sample_score(scores), voxels)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [_scene(seed, anomalous=seed % 3 != 2) for seed in range(8)]


@pytest.fixture(scope="module")
def tallies(scenes: list[Scene]) -> list[CaseTally]:
    return [_tally(scene) for scene in scenes]


def _pool(scenes: list[Scene]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores of all voxels, as scikit-learn takes them."""
    scores, truths = zip(*scenes, strict=True)
    return np.concatenate([truth.ravel() for truth in truths]), np.concatenate([one.ravel() for one in scores])


def _aupro(scenes: list[Scene]) -> float:
    """As an AUROC in which all objects weigh alike; scikit-learn's standardisation (McClish) is undone."""
    truth, scores = _pool(scenes)
    weights = []
    for _, mask in scenes:
        numbers, _ = ndimage.label(mask, np.ones((3, 3, 3)))
        sizes = np.bincount(numbers.ravel())
        weights.append(np.where(mask, 1 / sizes[numbers], 1).ravel())
    standardised = roc_auc_score(truth, scores, sample_weight=np.concatenate(weights), max_fpr=0.3)
    return (0.045 + (2 * standardised - 1) * (0.3 - 0.045)) / 0.3


def test_what_is_kept_of_a_volume(scenes: list[Scene]) -> None:
    scores, truth = scenes[0]
    kept, histogram = tally_voxels(scores, truth, 2.0)
    numbers, count = ndimage.label(truth, np.ones((3, 3, 3)))
    volumes = 2.0 * ndimage.sum_labels(truth, numbers, range(1, count + 1))
    assert sorted(kept.object_sizes.tolist()) == sorted(volumes.tolist())
    assert kept.slice_scores == pytest.approx([sample_score(one) for one in scores])
    assert kept.slice_truth.tolist() == [bool(one.any()) for one in truth]
    assert 0 < kept.slice_truth.sum() < len(truth)
    assert kept.positives.sum() == truth.sum() == histogram.counts().positives.sum()
    assert kept.negatives.sum() == (~truth).sum()
    assert kept.overlap.sum() == pytest.approx(count)
    assert kept.positives.shape == kept.negatives.shape == kept.overlap.shape == (1, len(coarse_scores()))


@pytest.mark.parametrize("shape", [(16, 18), (1, 16, 18)], ids=["2D", "one slice"])
def test_what_has_no_slices(shape: tuple[int, ...]) -> None:
    kept, _ = tally_voxels(*_scene(0, anomalous=True, shape=shape), 1.0)
    assert kept.slice_scores.size == kept.slice_truth.size == 0


def test_figures_agree_with_scikit_learn(scenes: list[Scene], tallies: list[CaseTally]) -> None:
    figures = Tallies(tallies, 0.375).figures(np.ones((1, len(tallies))))
    truth, scores = _pool(scenes)
    assert figures["voxel_ap"] == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
    assert figures["voxel_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    called = scores >= 0.375
    assert figures["voxel_dice"] == pytest.approx(2 * (called & truth).sum() / (called.sum() + truth.sum()), abs=1e-9)
    assert figures["aupro"] == pytest.approx(_aupro(scenes), abs=1e-9)
    assert abs(figures["aupro"] - figures["voxel_auroc30"]) > 0.005
    labels = [bool(truth.any()) for _, truth in scenes]
    samples = [sample_score(one) for one, _ in scenes]
    assert figures["sample_ap"] == pytest.approx(average_precision_score(labels, samples))
    assert figures["sample_auroc"] == pytest.approx(roc_auc_score(labels, samples))
    slice_truth = [bool(one.any()) for _, truth in scenes for one in truth]
    slice_scores = [sample_score(one) for scores, _ in scenes for one in scores]
    assert figures["slice_ap"] == pytest.approx(average_precision_score(slice_truth, slice_scores))
    assert figures["slice_auroc"] == pytest.approx(roc_auc_score(slice_truth, slice_scores))


def test_no_dice_at_a_threshold_without_one(tallies: list[CaseTally]) -> None:
    assert "voxel_dice" not in Tallies(tallies, None).figures(np.ones((1, len(tallies))))


def test_a_weight_is_as_many_copies_of_the_case(tallies: list[CaseTally]) -> None:
    weights = np.array([[2, 0, 1, 3, 0, 1, 4, 1], [0, 2, 2, 0, 0, 0, 0, 1]])
    weighted = Tallies(tallies, 0.5).figures(weights)
    for row, numbers in enumerate(weights):
        copies = [case for case, number in zip(tallies, numbers, strict=True) for _ in range(number)]
        expected = Tallies(copies, 0.5).figures(np.ones((1, len(copies))))
        assert weighted.keys() == expected.keys()
        assert {"object_recall", "froc", "aupro", "slice_ap", "sample_sensitivity"} < weighted.keys()
        for key, value in expected.items():
            assert weighted[key][row] == pytest.approx(value[0], abs=1e-12), key


def test_many_resamples_are_taken_in_parts(tallies: list[CaseTally], monkeypatch: pytest.MonkeyPatch) -> None:
    weights = resample([str(number) for number in range(len(tallies))], 23)
    together = Tallies(tallies, 0.5).figures(weights)
    monkeypatch.setattr(rows_module, "_CHUNK", 700)
    apart = Tallies(tallies, 0.5).figures(weights)
    for key, values in together.items():
        assert values.shape == (23,)
        np.testing.assert_allclose(apart[key], values, rtol=1e-12)


def test_cases_of_no_weight_leave_figures_undefined(tallies: list[CaseTally]) -> None:
    figures = Tallies(tallies, 0.5).figures(np.array([[0] * 8, [1] * 8]))
    for key, values in figures.items():
        assert np.isnan(values[0]), key
        assert not np.isnan(values[1]), key
    for key, values in Tallies(tallies, 0.5).figures(np.zeros((1, 8), dtype=np.int64)).items():
        assert np.isnan(values).all(), key


def test_cases_without_voxels_count_as_samples_only(scenes: list[Scene], tallies: list[CaseTally]) -> None:
    mixed = [*tallies[:4], CaseTally(True, 0.99, None), *tallies[4:], CaseTally(False, 0.01, None)]
    weights = np.array([[1, 2, 0, 1, 3, 1, 1, 1, 2, 4]])
    figures = Tallies(mixed, None).figures(weights)
    local = Tallies(tallies, None).figures(np.array([[1, 2, 0, 1, 1, 1, 1, 2]]))
    for key in ("voxel_ap", "aupro", "object_recall", "froc", "slice_ap"):
        assert figures[key] == pytest.approx(local[key]), key
    labels, samples = [case.anomalous for case in mixed], [case.sample_score for case in mixed]
    assert figures["sample_ap"] == pytest.approx(average_precision_score(labels, samples, sample_weight=weights[0]))


def test_sample_labels_alone() -> None:
    figures = Tallies([CaseTally(True, 0.9, None), CaseTally(False, 0.1, None)], 0.5).figures(np.ones((1, 2)))
    assert {key: value.tolist() for key, value in figures.items()} == {
        "sample_ap": [1],
        "sample_auroc": [1],
        "sample_sensitivity": [1],
    }


def _with(found: list[list[bool]], false_alarms: list[int], sizes: list[float]) -> CaseTally:
    """A case of which only the detections matter."""
    voxels, _ = tally_voxels(np.zeros((3, 3), dtype=np.float32), np.zeros((3, 3), dtype=bool), 1.0)
    voxels.object_sizes = np.array(sizes)
    voxels.detections = Detections(np.array(found, dtype=bool).reshape(len(false_alarms), -1), np.array(false_alarms))
    return CaseTally(bool(sizes), 0.5, voxels)


def test_objects_found_by_hand() -> None:
    """Three thresholds; two cases with three objects of 10, 20 and 30 mm^3, two normal ones with false alarms."""
    cases = [
        _with([[True, False], [True, True], [True, True]], [0, 0, 1], [10.0, 20.0]),
        _with([[False], [False], [True]], [0, 1, 1], [30.0]),
        _with([[], [], []], [0, 0, 4], []),
        _with([[], [], []], [0, 2, 6], []),
    ]
    tallies = Tallies(cases, None)
    found, false_alarms, objects = tallies.detections(np.ones((1, 4)), None)
    assert (found.tolist(), false_alarms.tolist(), objects.tolist()) == ([[1, 2, 3]], [[0, 0.75, 3]], [3])
    assert tallies.object_sizes.tolist() == [10, 20, 30]
    figures = tallies.object_figures(np.ones((1, 4)))
    # At 1/8, 1/4 and 1/2 false alarms per case only the first threshold; at 1 and 2 the second; at 4 and 8 the last.
    assert figures["object_recall"] == pytest.approx([2 / 3])
    assert figures["froc"] == pytest.approx([(3 * 1 / 3 + 2 * 2 / 3 + 2 * 1) / len(FALSE_ALARM_RATES)])
    # Of the two larger objects, at the thresholds that suit all three.
    large = tallies.object_figures(np.ones((1, 4)), np.array([False, True, True]))
    assert large["object_recall"] == pytest.approx([1 / 2])
    assert large["froc"] == pytest.approx([(0 + 2 * 1 / 2 + 2 * 1) / len(FALSE_ALARM_RATES)])
    # Without the case that has most false alarms, and with the second one twice: 0, 1/2 and 7/4 per case.
    weights = np.array([[1, 2, 1, 0]])
    assert tallies.object_figures(weights)["object_recall"] == pytest.approx([2 / 4])
    assert tallies.detections(weights, None)[1].tolist() == [[0, 0.5, 1.75]]


def test_thresholds_suit_all_objects_and_not_only_those_of_a_size() -> None:
    """Two small objects merge with their surroundings at the threshold that finds the large one."""
    tallies = Tallies([_with([[True, True, False], [False, False, True]], [0, 0], [1.0, 1.0, 9.0])], None)
    figures = tallies.object_figures(np.ones((1, 1)), np.array([False, False, True]))
    assert figures["object_recall"] == 0
    figures = tallies.object_figures(np.ones((1, 1)), np.array([True, True, False]))
    assert figures["object_recall"] == 1


def test_resampling_draws_sources() -> None:
    units = ["b", "a", "b", "c", "b", "a"]
    weights = resample(units, 500)
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 4]).all()
    assert (weights[:, 1] == weights[:, 5]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    # Each of three is drawn with chance 1/3, three times: 0 with (2/3)^3, 3 with (1/3)^3.
    np.testing.assert_allclose(weights[:, [0, 1, 3]].mean(axis=0), 1, atol=0.12)
    assert (weights[:, 3] == 0).mean() == pytest.approx(8 / 27, abs=0.07)
    assert (weights[:, 3] == 3).mean() == pytest.approx(1 / 27, abs=0.03)
    np.testing.assert_array_equal(weights, resample(units, 500))


def test_resampling_merges_bins_with_little_loss() -> None:
    """Many resamples use few bins of equal shares; what they give must be what each alone gives."""
    rng = np.random.default_rng(8)
    cases = []
    for shape in ((20, 30, 30), (20, 30, 30), (30, 30, 20)):
        truth = np.zeros(shape, dtype=bool)
        truth[3:8, 4:10, 5:12] = True
        scores = 1 / (1 + np.exp(4 - rng.normal(size=shape) - 2 * truth))
        voxels, _ = tally_voxels(scores.astype(np.float32), truth, 1.0)
        cases.append(CaseTally(True, 0.5, voxels))
    tallies = Tallies(cases, 0.07)
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0]])
    together = tallies.figures(weights)
    for row, alone in enumerate(tallies.figures(one[None]) for one in weights):
        for key, value in alone.items():
            np.testing.assert_allclose(together[key][row], value[0], atol=5e-4, err_msg=key)


@pytest.mark.parametrize("normal", [2, 10, 20, 45])
def test_chance_of_the_sensitivity_by_drawing(normal: int) -> None:
    rng = np.random.default_rng(0)
    truth = [False] * normal + [True] * 30
    drawn = []
    for _ in range(400):
        cases = [CaseTally(one, float(score), None) for one, score in zip(truth, rng.random(len(truth)), strict=True)]
        tallies = Tallies(cases, None)
        drawn.append(tallies.figures(np.ones((1, len(cases))))["sample_sensitivity"][0])
    assert tallies.chance(np.ones(len(truth), dtype=bool))["sample_sensitivity"] == pytest.approx(
        np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(len(drawn))
    )
