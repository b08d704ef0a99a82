import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from sklearn.metrics import average_precision_score, roc_auc_score

from nnood.errors import UserError
from nnood.evaluation.evaluate import evaluate, format_table
from nnood.geometry import Geometry
from nnood.images import write_image

SHAPES = [(12, 14), (6, 8, 10)]


class Folders:
    """A folder of predictions, one of masks and one of images, filled case by case."""

    def __init__(self, root: Path, shape: tuple[int, ...]) -> None:
        self.predictions, self.labels, self.images = root / "predictions", root / "labelsTs", root / "imagesTs"
        self.predictions.mkdir()
        self.labels.mkdir()
        self.shape = shape
        self.geometry = Geometry.from_spacing(shape, (1.0,) * len(shape))
        self.rng = np.random.default_rng(5)

    def predict(self, name: str, sample_score: float | str, scores: np.ndarray | None = None) -> np.ndarray:
        if scores is None:
            scores = self.rng.uniform(size=self.shape).astype(np.float32)
        geometry = self.geometry if scores.shape == self.shape else Geometry.from_spacing(scores.shape, (1.0, 1.0, 1.0))
        write_image(scores, geometry, self.predictions / f"{name}.nii.gz")
        (self.predictions / f"{name}.nii.gz.txt").write_text(f"{sample_score}\n")
        return scores

    def draw(self, name: str, *, ending: str = ".nii.gz", value: int = 1) -> np.ndarray:
        mask = np.zeros(self.shape, dtype=np.uint8)
        mask[(slice(2, 5),) * len(self.shape)] = value
        write_image(mask, self.geometry, self.labels / f"{name}{ending}")
        return mask > 0

    def show(self, file: str) -> None:
        write_image(np.zeros(self.shape, dtype=np.uint8), self.geometry, self.images / file)


@pytest.fixture(params=SHAPES, ids=["2D", "3D"])
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> Folders:
    return Folders(tmp_path, request.param)


@pytest.fixture
def flat(tmp_path: Path) -> Folders:
    return Folders(tmp_path, SHAPES[0])


def _evaluate(folders: Folders):
    return evaluate(folders.predictions, folders.labels, progress=False)


def test_figures_agree_with_scikit_learn(folders: Folders) -> None:
    truth = {"b": folders.draw("b"), "a": folders.draw("a"), "n": np.zeros(folders.shape, dtype=bool)}
    samples = {"b": 0.9, "a": 0.2, "n": 0.3}
    scores = {name: folders.predict(name, sample) for name, sample in samples.items()}
    result = _evaluate(folders)
    all_scores = np.concatenate([scores[name].ravel() for name in "abn"])
    all_truth = np.concatenate([truth[name].ravel() for name in "abn"])
    assert result.voxel_ap == pytest.approx(average_precision_score(all_truth, all_scores), abs=1e-4)
    assert result.voxel_auroc == pytest.approx(roc_auc_score(all_truth, all_scores), abs=1e-4)
    assert result.voxel_prevalence == pytest.approx(all_truth.mean())
    assert result.sample_ap == pytest.approx(average_precision_score([1, 1, 0], [0.9, 0.2, 0.3]))
    assert result.sample_auroc == pytest.approx(0.5)
    assert result.sample_prevalence == pytest.approx(2 / 3)
    assert (result.normal_cases, result.anomalous_cases) == (1, 2)
    assert [case.name for case in result.cases] == ["a", "b", "n"]
    for case in result.cases[:2]:
        flat_truth, flat_scores = truth[case.name].ravel(), scores[case.name].ravel()
        assert case.voxel_ap == pytest.approx(average_precision_score(flat_truth, flat_scores), abs=1e-4)
        assert case.voxel_auroc == pytest.approx(roc_auc_score(flat_truth, flat_scores), abs=1e-4)
    assert result.cases[2].voxel_ap is result.cases[2].voxel_auroc is None


def test_table_and_json(flat: Folders) -> None:
    flat.draw("odd")
    flat.predict("odd", 0.75)
    flat.predict("plain", 0.5)
    result = _evaluate(flat)
    table = format_table(result)
    assert "1 anomalous and 1 normal cases" in table
    rows = [line.split() for line in table.splitlines()]
    assert ["odd", "anomalous", "0.75", f"{result.cases[0].voxel_ap:.4g}", f"{result.cases[0].voxel_auroc:.4g}"] in rows
    assert ["plain", "normal", "0.5", "undefined", "undefined"] in rows
    assert ["voxel", "AP", f"{result.voxel_ap:.4g}", f"{result.voxel_prevalence:.4g}"] in rows
    assert "it has no anomalous voxel" in table
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["voxel_ap"] == result.voxel_ap
    assert content["cases"][1] == {
        "name": "plain",
        "anomalous": False,
        "sample_score": 0.5,
        "voxel_ap": None,
        "voxel_auroc": None,
    }


