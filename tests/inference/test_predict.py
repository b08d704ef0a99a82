"""Prediction by plan: what it follows, what it writes, and that the single steps give the same."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_plan import NAME, make_plan

from nnood.errors import UserError
from nnood.evaluation.evaluate import evaluate
from nnood.evaluation.folders import read_sample_scores
from nnood.images import read_case, read_image
from nnood.inference.calibration import logits
from nnood.inference.combine_folders import ensemble
from nnood.inference.ensembling import RANK_LEVELS, ranks
from nnood.inference.inference_plan import PLAN_FILE, InferencePlan
from nnood.inference.postprocess_folder import apply_postprocessing, find_plan_file
from nnood.inference.postprocessing import apply_steps, spacing_of
from nnood.inference.predict import find_model, predict
from nnood.inference.predictor import MapPredictor
from nnood.paths import Roots
from nnood.planning.foreground import foreground_mask
from nnood.safety import read_json, write_json
from nnood.scores import sample_score

CPU = torch.device("cpu")
CASES = ("phantom_005", "phantom_006")


def edit(file: Path, **changes: Any) -> None:
    write_json(file, read_json(file) | changes)


def images(roots: Roots) -> Path:
    return roots.raw / NAME / "imagesTs"


def run(roots: Roots, output: Path, *, save_mask: bool = False, **options: Any) -> dict[str, float]:
    return predict(images(roots), output, find_model(roots, dataset=NAME, **options), device=CPU, save_mask=save_mask)


def score_map(folder: Path, case: str) -> np.ndarray:
    return read_image(folder / f"{case}.nii.gz")[0][0]


def members_maps(roots: Roots, case: str) -> list[np.ndarray]:
    image, geometry = read_case([images(roots) / f"{case}_0000.nii.gz"], 1)
    predictor = MapPredictor(find_model(roots, dataset=NAME).members, CPU)
    return [one for _, one in sorted(predictor.maps(image, geometry), key=lambda pair: pair[0])]


def test_a_plan_is_followed_from_the_members_to_the_sample_score(trained: Roots, tmp_path: Path) -> None:
    make_plan(trained)
    scores = run(trained, tmp_path / "scores")
    assert sorted(scores) == list(CASES)
    method = read_json(trained.preprocessed / NAME / "nnoodPlans.json")["nnood"]["foreground_method"]
    for case in CASES:
        image, geometry = read_case([images(trained) / f"{case}_0000.nii.gz"], 1)
        foreground = foreground_mask(image, method)
        assert 0 < foreground.mean() < 1
        mean = np.mean(members_maps(trained, case), axis=0)
        steps = find_model(trained, dataset=NAME).plan.steps
        values = apply_steps(mean, steps, foreground=foreground, spacing=spacing_of(geometry))
        knots = logits(np.array([0, 1e-3, 0.3, 1]))
        expected = np.interp(logits(values), knots, [0, 0.2, 0.6, 1])
        found = score_map(tmp_path / "scores", case)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert not found[~foreground].all()
        assert scores[case] == pytest.approx(sample_score(found, "top_1_percent", foreground), abs=1e-6)
    assert read_sample_scores(tmp_path / "scores") == pytest.approx(scores, abs=1e-8)


@pytest.mark.parametrize("combination", ["median", "rank_mean"])
def test_other_combinations(trained: Roots, tmp_path: Path, combination: str) -> None:
    file = make_plan(trained)
    quantiles = [[level**power for level in RANK_LEVELS] for power in (2, 4, 8)]
    members = [member | {"quantiles": own} for member, own in zip(read_json(file)["members"], quantiles, strict=True)]
    plain = {"steps": [], "calibration": {"scores": [0, 1], "values": [0, 1]}, "within_foreground": False}
    edit(file, combination=combination, members=members, **plain)
    run(trained, tmp_path / "scores")
    maps = members_maps(trained, CASES[0])
    ranked = [ranks(one, own) for one, own in zip(maps, quantiles, strict=True)]
    expected = np.median(maps, axis=0) if combination == "median" else np.mean(ranked, axis=0)
    np.testing.assert_allclose(score_map(tmp_path / "scores", CASES[0]), expected, atol=1e-6)


def test_plain_prediction_and_its_post_processing_equal_prediction_by_plan(trained: Roots, tmp_path: Path) -> None:
    file = make_plan(trained)
    content = read_json(file)
    edit(file, members=[member for member in content["members"] if "3d" in member["folder"]])
    planned = run(trained, tmp_path / "planned")
    plain = run(trained, tmp_path / "plain", configuration="3d_fullres")
    found = find_plan_file(tmp_path / "plain", trained, dataset=None, plan=None)
    assert found == file
    applied = apply_postprocessing(tmp_path / "plain", tmp_path / "applied", found, trained)
    assert applied == planned
    assert plain != planned
    for case in CASES:
        np.testing.assert_array_equal(score_map(tmp_path / "applied", case), score_map(tmp_path / "planned", case))
    before = times(tmp_path / "applied")
    assert apply_postprocessing(tmp_path / "plain", tmp_path / "applied", found, trained) == applied
    assert times(tmp_path / "applied") == before
    assert (
        read_json(tmp_path / "applied" / "prediction.json")["plan"]["digest"]
        == (read_json(tmp_path / "planned" / "prediction.json")["plan"]["digest"])
    )


def test_the_mean_of_folders_equals_the_plain_mean_of_the_members(trained: Roots, tmp_path: Path) -> None:
    for fold in ("0", "1"):
        run(trained, tmp_path / fold, folds=[fold], configuration="3d_fullres")
    run(trained, tmp_path / "both", folds=["0", "1"], configuration="3d_fullres")
    scores = ensemble([tmp_path / "0", tmp_path / "1"], tmp_path / "mean")
    for case in CASES:
        mean = score_map(tmp_path / "mean", case)
        np.testing.assert_allclose(mean, score_map(tmp_path / "both", case), atol=1e-6)
        assert scores[case] == pytest.approx(sample_score(mean), abs=1e-8)
    note, of_all = (read_json(tmp_path / name / "prediction.json") for name in ("mean", "both"))
    for key in ("dataset", "images", "members", "tasks", "cases", "plan"):
        assert note[key] == of_all[key]


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_members_that_are_named_are_simply_averaged(trained: Roots, tmp_path: Path) -> None:
    file = make_plan(trained)
    assert find_model(trained, dataset=NAME).file == file
    for options in (
        {"folds": ["0"]},
        {"configuration": "2d"},
        {"recipe": "nnood", "configuration": "2d"},
        {"checkpoint": "checkpoint_best.pth"},
    ):
        planned = find_model(trained, dataset=NAME, **options)
        assert planned.file is None
        assert (planned.plan.combination, planned.plan.steps) == ("mean", ())
    run(trained, tmp_path / "scores", folds=["0"])
    assert read_json(tmp_path / "scores" / "prediction.json")["plan"] is None


def test_another_plan_by_name(trained: Roots, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    shutil.move(make_plan(trained), other)
    assert find_model(trained, dataset=NAME).file is None
    assert find_model(trained, dataset=None, plan=other).file == other
    with pytest.raises(UserError, match=r"other.json names the members already"):
        find_model(trained, dataset=NAME, folds=["0"], plan=other)
    (trained.results / "Dataset102_Other").mkdir()
    edit(other, dataset="Dataset102_Other")
    with pytest.raises(UserError, match=r"other.json is an inference plan of Dataset102_Other, not of"):
        find_model(trained, dataset=NAME, plan=other)


# ---- masks ----------------------------------------------------------------------------------------------------------


def test_masks_are_scores_from_the_threshold_on(trained: Roots, tmp_path: Path) -> None:
    file, output = make_plan(trained), tmp_path / "scores"
    run(trained, output)
    threshold = float(np.median(score_map(output, CASES[0])[score_map(output, CASES[0]) > 0]))
    change = {"level": "voxel", "rate": 0.01, "value": threshold, "low": 0, "high": 1, "reliable": True}
    edit(file, thresholds=[change])
    run(trained, output, save_mask=True)
    for case in CASES:
        mask, geometry = read_image(output / "masks" / f"{case}.nii.gz")
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask[0], score_map(output, case) >= np.float32(threshold))
        assert geometry.matches(read_image(images(trained) / f"{case}_0000.nii.gz")[1])
        assert 0 < mask.mean() < 1
    before = times(output)
    run(trained, output, save_mask=True)
    assert times(output) == before
    assert sorted(read_sample_scores(output)) == list(CASES)
    assert len(evaluate(output, trained.raw / NAME / "labelsTs").cases) == 2
    (output / "masks" / f"{CASES[0]}.nii.gz").unlink()
    run(trained, output, save_mask=True)
    assert {path.relative_to(output) for path, time in times(output).items() if before[path] != time} == {
        Path("masks") / f"{CASES[0]}.nii.gz",
        Path("masks/.receipts") / f"{CASES[0]}.json",
    }


def test_a_mask_of_earlier_scores_does_not_stay(trained: Roots, tmp_path: Path) -> None:
    file = make_plan(trained)
    run(trained, tmp_path / "scores", save_mask=True)
    edit(file, steps=[])
    run(trained, tmp_path / "scores")
    assert not list((tmp_path / "scores" / "masks").glob("*.nii.gz"))


def test_masks_need_a_threshold(trained: Roots, tmp_path: Path) -> None:
    file = make_plan(trained, thresholds=[])
    with pytest.raises(UserError, match=rf"{file} has no threshold of voxels"):
        run(trained, tmp_path / "scores", save_mask=True)
    with pytest.raises(UserError, match=r"need the threshold of an inference plan.*leave out -f"):
        run(trained, tmp_path / "scores", save_mask=True, folds=["0"])
    assert not (tmp_path / "scores").exists()


# ---- going on, and what cannot be done ------------------------------------------------------------------------------


def test_a_killed_prediction_goes_on_with_the_next_case(trained: Roots, tmp_path: Path, monkeypatch) -> None:
    make_plan(trained)
    run(trained, tmp_path / "smooth")
    finish = MapPredictor.mean
    calls = []

    def dying(self: MapPredictor, *arguments: Any) -> np.ndarray:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return finish(self, *arguments)

    monkeypatch.setattr(MapPredictor, "mean", dying)
    with pytest.raises(KeyboardInterrupt):
        run(trained, tmp_path / "scores")
    done = times(tmp_path / "scores")
    assert sorted(path.name for path in done if path.name.endswith(".gz")) == [f"{CASES[0]}.nii.gz"]
    run(trained, tmp_path / "scores")
    assert len(calls) == 3
    assert {path: time for path, time in times(tmp_path / "scores").items() if path in done} == done
    for case in CASES:
        np.testing.assert_array_equal(score_map(tmp_path / "scores", case), score_map(tmp_path / "smooth", case))


def test_another_plan_predicts_anew(trained: Roots, tmp_path: Path) -> None:
    file = make_plan(trained)
    first = run(trained, tmp_path / "scores")
    edit(file, notes=["Said anew."], candidates=[{"name": "x"}])
    before = times(tmp_path / "scores")
    assert run(trained, tmp_path / "scores") == first
    assert times(tmp_path / "scores") == before
    edit(file, sample_score="max")
    assert all(score > first[case] for case, score in run(trained, tmp_path / "scores").items())


def test_the_foreground_of_new_images_cannot_be_the_users_masks(trained: Roots, tmp_path: Path) -> None:
    for file in (trained.results / NAME).glob("*/plans.json"):
        plans = read_json(file)
        plans["nnood"]["foreground_method"] = "masks"
        write_json(file, plans)
    plan = make_plan(trained)
    with pytest.raises(UserError, match=r"needs the foreground of new images.*given as masks"):
        run(trained, tmp_path / "scores")
    run(trained, tmp_path / "plain", folds=["0"])
    with pytest.raises(UserError, match=r"needs the foreground of new images"):
        apply_postprocessing(tmp_path / "plain", tmp_path / "scores", plan, trained)
    edit(plan, steps=[], within_foreground=False)
    assert len(run(trained, tmp_path / "scores")) == 2


def test_post_processing_what_cannot_be(trained: Roots, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain, output = tmp_path / "plain", tmp_path / "scores"
    run(trained, plain, folds=["0"], configuration="2d")
    with pytest.raises(UserError, match=rf"{PLAN_FILE} does not exist; run nnood_find_best_configuration"):
        find_plan_file(plain, trained, dataset=None, plan=None)
    plan = make_plan(trained)
    with pytest.raises(UserError, match="leave out -d or --plan"):
        find_plan_file(plain, trained, dataset=NAME, plan=plan)
    with pytest.raises(UserError, match="would be overwritten"):
        apply_postprocessing(plain, plain, plan, trained)
    run(trained, tmp_path / "planned")
    with pytest.raises(UserError, match=r"planned went through an inference plan already"):
        apply_postprocessing(tmp_path / "planned", output, plan, trained)
    with pytest.raises(UserError, match=r"nowhere is not a folder"):
        apply_postprocessing(plain, output, plan, trained, images=tmp_path / "nowhere")
    moved = tmp_path / "moved"
    shutil.copytree(images(trained), moved)
    (moved / f"{CASES[1]}_0000.nii.gz").unlink()
    with pytest.raises(UserError, match=rf"moved has no image of the case {CASES[1]}"):
        apply_postprocessing(plain, output, plan, trained, images=moved)
    edit(plain / "prediction.json", images=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"the images of .*plain are gone; name --images"):
        apply_postprocessing(plain, output, plan, trained)
    (plain / "prediction.json").unlink()
    with pytest.raises(UserError, match=r"name it with -d"):
        find_plan_file(plain, trained, dataset=None, plan=None)
    assert not output.exists()
    assert len(apply_postprocessing(plain, output, plan, trained, images=images(trained))) == 2
    assert "not of the members" in caplog.text


def test_a_plan_is_read_from_what_the_selection_wrote(trained: Roots) -> None:
    file = make_plan(trained)
    planned = find_model(trained, dataset=NAME)
    assert planned.plan == InferencePlan.from_dict(read_json(file))
    assert [member.file.name for member in planned.members] == ["checkpoint_best.pth"] * 3
