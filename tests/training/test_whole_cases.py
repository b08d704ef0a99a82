from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from nnood.paths import Roots
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.planning.storage import CaseStore, save_case
from nnood.precision import autocast_for
from nnood.safety import read_json
from nnood.scores import sample_score
from nnood.tasks import TaskSettings
from nnood.training import fixed_anomalies, whole_cases
from nnood.training.checkpoints import BEST, FINAL, load_checkpoint
from nnood.training.recipes import RECIPES
from nnood.training.train import train
from nnood.training.trainer import NnoodTrainer
from nnood.training.validation import NORMAL
from nnood.training.whole_cases import WholeCases, is_due, score_whole_cases

CPU = torch.device("cpu")
CASES = [f"case_{number}" for number in range(4)]
TASKS = ("fpi", "sink", "lesion_shapes")
SHAPES = {"deep": (12, 20, 18), "flat": (1, 24, 20)}


@pytest.fixture(scope="module", params=SHAPES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    folder = tmp_path_factory.mktemp(request.param)
    for number, case in enumerate(CASES):
        shape = np.add(SHAPES[request.param], (0, number, number))
        image = np.random.default_rng(number).normal(size=(2, *shape)).astype(np.float32)
        foreground = np.full((1, *shape), -1, np.int16)
        foreground[:, :, 2:-2, 2:-2] = 1
        save_case(folder, case, image, foreground, np.argwhere(foreground == 1).astype(np.int32), (8, 8))
    return CaseStore(str(folder), CASES)


def whole(store: CaseStore, **changes: Any) -> WholeCases:
    settings = TaskSettings(
        (14, 15), (0.3, 0.7), (9.0, 9.0), (2.0, 1.5), lesions=torch.full((1, 32, 32, 32), 255).byte()
    )
    options: dict[str, Any] = {"dataset": "Dataset999_Phantoms", "donors": CASES, "first_spacing": 5.0, **changes}
    return WholeCases(store, options.pop("tasks", TASKS), settings, **options)


def test_each_case_is_there_once_normal_and_once_per_task(store: CaseStore) -> None:
    images = list(whole(store))
    assert [task for *_, task in images] == [NORMAL, *TASKS] * len(CASES)
    for index, (image, foreground, label, task) in enumerate(images):
        stored, segmentation = (array[:] for array in store.load_case(CASES[index // 4])[:2])
        np.testing.assert_array_equal(foreground.numpy(), segmentation[0] == 1)
        assert image.shape == stored.shape
        assert label.shape == stored.shape[1:]
        if task == NORMAL:
            assert not label.any()
            np.testing.assert_array_equal(image.numpy(), stored)
        else:
            changed = (image.numpy() != stored).any(axis=0)
            assert changed.any()
            assert label.any()
            assert changed[label.numpy() > 0].mean() > 0.95  # some change by chance so little that it rounds to nothing
            assert not (changed & (segmentation[0] != 1)).all()


def test_images_are_the_same_for_every_member(store: CaseStore) -> None:
    first = list(whole(store))
    one_case = CaseStore(store.source_folder, CASES[2:3])
    alone = list(whole(one_case, tasks=TASKS[1:]))
    for (image, _, label, _), (other, _, other_label, _) in zip([first[8], *first[10:12]], alone, strict=True):
        assert torch.equal(image, other)
        assert torch.equal(label, other_label)
    assert not torch.equal(first[1][2], list(whole(store, dataset="Dataset998_Others"))[1][2])


def test_a_flat_case_is_planted_in_two_dimensions(store: CaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def recorded(image: torch.Tensor, foreground: torch.Tensor, donor: torch.Tensor, *rest: Any) -> Any:
        seen.append((image.ndim, foreground.ndim, donor.shape == image.shape, rest[1].spacing))
        return original(image, foreground, donor, *rest)

    original = fixed_anomalies.plant_fixed
    monkeypatch.setattr(fixed_anomalies, "plant_fixed", recorded)
    list(whole(store, tasks=("fpi",)))
    is_flat = store.load_case(CASES[0])[0].shape[1] == 1
    assert set(seen) == {(3, 2, True, (2.0, 1.5)) if is_flat else (4, 3, True, (5.0, 2.0, 1.5))}


def test_the_number_of_cases_is_bounded(store: CaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_cases, "MOST_CASES", 2)
    assert whole(store).cases == [CASES[0], CASES[-1]]


def test_figures_are_scikit_learns(store: CaseStore) -> None:
    checks: list[int] = []
    scores = score_whole_cases(
        lambda image, _: image[:1].half(), whole(store, tasks=("sink",)), lambda: checks.append(1)
    )
    images = list(whole(store, tasks=("sink",)))
    assert len(checks) == len(images)
    values = [torch.sigmoid(image[:1].half().float()).numpy() for image, *_ in images]
    truth = [label.numpy() > 0 for _, _, label, _ in images]
    pooled = [np.concatenate([array.ravel() for array in arrays]) for arrays in (truth, values)]
    assert scores.voxel_ap(["sink"])["sink"] == pytest.approx(average_precision_score(*pooled), abs=1e-3)
    samples = average_precision_score([array.any() for array in truth], [sample_score(array) for array in values])
    assert scores.sample_ap(["sink"])["sink"] == pytest.approx(samples)


def test_when_whole_cases_are_due() -> None:
    recipe = replace(RECIPES["nnood"], epochs=1000, validate_whole_every=50)
    due = [epoch for epoch in range(1000) if is_due(recipe, epoch, last=epoch == 999)]
    assert due == list(range(49, 1000, 50))
    short = replace(recipe, epochs=10)
    assert [epoch for epoch in range(10) if is_due(short, epoch, last=epoch == 9)] == [1, 3, 5, 7, 9]
    assert is_due(replace(recipe, epochs=1), 0, last=True)
    assert is_due(recipe, 7, last=True)
    assert not is_due(replace(recipe, validate_whole_every=0), 999, last=True)


# ---- in training ----------------------------------------------------------------------------------------------------


def test_scores_are_those_of_a_plain_sliding_window_and_training_goes_on_unharmed(
    tiny: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    windows: list[Any] = []
    make = NnoodTrainer._window

    def kept(self: NnoodTrainer, *arguments: Any) -> Any:
        windows.append(make(self, *arguments))
        return windows[-1]

    monkeypatch.setattr(NnoodTrainer, "_window", kept)

    def checked(predict: Any, cases: WholeCases, check: Any) -> Any:
        network = windows[-1].network
        before = {key: value.clone() for key, value in network.state_dict().items()}
        scores = original(predict, cases, check)
        image, foreground, *_ = next(iter(cases))
        logits = predict(image, foreground).float()
        size, patch = image.shape[1:], windows[-1].configuration_manager.patch_size
        if all(n <= p for n, p in zip(size, patch, strict=True)):
            below = [(p - n) // 2 for n, p in zip(size, patch, strict=True)]
            padding = [
                width for b, n, p in zip(below[::-1], size[::-1], patch[::-1], strict=True) for width in (b, p - n - b)
            ]
            with torch.no_grad(), autocast_for(CPU):
                whole_patch = network(torch.nn.functional.pad(image, padding)[None])[0].float()
            inner = tuple(slice(b, b + n) for b, n in zip(below, size, strict=True))
            np.testing.assert_allclose(logits.numpy(), whole_patch[(slice(None), *inner)], atol=0.02)
            seen.append("compared")
        for key, value in network.state_dict().items():
            assert torch.equal(value, before[key])
        return scores

    original = whole_cases.score_whole_cases
    monkeypatch.setattr("nnood.training.trainer.score_whole_cases", checked)
    step = NnoodTrainer.train_step

    def ready(self: NnoodTrainer, batch: dict[str, Any]) -> Any:
        result = step(self, batch)
        assert self.network.decoder.deep_supervision
        assert self.network.training
        for parameter in self.network.parameters():
            assert parameter.requires_grad
            assert not parameter.is_inference()
        return result

    monkeypatch.setattr(NnoodTrainer, "train_step", ready)
    (fold,) = train("999", ["0"], tiny, tasks=["fpi"], epochs=8, iterations=1)
    log = load_checkpoint(fold / FINAL, CPU)["logging"]
    assert [value is not None for value in log["whole_voxel_ap"]] == [False, True] * 4
    assert [value is not None for value in log["mean_whole_voxel_ap"]] == [False, True] * 4
    assert [set(value) for value in log["whole_sample_ap"] if value] == [{"fpi"}] * 4
    best = load_checkpoint(fold / BEST, CPU)
    figures = [value for value in log["mean_whole_voxel_ap"] if value is not None]
    assert best["best"] == [1, max(figures)]
    assert log["mean_whole_voxel_ap"][best["current_epoch"] - 1] == max(figures)
    summary = read_json(fold / "validation" / "summary.json")
    assert summary["whole_voxel_ap"] == log["whole_voxel_ap"][-1]
    assert (summary["best_figure"], summary["best"]) == ("mean_whole_voxel_ap", max(figures))
    said = next(Path(fold).glob("training_log_*.txt")).read_text()
    assert said.count("whole cases: fpi ") == 4


def test_without_whole_cases_patches_choose(tiny: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnood.training.trainer.score_whole_cases", lambda *_: 1 / 0)
    (fold,) = train("999", ["0"], tiny, tasks=["fpi"], epochs=3, iterations=1, whole_every=0)
    log = load_checkpoint(fold / FINAL, CPU)["logging"]
    assert log["whole_voxel_ap"] == log["whole_sample_ap"] == [None] * 3
    best = load_checkpoint(fold / BEST, CPU)
    assert best["best"] == [0, max(log["mean_voxel_ap"])]


def test_whole_cases_of_two_dimensional_networks(tiny: Roots) -> None:
    plan_and_preprocess("999", tiny, configurations=["2d"], base_features=4, gpu_memory_target=0.5)
    (fold,) = train("999", ["0"], tiny, configuration="2d", tasks=["fpi"], epochs=1, iterations=1)
    assert 0 < read_json(fold / "validation" / "summary.json")["whole_voxel_ap"]["fpi"] <= 1