def test_sample_labels_from_csv(flat: Folders) -> None:
    flat.labels.rmdir()
    flat.labels.with_name("labelsTs.csv").write_text("case,label\na,1\nb,0\nc,1\n")
    for name, score in (("a", 0.9), ("b", 0.1), ("c", 0.05)):
        flat.predict(name, score)
    result = _evaluate(flat)
    assert result == evaluate(flat.predictions, flat.labels.with_name("labelsTs.csv"), progress=False)
    assert result.voxel_ap is result.voxel_auroc is result.voxel_prevalence is None
    assert result.sample_ap == pytest.approx(average_precision_score([1, 0, 1], [0.9, 0.1, 0.05]))
    assert result.sample_auroc == pytest.approx(0.5)
    assert [case.anomalous for case in result.cases] == [True, False, True]
    assert "the labels are per case" in format_table(result)


def test_csv_and_predictions_must_hold_the_same_cases(flat: Folders) -> None:
    table = flat.labels.with_name("labels.csv")
    table.write_text("case,label\na,1\nb,0\n")
    flat.predict("a", 0.5)
    flat.predict("c", 0.5)
    with pytest.raises(UserError, match="2 faults") as caught:
        evaluate(flat.predictions, table, progress=False)
    assert "b.nii.gz is missing" in str(caught.value)
    assert "c.nii.gz is of no case" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,label\na,1\n", "Expected the header case,label"),
        ("", "Expected the header case,label"),
        ("case,label\na,2\n", "row 2: Expected a case and 0 or 1"),
        ("case,label\na,1\na,0\n", "row 3: The case a was listed before"),
        ("case,label\n\xff,0\n", "no CSV file"),
    ],
)
def test_broken_csv(flat: Folders, content: str, message: str) -> None:
    table = flat.labels.with_name("labels.csv")
    table.write_bytes(content.encode("latin-1"))
    flat.predict("a", 0.5)
    with pytest.raises(UserError, match=message):
        evaluate(flat.predictions, table, progress=False)


def test_no_anomalous_case_is_undefined_not_zero(folders: Folders) -> None:
    folders.draw("a", value=0)
    folders.predict("a", 0.5)
    folders.predict("b", 0.5)
    result = _evaluate(folders)
    assert (result.normal_cases, result.anomalous_cases) == (2, 0)
    assert result.voxel_ap is result.voxel_auroc is result.sample_ap is result.sample_auroc is None
    table = format_table(result)
    assert "there is no anomalous case" in table
    assert "nan" not in table.lower()
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["sample_ap"] is None


def test_no_normal_case_leaves_only_sample_auroc_undefined(flat: Folders) -> None:
    flat.draw("a")
    flat.predict("a", 0.5)
    result = _evaluate(flat)
    assert result.sample_auroc is None
    assert None not in (result.voxel_ap, result.voxel_auroc, result.sample_ap)
    assert "there is no normal case" in format_table(result)


def test_every_voxel_anomalous_is_explained(flat: Folders) -> None:
    flat.draw("a")
    flat.predict("a", 0.5)
    result = _evaluate(flat)
    result = replace(result, cases=(replace(result.cases[0], voxel_auroc=None),))
    assert "every voxel is anomalous" in format_table(result)


def test_missing_predictions_are_reported_together(folders: Folders) -> None:
    folders.draw("a")
    folders.draw("b")
    folders.predict("c", 0.1)
    folders.show("d_0000.nii.gz")
    folders.show("d_0001.nii.gz")
    folders.show("c_0000.nii.gz")
    folders.show("a_0000.nii.gz")
    with pytest.raises(UserError, match="3 faults") as caught:
        _evaluate(folders)
    for name in "abd":
        assert f"{name}.nii.gz is missing" in str(caught.value)


def test_prediction_without_image_is_an_error(flat: Folders) -> None:
    flat.show("a_0000.nii.gz")
    flat.predict("a", 0.1)
    flat.predict("extra", 0.1)
    with pytest.raises(UserError, match=r"extra\.nii\.gz is of no case"):
        _evaluate(flat)


def test_plain_names_that_look_like_channels(flat: Folders) -> None:
    flat.draw("scan_2021", ending=".nrrd")
    for name in ("scan_2021", "scan_2022"):
        flat.show(f"{name}.nii.gz")
        flat.predict(name, 0.5)
    assert [case.name for case in _evaluate(flat).cases] == ["scan_2021", "scan_2022"]


def test_hidden_files_folders_and_notes_are_ignored(flat: Folders) -> None:
    flat.draw("a")
    flat.predict("a", 0.5)
    (flat.predictions / ".tmp-1-x.nii.gz").touch()
    (flat.predictions / "plan.json").touch()
    (flat.predictions / "old.nii.gz").mkdir()
    (flat.labels / "a.json").touch()
    (flat.labels / ".hidden.nii.gz").touch()
    assert [case.name for case in _evaluate(flat).cases] == ["a"]


