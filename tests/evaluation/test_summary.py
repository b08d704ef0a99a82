import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from nnood.errors import UserError
from nnood.evaluation.benchmark.kinds import KINDS
from nnood.evaluation.benchmark.table import Row
from nnood.evaluation.evaluate import Evaluator, ScoredCase, spread_thresholds
from nnood.evaluation.metrics import count_scores
from nnood.evaluation.results import FIGURES, NORMAL, Evaluation, Group
from nnood.evaluation.tally import resample
from nnood.evaluation.truth import Truth
from nnood.geometry import Geometry
from nnood.scores import sample_score

PLACED = [name for name, kind in KINDS.items() if not kind.whole_image]
WHOLE = next(name for name, kind in KINDS.items() if kind.whole_image)
SHAPE = (6, 14, 16)


@dataclass(frozen=True)
class Case:
    """What is known of a case in a test."""

    scores: np.ndarray
    truth: np.ndarray
    kind: str = ""
    source: str = ""

    @property
    def anomalous(self) -> bool:
        return bool(self.truth.any())

    @property
    def sample_score(self) -> float:
        return sample_score(self.scores)


Cases = dict[str, Case]


def _case(seed: int, kind: str, source: str = "", *, skill: float = 0.5, shape: tuple[int, ...] = SHAPE) -> Case:
    """An image with an anomaly, unless it is normal, and a noisy map that is partly right."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 1.2)
    truth = (field > np.quantile(field, 1 - rng.uniform(0.01, 0.08))) & (kind != NORMAL)
    truth |= kind == WHOLE
    scores = ndimage.gaussian_filter(skill * truth + 0.5 * rng.uniform(size=shape), 0.6)
    return Case(np.clip(scores, 0, 1).astype(np.float32), truth, kind, source)


def _evaluate(cases: Cases, *, threshold: float | None = None, rounds: int = 0, spacing: float = 1.0) -> Evaluation:
    rows = {
        name: Row(name, case.source or name, case.kind, ("fpi",) if case.kind == PLACED[0] else ())
        for name, case in cases.items()
        if case.kind
    }
    evaluator = Evaluator(Truth({name: Path(name) for name in cases}, None, rows), threshold)
    scored = {
        name: ScoredCase(
            case.scores,
            case.truth,
            Geometry.from_spacing(case.truth.shape, (spacing,) * case.truth.ndim),
            case.sample_score,
        )
        for name, case in cases.items()
    }
    for name, one in scored.items():
        evaluator.add(name, one)
    for name, one in scored.items():
        if evaluator.has_objects(name):
            evaluator.add_objects(name, one)
    result = evaluator.result(rounds)
    json.dumps(result.to_dict(), allow_nan=False)
    return result


@pytest.fixture(scope="module")
def cases() -> Cases:
    """Four subjects, each normal and with three kinds of anomaly, one of which is in all of the image."""
    kinds = (PLACED[0], PLACED[1], WHOLE, NORMAL)
    return {
        f"{kind}_{subject}": _case(10 * subject + number, kind, f"subject_{subject}")
        for subject in range(4)
        for number, kind in enumerate(kinds)
    }


def _of(*kinds: str) -> Callable[[Case], bool]:
    return lambda case: case.kind in kinds


def _any(case: Case) -> bool:
    return True


def _pool(cases: Cases, wanted: Callable[[Case], bool]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores of the voxels of some cases."""
    chosen = [case for case in cases.values() if wanted(case)]
    truth = np.concatenate([case.truth.ravel() for case in chosen])
    return truth, np.concatenate([case.scores.ravel() for case in chosen])


def _samples(cases: Cases, wanted: Callable[[Case], bool]) -> tuple[list[bool], list[float]]:
    chosen = [case for case in cases.values() if wanted(case)]
    return [case.anomalous for case in chosen], [case.sample_score for case in chosen]


def _value(result: Evaluation | Group, key: str) -> float | None:
    return result.figures[key].value


def _group(result: Evaluation, name: str) -> Group:
    return next(group for group in result.groups if group.name.startswith(name))


