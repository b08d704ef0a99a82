"""Post-processing, sample scores, calibration and thresholds, fitted on score maps that a test wrote itself."""

import pickle

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import expit

from nnood.inference.ensembling import RANK_LEVELS
from nnood.inference.postprocessing import Step
from nnood.inference.selection import combined as combined_module
from nnood.inference.selection.cache import Cache, JudgedImage
from nnood.inference.selection.combined import Combined
from nnood.inference.selection.ensembles import Chosen, Ledger
from nnood.inference.selection.figures import Judgement
from nnood.inference.selection.images import Image
from nnood.inference.selection.patch_scoring import PatchJudge
from nnood.inference.selection.predictions import typical_edge
from nnood.inference.selection.scoring import choose_scoring
from nnood.inference.selection.steps import STAGES, choose_steps
from nnood.inference.selection.voxels import sample_voxels
from nnood.scores import SAMPLE_SCORES, sample_score
from nnood.training.validation import NORMAL

SHAPE, SPACING, TASKS = (16, 28, 24), (2.0, 1.0, 1.0), ("fpi", "sink")
UNIT = 2.0  # mm3


def ball(middle, radius):
    grid = np.indices(SHAPE)
    return sum((index - m) ** 2 for index, m in zip(grid, middle, strict=True)) <= radius**2


FOREGROUND = ball((8, 14, 12), 7)


class World:
    """Images of some cases, whose scores come from a function of (generator, truth)."""

    def __init__(self, folder, scores, *, cases=6, radius=3, more=0, members=1, combination="mean", processes=1):
        judges = tuple(range(members))
        self.images = tuple(Image(f"case_{case}", task, judges) for case in range(cases) for task in (NORMAL, *TASKS))
        self.more = tuple(Image(f"more_{case}", NORMAL, judges) for case in range(more))
        names = {(image.case, image.task): f"{n:024x}" for n, image in enumerate((*self.images, *self.more))}
        cache = Cache(folder, names, tuple(f"{member:064x}"[::-1] for member in judges))
        rng = np.random.default_rng(11)
        for image in (*self.images, *self.more):
            truth = np.zeros(SHAPE, dtype=bool)
            if image.task != NORMAL:
                truth = ball((8, 11 + rng.integers(0, 6), 10 + rng.integers(0, 4)), radius)
            cache.write_image(image, JudgedImage(truth, FOREGROUND, SPACING))
            for member in judges:
                cache.write_map(image, member, scores(rng, truth))
        chosen = Chosen(judges, combination)
        self.sampled = sample_voxels(cache, self.images, members)
        self.combined = Combined(cache, self.images, chosen, self.sampled.quantiles, processes)
        self.judgement, self.ledger = Judgement(self.images), Ledger()

    def steps(self, *, has_foreground=True):
        return choose_steps(self.combined, self.judgement, self.ledger, voxel_mm=1.0, has_foreground=has_foreground)

    def scoring(self, steps=(), *, has_foreground=True):
        return choose_scoring(
            self.combined,
            steps,
            self.judgement,
            self.ledger,
            clean=self.more,
            has_foreground=has_foreground,
            patches=PatchJudge([], self.combined.cache),
        )


def assert_rule(ledger, stage):
    listed = [entry for entry in ledger.candidates if entry["stage"] == stage]
    chosen = [entry for entry in listed if entry["chosen"]]
    assert len(chosen) == 1
    assert len({entry["name"] for entry in listed}) == len(listed)
    if chosen[0] is not listed[0]:
        assert chosen[0]["gain"] > chosen[0]["error"]


def assert_rules(ledger):
    """In every stage of post-processing that was come to."""
    stages = [stage for stage in STAGES.values() if any(entry["stage"] == stage for entry in ledger.candidates)]
    assert stages
    for stage in stages:
        assert_rule(ledger, stage)


# ---- steps ----------------------------------------------------------------------------------------------------------


def noisy(rng, truth):
    """The truth under noise that is independent from voxel to voxel."""
    return expit(-3 + 2 * truth + rng.normal(0, 2, SHAPE))


def test_smoothing_is_chosen_against_independent_noise(tmp_path):
    world = World(tmp_path, noisy)
    steps = world.steps(has_foreground=False)
    assert steps[0].kind == "smooth"
    assert 0.5 <= steps[0].parameters["sigma_mm"] <= 2.5
    assert not any(step.needs_foreground for step in steps)
    assert any("not restricted" in note for note in world.ledger.notes)
    assert_rules(world.ledger)


def test_scores_outside_of_the_foreground_are_cut_off(tmp_path):
    far = ~ndimage.binary_dilation(FOREGROUND, iterations=3)

    def outside(rng, truth):
        false = far & (ndimage.gaussian_filter(rng.normal(size=SHAPE), 2) > 0.08)
        return expit(-3 + 4 * truth + 5 * false + ndimage.gaussian_filter(rng.normal(size=SHAPE), 2) * 5)

    world = World(tmp_path, outside)
    steps = world.steps()
    assert steps[0].kind == "restrict_to_foreground"
    assert steps[0].parameters["dilation_mm"] <= 5
    assert_rules(world.ledger)