@pytest.mark.parametrize("lacking", [".nii.gz", ".nii.gz.txt"])
def test_half_a_prediction(flat: Folders, lacking: str) -> None:
    flat.predict("a", 0.5)
    (flat.predictions / f"a{lacking}").unlink()
    with pytest.raises(UserError, match=rf"a{lacking} is missing"):
        _evaluate(flat)


@pytest.mark.parametrize("text", ["nan", "inf", "", "high", "0.1 0.2"])
def test_sample_score_must_be_one_finite_number(flat: Folders, text: str) -> None:
    flat.predict("a", text)
    with pytest.raises(UserError, match=r"a\.nii\.gz\.txt: Expected one finite number"):
        _evaluate(flat)


def test_misshaped_prediction_names_the_file(folders: Folders) -> None:
    folders.draw("a")
    folders.predict("a", 0.5, np.zeros((5, 6, 7), dtype=np.float32))
    with pytest.raises(UserError, match=r"predictions/a\.nii\.gz: Expected the geometry of .*labelsTs/a\.nii\.gz"):
        _evaluate(folders)


@pytest.mark.parametrize("change", [{"origin": (5.0, 0.0, 0.0)}, {"spacing": (1.0, 1.0, 2.0)}])
def test_same_shape_elsewhere_in_space_is_an_error(tmp_path: Path, change: dict) -> None:
    folders = Folders(tmp_path, SHAPES[1])
    folders.draw("a")
    folders.geometry = replace(folders.geometry, **change)
    folders.predict("a", 0.5)
    with pytest.raises(UserError, match="Expected the geometry"):
        _evaluate(folders)


def test_bad_score_maps_are_reported_together(folders: Folders) -> None:
    for name, bad in (("a", 1.0001), ("b", 1.5), ("c", -0.1), ("fine", 0.1)):
        scores = np.full(folders.shape, 0.5, dtype=np.float32)
        scores.flat[3] = bad
        folders.predict(name, 0.5, scores)
    with pytest.raises(UserError, match="3 faults") as caught:
        _evaluate(folders)
    for name in "abc":
        assert f"{name}.nii.gz" in str(caught.value)
    assert "fine" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_score_map_that_is_not_finite(folders: Folders, bad: float) -> None:
    scores = np.full(folders.shape, 0.5, dtype=np.float32)
    folders.predict("a", 0.5, scores)
    scores.flat[3] = bad
    sitk.WriteImage(sitk.GetImageFromArray(scores), str(folders.predictions / "a.nii.gz"))
    with pytest.raises(UserError, match=r"a\.nii\.gz holds NaN"):
        _evaluate(folders)


@pytest.mark.parametrize("value", [2, 255])
def test_mask_outside_zero_and_one(folders: Folders, value: int) -> None:
    folders.draw("a", value=value)
    folders.predict("a", 0.5)
    with pytest.raises(UserError, match=rf"labelsTs/a\.nii\.gz: Expected the values 0 and 1, but got 0, {value}"):
        _evaluate(folders)


@pytest.mark.parametrize("value", [1, 255])
def test_picture_masks_may_be_0_and_255(flat: Folders, value: int) -> None:
    truth = flat.draw("a", ending=".png", value=value)
    flat.predict("a", 0.5, truth.astype(np.float32))
    assert _evaluate(flat).voxel_ap == 1


def test_picture_mask_with_other_values(flat: Folders) -> None:
    flat.draw("a", ending=".png", value=128)
    flat.predict("a", 0.5)
    with pytest.raises(UserError, match="Expected the values 0 and 1 or 0 and 255, but got 0, 128"):
        _evaluate(flat)


def test_two_masks_of_one_case_and_a_file_that_is_no_mask(flat: Folders) -> None:
    flat.draw("a")
    flat.draw("a", ending=".png")
    (flat.labels / "b.xyz").touch()
    flat.predict("a", 0.5)
    with pytest.raises(UserError, match="2 faults") as caught:
        _evaluate(flat)
    assert "masks of the same case" in str(caught.value)
    assert "b.xyz is no mask" in str(caught.value)


def test_missing_folders(flat: Folders) -> None:
    with pytest.raises(UserError, match="holds no predictions"):
        _evaluate(flat)
    with pytest.raises(UserError, match="is not a folder"):
        evaluate(flat.predictions / "nowhere", flat.labels, progress=False)
    flat.predict("a", 0.5)
    with pytest.raises(UserError, match=r"nowhere does not exist, nor does nowhere\.csv"):
        evaluate(flat.predictions, flat.labels.with_name("nowhere"), progress=False)