def test_pooled_figures_leave_whole_images_to_the_samples(cases: Cases) -> None:
    result = _evaluate(cases, threshold=0.4)
    truth, scores = _pool(cases, _of(*PLACED, NORMAL))
    assert _value(result, "voxel_ap") == pytest.approx(average_precision_score(truth, scores), abs=1e-4)
    assert _value(result, "voxel_auroc") == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    called = scores >= 0.4
    dice = 2 * (called & truth).sum() / (called.sum() + truth.sum())
    assert _value(result, "voxel_dice") == pytest.approx(dice, abs=2e-3)
    dices = [2 * truth[scores >= t].sum() / ((scores >= t).sum() + truth.sum()) for t in np.unique(scores)]
    assert _value(result, "voxel_best_dice") == pytest.approx(max(dices), abs=1e-3)
    assert result.best_threshold is not None
    called = scores >= result.best_threshold
    assert _value(result, "voxel_best_dice") == pytest.approx(
        2 * (called & truth).sum() / (called.sum() + truth.sum()), abs=1e-9
    )
    samples = _samples(cases, _any)
    assert _value(result, "sample_ap") == pytest.approx(average_precision_score(*samples))
    assert _value(result, "sample_auroc") == pytest.approx(roc_auc_score(*samples))
    assert (result.normal_cases, result.anomalous_cases, result.threshold) == (4, 12, 0.4)
    assert tuple(result.figures) == tuple(FIGURES)
    assert None not in [figure.value for figure in result.figures.values()]


def test_slices_count_one_by_one(cases: Cases) -> None:
    result = _evaluate(cases)
    local = [case for case in cases.values() if case.kind != WHOLE]
    truth = [bool(one.any()) for case in local for one in case.truth]
    scores = [sample_score(one) for case in local for one in case.scores]
    assert _value(result, "slice_ap") == pytest.approx(average_precision_score(truth, scores))
    assert _value(result, "slice_auroc") == pytest.approx(roc_auc_score(truth, scores))
    assert result.figures["slice_ap"].chance == pytest.approx(np.mean(truth))


def test_chance_is_the_prevalence(cases: Cases) -> None:
    result = _evaluate(cases)
    truth, _ = _pool(cases, _of(*PLACED, NORMAL))
    chance = {key: figure.chance for key, figure in result.figures.items()}
    assert chance["voxel_ap"] == pytest.approx(truth.mean())
    assert chance["sample_ap"] == pytest.approx(0.75)
    # Calling everything anomalous; no threshold on noise does better for a rare truth.
    assert chance["voxel_best_dice"] == pytest.approx(2 * truth.sum() / (truth.size + truth.sum()))
    noise = {
        name: Case(np.random.default_rng(i).random(SHAPE, np.float32), c.truth, c.kind)
        for i, (name, c) in enumerate(cases.items())
    }
    for key, figure in _evaluate(noise).figures.items():
        if figure.chance is not None and key.startswith(("voxel", "aupro")):
            assert figure.value == pytest.approx(figure.chance, abs=0.05), key


def test_a_kind_is_compared_with_all_normal_cases(cases: Cases) -> None:
    result = _evaluate(cases)
    kinds = [group for group in result.groups if group.by == "kind"]
    assert [group.name for group in kinds] == sorted((*PLACED[:2], WHOLE))
    assert [group.cases for group in kinds] == [4, 4, 4]
    assert _group(result, PLACED[0]).close_to == ("fpi",)
    assert _group(result, PLACED[1]).close_to == ()
    for kind in PLACED[:2]:
        group = _group(result, kind)
        truth, scores = _pool(cases, _of(kind, NORMAL))
        assert group.figures["voxel_ap"].chance == pytest.approx(truth.mean())
        assert group.figures["sample_ap"].chance == 0.5
        assert _value(group, "voxel_ap") == pytest.approx(average_precision_score(truth, scores), abs=1e-3)
        assert _value(group, "voxel_auroc") == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)
        samples = _samples(cases, _of(kind, NORMAL))
        assert _value(group, "sample_ap") == pytest.approx(average_precision_score(*samples))
        alone = _evaluate({name: case for name, case in cases.items() if case.kind in (kind, NORMAL)})
        for key in ("voxel_auroc30", "aupro", "slice_ap", "sample_sensitivity"):
            assert _value(group, key) == pytest.approx(_value(alone, key), abs=1e-3), key


