from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from nnood.inference.selection.images import unseen_tasks
from nnood.planning.storage import CaseStore, save_case
from nnood.scores import sample_score
from nnood.tasks import TASKS, TaskSettings
from nnood.training import validation
from nnood.training.fixed_anomalies import seed_of
from nnood.training.log import KEYS, AnomalyLog
from nnood.training.recipes import RECIPES
from nnood.training.schemes import Fold
from nnood.training.validation import NORMAL, FixedPatches, TaskScores, donor_of, score_patches, spread_evenly
from nnood.views import View

SHAPE = (18, 20, 14)
PATCHES = [(12, 16, 8), (16, 12), (24, 16, 16)]
CASES = [f"case_{number}" for number in range(4)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    folder = tmp_path_factory.mktemp("store")
    for number, case in enumerate(CASES):
        image = np.random.default_rng(number).normal(size=(2, *SHAPE)).astype(np.float32)
        foreground = np.zeros((1, *SHAPE), np.int16)
        foreground[:, 2:16, 3:18, 2:12] = 1
        locations = np.argwhere(foreground == 1).astype(np.int32)
        save_case(folder, case, image, foreground, locations, (8, 8, 8))
    return CaseStore(str(folder), CASES)


def patches(store: CaseStore, patch_size: tuple[int, ...], *, batch_size: int = 4, **changes: Any) -> FixedPatches:
    lesions = torch.full((1, 32, 32, 32), 255, dtype=torch.uint8)
    settings = TaskSettings((14, 15, 10)[-len(patch_size) :], (0.3, 0.7), (0.4, 0.4), lesions=lesions)
    options: dict[str, Any] = {"dataset": "Dataset999_Phantoms", "donors": CASES, "device": torch.device("cpu")}
    options["views"] = (View(),)
    options.update(changes)
    tasks = options.pop("tasks", tuple(TASKS))
    return FixedPatches(store, tasks, settings, patch_size=patch_size, batch_size=batch_size, **options)


def joined(fixed: FixedPatches) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    batches = list(fixed)
    assert len(batches) == len(fixed)
    data, target = (torch.cat([batch[key] for batch in batches]) for key in ("data", "target"))
    return data, target, [task for batch in batches for task in batch["tasks"]]


@pytest.mark.parametrize("patch_size", PATCHES)
def test_passes_and_batch_sizes_do_not_matter(store: CaseStore, patch_size: tuple[int, ...]) -> None:
    fixed = patches(store, patch_size)
    first = joined(fixed)
    for data, target, tasks in (joined(fixed), *(joined(patches(store, patch_size, batch_size=n)) for n in (1, 3, 7))):
        assert torch.equal(data, first[0])
        assert torch.equal(target, first[1])
        assert tasks == first[2]


@pytest.mark.parametrize("patch_size", PATCHES)
def test_each_case_is_there_once_normal_and_once_per_task(store: CaseStore, patch_size: tuple[int, ...]) -> None:
    data, target, tasks = joined(patches(store, patch_size))
    assert data.shape == (len(tasks), 2, *patch_size)
    assert target.shape == (len(tasks), 1, *patch_size)
    assert tasks == [NORMAL, *TASKS] * len(CASES)
    per_case = len(TASKS) + 1
    for start in range(0, len(tasks), per_case):
        assert not target[start].any()
        for index in range(start + 1, start + per_case):
            assert target[index].any()
            assert not torch.equal(data[index], data[start])


def test_a_normal_patch_is_the_middle_of_the_foreground(store: CaseStore) -> None:
    data = joined(patches(store, (10, 11, 6)))[0]
    image = store.load_case(CASES[0])[0][:]
    # Foreground 2..15, 3..17, 2..11: its middle is 8, 10, 6 (medians, rounded down).
    np.testing.assert_array_equal(data[0].numpy(), image[:, 3:13, 5:16, 3:9])
    flat = joined(patches(store, (11, 6)))[0]
    np.testing.assert_array_equal(flat[0].numpy(), image[:, 8, 5:16, 3:9])


def test_data_set_and_task_decide_the_anomalies(store: CaseStore) -> None:
    first, other = (joined(patches(store, (12, 16, 8), dataset=name))[1] for name in ("Dataset001_A", "Dataset002_B"))
    assert not torch.equal(first, other)
    assert seed_of("a", "bc") != seed_of("ab", "c")
    assert 0 <= seed_of("a") < 2**63


def test_an_anomaly_does_not_depend_on_the_other_tasks(store: CaseStore) -> None:
    both = joined(patches(store, (12, 16, 8), tasks=tuple(TASKS)))
    one = joined(patches(store, (12, 16, 8), tasks=("smooth_intensity",)))
    picked = [index for index, task in enumerate(both[2]) if task in (NORMAL, "smooth_intensity")]
    assert torch.equal(both[0][picked], one[0])


def test_the_number_of_cases_is_bounded(store: CaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MAX_CASES", 2)
    assert joined(patches(store, (12, 16, 8), batch_size=2))[2] == [NORMAL, *TASKS] * 2


def test_a_single_held_out_case_has_donors(store: CaseStore) -> None:
    single = CaseStore(store.source_folder, CASES[:1])
    _, target, tasks = joined(patches(single, (12, 16, 8), donors=CASES[1:]))
    assert target[tasks.index("fpi")].any()


def test_task_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    tasks = [NORMAL, "fpi", "smooth_intensity"] * 10
    labels = np.zeros((30, 1, 12, 12), np.float32)
    for index, task in enumerate(tasks):
        if task != NORMAL:
            labels[index, 0, 3:6, 4:9] = rng.uniform(0.1, 1)
    scores = np.clip(rng.uniform(size=labels.shape) + 0.25 * labels, 0, 1).astype(np.float32)
    gathered = TaskScores()
    for part in (slice(0, 7), slice(7, 30)):
        gathered.add(torch.from_numpy(scores[part]), torch.from_numpy(labels[part]), tasks[part])
    known = ("fpi", "smooth_intensity")
    voxel_ap, sample_ap = gathered.voxel_ap(known), gathered.sample_ap(known)
    assert tuple(voxel_ap) == tuple(sample_ap) == known
    for task in voxel_ap:
        used = np.array([name in (NORMAL, task) for name in tasks])
        truth, score = labels[used] > 0, scores[used]
        assert voxel_ap[task] == pytest.approx(average_precision_score(truth.ravel(), score.ravel()), abs=1e-4)
        of_samples = [sample_score(image) for image in score]
        expected = average_precision_score(truth.reshape(len(truth), -1).any(axis=1), of_samples)
        assert sample_ap[task] == pytest.approx(expected, abs=1e-9)
    assert gathered.prior(known) == pytest.approx(labels.mean(), rel=1e-5)
    chosen = np.array([name in (NORMAL, "fpi") for name in tasks])
    assert gathered.prior(["fpi"]) == pytest.approx(labels[chosen].mean(), rel=1e-5)
    assert gathered.voxel_ap(["fpi"]) == {"fpi": voxel_ap["fpi"]}


def test_without_images_there_are_no_figures() -> None:
    empty = TaskScores()
    assert (empty.prior(["fpi"]), empty.loss(["fpi"])) == (0, 0)
    assert empty.voxel_ap([]) == empty.sample_ap([]) == {}
    assert np.isnan([*empty.voxel_ap(["fpi"]).values(), *empty.sample_ap(["fpi"]).values()]).all()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_scores_of_patches(store: CaseStore, batch_size: int) -> None:
    fixed = patches(store, (16, 12), tasks=("fpi", "sink"), batch_size=batch_size)
    checks: list[int] = []

    def predict(images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        assert foreground.shape == (len(images), *images.shape[2:])
        assert foreground.dtype == torch.bool
        return images[:, :1]

    scores = score_patches(predict, fixed, lambda: checks.append(1))
    assert len(checks) == len(fixed)
    data, target, tasks = joined(fixed)
    for counted in (("fpi",), ("fpi", "sink")):
        chosen = [index for index, task in enumerate(tasks) if task in (NORMAL, *counted)]
        probability, label = torch.sigmoid(data[chosen, :1].double()), target[chosen].double()
        expected = -(label * probability.log() + (1 - label) * (1 - probability).log()).mean()
        assert scores.loss(counted) == pytest.approx(float(expected), rel=1e-5)
        assert scores.prior(counted) == pytest.approx(float(label.mean()), rel=1e-5)


def test_cases_are_spread_evenly_and_nobody_lends_to_itself() -> None:
    cases = [str(number) for number in range(10)]
    assert spread_evenly(cases, 3) == ["0", "4", "9"]
    assert spread_evenly(cases, 20) == cases
    assert {donor_of("3", cases, seed) for seed in range(30)} == {*cases} - {"3"}
    assert donor_of("3", ["3"], 5) == "3"


@pytest.mark.parametrize(("tasks", "expected"), [(0, 40), (1, 40), (4, 40), (5, 33), (12, 15), (300, 1)])
def test_many_tasks_do_not_make_more_images(tasks: int, expected: int) -> None:
    assert validation.cases_for(["task"] * tasks, 40, 200) == expected


def test_the_default_recipe_leaves_kinds_to_be_judged_on() -> None:
    recipe = RECIPES["nnood"]
    tasks = tuple(recipe.tasks)
    left = unseen_tasks([Fold(("a",), ("b",), tasks, tasks)])
    assert len(left) == 4
    assert not set(left) & set(tasks)


def test_chance_is_what_random_scores_reach() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = TaskScores()
    for task, share in ((NORMAL, 0.0), ("fpi", 0.1), ("sink", 0.4)):
        label = (torch.rand(4, 1, 64, 64, generator=generator) < share).float()
        scores.add(torch.rand(4, 1, 64, 64, generator=generator), label, [task] * 4)
    chance, reached = scores.chance(["fpi", "sink"]), scores.voxel_ap(["fpi", "sink"])
    assert chance == pytest.approx(reached, rel=0.1)
    assert chance["fpi"] == pytest.approx(0.05, rel=0.1)
    assert TaskScores().chance(["fpi"]) == {"fpi": 0.0}


def test_a_network_that_is_too_sure_of_itself_has_learned_all_the_same() -> None:
    label = torch.zeros(1, 1, 32, 32)
    label[..., :4, :4] = 1
    right, anywhere = AnomalyLog(), AnomalyLog()
    for log, score in ((right, label), (anywhere, label.flip(-1).flip(-2))):
        scores = TaskScores()
        scores.add(0.6 * torch.ones_like(label), torch.zeros_like(label), [NORMAL], [0.9])
        scores.add(0.6 + 0.3 * score, label, ["fpi"], [0.9])
        log.log_patches(scores, ["fpi"], [], 0)
    assert right.has_learned
    assert not anywhere.has_learned


def test_of_many_tasks_a_line_tells_the_mean_and_the_extremes() -> None:
    log = AnomalyLog()
    tasks = [f"task{number}" for number in range(7)]
    for key in KEYS:
        log.log(key, 1.0, 0)
    log.log("voxel_ap", {task: 0.1 * number for number, task in enumerate(tasks)}, 0)
    log.log("sample_ap", dict.fromkeys(tasks, 0.5), 0)
    log.log("whole_voxel_ap", None, 0)
    log.log("failed", 0, 0)
    line = log.describe_epoch(3)
    assert "0.300/0.500, mean of 7 tasks from task0 0.000/0.500 to task6 0.600/0.500" in line
    assert "task3" not in line
