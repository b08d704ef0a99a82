"""Stored cases seen from each side, as nnU-Net's loader takes patches of them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnood.planning.storage import CaseStore, save_case
from nnood.tasks import TASKS, TaskSettings
from nnood.training.loading import AlternatingLoader, feed, load_seen
from nnood.training.slice_blur import SliceBlur, blur_within_slices
from nnood.training.turned import TurnedStore, seen_from
from nnood.training.validation import NORMAL, FixedPatches
from nnood.views import View

SHAPE = (9, 14, 11)
CASES = [f"case_{number}" for number in range(6)]
VIEWS = tuple(View(axis, 3) for axis in range(3))
LABELS: Any = SimpleNamespace(all_labels=[1], has_ignore_label=False)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    """Two channels: noise, and where each voxel lies."""
    folder = tmp_path_factory.mktemp("store")
    for number, case in enumerate(CASES):
        noise = np.random.default_rng(number).normal(size=SHAPE)
        image = np.stack([noise, 1 + np.arange(noise.size).reshape(SHAPE)]).astype(np.float32)
        foreground = np.zeros((1, *SHAPE), np.int16)
        foreground[:, 1:8, 3:13, 2:10] = 1
        save_case(folder, case, image, foreground, np.argwhere(foreground == 1).astype(np.int32), (8, 8, 8))
    return CaseStore(str(folder), CASES)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_turned_store_shows_transposed_cases(store: CaseStore, axis: int) -> None:
    image, foreground, _, properties = store.load_case(CASES[0])
    turned, mask, nothing, known = seen_from(store, View(axis, 3)).load_case(CASES[0])
    order = (0, 1 + axis, *(1 + n for n in range(3) if n != axis))
    expected, expected_mask = (np.transpose(array[:], order) for array in (image, foreground))
    assert nothing is None
    assert turned.shape == expected.shape
    assert turned.dtype == expected.dtype
    np.testing.assert_array_equal(turned[:], expected)
    np.testing.assert_array_equal(mask[:], expected_mask)
    part = (slice(1, 2), slice(2, 5), slice(0, 4), slice(3, 9))
    np.testing.assert_array_equal(turned[part], expected[part])
    np.testing.assert_array_equal(turned[part[:2]], expected[part[:2]])
    locations = known["class_locations"][1]
    assert len(locations) == len(properties["class_locations"][1])
    assert (expected_mask[tuple(locations.T)] == 1).all()


def loader_of(store: CaseStore, view: View, transforms: Any = None) -> nnUNetDataLoader:
    transforms = transforms or nnUNetTrainer.get_validation_transforms(None)
    seen: Any = seen_from(store, view)
    size = (3, 20, 20)
    return nnUNetDataLoader(seen, 2, size, size, LABELS, 0.5, pad_sides=(2, 0, 0), transforms=transforms)


@pytest.mark.parametrize("view", VIEWS)
def test_slabs_are_adjacent_slices_and_reach_beyond_the_border(store: CaseStore, view: View) -> None:
    loader = loader_of(store, view)
    step = np.prod(SHAPE[view.axis + 1 :])  # from a voxel to that of the next slice, in the second channel
    np.random.seed(0)
    middles = set()
    for _ in range(60):
        batch = next(loader)
        for slab, mask in zip(batch["data"].numpy(), batch["target"].numpy(), strict=True):
            where = slab[1]
            positions = where[1][where[1] > 0].astype(int) - 1
            assert positions.size, "the middle slice lies outside of the image"
            middles |= set(np.unravel_index(positions, SHAPE)[view.axis].tolist())
            for beside, side in ((0, -1), (2, 1)):
                inside = where[beside] > 0
                np.testing.assert_array_equal(where[beside][inside], where[1][inside] + side * step)
            assert ((slab[1] > 0) | (mask[0] <= 0)).all()
    assert middles == set(range(SHAPE[view.axis]))


def test_a_batch_is_of_one_side_drawn_from_numpys_randomness(store: CaseStore) -> None:
    loader = AlternatingLoader([loader_of(store, view) for view in VIEWS])
    drawn = []
    for seed in (0, 0, *range(12)):
        np.random.seed(seed)
        drawn.append(next(loader))
    assert drawn[0]["view"] == drawn[1]["view"]
    assert torch.equal(drawn[0]["data"], drawn[1]["data"])
    assert {batch["view"] for batch in drawn} == {0, 1, 2}
    single = AlternatingLoader([loader_of(store, VIEWS[0])])
    np.random.seed(3)
    alone = next(single)
    np.random.seed(3)
    assert torch.equal(alone["data"], next(loader_of(store, VIEWS[0]))["data"])  # nothing is drawn for one side


def test_worker_processes_take_turns_too(store: CaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    loader = AlternatingLoader([loader_of(store, view) for view in VIEWS])
    batches = feed(loader, torch.device("mps"), 1)  # any but a CPU
    try:
        drawn = [next(batches) for _ in range(12)]
    finally:
        batches._finish()
    assert {batch["view"] for batch in drawn} == {0, 1, 2}
    assert all(batch["data"].shape == (2, 2, 3, 20, 20) for batch in drawn)


def test_nnunets_augmentation_moves_the_slices_of_a_slab_together() -> None:
    transforms = blur_within_slices(
        nnUNetTrainer.get_training_transforms((3, 20, 20), (-0.3, 0.3), None, (1, 2), do_dummy_2d_data_aug=True)
    )
    torch.manual_seed(0)
    np.random.seed(0)
    mask = torch.zeros(1, 3, 24, 24, dtype=torch.int16)
    mask[..., 4:12, 6:20] = 1
    changed = 0
    for _ in range(40):
        moved = transforms(image=torch.rand(2, 3, 24, 24), segmentation=mask.clone())
        assert moved["image"].shape == (2, 3, 20, 20)
        assert moved["image"].isfinite().all()
        found = moved["segmentation"][0]
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[2], found[1])
        changed += not torch.equal(found[1], mask[0, 0, 2:22, 2:22])
    assert changed > 10


def test_the_blur_is_within_slices() -> None:
    composed = nnUNetTrainer.get_training_transforms((3, 16, 16), (0.0, 0.0), None, (), do_dummy_2d_data_aug=True)
    (blur,) = [t.transform for t in blur_within_slices(composed).transforms if "Blur" in str(t)]
    assert isinstance(blur, SliceBlur)
    image = torch.zeros(2, 3, 16, 16)
    image[:, 1, 8, 8] = 1
    torch.manual_seed(1)
    blurred = [blur(image=image.clone())["image"] for _ in range(20)]
    assert all(torch.equal(one[:, [0, 2]], image[:, [0, 2]]) for one in blurred)
    totals = torch.stack([one[:, 1].sum(dim=(-2, -1)) for one in blurred])
    torch.testing.assert_close(totals, torch.ones(20, 2))
    peaks = torch.stack([one[:, 1, 8, 8] for one in blurred])
    assert 0.2 < float((peaks < 0.99).float().mean()) < 0.8  # nnU-Net blurs every other channel


@pytest.mark.parametrize("view", VIEWS)
def test_a_single_patch_is_the_slab_around_the_middle_of_the_foreground(store: CaseStore, view: View) -> None:
    image, mask = load_seen(store, CASES[0], (3, 20, 20), view)
    assert image.shape == (6, 20, 20)
    assert mask.shape == (20, 20)
    whole = np.moveaxis(store.load_case(CASES[0])[0][:][1], view.axis, 0)
    middle = {0: 4, 1: 7, 2: 5}[view.axis]
    for number, where in enumerate(range(middle - 1, middle + 2), start=3):
        found = image[number].numpy()
        np.testing.assert_array_equal(found[found > 0], np.sort(whole[where].ravel()))
    assert int(mask.sum()) == int(np.prod([n for axis, n in enumerate((7, 10, 8)) if axis != view.axis]))


def fixed(store: CaseStore, tasks: tuple[str, ...]) -> FixedPatches:
    lesions = torch.full((1, 32, 32, 32), 255, dtype=torch.uint8)
    settings = TaskSettings((7, 10, 8), (0.3, 0.7), (0.4, 40.0), lesions=lesions)
    options: dict[str, Any] = {"dataset": "Any", "donors": CASES, "patch_size": (3, 16, 16), "batch_size": 5}
    return FixedPatches(store, tasks, settings, views=VIEWS, device=CPU, **options)


def test_every_task_plants_in_slabs_of_every_side(store: CaseStore) -> None:
    sides = set()
    for batch in fixed(store, tuple(TASKS)):
        assert batch["data"].shape[1:] == (6, 16, 16)
        assert batch["target"].shape[1:] == (1, 16, 16)
        assert float(batch["target"].min()) >= 0
        assert float(batch["target"].max()) <= 1
        for image, label, task in zip(batch["data"], batch["target"], batch["tasks"], strict=True):
            if task == NORMAL:
                assert not label.any()
                middle = image[4]  # of the second channel, which says where it lies
                sides.add((int(middle[8, 8] - middle[7, 8]), int(middle[8, 8] - middle[8, 7])))
    # Steps from a row to the next and from a column to the next.
    _, rows, columns = SHAPE
    assert sides == {(columns, 1), (rows * columns, 1), (rows * columns, columns)}


def test_fixed_images_do_not_depend_on_the_other_cases_and_tasks(store: CaseStore) -> None:
    def images(of: CaseStore, tasks: tuple[str, ...]) -> dict[tuple[str, str], torch.Tensor]:
        patches = fixed(of, tasks)
        names = [(case, task) for case in of.identifiers for task in (NORMAL, *tasks)]
        return dict(zip(names, torch.cat([batch["data"] for batch in patches]), strict=True))

    everything = images(store, ("fpi", "sink", "cutout"))
    few = images(CaseStore(store.source_folder, CASES[2:4]), ("cutout",))
    assert all(torch.equal(image, everything[name]) for name, image in few.items())


def test_a_turned_store_is_what_nnunets_loader_asks_for(store: CaseStore) -> None:
    turned = TurnedStore(store, VIEWS[2])
    assert turned.identifiers == store.identifiers
    assert seen_from(store, VIEWS[0]) is store
