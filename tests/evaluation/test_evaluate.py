import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from sklearn.metrics import average_precision_score, roc_auc_score

from nnood.errors import UserError
from nnood.evaluation.benchmark.table import Row, write_benchmark
from nnood.evaluation.evaluate import Evaluator, evaluate, load_prediction
from nnood.evaluation.results import Evaluation
from nnood.evaluation.tables import format_table
from nnood.evaluation.truth import Truth
from nnood.geometry import Geometry
from nnood.images import write_image
from nnood.safety import write_json

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


def _evaluate(folders: Folders, **options: float) -> Evaluation:
    return evaluate(folders.predictions, folders.labels, rounds=0, progress=False, **options)


def _value(result: Evaluation, key: str) -> float | None:
    return result.figures[key].value


def test_figures_agree_with_scikit_learn(folders: Folders) -> None:
    truth = {"b": folders.draw("b"), "a": folders.draw("a"), "n": np.zeros(folders.shape, dtype=bool)}
    samples = {"b": 0.9, "a": 0.2, "n": 0.3}
    scores = {name: folders.predict(name, sample) for name, sample in samples.items()}
    result = _evaluate(folders)
    all_scores = np.concatenate([scores[name].ravel() for name in "abn"])
    all_truth = np.concatenate([truth[name].ravel() for name in "abn"])
    assert _value(result, "voxel_ap") == pytest.approx(average_precision_score(all_truth, all_scores), abs=1e-4)
    assert _value(result, "voxel_auroc") == pytest.approx(roc_auc_score(all_truth, all_scores), abs=1e-4)
    assert result.figures["voxel_ap"].chance == pytest.approx(all_truth.mean())
    assert _value(result, "sample_ap") == pytest.approx(average_precision_score([1, 1, 0], [0.9, 0.2, 0.3]))
    assert _value(result, "sample_auroc") == pytest.approx(0.5)
    assert result.figures["sample_ap"].chance == pytest.approx(2 / 3)
    assert (result.normal_cases, result.anomalous_cases) == (1, 2)
    assert [case.name for case in result.cases] == ["a", "b", "n"]
    for case in result.cases[:2]:
        flat_truth, flat_scores = truth[case.name].ravel(), scores[case.name].ravel()
        assert case.figures["voxel_ap"] == pytest.approx(average_precision_score(flat_truth, flat_scores), abs=1e-4)
        assert case.figures["voxel_auroc"] == pytest.approx(roc_auc_score(flat_truth, flat_scores), abs=1e-4)
    assert set(result.cases[2].figures.values()) == {None}


def test_what_is_written_as_json(flat: Folders) -> None:
    flat.draw("odd")
    flat.predict("odd", 0.75)
    flat.predict("plain", 0.5)
    result = evaluate(flat.predictions, flat.labels, rounds=30, progress=False)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    figure = result.figures["voxel_ap"]
    assert content["figures"]["voxel_ap"] == {
        "value": figure.value,
        "chance": figure.chance,
        "low": figure.low,
        "high": figure.high,
    }
    assert content["figures"]["voxel_dice"]["value"] is None
    plain = content["cases"][1]
    assert (plain["name"], plain["kind"], plain["anomalous"], plain["sample_score"]) == ("plain", "normal", False, 0.5)
    assert set(plain["figures"].values()) == {None}
    assert content["curves"]["roc"][0] == [0, 0]


def test_dice_at_a_threshold(folders: Folders) -> None:
    truth = folders.draw("a")
    scores = folders.predict("a", 0.5)
    result = _evaluate(folders, threshold=0.25)
    called = scores >= 0.25
    expected = 2 * (called & truth).sum() / (called.sum() + truth.sum())
    assert _value(result, "voxel_dice") == pytest.approx(expected, abs=1e-3)
    assert result.threshold == 0.25


def test_the_plan_s_threshold_is_taken_unless_another_is_given(folders: Folders) -> None:
    folders.draw("a")
    folders.predict("a", 0.5)
    rates = (("sample", 0.01, 0.9), ("voxel", 0.05, 0.2), ("voxel", 0.01, 0.4))
    plan = {"thresholds": [{"level": level, "rate": rate, "value": value} for level, rate, value in rates]}
    note = {"dataset": "x", "images": "y", "members": [], "tasks": [], "cases": ["a"]}
    for content, expected in (({"plan": plan}, 0.4), ({"plan": None}, None), ({}, None)):
        write_json(folders.predictions / "prediction.json", note | content)
        assert _evaluate(folders).threshold == expected
        assert _evaluate(folders, threshold=0.25).threshold == 0.25


