from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnood.paths import Roots
from nnood.planning.storage import CaseStore, case_files, receipt_file, save_case
from nnood.safety import read_json
from nnood.tasks import TaskSettings
from nnood.training import trainer
from nnood.training.checkpoints import FINAL, load_checkpoint
from nnood.training.offline import OfflineCases, OfflinePlanter, Planted, describe_planted
from nnood.training.recipes import RECIPES
from nnood.training.train import train
from nnood.training.validation import NORMAL
from nnood.views import View

CPU = torch.device("cpu")
CASES = [f"case_{number}" for number in range(4)]
RECIPE = RECIPES["nnunet_fpi"]
# Shape of the cases, axes of the configuration's patches.
KINDS = {"volumes": ((14, 22, 20), 3), "slices": ((1, 40, 36), 2), "stacks": ((10, 30, 28), 2)}
PATCH = {3: (12, 16, 16), 2: (24, 24)}


def write_store(folder: Path, shape: tuple[int, ...], *, first: int = 0) -> CaseStore:
    """Smooth images of two channels, of unequal shapes, with -1 at the border and 0 beside the foreground."""
    for number, case in enumerate(CASES):
        own = tuple(np.add(shape, (0, number, number)))
        image = np.random.default_rng(first + number).normal(size=(2, *own)).astype(np.float32)
        segmentation = np.full((1, *own), -1, np.int16)
        segmentation[:, :, 2:-2, 2:-2] = 0
        segmentation[:, :, 4:-4, 4:-4] = 1
        save_case(folder, case, image, segmentation, np.argwhere(segmentation == 1).astype(np.int32), (8, 8))
    return CaseStore(str(folder), list(CASES))


@pytest.fixture(params=KINDS)
def offline(request: pytest.FixtureRequest, tmp_path: Path) -> OfflineCases:
    shape, axes = KINDS[request.param]
    return offline_cases(tmp_path, shape, axes)


@pytest.fixture
def volumes(tmp_path: Path) -> OfflineCases:
    return offline_cases(tmp_path, *KINDS["volumes"])


def offline_cases(folder: Path, shape: tuple[int, ...], axes: int) -> OfflineCases:
    return OfflineCases(
        store=write_store(folder / "store", shape),
        recipe=RECIPE,
        tasks=("fpi",),
        settings=TaskSettings(shape[-axes:], (0.02, 0.7), (1.0, 1.0), (1.5, 2.0, 1.5)[-axes:]),
        first_spacing=1.5,
        patch_size=PATCH[axes],
        seed=0,
        folder=folder / "offline",
    )


def contents(cases: OfflineCases) -> dict[str, Any]:
    """All that the files say; Blosc2's threads make the bytes of equal arrays differ."""
    store = cases.planted_store()
    return {
        case: (
            [(array.shape, array.dtype.str, array.tobytes()) for array in arrays(store, case)],
            {key: read_json(receipt_file(cases.folder, case))[key] for key in ("settings", "inputs", "result")},
        )
        for case in CASES
    }


