import json
from itertools import pairwise

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from sklearn.metrics import average_precision_score

from nnood.phantoms import ANOMALY_KINDS, VISIBLE_CHANGE, add_anomaly, head_mask, make_phantom, write_demo_dataset

SHAPE = (32, 40, 32)
SEEDS = range(5)


def phantom(seed, shape=SHAPE):
    return make_phantom(np.random.default_rng([7, seed]), shape)


def planted(kind, seed):
    before = phantom(seed)
    return before, *add_anomaly(before, kind, np.random.default_rng([8, seed]))


@pytest.mark.parametrize("shape", [SHAPE, (40, 48, 40), (48, 40, 56)])
def test_phantom_is_a_finite_head_in_air(shape):
    image = phantom(0, shape)
    head = head_mask(image)
    assert image.shape == shape
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert (image >= 0).all()
    assert 0.2 < head.mean() < 0.6
    assert image[~head].mean() < 0.15 * image[head].mean()
    assert image[~head].std() > 0


def test_same_seed_same_phantom_other_seed_other_phantom():
    assert np.array_equal(phantom(3), phantom(3))
    images = [phantom(seed) for seed in SEEDS]
    correlations = [np.corrcoef(a[head_mask(a)], b[head_mask(a)])[0, 1] for a, b in pairwise(images)]
    assert max(correlations) < 0.9


def test_intensity_scales_span_most_of_a_decade():
    medians = [np.median(image[head_mask(image)]) for image in map(phantom, range(20))]
    assert 4 < max(medians) / min(medians) < 20


@pytest.mark.parametrize("kind", ANOMALY_KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_anomaly_changes_the_image_inside_its_mask_only(kind, seed):
    before, after, mask = planted(kind, seed)
    head = head_mask(before)
    assert mask.dtype == bool
    assert after.dtype == np.float32
    assert np.array_equal(before, phantom(seed)), "the input was modified"
    assert np.array_equal(after[~mask], before[~mask])
    assert 50 < mask.sum() < 0.2 * head.sum()
    assert not (mask & ~head).any()
    contrast = np.subtract(*np.percentile(before[head], [90, 10]))
    assert np.abs(after - before)[mask].mean() > VISIBLE_CHANGE * contrast


@pytest.mark.parametrize("kind", ANOMALY_KINDS)
def test_anomaly_keeps_to_the_intensities_of_the_head(kind):
    before, after, mask = planted(kind, 1)
    tissue = before[head_mask(before)]
    assert after[mask].min() >= tissue.min()
    assert after[mask].max() <= tissue.max()


@pytest.mark.parametrize("kind", ANOMALY_KINDS)
def test_anomaly_is_the_same_for_the_same_seed(kind):
    _, image, mask = planted(kind, 2)
    _, again, mask_again = planted(kind, 2)
    assert np.array_equal(image, again)
    assert np.array_equal(mask, mask_again)


@pytest.mark.parametrize("kind", ANOMALY_KINDS)
def test_outlying_intensity_does_not_find_the_anomaly(kind):
    precisions = []
    for seed in SEEDS:
        _, image, mask = planted(kind, seed)
        head = head_mask(image)
        values = image[head]
        precisions.append(average_precision_score(mask[head], np.abs(values - values.mean()) / values.std()))
    assert np.mean(precisions) < 0.3


def test_unknown_kind_and_headless_image_are_refused():
    with pytest.raises(ValueError, match="bright_blob"):
        add_anomaly(phantom(0), "tumour", np.random.default_rng(0))
    with pytest.raises(ValueError, match="without one"):
        add_anomaly(np.zeros(SHAPE, np.float32), "dark_blob", np.random.default_rng(0))


def test_demo_dataset_has_the_raw_layout_and_is_reproducible(tmp_path):
    first, second = tmp_path / "Dataset999_Phantoms", tmp_path / "Dataset998_Phantoms"
    for folder in (first, second):
        write_demo_dataset(folder, num_train=2, num_test=8)
    names = {part: sorted(path.name for path in (first / part).iterdir()) for part in ("imagesTr", "imagesTs")}
    assert names["imagesTr"] == [f"phantom_{number:03d}_0000.nii.gz" for number in (0, 1)]
    assert names["imagesTs"] == [f"phantom_{number:03d}_0000.nii.gz" for number in range(2, 10)]
    labels = sorted((first / "labelsTs").iterdir())
    assert [path.name for path in labels] == [f"phantom_{number:03d}.nii.gz" for number in range(6, 10)]
    for path in labels:
        label = sitk.ReadImage(str(path))
        assert label.GetPixelID() == sitk.sitkUInt8
        assert label.GetSize() == SHAPE[::-1]
        assert label.GetSpacing() == (5.0, 5.0, 5.0)
        assert set(np.unique(sitk.GetArrayFromImage(label))) == {0, 1}
    description = json.loads((first / "dataset.json").read_text())
    assert description == {"channel_names": {"0": "T1-like"}, "numTraining": 2, "file_ending": ".nii.gz"}
    for path in first.rglob("*.nii.gz"):
        twin = second / path.relative_to(first)
        array, again = (sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in (path, twin))
        assert np.array_equal(array, again)