def test_sizes_are_in_millimetres(folders: Folders) -> None:
    folders.geometry = replace(folders.geometry, spacing=(0.5, 2.0, 3.0)[: len(folders.shape)])
    truth = folders.draw("a")
    folders.predict("a", 0.5)
    assert _evaluate(folders).cases[0].size == pytest.approx(truth.sum() * np.prod(folders.geometry.spacing))


def test_sample_labels_from_csv(flat: Folders) -> None:
    flat.labels.rmdir()
    flat.labels.with_name("labelsTs.csv").write_text("case,label\na,1\nb,0\nc,1\n")
    for name, score in (("a", 0.9), ("b", 0.1), ("c", 0.05)):
        flat.predict(name, score)
    result = _evaluate(flat)
    assert result == evaluate(flat.predictions, flat.labels.with_name("labelsTs.csv"), rounds=0, progress=False)
    defined = {key for key, figure in result.figures.items() if figure.value is not None}
    assert defined == {"sample_ap", "sample_auroc", "sample_sensitivity"}
    assert _value(result, "sample_ap") == pytest.approx(average_precision_score([1, 0, 1], [0.9, 0.1, 0.05]))
    assert _value(result, "sample_auroc") == pytest.approx(0.5)
    assert [case.anomalous for case in result.cases] == [True, False, True]
    assert any("the labels are per case" in note for note in result.notes)
    assert {case.size for case in result.cases} == {None}


def test_sample_labels_need_no_readable_score_maps(flat: Folders) -> None:
    flat.labels.with_name("labels.csv").write_text("case,label\na,1\nb,0\n")
    for name, score in (("a", 0.9), ("b", 0.1)):
        flat.predict(name, score)
        (flat.predictions / f"{name}.nii.gz").write_bytes(b"no image")
    result = evaluate(flat.predictions, flat.labels.with_name("labels.csv"), rounds=20, progress=False)
    assert _value(result, "sample_ap") == 1
    json.dumps(result.to_dict(), allow_nan=False)


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
    result = _evaluate(folders, threshold=0.5)
    assert (result.normal_cases, result.anomalous_cases) == (2, 0)
    assert {figure.value for figure in result.figures.values()} == {None}
    table = format_table(result)
    assert "there is no anomalous case" in table
    assert "nan" not in table.lower()
    json.dumps(result.to_dict(), allow_nan=False)


def test_no_normal_case_leaves_only_sample_figures_undefined(flat: Folders) -> None:
    flat.draw("a")
    flat.predict("a", 0.5)
    result = _evaluate(flat, threshold=0.5)
    undefined = {key for key, figure in result.figures.items() if figure.value is None}
    assert undefined == {"sample_auroc", "sample_sensitivity", "slice_ap", "slice_auroc"}
    assert "there is no normal case" in format_table(result)


def _benchmark(folders: Folders, *rows: Row) -> None:
    write_benchmark(folders.labels.with_name("benchmark.csv"), rows)