def arrays(store: CaseStore, case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, segmentation, _, properties = store.load_case(case)
    return image[:], segmentation[:], properties["class_locations"][1]


def extents(mask: np.ndarray) -> np.ndarray:
    return np.ptp(np.argwhere(mask), axis=0) + 1


# ---- what is planted ------------------------------------------------------------------------------------------------


def test_each_case_gets_one_anomaly_and_keeps_all_else(offline: OfflineCases) -> None:
    planted = offline.plant(CASES)
    assert list(planted) == CASES
    assert all(one.task == "fpi" and one.voxels for one in planted.values())
    store = offline.planted_store()
    assert store.identifiers == CASES
    for case in CASES:
        image, segmentation, positions = arrays(store, case)
        before, foreground, _ = arrays(offline.store, case)
        assert segmentation.shape == (2, *image.shape[1:])
        np.testing.assert_array_equal(segmentation[:1], foreground)
        anomaly = segmentation[1] == 1
        assert set(np.unique(segmentation[1])) == {0, 1}
        assert anomaly.sum() == planted[case].voxels
        assert {tuple(position) for position in positions[:, 1:]} == {tuple(voxel) for voxel in np.argwhere(anomaly)}
        changed = (image != before).any(axis=0)
        assert changed[anomaly].mean() > 0.95
        beside = np.argwhere(changed & ~anomaly)  # too little to be seen, in the anomaly's box
        box = np.argwhere(anomaly)
        assert ((beside >= box.min(axis=0) - 1) & (beside <= box.max(axis=0) + 1)).all()
        assert len(beside) <= 0.05 * len(box)
        # The recipe's largest anomaly is 0.4 of the foreground's box; edges are rounded.
        assert (extents(anomaly) <= 0.4 * extents(foreground[0] == 1) + 1).all()
        assert (segmentation[0][anomaly] == 1).mean() >= 0.5


def test_anomalies_have_as_many_axes_as_the_cases(tmp_path: Path) -> None:
    deep = offline_cases(tmp_path / "stacks", *KINDS["stacks"])
    deep.plant(CASES)
    depths = [len(np.unique(arrays(deep.planted_store(), case)[2][:, 1])) for case in CASES]
    assert max(depths) > 1
    assert max(depths) < KINDS["stacks"][0][0]


@pytest.mark.parametrize("kind", KINDS)
def test_foreign_tissue_is_the_lenders(kind: str, tmp_path: Path) -> None:
    """Of lenders that are one value everywhere, interpolation makes what lies between the own value and theirs."""
    cases = offline_cases(tmp_path, *KINDS[kind])
    lenders = write_store(tmp_path / "lenders", KINDS[kind][0])
    for case in CASES:
        image, segmentation, positions = arrays(lenders, case)
        save_case(tmp_path / "lenders", case, np.full_like(image, 50.0), segmentation, positions, (8, 8))
    cases = replace(cases, lenders=lenders)
    cases.plant(CASES)
    for case in CASES:
        image, segmentation, _ = arrays(cases.planted_store(), case)
        before, _, _ = arrays(cases.store, case)
        changed = image != before
        assert changed.any()
        assert (image[changed] > before[changed]).all()
        assert image.max() <= 50.0
        np.testing.assert_array_equal(changed.any(axis=0), segmentation[1] == 1)


def test_tasks_are_drawn_by_the_recipes_shares(volumes: OfflineCases) -> None:
    tasks = {"fpi": 3.0, "sink": 1.0}
    many = replace(volumes, recipe=replace(RECIPE, tasks=tasks, normal=0.2), tasks=tuple(tasks))
    drawn = [many._draw_task(f"case_{number}") for number in range(4000)]
    shares = {task: drawn.count(task) / len(drawn) for task in (*tasks, NORMAL)}
    assert shares == pytest.approx({"fpi": 0.6, "sink": 0.2, NORMAL: 0.2}, abs=0.03)


def test_what_stays_normal_is_as_it_was(volumes: OfflineCases) -> None:
    normal = replace(volumes, recipe=replace(RECIPE, normal=0.99))
    planted = normal.plant(CASES)
    assert set(planted.values()) == {Planted(NORMAL, 0)}
    for case in CASES:
        image, segmentation, positions = arrays(normal.planted_store(), case)
        before, foreground, known = arrays(normal.store, case)
        np.testing.assert_array_equal(image, before)
        np.testing.assert_array_equal(segmentation, [foreground[0], np.zeros_like(foreground[0])])
        np.testing.assert_array_equal(positions, known)


def test_where_nothing_can_be_planted_the_label_is_0_and_it_is_told(volumes: OfflineCases) -> None:
    image, segmentation, _ = arrays(volumes.store, CASES[1])
    nothing = np.minimum(segmentation, 0)
    save_case(Path(volumes.store.source_folder), CASES[1], image, nothing, np.zeros((0, 4), np.int32), (8, 8))
    planted = volumes.plant(CASES)
    assert planted[CASES[1]] == Planted("fpi", 0)
    after, two, positions = arrays(volumes.planted_store(), CASES[1])
    np.testing.assert_array_equal(after, image)
    assert not two[1].any()
    assert len(positions) == 0
    assert describe_planted(planted) == (
        "Anomalies planted before training, in cases: fpi 3; left normal: 0. Nothing could be planted in 1: case_1."
    )


# ---- the same again, and resuming -----------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_files_wherever_and_in_whichever_order(volumes: OfflineCases) -> None:
    volumes.plant(CASES)
    again = replace(volumes, folder=volumes.folder.with_name("again"))
    again.plant(CASES[3:])
    again.plant(CASES[:3])
    assert contents(again) == contents(volumes)
    other = replace(volumes, folder=volumes.folder.with_name("other"), seed=1)
    other.plant(CASES)
    for case in CASES:
        assert not np.array_equal(arrays(other.planted_store(), case)[1], arrays(volumes.planted_store(), case)[1])


def _delete(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [_delete, _cut, _spoil])
def test_what_is_missing_or_damaged_is_made_anew_and_nothing_else(
    volumes: OfflineCases, harm: Callable[[Path], None]
) -> None:
    results = volumes.plant(CASES)
    before = contents(volumes)
    harmed = [*case_files(volumes.folder, CASES[0]), receipt_file(volumes.folder, CASES[0])]
    sound = [path for case in CASES[1:] for path in case_files(volumes.folder, case)]
    times = [path.stat().st_mtime_ns for path in sound]
    for path in harmed:
        harm(path)
        assert volumes.plant(CASES) == results
        assert contents(volumes) == before
    assert [path.stat().st_mtime_ns for path in sound] == times


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": replace(RECIPE, sizes=(0.2, 0.3))},
        {"recipe": replace(RECIPE, repeat=1.0)},
        {"recipe": replace(RECIPE, tasks={"sink": 1.0}), "tasks": ("sink",)},
        {"seed": 1},
    ],
)
def test_other_settings_make_all_anew(volumes: OfflineCases, change: dict[str, Any]) -> None:
    volumes.plant(CASES)
    other = replace(volumes, **change)
    other.plant(CASES)
    fresh = replace(other, folder=volumes.folder.with_name("fresh"))
    fresh.plant(CASES)
    assert contents(other) == contents(fresh)