def test_a_whole_image_kind_has_sample_figures_only(cases: Cases) -> None:
    group = _group(_evaluate(cases, threshold=0.5), WHOLE)
    samples = _samples(cases, _of(WHOLE, NORMAL))
    assert _value(group, "sample_auroc") == pytest.approx(roc_auc_score(*samples))
    defined = {key for key, figure in group.figures.items() if figure.value is not None}
    assert defined == {"sample_ap", "sample_auroc", "sample_sensitivity"}


def test_figures_of_each_case(cases: Cases) -> None:
    result = _evaluate(cases, threshold=0.4, spacing=2.0)
    assert [case.name for case in result.cases] == sorted(cases)
    for found in result.cases:
        case = cases[found.name]
        assert (found.kind, found.anomalous) == (case.kind, case.anomalous)
        assert found.sample_score == case.sample_score
        if case.kind == WHOLE:
            assert (found.size, found.figures) == (None, {})
        elif case.anomalous:
            expected = average_precision_score(case.truth.ravel(), case.scores.ravel())
            assert found.figures["voxel_ap"] == pytest.approx(expected, abs=1e-4)
            expected = roc_auc_score(case.truth.ravel(), case.scores.ravel())
            assert found.figures["voxel_auroc"] == pytest.approx(expected, abs=1e-4)
            assert found.size == 8 * case.truth.sum()
            assert None not in found.figures.values()
        else:
            assert found.size == 0
            assert set(found.figures.values()) == {None}


def test_intervals_are_percentiles_over_resampled_subjects(cases: Cases) -> None:
    rounds = 40
    result = _evaluate(cases, rounds=rounds)
    names = sorted(cases)
    weights = resample([cases[name].source for name in names], rounds)
    samples, voxels = [], []
    for row in weights:
        drawn = {f"{name}_{copy}": cases[name] for name, n in zip(names, row, strict=True) for copy in range(n)}
        samples.append(average_precision_score(*_samples(drawn, _any)))
        voxels.append(average_precision_score(*_pool(drawn, _of(*PLACED, NORMAL))))
    for key, values, tolerance in (("sample_ap", samples, 1e-9), ("voxel_ap", voxels, 1e-3)):
        figure = result.figures[key]
        assert [figure.low, figure.high] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=tolerance)
    for key, figure in result.figures.items():
        if figure.value is not None:
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low - 2e-3 <= figure.value <= figure.high + 2e-3, key
    assert result == _evaluate(cases, rounds=rounds)


def test_no_intervals_of_a_single_subject() -> None:
    result = _evaluate({"a": _case(0, PLACED[0], "one"), "b": _case(1, NORMAL, "one")}, rounds=50)
    assert result.figures["voxel_ap"].value is not None
    assert {figure.low for figure in result.figures.values()} == {None}


def test_sizes_are_thirds_of_the_anomalous_cases() -> None:
    cases = {"normal": _case(99, NORMAL)}
    for edge in range(1, 10):
        case = _case(edge, "", shape=(12, 14, 16))
        truth = np.zeros(case.truth.shape, dtype=bool)
        truth[1 : 1 + edge, 2 : 2 + edge, 3 : 3 + edge] = True
        cases[f"cube_{edge}"] = Case(np.clip(case.scores + 0.2 * truth, 0, 1), truth)
    result = _evaluate(cases, spacing=2.0)
    sizes = [group for group in result.groups if group.by == "size"]
    assert [group.name.split(":")[0] for group in sizes] == ["small", "medium", "large"]
    assert [group.cases for group in sizes] == [3, 3, 3]
    # Of 8 mm^3 to 729 * 8 mm^3; the thirds end between 3 and 4 and between 6 and 7.
    assert sizes[0].name == f"small: 0.008 ml to {8 * np.quantile(np.arange(1, 10) ** 3, 1 / 3) / 1000:.3g} ml"
    assert sizes[2].name.endswith(" ml or more")
    for number, group in enumerate(sizes):
        own = {f"cube_{edge}" for edge in range(3 * number + 1, 3 * number + 4)} | {"normal"}
        chosen = {name: case for name, case in cases.items() if name in own}
        assert _value(group, "voxel_ap") == pytest.approx(average_precision_score(*_pool(chosen, _any)), abs=3e-3)
        assert _value(group, "sample_ap") == pytest.approx(average_precision_score(*_samples(chosen, _any)))
    assert not [group for group in result.groups if group.by == "kind"]


