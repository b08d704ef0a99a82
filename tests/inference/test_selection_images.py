"""Who may judge what, and the images that are judged."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from scipy import ndimage

from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import write_image
from nnood.inference.selection.budget import choose_images
from nnood.inference.selection.cache import Cache, JudgedImage
from nnood.inference.selection.images import UNSEEN, Image, ImageMaker, clean_images, list_images, unseen_tasks
from nnood.planning.storage import foreground_file
from nnood.tasks import TASKS
from nnood.training.case_folds import CaseFold
from nnood.training.cross_validation import Fold, fold_for_all
from nnood.training.recipes import NNOOD
from nnood.training.schemes import make_folds
from nnood.training.validation import NORMAL

FRACTIONS = (0.25, 0.5)

# ---- who may judge --------------------------------------------------------------------------------------------------


def random_folds(seed):
    """Folds of one to three recipes with random schemes, some left untrained, and some made by hand."""
    rng = np.random.default_rng(seed)
    cases = [f"case_{number:02d}" for number in range(rng.integers(5, 30))]
    parts = np.array_split(rng.permutation(cases), 5)
    case_folds = [CaseFold(tuple(c for c in cases if c not in part), tuple(map(str, part))) for part in parts]
    folds = []
    for _ in range(rng.integers(1, 4)):
        tasks = [str(task) for task in rng.choice(list(TASKS), 5, replace=False)]
        scheme = str(rng.choice(["per_task", "leave_task_out", *(f"paired({n})" for n in range(1, 5))]))
        made = make_folds(scheme, case_folds, tasks)
        folds += [made[index] for index in rng.choice(len(made), rng.integers(1, len(made) + 1), replace=False)]
    for _ in range(rng.integers(0, 4)):  # by hand: whatever overlaps
        draw = [
            tuple(str(n) for n in rng.choice(names, 4, replace=False)) for names in (cases, cases, [*TASKS], [*TASKS])
        ]
        folds.append(Fold(*draw))
    folds.append(fold_for_all(NNOOD, cases))
    return [folds[index] for index in rng.permutation(len(folds))]


@pytest.mark.parametrize("seed", range(60))
def test_nobody_judges_what_was_seen(seed):
    folds = random_folds(seed)
    judged = list_images(folds, max_cases=8)
    clean = clean_images(folds, judged, max_cases=20)
    for image in (*judged, *clean):
        assert image.judges
        assert len(set(image.judges)) == len(image.judges)
        for judge in image.judges:
            assert image.case in folds[judge].val_cases
            assert image.case not in folds[judge].train_cases
            assert image.task not in folds[judge].train_tasks
    for number, fold in enumerate(folds):
        if set(fold.train_cases) >= set(fold.val_cases):  # among them those on all cases
            assert not any(number in image.judges for image in (*judged, *clean))
    listed = [(image.case, image.task) for image in (*judged, *clean)]
    assert len(set(listed)) == len(listed)
    assert len({image.case for image in judged}) <= 8
    assert len({case for case, _ in listed}) <= 20
    assert {image.task for image in clean} <= {NORMAL}
    assert not {image.case for image in clean} & {image.case for image in judged}


def test_everybody_judges_whatever_may_be_judged():
    folds = make_folds(
        "paired(2)", [CaseFold((), (f"case_{n}",)) for n in range(5)], ["fpi", "nsa", "sink", "dag", "pii"]
    )
    images = {(image.case, image.task): image.judges for image in list_images(folds, max_cases=99)}
    # Of the 10 choices of 2 in 5 pairs, 6 leave out one given pair and 3 leave out two.
    assert {key: len(judges) for key, judges in images.items()} == {
        (f"case_{n}", task): 3 if task in ("fpi", "nsa", "sink", "dag", "pii") and task != own else 6
        for n, own in enumerate(("fpi", "nsa", "sink", "dag", "pii"))
        for task in (NORMAL, "fpi", "nsa", "sink", "dag", "pii")
    }


def fold(train, val, train_tasks, val_tasks):
    return Fold(tuple(train), tuple(val), tuple(train_tasks), tuple(val_tasks))


def test_tasks_outside_the_recipe_stand_in_where_none_is_held_out():
    blind = fold("ab", "c", ["sink", "fpi"], ["sink", "fpi"])
    chosen = unseen_tasks([blind])
    assert len(chosen) == 4
    assert not {"sink", "fpi"} & set(chosen)
    other = fold("ab", "c", ["nsa"], ["dag"])
    assert unseen_tasks([other]) == ["dag"]
    assert set(unseen_tasks([blind, other])) == {*chosen, "dag"}


def test_recipes_that_together_have_seen_everything_are_judged_on_what_each_has_not_seen():
    one, two = fold("ab", "c", UNSEEN[:5], UNSEEN[:5]), fold("ab", "c", UNSEEN[5:], UNSEEN[5:])
    images = list_images([one, two], max_cases=9)
    assert {image.judges for image in images if image.task in UNSEEN[:5]} == {(1,)}
    assert {image.judges for image in images if image.task in UNSEEN[5:]} == {(0,)}
    everything = fold("ab", "c", UNSEEN, UNSEEN)
    assert [image.task for image in list_images([everything], max_cases=9)] == [NORMAL]


def test_score_maps_fit_on_the_disk(tmp_path):
    files = {}
    for number in range(30):
        file = tmp_path / f"case_{number:02d}.nii.gz"
        write_image(np.zeros((10, 10, 10), np.uint8), Geometry.from_spacing((10, 10, 10), (1, 1, 1)), file)
        files[f"case_{number:02d}"] = [file]
    cases = sorted(files)
    folds = [fold(["x"], cases, ["fpi"], ["nsa", "sink"])] * 2  # two judges, three images: 12 kB per case
    judged, clean = choose_images(folds, files, max_cases=20, max_bytes=10 * 12_000)
    assert len({image.case for image in judged}) == 10
    assert len(judged) == 30
    assert len(clean) == 20
    judged, clean = choose_images(folds, files, max_cases=20, max_bytes=1)
    assert (len(judged), len(clean)) == (15, 0)
    judged, clean = choose_images(folds, files, max_cases=20)
    assert (len(judged), len(clean)) == (60, 10)


# ---- images ---------------------------------------------------------------------------------------------------------


def body(shape, seed):
    """A smooth random body in a dark background (*S), and where it is."""
    rng = np.random.default_rng(seed)
    middle = [(n - 1) / 2 for n in shape]
    distance = sum(((index - m) / (0.4 * n)) ** 2 for index, m, n in zip(np.indices(shape), middle, shape, strict=True))
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    return np.where(distance < 1, 100 + 30 * texture / texture.std(), 0).astype(np.float32), distance < 1


def make_dataset(folder, shapes, *, spacing, channels=1, scale=1.0, empty=()):
    """Write cases of given shapes and their foreground; returns the maker of images."""
    files = {}
    for number, shape in enumerate(shapes):
        case, geometry = f"case_{number}", Geometry.from_spacing(shape, spacing)
        files[case] = [folder / f"{case}_{channel:04d}.nii.gz" for channel in range(channels)]
        for channel, file in enumerate(files[case]):
            write_image(body(shape, [number, channel])[0] * np.float32(scale), geometry, file)
        mask = body(shape, [number, 0])[1] & (case not in empty)
        write_image(mask.astype(np.uint8), geometry, foreground_file(folder, case))
    return ImageMaker("Dataset001_Test", files, channels, folder, FRACTIONS)


KINDS = {
    "volumes": {"shapes": [(16, 20, 18), (14, 24, 16), (18, 16, 22)], "spacing": (1.0, 1.0, 1.0)},
    "flat volumes": {"shapes": [(6, 40, 36), (5, 44, 32), (7, 36, 40)], "spacing": (5.0, 0.8, 0.8)},
    "channels": {"shapes": [(12, 20, 18), (14, 18, 16)], "spacing": (1.0, 1.0, 1.0), "channels": 2},
    "pictures": {"shapes": [(48, 40), (40, 56), (44, 44)], "spacing": (1.0, 1.0)},
    "one slice": {"shapes": [(1, 48, 40), (1, 40, 56)], "spacing": (1.0, 1.0, 1.0)},
    "alone": {"shapes": [(16, 20, 18)], "spacing": (1.0, 1.0, 1.0)},
}
PLANTED = ("sink", "poisson_inter", "cutout", "fpi")


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_as_they_should_be(kind, tmp_path):
    maker = make_dataset(tmp_path, **KINDS[kind])
    found = 0
    for case, shape in zip(maker.files, KINDS[kind]["shapes"], strict=True):
        clean, geometry, nothing, foreground = maker(case, NORMAL)
        assert clean.shape == (maker.channels, *(1,) * (3 - len(shape)), *shape)
        assert geometry.size == shape[::-1]
        assert not nothing.any()
        assert foreground.any()
        for task in PLANTED:
            values, _, truth, own = maker(case, task)
            again = maker(case, task)
            np.testing.assert_array_equal(values, again[0])
            np.testing.assert_array_equal(truth, again[2])
            np.testing.assert_array_equal(own, foreground)
            assert values.dtype == np.float32
            assert truth.dtype == bool
            assert values.shape == clean.shape
            assert truth.shape == clean.shape[1:]
            found += truth.any()
            if truth.any():
                changed = np.abs(values - clean).max(axis=0)
                assert changed[truth].max() > 10  # of a contrast of 30
                # What is not called anomalous changed too little to be seen, and only next to it.
                assert changed[~truth].max() < 20
                assert not changed[~ndimage.binary_dilation(truth, np.ones((3, 3, 3)), iterations=8)].any()
    possible = 2 if kind == "alone" else len(PLANTED)  # without a donor, nothing foreign
    assert found >= 0.7 * possible * len(maker.files)


def test_the_truth_does_not_depend_on_the_unit(tmp_path):
    maker = make_dataset(tmp_path / "one", **KINDS["volumes"])
    other = make_dataset(tmp_path / "thousand", **KINDS["volumes"], scale=1000)
    for task in PLANTED:
        (values, _, truth, _), (scaled, _, scaled_truth, _) = maker("case_0", task), other("case_0", task)
        assert (truth != scaled_truth).mean() < 1e-3
        np.testing.assert_allclose(scaled, 1000 * values, rtol=1e-3, atol=50)


def test_donors_in_a_unit_of_their_own_are_matched(tmp_path):
    maker = make_dataset(tmp_path, **KINDS["volumes"])
    relative = dataclasses.replace(maker, relative=(0,))
    expected, _, truth, _ = relative("case_0", "fpi")
    for case in ("case_1", "case_2"):
        values, mask = body(KINDS["volumes"]["shapes"][int(case[-1])], [int(case[-1]), 0])
        write_image(values * np.float32(50), Geometry.from_spacing(mask.shape, (1, 1, 1)), maker.files[case][0])
    values, _, same, _ = relative("case_0", "fpi")
    np.testing.assert_array_equal(truth, same)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-2)
    assert maker("case_0", "fpi")[0].max() > 3 * values.max()


def test_an_empty_foreground_stays_clean(tmp_path):
    maker = make_dataset(tmp_path, **KINDS["volumes"], empty=("case_1",))
    clean = maker("case_1", NORMAL)[0]
    for task in PLANTED:
        values, _, truth, foreground = maker("case_1", task)
        assert not truth.any()
        assert not foreground.any()
        np.testing.assert_array_equal(values, clean)
        maker("case_0", task)  # whose donor it may be


def test_one_file_with_three_channels(tmp_path):
    files = {}
    for number in range(2):
        picture = np.stack([np.clip(body((40, 48), [number, channel])[0], 0, 255) for channel in range(3)], axis=-1)
        files[f"case_{number}"] = [tmp_path / f"case_{number}.png"]
        Picture.fromarray(picture.astype(np.uint8)).save(files[f"case_{number}"][0])
        mask = body((40, 48), [number, 0])[1].astype(np.uint8)
        write_image(mask, Geometry.from_spacing((40, 48), (1, 1)), foreground_file(tmp_path, f"case_{number}"))
    maker = ImageMaker("Dataset001_Test", files, 3, tmp_path, FRACTIONS)
    values, _, truth, _ = maker("case_0", "cutout")
    assert values.shape == (3, 1, 40, 48)
    assert truth.any()


def test_lesion_shapes_are_planted_too(tmp_path):
    maker = make_dataset(tmp_path, **KINDS["volumes"])
    lesions = torch.zeros(1, 24, 24, 24)
    lesions[:, 4:20, 4:20, 4:20] = 1
    with pytest.raises(ValueError, match="lesion"):
        maker("case_0", "lesion_shapes")
    values, _, _, _ = dataclasses.replace(maker, lesions=lesions)("case_0", "lesion_shapes")
    assert values.shape == (1, 16, 20, 18)


def test_an_image_that_changed_after_planning_is_refused(tmp_path):
    maker = make_dataset(tmp_path, **KINDS["volumes"])
    write_image(body((10, 10, 10), 0)[0], Geometry.from_spacing((10, 10, 10), (1, 1, 1)), maker.files["case_0"][0])
    with pytest.raises(UserError, match=r"case_0_0000\.nii\.gz does not fit its foreground"):
        maker("case_0", NORMAL)


# ---- the cache ------------------------------------------------------------------------------------------------------

JUDGES = ("a" * 64, "b" * 64)


def test_the_cache_keeps_what_it_gets(tmp_path):
    image, cache = Image("case", "fpi", (0, 1)), Cache(tmp_path, {("case", "fpi"): "0" * 64}, JUDGES)
    rng = np.random.default_rng(0)
    truth, foreground = rng.uniform(size=(2, 5, 7, 3)) > 0.5
    assert cache.missing(image) == [0, 1]
    cache.write_image(image, JudgedImage(truth, foreground, (3.0, 1.0, 0.5)))
    stored = cache.read_image(image)
    np.testing.assert_array_equal(stored.truth, truth)
    np.testing.assert_array_equal(stored.foreground, foreground)
    assert stored.spacing == (3.0, 1.0, 0.5)
    logits = np.linspace(-8, 8, truth.size).reshape(truth.shape)
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    cache.write_map(image, 1, scores)
    assert cache.missing(image) == [0]
    read = cache.read_map(image, 1)
    assert read.dtype == np.float32
    np.testing.assert_allclose(np.log(read / (1 - read)), logits, atol=0.0045)
    np.testing.assert_array_equal(cache.read_map(image, 1, slice(1, 4)), read[1:4])
    np.testing.assert_array_equal(cache.read_voxels(image, 1, np.array([3, 50, 8])), read.ravel()[[3, 50, 8]])
    cache.write_map(image, 0, np.array([[[0.0, 1.0, 0.5]]]))
    np.testing.assert_allclose(cache.read_map(image, 0).ravel(), [0, 1, 0.5], atol=3e-9)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_the_cache_knows_what_an_image_is_made_of(tmp_path):
    maker = make_dataset(tmp_path, **KINDS["volumes"])
    donor = maker.donor("case_0", "fpi")
    stranger = next(case for case in maker.files if case not in ("case_0", donor))
    clean, planted = Image("case_0", NORMAL, (0, 1)), Image("case_0", "fpi", (0, 1))

    def names(maker, members=JUDGES, method="otsu"):
        cache = Cache.of(tmp_path, maker, [clean, planted], members, method)
        return cache.map_file(clean, 0), cache.map_file(planted, 0)

    before = names(maker)
    assert before[0] != before[1]
    assert names(maker) == before
    assert names(maker, members=("c" * 64, "b" * 64))[0] != before[0]
    assert names(maker, members=("a" * 64, "c" * 64)) == before
    assert names(maker, method="nonzero")[0] != before[0]
    assert names(dataclasses.replace(maker, fractions=(0.1, 0.2)))[1] != before[1]
    assert names(dataclasses.replace(maker, relative=(0,)))[1] != before[1]
    for file, changed in (
        (maker.files[stranger][0], (False, False)),
        (maker.files[donor][0], (False, True)),
        (foreground_file(tmp_path, donor), (False, True)),
        (foreground_file(tmp_path, "case_0"), (True, True)),
        (maker.files["case_0"][0], (True, True)),
    ):
        content = file.read_bytes()
        file.write_bytes(content + b" ")
        assert tuple(new != old for new, old in zip(names(maker), before, strict=True)) == changed
        file.write_bytes(content)