def test_a_changed_donor_makes_its_borrowers_anew(volumes: OfflineCases) -> None:
    lenders = write_store(volumes.folder.with_name("lenders"), KINDS["volumes"][0])
    borrowing = replace(volumes, lenders=lenders)
    borrowing.plant(CASES)
    write_store(volumes.folder.with_name("lenders"), KINDS["volumes"][0], first=9)
    borrowing.plant(CASES)
    fresh = replace(borrowing, folder=volumes.folder.with_name("fresh"))
    fresh.plant(CASES)
    assert contents(borrowing) == contents(fresh)


def test_planting_ends_when_asked_to_and_goes_on_there(volumes: OfflineCases) -> None:
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        volumes.plant(CASES, check)
    assert [case for case in CASES if receipt_file(volumes.folder, case).exists()] == CASES[:2]
    volumes.plant(CASES)
    whole = replace(volumes, folder=volumes.folder.with_name("whole"))
    whole.plant(CASES)
    assert contents(volumes) == contents(whole)


# ---- nnU-Net's loader -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmented", [False, True])
def test_nnunets_loader_delivers_the_anomaly_and_oversamples_it(offline: OfflineCases, *, augmented: bool) -> None:
    offline.plant(CASES)
    patch, labels = offline.patch_size, SimpleNamespace(all_labels=[1], has_ignore_label=False)
    initial = tuple(np.add(patch, 4)) if augmented else patch
    transforms = (
        nnUNetTrainer.get_training_transforms(patch, (-0.2, 0.2), None, (0,), False)
        if augmented
        else nnUNetTrainer.get_validation_transforms(None)
    )
    store: Any = offline.planted_store()
    loader = nnUNetDataLoader(store, 4, initial, patch, labels, 0.5, transforms=transforms)
    np.random.seed(0)
    torch.manual_seed(0)
    planter = OfflinePlanter(CPU)
    for _ in range(5):
        batch = next(loader)
        assert batch["target"].shape == (4, 2, *patch)
        image, label = planter(batch)
        assert image.shape == (4, 2, *patch)
        assert label.shape == (4, 1, *patch)
        assert label.dtype == torch.float32
        assert set(label.unique().tolist()) <= {0.0, 1.0}
        torch.testing.assert_close(label, batch["target"][:, 1:].float())
        assert label[2:].flatten(1).any(dim=1).all()  # the last of a batch are oversampled
        assert set(batch["target"][:, 0].unique().tolist()) <= {0, 1}