def speckled(rng, truth):
    """Sure of large anomalies, even surer of single voxels."""
    speckles = rng.uniform(size=SHAPE) < 0.004
    return expit(np.where(speckles, 6, np.where(truth, 2, -3)) + rng.normal(0, 0.5, SHAPE))


def test_small_regions_are_removed_where_clean_images_have_them(tmp_path, monkeypatch):
    # Smoothing removes speckles as well; without it, only the removal is left.
    monkeypatch.setattr("nnood.inference.selection.steps.SIGMAS", ())
    world = World(tmp_path, speckled)
    steps = world.steps(has_foreground=False)
    assert [step.kind for step in steps] == ["remove_small"]
    # All speckles go, no anomaly does.
    assert UNIT < steps[0].parameters["volume_mm3"] < ball((8, 11, 10), 3).sum() * UNIT
    assert_rules(world.ledger)


def test_nothing_is_done_to_scores_that_are_right(tmp_path):
    world = World(tmp_path, lambda rng, truth: np.where(truth, 0.9, 0.1) * rng.uniform(0.9, 1, SHAPE))
    assert world.steps() == ()
    assert world.ledger.candidates[0]["name"] == "none"
    assert world.ledger.candidates[0]["chosen"]
    assert_rules(world.ledger)


def test_scores_that_are_all_alike_change_nothing(tmp_path):
    assert World(tmp_path, lambda rng, truth: np.full(SHAPE, 0.5)).steps(has_foreground=False) == ()


def test_steps_have_different_names(tmp_path):
    world = World(tmp_path, lambda rng, truth: expit(9 + 3 * truth + rng.normal(0, 2, SHAPE)))
    world.steps()
    assert_rules(world.ledger)


def test_everything_reaches_worker_processes(tmp_path, monkeypatch):
    """What is called there, and with what, survives being sent; and it is little."""
    sent = []

    def send(function, arguments, *, processes, description):
        content = {key: pickle.dumps((function, values)) for key, values in arguments.items()}
        sent.extend(map(len, content.values()))
        received = {key: pickle.loads(value) for key, value in content.items()}
        return {key: function(*values) for key, (function, values) in received.items()}, []

    alone = World(tmp_path / "1", noisy, cases=3)
    expected = (alone.steps(), alone.scoring((Step("smooth", {"sigma_mm": 1.0}),)).thresholds)
    monkeypatch.setattr(combined_module, "map_cases", send)
    world = World(tmp_path / "2", noisy, cases=3, processes=2)
    assert (world.steps(), world.scoring((Step("smooth", {"sigma_mm": 1.0}),)).thresholds) == expected
    assert len(sent) > 20
    assert max(sent) < 20_000


@pytest.mark.parametrize("combination", ["mean", "median", "rank_mean"])
def test_maps_are_combined_alike_whole_and_in_slices(tmp_path, monkeypatch, combination):
    world = World(tmp_path, noisy, cases=2, members=3, combination=combination)
    image = world.images[1]
    whole, judged = world.combined.read(image)
    assert whole.shape == judged.truth.shape
    monkeypatch.setattr(combined_module, "MOST_VALUES", 3 * 5 * SHAPE[1] * SHAPE[2])
    np.testing.assert_array_equal(world.combined.read(image)[0], whole)
    maps = [world.combined.cache.read_map(image, member) for member in range(3)]
    if combination != "rank_mean":
        expected = (np.mean if combination == "mean" else np.median)(maps, axis=0)
        np.testing.assert_allclose(whole, expected, atol=1e-6)
    else:
        assert all(len(quantiles) == len(RANK_LEVELS) for quantiles in world.sampled.quantiles)


def test_members_that_may_not_judge_are_left_out(tmp_path):
    world = World(tmp_path, noisy, cases=2, members=2)
    image = Image("case_0", "fpi", (1,))
    np.testing.assert_array_equal(world.combined.read(image)[0], world.combined.cache.read_map(image, 1))
    nobody = Combined(world.combined.cache, (Image("case_0", "fpi", ()),), world.combined.chosen, (), 1)
    tally = nobody.tallies([()], title="")[0]
    assert not tally.defined.any()
    assert not tally.voxels.any()


def test_the_typical_edge_of_a_voxel(tmp_path):
    world = World(tmp_path, noisy, cases=2)
    assert typical_edge(world.combined.cache, world.images) == pytest.approx(2 ** (1 / 3))


# ---- scoring --------------------------------------------------------------------------------------------------------


