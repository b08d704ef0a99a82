"""Average precision over judged images, beside scikit-learn's, and when a candidate is better."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score

from nnood.inference.ensembling import COMBINATIONS, RANK_LEVELS
from nnood.inference.selection.cache import Cache, JudgedImage
from nnood.inference.selection.figures import BINS, Judgement, Tally, bin_scores, bins_of, count, normal_counts
from nnood.inference.selection.images import Image
from nnood.inference.selection.voxels import sample_voxels
from nnood.training.validation import NORMAL

TASKS = ("fpi", "sink")


def images_of(cases, tasks=(NORMAL, *TASKS), judges=(0,)):
    return [Image(f"case_{case}", task, judges) for case in range(cases) for task in tasks]


def make_truth(rng, image, shape=(8, 12, 10)):
    truth = np.zeros(shape, dtype=bool)
    if image.task != NORMAL:
        start = rng.integers(0, 5, 3)
        truth[tuple(slice(s, s + 3) for s in start)] = True
    return truth


def make_maps(images, *, seed=0, strength=2.0):
    """Truth and scores per image: logits with noise of their own, and the case's own shift."""
    rng = np.random.default_rng(seed)
    truths = [make_truth(rng, image) for image in images]
    shifts = {image.case: rng.normal(0, 0.5) for image in images}
    logits = [
        -3 + shifts[image.case] + strength * truth + rng.normal(0, 1.2, truth.shape)
        for image, truth in zip(images, truths, strict=True)
    ]
    return truths, [expit(values).astype(np.float32) for values in logits]


def tally_of(truths, maps):
    defined = np.array([one is not None for one in maps])
    counted = [np.zeros((2, BINS)) if m is None else count(m, t) for t, m in zip(truths, maps, strict=True)]
    return Tally(np.stack(counted).astype(np.float32), defined)


def reference(images, truths, maps, weights=None):
    """Mean over tasks of the AP of all voxels of its images and of clean ones; images without a map are left out."""
    figures = []
    for task in sorted({image.task for image in images} - {NORMAL}):
        chosen = [n for n, image in enumerate(images) if image.task in (task, NORMAL) and maps[n] is not None]
        if not any(images[n].task == task and (weights is None or weights[n]) for n in chosen):
            continue
        truth = np.concatenate([truths[n].ravel() for n in chosen])
        scores = np.concatenate([maps[n].ravel() for n in chosen])
        each = None if weights is None else np.repeat([weights[n] for n in chosen], truths[0].size)
        figures.append(average_precision_score(truth, scores, sample_weight=each))
    return np.mean(figures) if figures else np.nan


# ---- bins -----------------------------------------------------------------------------------------------------------


def test_bins_rise_with_the_score_and_cover_everything():
    scores = np.unique(np.concatenate([[0, 1], expit(np.random.default_rng(0).uniform(-25, 25, 5000))]))
    bins = bins_of(scores)
    assert (np.diff(bins) >= 0).all()
    assert (bins[0], bins[-1]) == (0, BINS - 1)
    inside = np.abs(np.log(scores[1:-1] / (1 - scores[1:-1]))) < 20
    middle = bin_scores()[bins[1:-1][inside]]
    step = 40 / (BINS - 1)
    found = np.log(middle / (1 - middle)) - np.log(scores[1:-1] / (1 - scores[1:-1]))[inside]
    assert np.abs(found).max() <= step / 2 + 1e-6
    np.testing.assert_array_equal(bins_of(bin_scores()), np.arange(BINS))


def test_counts_are_weighted():
    scores, truth = np.array([0.1, 0.1, 0.9, 0.9]), np.array([True, False, True, False])
    table = count(scores, truth, np.array([1.0, 2.0, 3.0, 4.0]))
    low, high = bins_of(np.array([0.1, 0.9]))
    assert [table[0, low], table[1, low], table[0, high], table[1, high]] == [1, 2, 3, 4]
    assert table.sum() == 10
    normal = normal_counts(table[1])
    np.testing.assert_allclose(normal.scores, [0.1, 0.9], rtol=0.01)
    np.testing.assert_array_equal(normal.negatives, [2, 4])


# ---- voxels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_voxel_ap_is_scikit_learn_s(seed):
    images = images_of(5)
    truths, maps = make_maps(images, seed=seed)
    maps = [np.round(values, 2) if seed == 3 else values for values in maps]  # many ties
    assert Judgement(images).voxel_ap(tally_of(truths, maps)) == pytest.approx(
        reference(images, truths, maps), abs=2e-3
    )


