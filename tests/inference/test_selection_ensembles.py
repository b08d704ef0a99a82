"""A candidate must beat the plainer one by more than its error."""

import numpy as np
import pytest
from scipy.special import expit

from nnood.inference.ensembling import RANK_LEVELS
from nnood.inference.selection.ensembles import Chosen, Ledger, choose_ensemble
from nnood.inference.selection.figures import Judgement
from nnood.inference.selection.images import Image
from nnood.inference.selection.voxels import SampledImage, SampledVoxels
from nnood.training.validation import NORMAL

CASES, VOXELS, TASKS = 8, 600, ("fpi", "sink")


def make_sampled(logits, *, judges=None, cases=CASES, seed=0):
    """Sampled voxels of members whose logits are a function of (generator, truth, task, case).

    Args:
        logits: One function per member.
        judges: Function of (case, task) that says who may judge; all if None.
        cases: Number of cases.
        seed: Of what is drawn.
    """
    rng = np.random.default_rng(seed)
    images, clean = [], [[] for _ in logits]
    for case in range(cases):
        for task in (NORMAL, *TASKS):
            truth = np.zeros(VOXELS, dtype=bool)
            truth[: 0 if task == NORMAL else 80] = True
            allowed = tuple(range(len(logits))) if judges is None else judges(case, task)
            scores = {judge: expit(logits[judge](rng, truth, task, case)).astype(np.float32) for judge in allowed}
            if task == NORMAL:
                for judge, values in scores.items():
                    clean[judge].append(values)
            rows = np.stack(list(scores.values()))
            image = Image(f"case_{case}", task, allowed)
            images.append(SampledImage(image, rows, truth, np.ones(VOXELS, dtype=np.float32)))
    quantiles = tuple(tuple(np.quantile(values, RANK_LEVELS).tolist()) if values else () for values in clean)
    return SampledVoxels(tuple(images), quantiles)


def good(strength=2.0):
    return lambda rng, truth, task, case: -3 + strength * truth + rng.normal(0, 1, truth.size)


def noise(rng, truth, task, case):
    return -3 + rng.normal(0, 1, truth.size)


def finds(wanted):
    """Finds the anomalies of one task only."""
    return lambda rng, truth, task, case: -3 + 5 * truth * (task == wanted) + rng.normal(0, 0.7, truth.size)


def choose(sampled, groups=None):
    ledger, count = Ledger(), len(sampled.quantiles)
    judgement = Judgement([entry.image for entry in sampled.images])
    names = [f"member {number}" for number in range(count)]
    chosen = choose_ensemble(sampled, judgement, groups or {"one": tuple(range(count))}, names, ledger)
    return chosen, ledger


def entries(ledger, stage):
    return {entry["name"]: entry for entry in ledger.candidates if entry["stage"] == stage}


def assert_rule(ledger):
    """Exactly one candidate of a stage is chosen, and it gained more than its error, if it is not the plainest."""
    for stage in ("configuration", "members", "combination"):
        listed = [entry for entry in ledger.candidates if entry["stage"] == stage]
        chosen = [entry for entry in listed if entry["chosen"]]
        assert len(chosen) == 1
        if chosen[0] is not listed[0]:
            assert chosen[0]["gain"] > chosen[0]["error"]


# ---- configurations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strengths", "wanted"), [((1.0, 3.0), (2, 3)), ((3.0, 1.0), (0, 1))])
def test_the_better_of_two_configurations_is_chosen(strengths, wanted):
    sampled = make_sampled([good(strengths[0])] * 2 + [good(strengths[1])] * 2)
    chosen, ledger = choose(sampled, {"plain": (0, 1), "other": (2, 3)})
    assert set(chosen.members) <= set(wanted)
    assert set(entries(ledger, "configuration")) == {"plain", "other", "all of them"}
    assert_rule(ledger)


def test_the_default_configuration_stays_on_a_tie():
    sampled = make_sampled([good()] * 2)
    doubled = SampledVoxels(
        tuple(
            SampledImage(Image(e.image.case, e.image.task, (0, 1, 2, 3)), np.tile(e.scores, (2, 1)), e.truth, e.weights)
            for e in sampled.images
        ),
        sampled.quantiles * 2,
    )
    chosen, ledger = choose(doubled, {"plain": (0, 1), "same": (2, 3)})
    assert set(chosen.members) <= {0, 1}
    for name in ("same", "all of them"):
        assert entries(ledger, "configuration")[name]["gain"] == pytest.approx(0, abs=1e-6)
    assert_rule(ledger)


def test_configurations_that_complement_each_other_are_all_taken():
    sampled = make_sampled([finds("fpi"), finds("sink")])
    chosen, ledger = choose(sampled, {"plain": (0,), "other": (1,)})
    assert entries(ledger, "configuration")["all of them"]["chosen"]
    assert chosen.members == (0, 1)


# ---- members --------------------------------------------------------------------------------------------------------


def test_greedy_finds_the_two_complementary_members_among_noise():
    sampled = make_sampled([noise, noise, finds("fpi"), noise, noise, finds("sink"), noise, noise])
    chosen, ledger = choose(sampled)
    assert chosen.members == (2, 5)
    found = entries(ledger, "members")["best 2, greedily"]
    assert found["chosen"]
    assert found["gain"] > found["error"] > 0
    assert_rule(ledger)


def test_one_good_member_stays_alone():
    chosen, ledger = choose(make_sampled([noise, good(6.0), noise]))
    assert chosen == Chosen((1,), "mean")
    assert entries(ledger, "members")["single: member 1"]["chosen"]
    assert set(entries(ledger, "members")) == {"all 3", "single: member 0", "single: member 1", "single: member 2"}
    assert_rule(ledger)