def test_a_case_on_the_edge_between_two_sizes_counts_once() -> None:
    scores = np.random.default_rng(0).random((10, 10), np.float32)
    cases = {}
    for size in range(1, 5):
        truth = np.zeros((10, 10), dtype=bool)
        truth[3, :size] = True
        cases[f"size_{size}"] = Case(scores, truth)
    groups = _evaluate(cases).groups
    assert [group.cases for group in groups] == [1, 1, 2]
    assert [group.name for group in groups] == [
        "small: 1 mm² to 2 mm²",
        "medium: 2 mm² to 3 mm²",
        "large: 3 mm² or more",
    ]


def test_a_case_that_is_normal_in_spite_of_its_kind_is_refused() -> None:
    cases = {f"a{seed}": _case(seed, PLACED[0]) for seed in range(3)}
    cases["a1"] = Case(cases["a1"].scores, np.zeros(SHAPE, dtype=bool), PLACED[0])
    with pytest.raises(UserError, match=f"a1 marks no anomaly but .* calls the case {PLACED[0]}"):
        _evaluate({**cases, "n": _case(9, NORMAL)})


def test_no_sizes_of_few_or_equal_anomalies() -> None:
    truth = np.zeros((10, 10), dtype=bool)
    truth[2:4, 2:4] = True
    scores = np.random.default_rng(0).random((10, 10), np.float32)
    assert _evaluate({"a": Case(scores, truth), "b": Case(scores, truth.T | (scores > 0.9))}).groups == ()
    assert _evaluate({name: Case(scores, truth) for name in "abcde"}).groups == ()


def test_objects_are_found_end_to_end() -> None:
    """Four images: two objects with scores 0.9 and 0.6, and a false alarm at 0.8 in a normal one."""

    def image(score: float, edge: int, truth: bool) -> Case:
        mask = np.zeros((20, 20), dtype=bool)
        mask[5 : 5 + edge, 5 : 5 + edge] = True
        return Case(np.where(mask, np.float32(score), np.float32(0)), mask & truth)

    cases = {
        "a": image(0.9, 3, True),
        "b": image(0.6, 4, True),
        "alarm": image(0.8, 3, False),
        "quiet": image(0.0, 1, False),
    }
    result = _evaluate(cases)
    assert _value(result, "object_recall") == 1
    # One alarm among four cases: at 1/8 per case only the object above it is found.
    assert _value(result, "froc") == pytest.approx((1 / 2 + 6) / 7)
    froc = result.curves["froc"]
    assert [point for point in froc if point[0] < 1] == [(0, 0.5), (0.25, 0.5), (0.25, 1)]
    assert _value(_evaluate({**cases, "quiet": image(0.7, 2, False)}), "object_recall") == 1


def test_the_froc_curve_rises(cases: Cases) -> None:
    curve = np.array(_evaluate(cases).curves["froc"])
    assert (np.diff(curve, axis=0) >= 0).all()
    assert len(np.unique(curve[:, 1])) > 2
    assert curve.min() >= 0
    assert curve[:, 1].max() <= 1


def test_curves_are_those_of_the_figures(cases: Cases) -> None:
    result = _evaluate(cases)
    x, y = np.array(result.curves["roc"]).T
    assert np.trapezoid(y, x) == pytest.approx(_value(result, "voxel_auroc"), abs=0.01)
    x, y = np.array(result.curves["sample_roc"]).T
    assert np.trapezoid(y, x) == pytest.approx(_value(result, "sample_auroc"), abs=1e-9)
    recall, precision = np.array(result.curves["precision_recall"]).T
    steps = np.diff(recall, prepend=0) @ precision
    assert steps == pytest.approx(_value(result, "voxel_ap"), abs=0.02)