def test_images_that_nobody_may_judge_are_left_out():
    images = images_of(5)
    truths, maps = make_maps(images)
    maps[1] = maps[3] = maps[5] = None
    judgement = Judgement(images)
    assert judgement.voxel_ap(tally_of(truths, maps)) == pytest.approx(reference(images, truths, maps), abs=2e-3)
    without_a_task = [None if image.task == "sink" else m for image, m in zip(images, maps, strict=True)]
    expected = reference(images, truths, without_a_task)
    assert judgement.voxel_ap(tally_of(truths, without_a_task)) == pytest.approx(expected, abs=2e-3)
    clean_only = [m if image.task == NORMAL else None for image, m in zip(images, maps, strict=True)]
    assert np.isnan(judgement.voxel_ap(tally_of(truths, clean_only)))
    assert np.isnan(Judgement(images_of(3, (NORMAL,))).voxel_ap(tally_of(truths[:3], maps[:3])))


def test_two_candidates_are_compared_on_what_both_may_judge():
    images = images_of(6)
    truths, weak = make_maps(images, strength=1.0)
    _, strong = make_maps(images, strength=2.0)
    weak[0:3], strong[3:6] = [None] * 3, [None] * 3
    comparison = Judgement(images).compare(tally_of(truths, strong), tally_of(truths, weak))
    assert comparison.value == pytest.approx(reference(images[6:], truths[6:], strong[6:]), abs=2e-3)
    assert comparison.plainer == pytest.approx(reference(images[6:], truths[6:], weak[6:]), abs=2e-3)
    assert comparison.gain == pytest.approx(comparison.value - comparison.plainer)
    assert comparison.gain == pytest.approx(Judgement(images).gain(tally_of(truths, strong), tally_of(truths, weak)))
    assert comparison.wins


def test_the_error_is_that_of_drawing_cases_again():
    images = images_of(8)
    truths, one = make_maps(images, seed=1, strength=1.5)
    other = [expit(np.log(m / (1 - m)) + make_maps(images, seed=2, strength=1.0)[1][0]) for m in one]
    other = [m + 0.2 * t * (m.mean() > 0.1) * (1 - m) for m, t in zip(other, truths, strict=True)]
    comparison = Judgement(images).compare(tally_of(truths, other), tally_of(truths, one))
    rng = np.random.default_rng(99)
    differences = []
    for _ in range(150):
        drawn = np.bincount(rng.integers(8, size=8), minlength=8)
        weights = [drawn[int(image.case[-1])] for image in images]
        differences.append(reference(images, truths, other, weights) - reference(images, truths, one, weights))
    low, high = np.percentile(differences, (2.5, 97.5))
    assert comparison.error == pytest.approx((high - low) / 2, rel=0.3)
    assert comparison.error > 0


def test_nothing_wins_where_nothing_can_be_compared():
    images = images_of(6)
    truths, weak = make_maps(images, strength=0.5)
    _, strong = make_maps(images, strength=4.0)
    judgement = Judgement(images)
    clearly = judgement.compare(tally_of(truths, strong), tally_of(truths, weak))
    assert clearly.wins
    assert not judgement.compare(tally_of(truths, weak), tally_of(truths, strong)).wins
    same = judgement.compare(tally_of(truths, strong), tally_of(truths, strong))
    assert (same.gain, same.error, same.wins) == (0, 0, False)
    apart = judgement.compare(tally_of(truths, [*strong[:9], *[None] * 9]), tally_of(truths, [*[None] * 9, *weak[9:]]))
    assert np.isnan(apart.gain)
    assert not apart.wins
    # One case says nothing of others, however much is gained on it.
    alone = judgement.compare(tally_of(truths, [*strong[:3], *[None] * 15]), tally_of(truths, weak))
    assert alone.gain > 0.1
    assert alone.error == np.inf
    assert not alone.wins


# ---- samples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [1, 6])
def test_sample_ap_is_scikit_learn_s(decimals):
    images = images_of(12)
    rng = np.random.default_rng(3)
    scores = np.array([rng.uniform() + 0.3 * (image.task != NORMAL) for image in images]).round(decimals)
    scores[[4, 9]] = np.nan
    expected = []
    for task in TASKS:
        chosen = [n for n, image in enumerate(images) if image.task in (task, NORMAL) and np.isfinite(scores[n])]
        expected.append(average_precision_score([images[n].task == task for n in chosen], scores[chosen]))
    assert Judgement(images).sample_ap(scores) == pytest.approx(np.mean(expected), abs=1e-6)