def test_members_of_equal_worth_are_all_averaged():
    chosen, ledger = choose(make_sampled([good(1.5)] * 4))
    assert chosen.members == (0, 1, 2, 3)
    assert list(entries(ledger, "members")).count("all 4") == 1
    assert_rule(ledger)


def test_what_gains_less_than_its_error_is_not_taken():
    """The second configuration is far better on one case and worse on all others: other cases may tell otherwise."""

    def lucky(rng, truth, task, case):
        return -3 + (8 if case == 0 else 1.7) * truth + rng.normal(0, 1, truth.size)

    chosen, ledger = choose(make_sampled([good(2.0), lucky], cases=6), {"plain": (0,), "lucky": (1,)})
    found = entries(ledger, "configuration")["lucky"]
    assert 0.01 < found["gain"] < found["error"]
    assert not found["chosen"]
    assert chosen.members != (1,)
    assert_rule(ledger)


def test_one_case_proves_nothing():
    sampled = make_sampled([noise, good(6.0)], cases=1)
    chosen, ledger = choose(sampled, {"plain": (0,), "better": (1,)})
    assert chosen.members == (0,)
    assert entries(ledger, "configuration")["better"]["gain"] > 0.3
    assert entries(ledger, "configuration")["better"]["error"] is None


def test_members_that_never_meet_are_all_averaged():
    sampled = make_sampled([good(), good(), noise, good()], judges=lambda case, task: (case % 4,))
    chosen, ledger = choose(sampled)
    assert chosen == Chosen((0, 1, 2, 3), "mean")
    assert len(ledger.notes) == 1
    assert "judged by one member only" in ledger.notes[0]
    assert list(entries(ledger, "members")) == ["all 4"]
    assert list(entries(ledger, "combination")) == ["mean"]
    assert_rule(ledger)


def test_without_any_anomaly_the_plainest_is_taken_and_said_so():
    sampled = make_sampled([good(), good()])
    clean = SampledVoxels(tuple(entry for entry in sampled.images if entry.image.task == NORMAL), sampled.quantiles)
    chosen, ledger = choose(clean, {"plain": (0,), "other": (1,)})
    assert chosen == Chosen((0,), "mean")
    assert len(ledger.notes) == 1
    assert "no anomalies to judge" in ledger.notes[0]


def test_a_single_member_is_taken_as_it_is():
    chosen, ledger = choose(make_sampled([good()]))
    assert chosen == Chosen((0,), "mean")
    assert [entry["name"] for entry in ledger.candidates] == ["one", "single: member 0", "mean"]
    assert all(entry["gain"] is None for entry in ledger.candidates)
    assert not ledger.notes


def test_members_that_judge_different_images_are_compared_beside_all_of_them():
    """As in paired(t): the second member judges harder images but is the better one on them."""

    def member(strength):
        return lambda rng, truth, task, case: -3 + (strength - 1.5 * (case % 2)) * truth + rng.normal(0, 1, truth.size)

    judges = lambda case, task: (0, 2) if case % 2 == 0 else (1, 2)  # noqa: E731
    chosen, ledger = choose(make_sampled([member(2.0), member(4.0), member(2.0)], judges=judges))
    singles = {name: entry["gain"] for name, entry in entries(ledger, "members").items() if "single" in name}
    assert max(singles, key=lambda name: singles[name]) == "single: member 1"
    assert_rule(ledger)
    assert 1 in chosen.members


# ---- combinations ---------------------------------------------------------------------------------------------------


def test_ranks_win_when_one_member_s_scores_are_distorted():
    """Two equal members, one of which says everything on a scale a thousandth as large: its voice is lost in a mean."""

    def quiet(rng, truth, task, case):
        return -12 + 2 * truth + rng.normal(0, 1, truth.size)

    sampled = make_sampled([good(2.0), quiet, quiet])
    chosen, ledger = choose(sampled)
    found = entries(ledger, "combination")
    assert len(chosen.members) > 1
    assert found["rank_mean"]["chosen"]
    assert chosen.combination == "rank_mean"
    assert_rule(ledger)


def test_the_mean_stays_where_nothing_is_better():
    def even(rng, truth, task, case):
        score = np.clip(0.35 + 0.2 * truth + rng.normal(0, 0.1, truth.size), 0.01, 0.99)
        return np.log(score / (1 - score))

    chosen, ledger = choose(make_sampled([even] * 5))
    assert chosen.combination == "mean"
    assert set(entries(ledger, "combination")) == {"mean", "median", "rank_mean"}
    assert_rule(ledger)


def test_the_mean_loses_when_members_are_wild_now_and_then():
    def wild(rng, truth, task, case):
        return np.where(rng.uniform(size=truth.size) < 0.15, 8.0, -3 + 2.5 * truth + rng.normal(0, 0.3, truth.size))

    chosen, ledger = choose(make_sampled([wild] * 5))
    assert chosen.combination != "mean"
    assert entries(ledger, "combination")["median"]["gain"] > 0.1
    assert_rule(ledger)


def test_ranks_are_not_tried_for_members_without_clean_images():
    sampled = make_sampled([good(1.5)] * 3)
    without = SampledVoxels(sampled.images, (*sampled.quantiles[:2], ()))
    _, ledger = choose(without)
    assert set(entries(ledger, "combination")) == {"mean", "median"}


def test_choosing_twice_gives_the_same():
    sampled = make_sampled([good(1.0), finds("fpi"), noise, good(1.5)])
    assert choose(sampled) == choose(sampled)