def faint(rng, truth):
    """Each clean image is as bright as it likes in a few voxels, as an anomaly is in many."""
    level = rng.uniform(-6, -2)
    spikes = rng.uniform(size=SHAPE) < 0.002
    return expit(level + 3 * truth + 8 * spikes + rng.normal(0, 0.5, SHAPE))


def test_thresholds_give_the_wanted_rates_on_clean_cases(tmp_path):
    world = World(tmp_path, noisy, cases=10, more=15)
    scoring = world.scoring()
    clean = [image for image in world.images if image.task == NORMAL] + list(world.more)
    calibrated = [scoring.calibration(world.combined.read(image)[0]) for image in clean]
    inside = np.concatenate([scores[FOREGROUND] for scores in calibrated])
    region = FOREGROUND if scoring.within_foreground else None
    samples = np.array([sample_score(scores, scoring.sample_score, region) for scores in calibrated])
    assert len(scoring.thresholds) == 4
    for threshold in scoring.thresholds:
        called = (inside if threshold.level == "voxel" else samples) >= threshold.value
        assert called.mean() <= threshold.rate * 1.05
        if threshold.level == "voxel":
            assert called.mean() >= threshold.rate * 0.9
        assert threshold.low <= threshold.value <= threshold.high
    rates = {(one.level, one.rate): one.reliable for one in scoring.thresholds}
    assert rates == {("sample", 0.01): False, ("sample", 0.05): True, ("voxel", 0.01): True, ("voxel", 0.05): True}
    # A calibrated value u is reached by 10^(-8 u) of the clean voxels.
    for value in (0.05, 0.125, 0.25):
        assert (inside >= value).mean() == pytest.approx(10 ** (-8 * value), rel=0.25)


def test_calibrated_scores_spread_whatever_the_network_says(tmp_path):
    world = World(tmp_path, lambda rng, truth: expit(9 + 2 * truth + rng.normal(0, 1, SHAPE)))
    scoring = world.scoring()
    scores, judged = world.combined.read(world.images[1])
    calibrated = scoring.calibration(scores)
    assert scores.min() > 0.99
    assert np.ptp(calibrated[judged.foreground]) > 0.3
    rounded = len(np.unique(calibrated.astype(np.float16)))
    assert rounded > 5 * len(np.unique(scores.astype(np.float16)))
    order = np.argsort(scores, axis=None)
    assert (np.diff(calibrated.ravel()[order]) >= 0).all()


def test_the_better_sample_score_is_chosen(tmp_path):
    # Only the highest voxel tells: the default, the mean of the top 100, is blind to it.
    def one_voxel(rng, truth):
        scores = expit(-4 + rng.normal(0, 0.5, SHAPE) + rng.normal(0, 1))
        if truth.any():
            scores[8, 14, 12] = 0.99
        return scores

    world = World(tmp_path, one_voxel, cases=8)
    scoring = world.scoring()
    assert (scoring.sample_score, scoring.within_foreground) == ("max", False)
    assert_rule(world.ledger, "sample score")
    table = {entry["name"]: entry for entry in world.ledger.candidates if entry["stage"] == "sample score"}
    assert set(table) == {kind + where for kind in SAMPLE_SCORES for where in ("", ", within the foreground")}
    assert table["max"]["sample_ap"] == pytest.approx(1.0)
    anomalous = np.array([image.task != NORMAL for image in world.images])
    assert scoring.samples.shape == (len(world.images),)
    assert scoring.samples[anomalous].min() > scoring.samples[~anomalous].max()


def test_the_default_sample_score_stays_on_a_tie(tmp_path):
    world = World(tmp_path, lambda rng, truth: np.where(truth, 0.9, 0.1) * rng.uniform(0.9, 1, SHAPE))
    scoring = world.scoring()
    assert (scoring.sample_score, scoring.within_foreground) == ("top_100_voxels", False)


def test_what_lies_outside_of_the_foreground_is_left_out_where_it_misleads(tmp_path):
    def outside(rng, truth):
        scores = expit(-4 + 4 * truth + rng.normal(0, 0.5, SHAPE))
        scores[0] = rng.uniform()
        return scores

    world = World(tmp_path, outside)
    within, everywhere = world.scoring(), world.scoring(has_foreground=False)
    assert within.within_foreground
    assert not everywhere.within_foreground
    assert world.judgement.sample_ap(within.samples) > world.judgement.sample_ap(everywhere.samples) + 0.1


def test_images_that_nobody_may_judge_have_no_score(tmp_path):
    world = World(tmp_path, faint, cases=3)
    images = (*world.images[:-1], Image(world.images[-1].case, world.images[-1].task, ()))
    combined = Combined(world.combined.cache, images, world.combined.chosen, world.combined.quantiles, 1)
    nobody = PatchJudge([], combined.cache)
    scoring = choose_scoring(combined, (), Judgement(images), Ledger(), clean=(), has_foreground=True, patches=nobody)
    assert np.isnan(scoring.samples[-1])
    assert np.isfinite(scoring.samples[:-1]).all()