def test_kinds_and_sources_from_the_table_of_a_benchmark(folders: Folders) -> None:
    _benchmark(
        folders,
        *(Row("n1", "one", "normal"), Row("n2", "two", "normal")),
        *(Row("a1", "one", "blur", ("fpi", "cutpaste")), Row("a2", "two", "blur", ("fpi", "cutpaste"))),
        *(Row("w1", "one", "orientation"), Row("w2", "two", "orientation")),
    )
    truth = {name: folders.draw(name) for name in ("a1", "a2")}
    for name in ("w1", "w2"):
        write_image(np.ones(folders.shape, dtype=np.uint8), folders.geometry, folders.labels / f"{name}.nii.gz")
    scores = {name: folders.predict(name, i / 10) for i, name in enumerate(("n1", "a1", "n2", "w1", "a2", "w2"))}
    result = evaluate(folders.predictions, folders.labels, rounds=50, progress=False)
    assert {case.name: case.kind for case in result.cases} == {
        **{"a1": "blur", "a2": "blur", "n1": "normal", "n2": "normal", "w1": "orientation", "w2": "orientation"}
    }
    blur, orientation = result.groups
    assert (blur.name, blur.cases, blur.close_to) == ("blur", 2, ("fpi", "cutpaste"))
    pooled = [(truth.get(name, np.zeros(folders.shape, dtype=bool)), scores[name]) for name in ("n1", "n2", "a1", "a2")]
    expected = average_precision_score(
        np.concatenate([one.ravel() for one, _ in pooled]), np.concatenate([one.ravel() for _, one in pooled])
    )
    assert _value(result, "voxel_ap") == pytest.approx(expected, abs=1e-4)
    assert blur.figures["voxel_ap"].value == pytest.approx(expected, abs=1e-3)
    assert blur.figures["sample_ap"].value == pytest.approx(average_precision_score([0, 1, 0, 1], [0, 0.1, 0.2, 0.4]))
    assert orientation.figures["voxel_ap"].value is None
    assert orientation.figures["sample_auroc"].value == 1
    # Two sources drawn twice: each of the three possible outcomes weighs a source's cases alike.
    low, high = result.figures["sample_ap"].low, result.figures["sample_ap"].high
    labels, samples = [0, 1, 0, 1, 1, 1], [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    possible = [
        average_precision_score(labels, samples, sample_weight=weights)
        for weights in ([2, 2, 0, 2, 0, 0], [1] * 6, [0, 0, 2, 0, 2, 2])
    ]
    assert low == pytest.approx(min(possible))
    assert high == pytest.approx(max(possible))


@pytest.mark.parametrize(("tasks", "expected"), [(["cutpaste", "nsa"], ("cutpaste",)), (["nsa"], ())])
def test_kinds_are_close_to_tasks_that_the_networks_trained_on(
    flat: Folders, tasks: list[str], expected: tuple[str, ...]
) -> None:
    _benchmark(flat, Row("a", "one", "blur", ("fpi", "cutpaste")), Row("n", "one", "normal"))
    flat.draw("a")
    for name in "an":
        flat.predict(name, 0.5)
    write_json(
        flat.predictions / "prediction.json",
        {"dataset": "Dataset001_X", "images": "x", "members": [], "tasks": tasks, "cases": ["a", "n"]},
    )
    assert _evaluate(flat).groups[0].close_to == expected


def test_a_benchmark_s_table_must_list_every_case(flat: Folders) -> None:
    _benchmark(flat, Row("a", "one", "blur"))
    for name in ("a", "b", "c"):
        flat.draw(name)
        flat.predict(name, 0.5)
    with pytest.raises(UserError, match="2 faults") as caught:
        _evaluate(flat)
    for name in "bc":
        assert f"benchmark.csv does not list the case {name}" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [("a,one,soup,,,0,,0,1", "row 2: Expected a kind of"), ("a,one,blur,,,x,,0,1", "row 2: Expected a number")],
)
def test_a_broken_table_of_a_benchmark(flat: Folders, row: str, message: str) -> None:
    _benchmark(flat)
    table = flat.labels.with_name("benchmark.csv")
    table.write_text(table.read_text() + row + "\n")
    flat.draw("a")
    flat.predict("a", 0.5)
    with pytest.raises(UserError, match=message):
        _evaluate(flat)


def test_cases_may_come_in_any_order(folders: Folders) -> None:
    """What is printed does not depend on it."""
    folders.draw("a")
    for name in "abc":
        folders.predict(name, 0.5)
    results = []
    for order in ("abc", "cab"):
        evaluator = Evaluator(Truth({"a": folders.labels / "a.nii.gz"}, None, {}))
        loaded = {
            name: load_prediction(
                folders.predictions / f"{name}.nii.gz", folders.labels / "a.nii.gz" if name == "a" else None, 0.5
            )
            for name in order
        }
        for name, case in loaded.items():
            evaluator.add(name, case)
        for name, case in loaded.items():
            evaluator.add_objects(name, case)
        results.append(evaluator.result(20))
    assert results[0] == results[1]


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
    folders.draw("fine")
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
    folders.draw("a")
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
    assert _value(_evaluate(flat), "voxel_ap") == 1


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


def test_a_lost_mask_does_not_make_its_case_normal(flat: Folders) -> None:
    _benchmark(flat, Row("a", "one", "blur"), Row("n", "one", "normal"), Row("gone", "one", "normal"))
    for name in "an":
        flat.predict(name, 0.5)
    with pytest.raises(UserError, match="2 faults") as caught:
        _evaluate(flat)
    assert "calls the case a blur, but it has no mask" in str(caught.value)
    assert "gone.nii.gz is missing" in str(caught.value)


def test_labels_named_by_a_dot(flat: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    flat.draw("a")
    flat.predict("a", 0.5)
    flat.predict("n", 0.1)
    expected = _evaluate(flat)
    monkeypatch.chdir(flat.labels)
    assert evaluate(flat.predictions, Path(), progress=False).cases == expected.cases
    assert evaluate(flat.predictions, Path("../labelsTs"), progress=False).cases == expected.cases


def test_a_folder_without_masks_does_not_pass_for_all_normal(flat: Folders) -> None:
    flat.predict("a", 0.5)
    with pytest.raises(UserError, match="labelsTs holds no masks"):
        _evaluate(flat)
    flat.show("a.nii.gz")  # the layout of a test set says that its only case is normal
    assert _evaluate(flat).normal_cases == 1