def test_no_anomalous_case_at_all() -> None:
    result = _evaluate({f"normal_{seed}": _case(seed, NORMAL) for seed in range(3)}, threshold=0.5, rounds=20)
    assert {figure.value for figure in result.figures.values()} == {None}
    assert {figure.low for figure in result.figures.values()} == {None}
    assert result.groups == ()
    assert result.best_threshold is None
    assert not any(result.curves.values())
    assert any("there is no anomalous case" in note for note in result.notes)


def test_no_normal_case() -> None:
    result = _evaluate({"a": _case(0, ""), "b": _case(1, "")}, rounds=20)
    undefined = {key for key, figure in result.figures.items() if figure.value is None}
    assert undefined == {"voxel_dice", "sample_auroc", "sample_sensitivity"}
    assert _value(result, "sample_ap") == 1
    assert any("there is no normal case" in note for note in result.notes)


def test_only_whole_images_are_anomalous(cases: Cases) -> None:
    chosen = {name: case for name, case in cases.items() if case.kind in (WHOLE, NORMAL)}
    result = _evaluate(chosen, rounds=20)
    defined = {key for key, figure in result.figures.items() if figure.value is not None}
    assert defined == {"sample_ap", "sample_auroc", "sample_sensitivity"}
    assert any("no mask has an anomalous voxel" in note for note in result.notes)
    assert any("anomalous as a whole" in note and "there are 4" in note for note in result.notes)


def test_nothing_but_whole_images(cases: Cases) -> None:
    result = _evaluate({name: case for name, case in cases.items() if case.kind == WHOLE}, rounds=20)
    assert {key for key, figure in result.figures.items() if figure.value is not None} == {"sample_ap"}


def test_every_voxel_anomalous() -> None:
    full = Case(np.random.default_rng(0).random((8, 8), np.float32), np.ones((8, 8), dtype=bool))
    result = _evaluate({"full": full})
    assert (_value(result, "voxel_ap"), _value(result, "voxel_auroc"), _value(result, "aupro")) == (1, None, None)
    assert any("every voxel is anomalous" in note for note in result.notes)


def test_a_threshold_that_many_scores_equal() -> None:
    """0.7 is not the lowest score of its bin."""
    truth = np.zeros((8, 8), dtype=bool)
    truth[2:5, 2:5] = True
    case = Case(np.where(truth, np.float32(0.7), np.float32(0.3)), truth, PLACED[0])
    for threshold, expected in ((0.7, 1), (0.71, 0), (0.5, 1), (0.3, 2 * 9 / (64 + 9)), (0, 2 * 9 / (64 + 9)), (2, 0)):
        result = _evaluate({"a": case}, threshold=threshold)
        assert _value(result, "voxel_dice") == pytest.approx(expected), threshold
        assert result.cases[0].figures["voxel_dice"] == pytest.approx(expected), threshold
        assert _value(result.groups[0], "voxel_dice") == pytest.approx(expected), threshold


def test_a_small_object_that_outshines_all_else_is_found() -> None:
    """Thresholds from shares of voxels alone would all lie below it, where normal voxels are called too."""
    rng = np.random.default_rng(0)
    cases = {
        name: Case((0.5 * rng.random((50, 50, 50))).astype(np.float32), np.zeros((50, 50, 50), bool)) for name in "ab"
    }
    cases["a"].scores[3, 3, 3:5] = 0.99
    cases["a"].truth[3, 3, 3:5] = True
    result = _evaluate(cases)
    assert result.figures["voxel_ap"].value == result.figures["froc"].value == 1


def test_thresholds_are_spread_over_the_shares_of_voxels() -> None:
    scores = np.random.default_rng(0).random(100_000)
    thresholds = spread_thresholds(count_scores(scores, np.zeros(scores.shape, dtype=bool)), 10)
    shares = [(scores >= threshold).mean() for threshold in thresholds]
    assert shares == sorted(shares)
    assert shares[0] == 1e-5
    assert shares[-1] == pytest.approx(0.5)
    assert 20 < len(shares) == len(set(shares))
    assert max(b / a for a, b in pairwise(shares)) < 2.01