def test_padding_is_not_anomalous() -> None:
    target = torch.tensor([-1, 0, 1, 1], dtype=torch.int16).reshape(1, 1, 4)
    image, label = OfflinePlanter(CPU)({"data": torch.arange(4.0).reshape(1, 1, 4), "target": target.repeat(1, 2, 1)})
    assert image.tolist() == [[[0.0, 1.0, 2.0, 3.0]]]
    assert label.tolist() == [[[0.0, 0.0, 1.0, 1.0]]]


def test_of_slabs_the_label_is_that_of_the_middle_slice() -> None:
    data = torch.arange(2 * 2 * 3 * 4 * 5.0).reshape(2, 2, 3, 4, 5)
    target = torch.zeros(2, 2, 3, 4, 5, dtype=torch.int16)
    target[:, 0] = 1
    target[0, 1, 0] = 1
    target[1, 1, 1, 2] = 1
    planter = OfflinePlanter(CPU, [View(0, 3), View(1, 3)])
    image, label = planter({"data": data, "target": target, "view": 1})
    assert image.shape == (2, 6, 4, 5)
    torch.testing.assert_close(image[:, 4], data[:, 1, 1])
    assert not label[0].any()
    assert label[1, 0].sum(dim=1).tolist() == [0.0, 0.0, 5.0, 0.0]


# ---- in training ----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands in for a kill: nothing catches it."""


def test_training_is_on_hard_masks_and_goes_on_as_if_it_had_never_stopped(
    tiny: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "beforehand", replace(RECIPE, name="beforehand"))
    options: dict[str, Any] = {"recipe": "beforehand", "epochs": 2, "iterations": 2, "whole_every": 0}
    labels = []

    def seen(label: torch.Tensor, shapes: list[list[int]], **options: bool) -> list[torch.Tensor]:
        labels.append(label)
        if len(labels) == kill_at:
            raise Killed
        return original(label, shapes, **options)

    original = trainer.downsample_label
    monkeypatch.setattr(trainer, "downsample_label", seen)
    kill_at = 0
    (fold,) = train("999", ["0"], tiny, **options)
    assert set(torch.cat(labels).unique().tolist()) == {0.0, 1.0}
    settings = read_json(fold / "settings.json")
    assert CaseStore(str(fold / "offline")).identifiers == sorted(settings["fold"]["train_cases"])
    smooth = load_checkpoint(fold / FINAL, CPU)
    fold.rename(fold.with_name("smooth"))

    labels.clear()
    kill_at = 4
    with pytest.raises(Killed):
        train("999", ["0"], tiny, **options)
    written = {path: path.stat().st_mtime_ns for path in (fold / "offline").rglob("*") if path.is_file()}
    train("999", ["0"], tiny, go_on=True, **options)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    resumed = load_checkpoint(fold / FINAL, CPU)
    for name, weights in smooth["network_weights"].items():
        assert torch.equal(weights, resumed["network_weights"][name]), name
    assert resumed["logging"]["voxel_ap"] == smooth["logging"]["voxel_ap"]
