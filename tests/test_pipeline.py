"""The main job from end to end: the installed commands on tiny data sets in 3D and 2D, as a user calls them."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from PIL import Image

from dataset_conversion.folder import convert_folder
from nnood.errors import UserError
from nnood.evaluation.evaluate import evaluate
from nnood.inference.predict import find_model, predict
from nnood.inference.predictor import MapPredictor
from nnood.paths import Roots
from nnood.phantoms import make_phantom
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.training.recipes import RECIPES
from nnood.training.train import train

CPU = torch.device("cpu")
TRAINING_CASES = 6
NORMAL, ANOMALOUS = ("new_1", "new_2"), ("new_3", "new_4")
# A grid in space that is neither at the origin nor along the axes.
SPACING, ORIGIN = (1.5, 2.0, 1.25), (-31.0, 12.5, 7.0)
DIRECTION = (0.0, -1.0, 0.0, 0.8, 0.0, -0.6, 0.6, 0.0, 0.8)


def volume(seed):
    rng = np.random.default_rng([3, seed])
    shape = tuple(int(n) for n in rng.integers((16, 22, 16), (21, 25, 25)))
    return make_phantom(rng, shape)


def picture(seed):
    image = make_phantom(np.random.default_rng([4, seed]), (20, 32, 28))[11]
    return np.clip(image * (200 / np.percentile(image, 99)), 0, 255).astype(np.uint8)


def write_volume(array, path):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection(DIRECTION)
    sitk.WriteImage(image, str(path))


def write_picture(array, path):
    Image.fromarray(array).save(path)


KINDS = {
    "3d": SimpleNamespace(make=volume, write=write_volume, ending=".nii.gz", configuration="3d_fullres"),
    "2d": SimpleNamespace(make=picture, write=write_picture, ending=".png", configuration="2d"),
}


def write_images(folder, kind):
    """A user's own folders: `normal`, `new` and, for half of the new images, `masks` of a bright box in them."""
    for part in ("normal", "new", "masks"):
        (folder / part).mkdir()
    for number in range(TRAINING_CASES):
        kind.write(kind.make(number), folder / "normal" / f"normal_{number}{kind.ending}")
    for number, name in enumerate(NORMAL + ANOMALOUS, start=TRAINING_CASES):
        image = kind.make(number)
        if name in ANOMALOUS:
            box = tuple(slice(n // 3, n // 3 + 5) for n in image.shape)
            image[box] = image.max()
            mask = np.zeros(image.shape, np.uint8)
            mask[box] = 1
            kind.write(mask, folder / "masks" / f"{name}{kind.ending}")
        kind.write(image, folder / "new" / f"{name}{kind.ending}")


def call(folder, environment, command, *arguments):
    done = subprocess.run(
        [Path(sys.executable).parent / f"nnood_{command}", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module", params=KINDS)
def user(request, tmp_path_factory, clean_environment):
    """A user's folder after the commands of the main job: what they said and what they left."""
    folder = tmp_path_factory.mktemp(f"user_{request.param}")
    kind = KINDS[request.param]
    write_images(folder, kind)
    roots = Roots.under(folder / "nnood_data")
    raw = roots.raw / "Dataset101_Tiny"
    commands = {
        "convert": ["folder", "-i", "normal", "-d", "101", "-n", "Tiny", "--test", "new", "--labels", "masks"],
        "plan_and_preprocess": ["-d", "101", "--base_features", "4", "--gpu_memory_target", "0.5"],
        "train": ["101", "0", "--epochs", "2", "--iterations", "3", "--device", "cpu"],
        "find_best_configuration": ["-d", "101", "--max_cases", "2", "--device", "cpu"],
        "predict": ["-i", "new", "-o", "scores", "--device", "cpu", "--save_mask"],
        "evaluate": ["-p", "scores", "-l", raw / "labelsTs"],
    }
    for command in ("convert", "plan_and_preprocess", "find_best_configuration"):
        commands[command] += ["-np", "1"]
    said = {command: call(folder, clean_environment, command, *arguments) for command, arguments in commands.items()}
    member = roots.results / raw.name / f"NnoodTrainer__nnood__{kind.configuration}"
    return SimpleNamespace(
        folder=folder, kind=kind, data=folder / "nnood_data", roots=roots, raw=raw, member=member, said=said
    )


def model_of(user):
    return find_model(user.roots, dataset=None, recipe=None, configuration=None, folds=[])


def times(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def score_map(folder, name):
    return sitk.ReadImage(str(folder / f"{name}.nii.gz"))


# ---- the commands ---------------------------------------------------------------------------------------------------


def test_every_command_first_says_which_folders_it_uses_and_then_what_comes_next(user):
    roots = "  ".join(f"{part}: {user.data.resolve() / part}" for part in ("raw", "preprocessed", "results"))
    for command, done in user.said.items():
        assert done.stdout.splitlines()[0] == roots, command
        assert done.stderr == "", command
    following = {
        "convert": "plan_and_preprocess -d 101",
        "plan_and_preprocess": "train 101 0",
        "train": "find_best_configuration -d 101",
        "find_best_configuration": "predict -i",
    }
    for command, then in following.items():
        assert f"Next: nnood_{then}" in user.said[command].stdout


def test_all_installed_commands_are_there():
    for command in ("convert", "plan_and_preprocess", "train", "predict", "evaluate", "demo"):
        assert (Path(sys.executable).parent / f"nnood_{command}").is_file()


def test_conversion_keeps_values_and_geometry(user):
    assert len(list((user.raw / "imagesTr").iterdir())) == TRAINING_CASES
    assert {path.name for path in (user.raw / "labelsTs").iterdir()} == {f"{name}.nii.gz" for name in ANOMALOUS}
    for name in NORMAL + ANOMALOUS:
        original = sitk.ReadImage(str(user.folder / "new" / f"{name}{user.kind.ending}"))
        converted = sitk.ReadImage(str(user.raw / "imagesTs" / f"{name}_0000.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(converted), sitk.GetArrayFromImage(original))
        assert_same_geometry(converted, original)


def test_planning_leaves_plans_and_a_picture_of_the_foreground(user):
    folder = user.roots.preprocessed / user.raw.name
    with Image.open(folder / "foreground.png") as sheet:
        assert min(sheet.size) > 100
    plans = json.loads((folder / "nnoodPlans.json").read_text())
    assert plans["nnood"]["default_configuration"] == user.kind.configuration
    assert plans["nnood"]["foreground_method"] in ("whole", "nonzero", "otsu")
    assert f"Foreground: '{plans['nnood']['foreground_method']}', because" in user.said["plan_and_preprocess"].stdout
    assert f"{user.kind.configuration} (preprocessed, the default)" in user.said["plan_and_preprocess"].stdout
    assert len(json.loads((folder / "case_folds.json").read_text())["folds"]) == 5
    assert len(json.loads((folder / "cross_validation" / "nnood.json").read_text())) == 5


def test_training_says_where_it_writes_and_leaves_everything(user):
    fold = user.member / "fold_0"
    lines = user.said["train"].stdout.splitlines()
    assert str(fold) in lines[1]
    assert [line.split(" ")[1] for line in lines if line.startswith("Epoch ")] == ["1/2", "2/2"]
    with Image.open(fold / "progress.png") as progress:
        assert min(progress.size) > 100
    assert len(list(fold.glob("training_log_*.txt"))) == 1
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert set(summary["voxel_ap"]) == set(RECIPES["nnood"].tasks)
    assert 0 <= summary["mean_whole_voxel_ap"] <= summary["best"] <= 1
    assert summary["best_figure"] == "mean_whole_voxel_ap"
    assert math.isfinite(summary["val_losses"])
    assert summary["has_learned"] or "has learned nothing yet" in user.said["train"].stdout


def test_no_file_is_or_holds_a_pickle(user):
    assert not [path for path in user.folder.rglob("*") if path.suffix in (".pkl", ".pickle")]
    for name in ("best", "final", "latest"):
        content = torch.load(user.member / "fold_0" / f"checkpoint_{name}.pth", weights_only=True)
        assert content["network_weights"]
        assert content["current_epoch"] in (1, 2)


def assert_same_geometry(one, other):
    assert one.GetSize() == other.GetSize()
    for ours, theirs in (
        (one.GetSpacing(), other.GetSpacing()),
        (one.GetOrigin(), other.GetOrigin()),
        (one.GetDirection(), other.GetDirection()),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_predictions_have_the_challenge_s_layout(user):
    assert {path.name for path in (user.folder / "scores").iterdir() if not path.name.startswith(".")} == {
        *("evaluation.json", "prediction.json", "nnood_evaluate.log", "nnood_predict.log"),
        "masks",
        *(f"{name}.nii.gz{ending}" for name in NORMAL + ANOMALOUS for ending in ("", ".txt")),
    }
    seen = set()
    plan = json.loads((user.member.parent / "inference_plan.json").read_text())
    (threshold,) = (one["value"] for one in plan["thresholds"] if (one["level"], one["rate"]) == ("voxel", 0.01))
    for name in NORMAL + ANOMALOUS:
        scores = score_map(user.folder / "scores", name)
        assert_same_geometry(scores, sitk.ReadImage(str(user.folder / "new" / f"{name}{user.kind.ending}")))
        assert scores.GetPixelID() == sitk.sitkFloat32
        values = sitk.GetArrayFromImage(scores)
        assert np.isfinite(values).all()
        assert 0 <= values.min() < values.max() <= 1
        sample_score = float((user.folder / "scores" / f"{name}.nii.gz.txt").read_text())
        assert values.mean() < sample_score <= values.max() + 1e-6
        mask = score_map(user.folder / "scores" / "masks", name)
        assert_same_geometry(mask, scores)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask) > 0, values >= np.float32(threshold))
        seen.add(sample_score)
    assert len(seen) == len(NORMAL + ANOMALOUS)


def test_the_evaluation_is_finite_printed_and_written(user):
    result = json.loads((user.folder / "scores" / "evaluation.json").read_text())
    figures = result["figures"]
    pooled = [figures[key]["value"] for key in ("voxel_ap", "voxel_auroc", "sample_ap", "sample_auroc")]
    assert all(0 <= figure <= 1 for figure in pooled)
    assert figures["sample_ap"]["chance"] == 0.5
    assert 0 < figures["voxel_ap"]["chance"] < 0.2
    assert {case["name"]: case["anomalous"] for case in result["cases"]} == {
        **dict.fromkeys(NORMAL, False),
        **dict.fromkeys(ANOMALOUS, True),
    }
    for figure in pooled:
        assert f"{figure:#.3g}" in user.said["evaluate"].stdout


# ---- the same functions, once more ----------------------------------------------------------------------------------


def test_predicting_again_does_nothing(user, monkeypatch):
    before = times(user.folder / "scores")

    def fail(*_, **__):
        raise AssertionError("a network was loaded although there was nothing to do")

    monkeypatch.setattr(MapPredictor, "__init__", fail)
    scores = predict(user.folder / "new", user.folder / "scores", model_of(user), device=CPU)
    assert set(scores) == {*NORMAL, *ANOMALOUS}
    assert times(user.folder / "scores") == before


def test_numbered_and_plain_names_give_the_same_scores(user, tmp_path):
    numbered = predict(user.raw / "imagesTs", tmp_path / "scores", model_of(user), device=CPU)
    for name in NORMAL + ANOMALOUS:
        assert numbered[name] == pytest.approx(
            float((user.folder / "scores" / f"{name}.nii.gz.txt").read_text()), abs=1e-6
        )
        np.testing.assert_allclose(
            sitk.GetArrayFromImage(score_map(tmp_path / "scores", name)),
            sitk.GetArrayFromImage(score_map(user.folder / "scores", name)),
            rtol=0,
            atol=1e-6,
        )


def test_a_changed_image_is_predicted_again_and_the_others_are_left(user, tmp_path):
    images, output = tmp_path / "new", tmp_path / "scores"
    shutil.copytree(user.folder / "new", images)
    shutil.copytree(user.folder / "scores", output)
    before = times(output)
    user.kind.write(user.kind.make(99), images / f"new_1{user.kind.ending}")
    predict(images, output, model_of(user), device=CPU)
    changed = {path.name for path, time in times(output).items() if time != before[path]}
    # The images lie in another folder now, which is noted.
    assert changed == {"new_1.nii.gz", "new_1.nii.gz.txt", "new_1.json", "prediction.json"}


def test_folds_are_combined_by_the_mean_of_their_scores(user, tmp_path):
    roots = Roots(user.roots.raw, user.roots.preprocessed, tmp_path / "results")
    shutil.copytree(user.roots.results, roots.results)
    (roots.results / user.raw.name / "inference_plan.json").unlink()  # the plain mean, without a plan
    train("101", ["1"], roots, epochs=1, iterations=1)
    maps = {}
    for folds in (["0"], ["1"], []):
        model = find_model(roots, dataset="101", recipe=None, configuration=None, folds=folds)
        output = tmp_path / "_".join(["scores", *folds])
        predict(user.raw / "imagesTs", output, model, device=CPU)
        maps[" ".join(folds)] = sitk.GetArrayFromImage(score_map(output, "new_3")).astype(float)
    np.testing.assert_allclose(maps[""], (maps["0"] + maps["1"]) / 2, rtol=0, atol=1e-6)
    assert np.abs(maps["0"] - maps["1"]).max() > 0.01


# ---- colour ---------------------------------------------------------------------------------------------------------


def test_colour_pictures_go_all_the_way(tmp_path, caplog):
    def coloured(seed, channels):
        return np.stack([picture(seed), 255 - picture(seed), picture(seed + 1), picture(seed)][:channels], axis=-1)

    for part in ("normal", "new"):
        (tmp_path / part).mkdir()
    for number in range(5):
        write_picture(coloured(number, 4), tmp_path / "normal" / f"normal_{number}.png")  # RGBA
    for name in ("new_a", "new_b"):
        write_picture(coloured(len(name) + ord(name[-1]), 3), tmp_path / "new" / f"{name}.png")
    (tmp_path / "labels.csv").write_text("case,label\nnew_a,0\nnew_b,1\n")
    roots = Roots(tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results")
    options = {"test": tmp_path / "new", "labels": tmp_path / "labels.csv"}
    raw = convert_folder(tmp_path / "normal", roots.raw, 7, "Colours", **options)
    assert "normal_0.png has an alpha channel; it is dropped" in caplog.text
    assert len(json.loads((raw / "dataset.json").read_text())["channel_names"]) == 3
    plan_and_preprocess("7", roots, base_features=4, gpu_memory_target=0.5)
    train("7", ["0"], roots, epochs=1, iterations=1)
    model = find_model(roots, dataset=None, recipe=None, configuration=None, folds=[])
    assert model.channels == 3
    plain = predict(tmp_path / "new", tmp_path / "plain", model, device=CPU)
    assert predict(raw / "imagesTs", tmp_path / "numbered", model, device=CPU) == pytest.approx(plain, abs=1e-6)
    assert set(plain) == {"new_a", "new_b"}
    for name in plain:
        assert score_map(tmp_path / "plain", name).GetSize() == (28, 32)
    result = evaluate(tmp_path / "plain", raw / "labelsTs.csv")
    assert result.figures["sample_ap"].value in (0.5, 1.0)
    assert result.figures["voxel_ap"].value is None


def test_predictions_of_two_networks_are_not_mixed(user, tmp_path):
    """What is left over of other networks would be evaluated and reported as if it were of these."""
    images, output = tmp_path / "new", tmp_path / "scores"
    shutil.copytree(user.folder / "new", images)
    shutil.copytree(user.folder / "scores", output)
    for file in sorted(images.iterdir())[1:]:
        file.unlink()
    final = find_model(
        user.roots, dataset=None, recipe=None, configuration=None, folds=[], checkpoint="checkpoint_final.pth"
    )
    with pytest.raises(UserError, match="predicted by other networks; choose another folder"):
        predict(images, output, final, device=CPU)
