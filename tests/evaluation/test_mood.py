"""The challenge's figures, against what its published scorer computes, written down once more in a few lines."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from sklearn.metrics import average_precision_score

from nnood.errors import UserError
from nnood.evaluation.mood import evaluate_mood
from nnood.geometry import Geometry
from nnood.images import write_image

SHAPE = (4, 9, 10)


def _write(folder: Path, name: str, scores: np.ndarray, sample_score: float, truth: np.ndarray | None) -> None:
    geometry = Geometry.from_spacing(scores.shape, (1.0,) * scores.ndim)
    write_image(scores, geometry, folder / "predictions" / f"{name}.nii.gz")
    (folder / "predictions" / f"{name}.nii.gz.txt").write_text(f"{sample_score}")
    (folder / "labelsTs").mkdir(exist_ok=True)
    if truth is not None:
        write_image(truth.astype(np.uint8), geometry, folder / "labelsTs" / f"{name}.nii.gz")


def _challenge(
    cases: dict[str, tuple[np.ndarray, float, np.ndarray | None]],
) -> tuple[float, float]:
    """Pixel-level and sample-level score."""
    pixels, labels, sample_scores, sample_labels = [], [], [], []
    for scores, sample_score, truth in cases.values():
        mask = np.zeros(scores.shape, dtype=bool) if truth is None else truth
        pixels.append(np.clip(scores.astype(np.float16), 0.0, 1.0).reshape(-1))
        labels.append(mask.astype(np.uint8).reshape(-1))
        sample_scores.append(min(max(sample_score, 0.0), 1.0))
        sample_labels.append(mask.any())
    pooled = np.concatenate(pixels)
    assert pooled.dtype == np.float16
    return (
        average_precision_score(np.concatenate(labels), pooled.astype(np.float64)),
        average_precision_score(sample_labels, sample_scores),
    )


def _cases(seed: int, low: float, high: float) -> dict[str, tuple[np.ndarray, float, np.ndarray | None]]:
    """Five cases; the third and fifth are normal, one of them with an empty mask."""
    rng = np.random.default_rng(seed)
    cases: dict[str, tuple[np.ndarray, float, np.ndarray | None]] = {}
    for number, name in enumerate("abcde"):
        truth = rng.uniform(size=SHAPE) < 0.1
        scores = rng.uniform(low, high, size=SHAPE) + 0.15 * (high - low) * truth
        if name in "ce":
            truth[:] = False
        cases[name] = scores.astype(np.float32), float(rng.uniform(-0.3, 1.3)), None if number == 4 else truth
    return cases


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (-0.4, 1.4), (0.9, 0.902), (0, 3e-6), (-1e6, 1e6)],
    ids=["in range", "beyond the range", "tied in float16", "subnormal in float16", "infinite in float16"],
)
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_challenge(tmp_path: Path, low: float, high: float, seed: int) -> None:
    cases = _cases(seed, low, high)
    for name, case in cases.items():
        _write(tmp_path, name, *case)
    with np.errstate(over="ignore"):
        pixel, sample = _challenge(cases)
    found = evaluate_mood(tmp_path / "predictions", tmp_path / "labelsTs", progress=False)
    assert found.pixel == pytest.approx(pixel, abs=1e-12)
    assert found.sample == pytest.approx(sample, abs=1e-12)


def test_float16_ties_what_differs_in_float32(tmp_path: Path) -> None:
    scores, truth = (
        np.array([[0.90005, 0.9001], [0.9, 0.1]], dtype=np.float32),
        np.array([[False, True], [False, False]]),
    )
    _write(tmp_path, "a", scores, 0.5, truth)
    assert average_precision_score(truth.ravel(), scores.ravel()) == 1
    found = evaluate_mood(tmp_path / "predictions", tmp_path / "labelsTs", progress=False)
    assert found.pixel == pytest.approx(1 / 3)


def test_negative_zero_ties_with_zero(tmp_path: Path) -> None:
    scores, truth = np.array([[-0.0, 0.0], [-1.0, 0.0]], dtype=np.float32), np.array([[False, True], [False, False]])
    _write(tmp_path, "a", scores, 0.5, truth)
    found = evaluate_mood(tmp_path / "predictions", tmp_path / "labelsTs", progress=False)
    assert found.pixel == pytest.approx(1 / 4)


def test_sample_scores_beyond_the_range_are_tied(tmp_path: Path) -> None:
    truth = np.eye(4, dtype=bool)
    for name, score, mask in (("a", 1.2, truth), ("n", 1.7, None), ("m", 0.3, None)):
        _write(tmp_path, name, np.zeros((4, 4), dtype=np.float32), score, mask)
    found = evaluate_mood(tmp_path / "predictions", tmp_path / "labelsTs", progress=False)
    assert found.sample == pytest.approx(1 / 2)


def test_nothing_anomalous_is_undefined(tmp_path: Path) -> None:
    _write(tmp_path, "a", np.zeros((4, 4), dtype=np.float32), 0.5, np.zeros((4, 4), dtype=bool))
    found = evaluate_mood(tmp_path / "predictions", tmp_path / "labelsTs", progress=False)
    assert (found.pixel, found.sample) == (None, None)


def test_sample_labels_alone(tmp_path: Path) -> None:
    for name, score in (("a", 0.9), ("b", 0.4), ("c", 0.2)):
        _write(tmp_path, name, np.zeros((4, 4), dtype=np.float32), score, None)
    (tmp_path / "labels.csv").write_text("case,label\na,0\nb,1\nc,0\n")
    found = evaluate_mood(tmp_path / "predictions", tmp_path / "labels.csv", progress=False)
    assert found.pixel is None
    assert found.sample == pytest.approx(1 / 2)


def test_faults_are_reported_together(tmp_path: Path) -> None:
    truth = np.eye(4, dtype=bool)
    for name in "abc":
        _write(tmp_path, name, np.zeros((4, 4), dtype=np.float32), 0.5, truth)
    write_image(2 * truth.astype(np.uint8), Geometry.from_spacing((4, 4), (1.0, 1.0)), tmp_path / "labelsTs/a.nii.gz")
    write_image(truth.astype(np.uint8), Geometry.from_spacing((4, 4), (1.0, 2.0)), tmp_path / "labelsTs/b.nii.gz")
    broken = np.full((4, 4), np.nan, dtype=np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(broken), str(tmp_path / "predictions/c.nii.gz"))
    with pytest.raises(UserError, match="3 faults") as caught:
        evaluate_mood(tmp_path / "predictions", tmp_path / "labelsTs", progress=False)
    for part in ("Expected the values 0 and 1", "Expected the geometry", "holds NaN"):
        assert part in str(caught.value)


def test_a_missing_prediction_is_refused(tmp_path: Path) -> None:
    truth = np.eye(4, dtype=bool)
    for name in "ab":
        _write(tmp_path, name, np.zeros((4, 4), dtype=np.float32), 0.5, truth)
    for ending in (".nii.gz", ".nii.gz.txt"):
        (tmp_path / "predictions" / f"b{ending}").unlink()
    with pytest.raises(UserError, match=r"b\.nii\.gz is missing"):
        evaluate_mood(tmp_path / "predictions", tmp_path / "labelsTs", progress=False)