def test_sample_scores_are_compared_with_their_error():
    images = images_of(30)
    anomalous = np.array([image.task != NORMAL for image in images])
    rng = np.random.default_rng(0)
    noise = rng.uniform(size=len(images))
    judgement = Judgement(images)
    assert judgement.compare_samples(anomalous + 0.5 * noise, noise).wins
    assert not judgement.compare_samples(noise, anomalous + 0.5 * noise).wins
    nothing = judgement.compare_samples(np.full(len(images), np.nan), noise)
    assert np.isnan(nothing.gain)
    assert not nothing.wins
    half = np.where(np.arange(len(images)) < 45, anomalous + 0.5 * noise, np.nan)
    kept = [*range(45)]
    other = Judgement([images[n] for n in kept]).sample_ap(noise[kept])
    assert judgement.compare_samples(half, noise).plainer == pytest.approx(other)


# ---- sampled voxels -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Volumes with many more voxels than are sampled, and the score maps of three members."""
    images = [
        Image(f"case_{case}", task, (0, 1, 2) if case else (0, 2)) for case in range(3) for task in (NORMAL, *TASKS)
    ]
    names = {(image.case, image.task): f"{n:024x}" for n, image in enumerate(images)}
    cache = Cache(tmp_path_factory.mktemp("cache"), names, tuple(letter * 64 for letter in "abc"))
    rng = np.random.default_rng(5)
    truths, maps = [], {}
    shape = (40, 80, 90)
    for number, image in enumerate(images):
        truth = np.zeros(shape, dtype=bool)
        if image.task != NORMAL:
            truth[5:30, 20:50, 20:60] = True
        foreground = np.zeros(shape, dtype=bool)
        foreground[2:38, 4:70, 10:80] = True
        cache.write_image(image, JudgedImage(truth, foreground, (1.0, 1.0, 1.0)))
        for judge in image.judges:
            logits = -4 + (1.5 + judge) * truth + rng.normal(0, 1.5, shape)
            cache.write_map(image, judge, expit(logits))
            maps[number, judge] = cache.read_map(image, judge)
        truths.append(truth)
    return images, truths, maps, cache, sample_voxels(cache, images, 3)


# Ranks of several members have no simple counterpart; of one, they leave the order as it is.
ENSEMBLES = [(one, (judge,)) for one in COMBINATIONS for judge in (0, 1)] + [("mean", (0, 1, 2)), ("median", (0, 1, 2))]


@pytest.mark.parametrize(("combination", "members"), ENSEMBLES, ids=str)
def test_sampled_voxels_give_the_figures_of_whole_maps(stored, combination, members):
    images, truths, maps, _, sampled = stored
    tally = sampled.tally(members, combination)
    combine = np.median if combination == "median" else np.mean
    whole = []
    for number in range(len(images)):
        known = [maps[number, judge] for judge in members if (number, judge) in maps]
        whole.append(combine(known, axis=0) if known else None)
    assert tally.defined.tolist() == [one is not None for one in whole]
    found = Judgement(images).voxel_ap(tally)
    assert found == pytest.approx(reference(images, truths, whole), abs=0.01 if combination != "rank_mean" else 0.02)
    total = tally.voxels[tally.defined].sum(axis=(1, 2))
    np.testing.assert_allclose(total, truths[0].size, rtol=1e-4)


def test_quantiles_are_those_of_the_foreground_of_clean_images(stored):
    images, _, maps, cache, sampled = stored
    for judge in range(3):
        scores = np.concatenate(
            [
                maps[number, judge][cache.read_image(image).foreground]
                for number, image in enumerate(images)
                if image.task == NORMAL and judge in image.judges
            ]
        )
        middle = [n for n, level in enumerate(RANK_LEVELS) if level < 0.9999]
        expected = np.quantile(scores, np.array(RANK_LEVELS)[middle])
        found = np.array(sampled.quantiles[judge])[middle]
        np.testing.assert_allclose(np.log(found / (1 - found)), np.log(expected / (1 - expected)), atol=0.05)


def test_a_member_that_judges_no_clean_image_has_no_quantiles(stored):
    images, _, _, cache, _ = stored
    sampled = sample_voxels(cache, [image for image in images if image.task != NORMAL or image.case == "case_0"], 3)
    assert [len(quantiles) for quantiles in sampled.quantiles] == [len(RANK_LEVELS), 0, len(RANK_LEVELS)]
    assert np.isfinite(sampled.tally((0, 1, 2), "rank_mean").voxels).all()
