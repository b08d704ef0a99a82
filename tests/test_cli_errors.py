"""Every bad input gets one sentence that names it, exit status 2, and no traceback."""

import errno
import gzip
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from nnood import __version__, cli
from nnood.inference.inference_plan import PLAN_FILE, default_plan
from nnood.inference.members import find_members
from nnood.paths import NNUNET_VARIABLES, VARIABLES, Roots
from nnood.phantoms import make_phantom, write_demo_dataset
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.safety import read_json, write_json
from nnood.training.checkpoints import LATEST, load_checkpoint
from nnood.training.train import train

COMMANDS = tuple(cli.__all__)
SHAPE = (16, 24, 16)
RECIPES_NAMED = (
    ("recipes", "--show"),
    ("train", "101", "1", "-r"),
    ("cross_validation", "-d", "101", "-r"),
    ("predict", "-i", "never", "-o", "never", "-r"),
    ("find_best_configuration", "-d", "101", "-r"),
    ("make_benchmark", "-d", "101", "-o", "never", "--fold", "0", "-r"),
)
DATASET, UNTRAINED = "Dataset101_Tiny", "Dataset102_Untrained"
MEMBER = Path("nnood_data/results") / DATASET / "NnoodTrainer__nnood__3d_fullres"
PLANNING = ("-d", "101", "--base_features", "4", "--gpu_memory_target", "0.5", "-np", "1")
TRAINING = ("101", "0", "--epochs", "2", "--iterations", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A data set with fold 0 trained, half-way only, and one that was never planned; the current folder of a user."""
    folder = tmp_path_factory.mktemp("user")
    roots = Roots.under(folder / "nnood_data")
    for name in (DATASET, UNTRAINED):
        write_demo_dataset(roots.raw / name, num_train=5, num_test=2, shape=SHAPE)
    with pytest.MonkeyPatch.context() as patch:
        for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
            patch.setenv(name, "")
        plan_and_preprocess("101", roots, base_features=4, gpu_memory_target=0.5)
        train("101", ["0"], roots, epochs=2, iterations=1)
    return folder


@pytest.fixture
def user(trained_once, monkeypatch):
    """The folder of `trained_once` as the current one; not to be changed."""
    monkeypatch.chdir(trained_once)
    return trained_once


@pytest.fixture
def copy(trained_once, tmp_path, monkeypatch):
    """A copy of it to change at will."""
    folder = tmp_path / "user"
    shutil.copytree(trained_once, folder)
    monkeypatch.chdir(folder)
    return folder


# ---- images ---------------------------------------------------------------------------------------------------------


def volume(seed=0, shape=SHAPE):
    return make_phantom(np.random.default_rng(seed), shape)


def write(array, path, *, vector=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
    return path


def truncated(path):
    content = write(volume(), path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def with_flipped_bit(path):
    content = bytearray(write(volume(), path).read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def with_value(value):
    def make(path):
        array = volume()
        array[3, 4, 5] = value
        write(array, path)

    return make


def four_dimensional(path):
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(volume(seed)) for seed in (0, 1)]), str(path))


def with_zero_spacing(path):
    header = bytearray(gzip.decompress(write(volume(), path).read_bytes()))
    header[84:88] = np.float32(0).tobytes()  # pixdim[2] of NIfTI-1
    path.write_bytes(gzip.compress(header))


BAD = {
    "truncated": (truncated, "damaged or cut off"),
    "flipped bit": (with_flipped_bit, "damaged or cut off"),
    "nan": (with_value(np.nan), "NaN or infinite"),
    "infinite": (with_value(np.inf), "NaN or infinite"),
    "four dimensions": (four_dimensional, "4 dimensions"),
    "zero spacing": (with_zero_spacing, "spacing"),
    "constant": (lambda path: write(np.ones(SHAPE, np.float32), path), "constant"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("no image\n"), "damaged"),
}


@pytest.fixture(params=BAD)
def bad(request, tmp_path):
    """A folder with two good images and a bad one: the bad file and what its error must say."""
    make, reason = BAD[request.param]
    for number in (1, 2):
        write(volume(number), tmp_path / "images" / f"good{number}_0000.nii.gz")
    file = tmp_path / "images" / "bad_0000.nii.gz"
    make(file)
    return file, reason


def raw_dataset(folder, *, channels=1, cases):
    names = {str(channel): f"channel{channel}" for channel in range(channels)}
    write_json(folder / "dataset.json", {"channel_names": names, "numTraining": cases, "file_ending": ".nii.gz"})


def test_planning_names_a_bad_image(run, bad, tmp_path, monkeypatch):
    file, reason = bad
    folder = tmp_path / "raw" / DATASET
    shutil.copytree(file.parent, folder / "imagesTr")
    raw_dataset(folder, cases=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnood_raw", str(tmp_path / "raw"))
    run("plan_and_preprocess", *PLANNING).names(folder / "imagesTr" / file.name, reason)


def test_predicting_names_a_bad_image_and_finishes_the_good_ones(run, user, bad, tmp_path):
    file, reason = bad
    run("predict", "-i", file.parent, "-o", tmp_path / "scores", "--device", "cpu").names(file, reason)
    assert {path.name for path in (tmp_path / "scores").glob("*.txt")} == {"good1.nii.gz.txt", "good2.nii.gz.txt"}


@pytest.mark.parametrize("bad", sorted(BAD.keys() - {"constant"}), indirect=True)
def test_converting_names_a_bad_image(run, bad, tmp_path, monkeypatch):
    file, reason = bad
    monkeypatch.chdir(tmp_path)
    outcome = run("convert", "folder", "-i", file.parent, "-d", "7", "-n", "Bad", "-np", "1")
    assert outcome.status == 2
    assert str(file) in outcome.err
    assert reason in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "nnood_data" / "raw" / "Dataset007_Bad" / "dataset.json").exists()


@pytest.mark.parametrize(
    ("source", "options", "parts"),
    [
        ("mednist", [], ["mednist", "--normal"]),
        ("fashion_mnist", ["--normal", "shoe"], ["--normal", "'shoe'"]),
        ("folder", ["--normal", "0"], ["--normal"]),
        ("medmnist", ["--test", "in"], ["--test"]),
        ("medmnist", ["--norm", "0"], ["--norm"]),
    ],
)
def test_converting_with_the_options_of_another_source(run, tmp_path, monkeypatch, source, options, parts):
    monkeypatch.chdir(tmp_path)
    run("convert", source, "-i", "in", "-d", "7", *options).refuses(*parts)
    assert not list(tmp_path.iterdir())


def test_converting_other_classes_than_there_are(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(volume(0), tmp_path / "in" / "Hand" / "a.nii.gz")
    run("convert", "mednist", "-i", "in", "-d", "7", "--normal", "Leg").names("Leg")
    assert not (tmp_path / "nnood_data" / "raw" / "Dataset007_MedNIST").exists()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"scheme": "per_task"}, ["scheme", "unseen_tasks"]),
        ({"reconstruction": None}, ["scheme", "unseen_tasks"]),
        ({"reconstruction": {"latnet": "plain"}}, ["'latnet'", "latent"]),
        ({"reconstruction": {"beta": "much"}}, ["beta", "a number"]),
        ({"reconstruction": {"latent": "plain", "voxel_score": "kl_gradient"}}, ["voxel_score", "kl_gradient"]),
        ({"stop_at": 0.5}, ["stop_at", "reconstruction"]),
    ],
    ids=str,
)
def test_a_faulty_recipe_of_the_reconstruction_family(run, user, tmp_path, changes, parts):
    run("recipes", "--show", "vae", "-o", tmp_path / "mine.json")
    write_json(tmp_path / "mine.json", read_json(tmp_path / "mine.json") | {"name": "mine"} | changes)
    run("train", "101", "0", "-r", tmp_path / "mine.json").names("mine.json", *parts)


@pytest.mark.parametrize("exists", [True, False], ids=["empty folder", "no folder"])
def test_no_images(run, user, tmp_path, exists):
    empty = tmp_path / "empty"
    if exists:
        empty.mkdir()
    for command, arguments in {
        "predict": ["-i", empty, "-o", tmp_path / "scores"],
        "convert": ["folder", "-i", empty, "-d", "7", "-n", "Empty"],
        "evaluate": ["-p", empty, "-l", user / "nnood_data/raw" / DATASET / "labelsTs"],
    }.items():
        run(command, *arguments).names(empty)
    assert not (tmp_path / "scores").exists()


def test_planning_without_images(run, tmp_path, monkeypatch):
    folder = tmp_path / "nnood_data" / "raw" / DATASET
    monkeypatch.chdir(tmp_path)
    raw_dataset(folder, cases=0)
    run("plan_and_preprocess", *PLANNING).names(folder / "imagesTr")
    (folder / "imagesTr").mkdir()
    run("plan_and_preprocess", *PLANNING).names(folder / "imagesTr", "no images")


def test_channels_of_different_shapes(run, tmp_path, monkeypatch):
    folder = tmp_path / "nnood_data" / "raw" / DATASET
    monkeypatch.chdir(tmp_path)
    for case in ("a", "b"):
        for channel in (0, 1):
            shape = (16, 24, 18) if (case, channel) == ("b", 1) else SHAPE
            write(volume(channel, shape), folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
    raw_dataset(folder, channels=2, cases=2)
    run("plan_and_preprocess", *PLANNING).names("b_0001.nii.gz", "b_0000.nii.gz", "geometry")
    outcome = run("convert", "folder", "-i", folder / "imagesTr", "-d", "7", "-n", "Other", "-np", "1")
    assert outcome.status == 2
    assert "b_0001.nii.gz" in outcome.err


def test_missing_channel(run, tmp_path, monkeypatch):
    folder = tmp_path / "nnood_data" / "raw" / DATASET
    monkeypatch.chdir(tmp_path)
    for name in ("a_0000", "a_0001", "b_0000"):
        write(volume(), folder / "imagesTr" / f"{name}.nii.gz")
    raw_dataset(folder, channels=2, cases=2)
    run("plan_and_preprocess", *PLANNING).names(folder / "imagesTr", "case b")


def test_mixed_dimensions(run, user, tmp_path, monkeypatch):
    folder = tmp_path / "nnood_data" / "raw" / DATASET
    write(volume(), folder / "imagesTr" / "deep_0000.nii.gz")
    write(volume()[8], folder / "imagesTr" / "flat_0000.nii.gz")
    raw_dataset(folder, cases=2)
    images = folder / "imagesTr"
    run("predict", "-i", images, "-o", tmp_path / "scores", "--device", "cpu").names("flat_0000.nii.gz", "2D")
    assert [path.name for path in (tmp_path / "scores").glob("*.txt")] == ["deep.nii.gz.txt"]
    monkeypatch.chdir(tmp_path)
    run("plan_and_preprocess", *PLANNING).names(folder, "flat", "deep")
    outcome = run("convert", "folder", "-i", images, "-d", "7", "-n", "Mixed", "-np", "1")
    assert outcome.status == 2
    assert "flat_0000.nii.gz is 2D" in outcome.err.replace(str(images) + "/", "")


def test_several_bad_images_are_all_listed(run, user, tmp_path):
    for name in ("one", "two"):
        truncated(tmp_path / f"{name}.nii.gz")
    outcome = run("predict", "-i", tmp_path, "-o", tmp_path / "scores", "--device", "cpu")
    assert outcome.status == 2
    assert outcome.err.splitlines()[0].startswith("nnood_predict: error: 2 faults")
    assert [line.split("/")[-1].split(" ")[0] for line in outcome.err.splitlines()[1:]] == ["one.nii.gz", "two.nii.gz"]


# ---- names that do not exist ----------------------------------------------------------------------------------------

SUPERSCRIPT = "²"


@pytest.mark.parametrize("dataset", ["55", "Dataset055_Nothing", "", SUPERSCRIPT, "-1"])
def test_unknown_data_set(run, user, dataset):
    known = (DATASET, UNTRAINED)
    run("plan_and_preprocess", f"-d={dataset}").names(*known)
    run("train", "--", dataset, "0").names(*known)
    images = user / "nnood_data/raw" / DATASET / "imagesTs"
    run("predict", "-i", images, "-o", "never", f"-d={dataset}").names(*known)
    assert not (user / "never").exists()


@pytest.mark.parametrize("fold", ["5", "00", "-1", "²", "any", "0.0"])
def test_unknown_fold(run, user, fold):
    run("train", "--device", "cpu", "--", "101", fold).names(repr(fold), "0 to 4")
    images = user / "nnood_data/raw" / DATASET / "imagesTs"
    run("predict", "-i", images, "-o", "never", f"-f={fold}").names("no trained fold", fold)
    assert [path.name for path in (user / MEMBER).glob("fold_*")] == ["fold_0"]


def test_unknown_configuration(run, user):
    images = user / "nnood_data/raw" / DATASET / "imagesTs"
    run("plan_and_preprocess", *PLANNING, "-c", "4d").names("'4d'", "3d_fullres")
    run("train", "101", "0", "-c", "4d").names("'4d'", "3d_fullres")
    run("train", "101", "0", "-c", "2d").names("'2d'", "nnood_plan_and_preprocess")
    run("predict", "-i", images, "-o", "never", "-c", "4d").names(DATASET)


def test_unknown_recipe(run, user):
    images = user / "nnood_data/raw" / DATASET / "imagesTs"
    run("train", "101", "0", "-r", "soup").names("'soup'", "nnood")
    run("predict", "-i", images, "-o", "never", "-r", "soup").names(DATASET)
    run("predict", "-i", images, "-o", "never", "-r", "soup", "-c", "3d_fullres", "-d", "101").names("soup")


@pytest.fixture
def mine(tmp_path):
    """Write a user's recipe, with changes."""
    good = {"name": "mine", "summary": "Two tasks.", "tasks": {"fpi": 1, "sink": 1}}

    def make(**changes):
        file = tmp_path / "mine.json"
        write_json(file, good | changes)
        return file

    return make


def test_recipes_are_listed_shown_and_written_to_start_from(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = run("recipes")
    assert (listed.status, listed.err) == (0, "")
    for part in ("nnood ", "many_tasks_4of5", "mood22", "single_task", "autoseg", "2.5d"):
        assert part in listed.out
    shown = run("recipes", "--show", "mood22")
    for part in ("Naval Marimont", '"scheme": "single_task"', "Notes: "):
        assert part in shown.out
    written = run("recipes", "--show", "mood22", "-o", "mine.json")
    assert written.status == 0, written
    assert "Wrote mine.json; first of all, change its name, which is 'mood22'." in written.out
    write_json(tmp_path / "mine.json", read_json(tmp_path / "mine.json") | {"name": "mine", "epochs": 7})
    own = run("recipes", "--show", "mine.json")
    assert own.status == 0, own
    assert '"epochs": 7' in own.out
    run("recipes", "--show", "fpi", "-o", "mine.json").names("mine.json", "--overwrite")
    assert run("recipes", "--show", "fpi", "-o", "mine.json", "--overwrite").status == 0
    assert read_json(tmp_path / "mine.json")["name"] == "fpi"
    run("recipes", "--show", "soup").names("'soup'", "nnood, fpi", "mood22")
    run("recipes", "--show", "fpi", "-o", "mine").names("mine", ".json")
    run("recipes", "--show", "fpi", "-o", tmp_path).names(tmp_path)
    run("recipes", "-o", "mine.json").names("--show")
    run("recipes", "--show", "fpi", "-o", "mine.json/below.json").names("mine.json")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"learnig_rate": 1}, ("'learnig_rate'", "'learning_rate'")),
        ({"loss": "soup"}, ("loss is 'soup'", "bce")),
        ({"tasks": {"soups": 1}}, ("'soups'",)),
        ({"epochs": "all"}, ("epochs is 'all'",)),
        ({"name": "nnood"}, ("name is 'nnood'", "another")),
        ({"name": "mine-fpi"}, ("name is 'mine-fpi'",)),
    ],
    ids=str,
)
def test_a_faulty_recipe_wherever_one_is_named(run, user, mine, changes, parts):
    file = mine(**changes)
    for command in RECIPES_NAMED:
        run(*command, file).names(file, *parts)
    file.unlink()
    for command in RECIPES_NAMED:
        run(*command, file).names(file, "does not exist")
    assert not (user / "never").exists()


def test_the_folds_of_a_users_recipe_whose_scheme_does_not_fit(run, user, mine):
    file = mine(scheme="paired(1)")
    for command in (("train", "101", "0", "-r"), ("cross_validation", "-d", "101", "-r")):
        run(*command, file).names("paired(1)", "2 task(s)", "5 case folds", "the recipe's tasks or scheme", "--folds")


def test_donors_of_a_users_recipe_that_do_not_fit(run, user, mine):
    run("train", "101", "0", "-r", mine(donors="Dataset055_Nothing")).names("'Dataset055_Nothing'")
    run("train", "101", "0", "-r", mine(donors="102")).names(UNTRAINED, "nnood_plan_and_preprocess")
    run("train", "101", "0", "-r", mine(donors=DATASET)).names("the key donors of the recipe mine", DATASET)
    assert not list((user / "nnood_data/results" / DATASET).glob("*__mine__*"))


def test_a_users_recipe_is_trained_and_predicts(run, copy, mine):
    file = mine(epochs=2, iterations=1, validate_whole_every=0, sample_score="max", sizes=[0.2, 0.4])
    assert run("cross_validation", "-d", "101", "-r", file).out.splitlines()[-1].endswith(f"every -r {file}")
    trained = run("train", "101", "0", "-r", file, "--device", "cpu")
    assert trained.status == 0, trained
    members = copy / "nnood_data/results" / DATASET / "NnoodTrainer__mine__3d_fullres"
    assert read_json(members / "fold_0" / "settings.json")["recipe"]["sizes"] == [0.2, 0.4]
    images = copy / "nnood_data/raw" / DATASET / "imagesTs"
    predicted = run("predict", "-i", images, "-o", "scores", "-r", file, "--device", "cpu")
    assert predicted.status == 0, predicted
    assert f"{members.name}/fold_0" in predicted.out
    made = run(
        *("make_benchmark", "-d", "101", "-o", "bench", "--kinds", "blur", "--per_kind", "1", "-np", "1"),
        *("--fold", "0", "-r", file),
    )
    assert made.status == 0, made
    assert read_json(copy / "bench" / "benchmark.json")["recipe"] == "mine"
    selected = run(*SELECTING, "-r", file)
    assert selected.status == 0, selected
    plan = read_json(copy / "nnood_data/results" / DATASET / PLAN_FILE)
    assert {member["folder"] for member in plan["members"]} == {members.name}


def test_unknown_task(run, user):
    run("train", "101", "0", "-t", "fpi,soup").names("'soup'", "smooth_intensity")
    run("tasks", "--show", "-d", "101", "-o", "never.png", "-t", "soup").names("'soup'", "smooth_intensity")
    assert not (user / "never.png").exists()


def test_tasks_that_lack_something(run, user):
    run("train", "101", "1", "-t", "lesion_shapes").names("lesion_shapes", "lesion_masks")
    run("tasks", "--show", "-d", "101", "-o", "never.png", "-t", "lesion_shapes").names("lesion_masks")
    run("tasks", "--show", "-d", "101").names("-o")
    run("tasks", "--show", "-d", "101", "-o", "never.soup").names("never.soup", "png")
    run("tasks", "--show", "-d", "102", "-o", "never.png").names(UNTRAINED, "nnood_plan_and_preprocess")
    assert not (user / "never.png").exists()


def test_donors_that_do_not_fit(run, user):
    run("train", "101", "1", "--donors", "102").names(UNTRAINED, "nnood_plan_and_preprocess")
    run("train", "101", "1", "--donors", "55").names("'55'")
    run("train", "101", "1", "--donors", "101").names(DATASET, "another data set")


def test_folds_that_cannot_be_made(run, user):
    folder = user / "nnood_data/preprocessed" / DATASET
    before = contents(folder)
    run("cross_validation", "-d", "55").names("'55'")
    run("cross_validation", "-d", "102").names(UNTRAINED, "nnood_plan_and_preprocess")
    run("cross_validation", "-d", "101", "-r", "soup").names("'soup'", "many_tasks_1of5")
    run("cross_validation", "-d", "101", "--scheme", "soup").names("'soup'", "leave_task_out")
    run("cross_validation", "-d", "101", "--scheme", "leave_task_out").names("nnood.json", "other folds", "delete it")
    run("cross_validation", "-d", "101", "--tasks", "fpi,soup").names("'soup'", "smooth_intensity")
    run("cross_validation", "-d", "101", "--tasks", "fpi,dag", "--scheme", "paired(1)").names(
        "2 task(s)", "5 case folds"
    )
    run("cross_validation", "-d", "101", "--tasks", "fpi", "--scheme", "leave_task_out").names("2 tasks or more")
    for options in (("--folds", "3"), ("--groups", "phantom_00[0-4]")):
        run("cross_validation", "-d", "101", *options).names("case_folds.json", "other folds", "delete it")
    run("cross_validation", "-d", "101", "--folds", "6").names("--folds is 6", "5 training cases")
    run("cross_validation", "-d", "101", "--folds", "1").names("--folds is 1", "from 2 to 5")
    run("cross_validation", "-d", "101", "--groups", "phantom").names("1 group;", "at least 2")
    run("cross_validation", "-d", "101", "--groups", "patient").names("'patient'", "5 of 5 cases", "phantom_000")
    run("cross_validation", "-d", "101", "--groups", "(phantom").names("'(phantom'", "no regular expression")
    run("cross_validation", "-d", "101", "--groups", "no.csv").names("no.csv", "--groups")
    assert contents(folder) == before


def test_folds_are_shown_and_hand_edited_ones_checked(run, copy):
    shown = run("cross_validation", "-d", "101")
    assert shown.status == 0, shown
    folder = Path("nnood_data/preprocessed") / DATASET
    file = folder / "cross_validation/nnood.json"
    assert [line.split()[:3] for line in shown.out.splitlines()[2:7]] == [[str(n), "4", "1"] for n in range(5)]
    assert file.name in shown.out
    assert shown.out.splitlines()[-1] == "Next: nnood_train 101 every -r nnood"
    paired = run("cross_validation", "-d", "101", "-r", "many_tasks_2of5")
    assert paired.status == 0, paired
    assert paired.out.splitlines()[11].split()[:3] == ["9", "2", "3"]
    chosen = run("cross_validation", "-d", "101", "--tasks", "fpi,dag", "--scheme", "leave_task_out")
    assert chosen.out.splitlines()[-1] == "Next: nnood_train 101 every -r nnood -t fpi,dag"
    assert "nnood-fpi+dag.json" in chosen.out
    content = read_json(file)
    content[1]["train_cases"][0] = content[1]["val_cases"][0]
    write_json(file, content)
    for command, arguments in (("cross_validation", ["-d", "101"]), ("train", TRAINING)):
        run(command, *arguments).names("nnood.json, fold 1", "both training and validation")
    write_json(folder / "case_folds.json", [])
    run("cross_validation", "-d", "101").names("case_folds.json", "delete it")


def test_unknown_device(run, user):
    images = user / "nnood_data/raw" / DATASET / "imagesTs"
    for device in ("tpu9000", "cuda:99", "meta"):
        run("train", "101", "1", "--device", device).names(repr(device))
        run("predict", "-i", images, "-o", "never", "--device", device).names(repr(device))


def test_a_data_set_without_plans_or_trained_fold(run, user, tmp_path, monkeypatch):
    images = user / "nnood_data/raw" / DATASET / "imagesTs"
    run("train", "102", "0").names(UNTRAINED, "nnood_plan_and_preprocess")
    run("predict", "-i", images, "-o", "never", "-d", "102").names(UNTRAINED, "no trained fold", "nnood_train")
    monkeypatch.chdir(tmp_path)
    run("predict", "-i", images, "-o", "never").names("-d", "nnood_train")


def test_predicting_over_the_images_is_refused(run, copy):
    images = copy / "nnood_data/raw" / DATASET / "imagesTs"
    before = {path: path.read_bytes() for path in images.iterdir()}
    run("predict", "-i", images, "-o", images / ".." / "imagesTs", "--device", "cpu").names("imagesTs", "-o")
    assert {path: path.read_bytes() for path in images.iterdir()} == before


def plan_of(copy, **changes):
    """Write an inference plan of the one trained fold, with changes that a user made by hand."""
    plan = default_plan(find_members(Roots.under(copy / "nnood_data"), dataset="101", recipe=None, configuration=None))
    file = copy / "nnood_data/results" / DATASET / PLAN_FILE
    write_json(file, plan.to_dict() | changes)
    return file


def test_predicting_by_a_plan_that_does_not_fit(run, copy):
    images = copy / "nnood_data/raw" / DATASET / "imagesTs"
    predicting = ("predict", "-i", images, "-o", "never", "--device", "cpu")
    member = {"folder": MEMBER.name, "fold": "0", "checkpoint": "checkpoint_best.pth", "sha256": "0" * 64}
    member["voxel_score"] = ""
    file = plan_of(copy, members=[{**member, "fold": "7", "quantiles": []}])
    run(*predicting).names("fold_7", "does not exist", "nnood_find_best_configuration")
    plan_of(copy, members=[{**member, "quantiles": []}])
    run(*predicting).names(MEMBER / "fold_0" / "checkpoint_best.pth", "not the checkpoint")
    plan_of(copy, plans={MEMBER.name: "0" * 64})
    run(*predicting).names(MEMBER / "plans.json", "other plans")
    plan_of(copy, steps=[{"kind": "soup", "parameters": {}}])
    run(*predicting).names(file, "soup", "smooth")
    plan_of(copy, schema_version=0)
    run(*predicting).names(file, "schema version 0")
    file.write_text("{")
    run(*predicting).names(file, "not valid JSON")
    plan_of(copy)
    run(*predicting, "--save_mask").names(file, "--save_mask")
    run(*predicting, "--plan", file, "-f", "0").names(file, "--plan")
    run(*predicting, "--plan", file, "-d", "102").names(file, DATASET)
    run(*predicting, "--plan", "nowhere.json").names("nowhere.json")
    assert not (copy / "never").exists()


def test_a_plan_is_followed_and_its_steps_are_taken_singly(run, copy):
    images = copy / "nnood_data/raw" / DATASET / "imagesTs"
    file = plan_of(copy, steps=[{"kind": "smooth", "parameters": {"sigma_mm": 1.0}}], sample_score="max")
    planned = run("predict", "-i", images, "-o", "planned", "--device", "cpu")
    assert planned.status == 0, planned
    for part in (f"Following the inference plan {file}", "fold_0/checkpoint_best.pth", "sigma_mm", "max"):
        assert part in planned.out
    plain = run("predict", "-i", images, "-o", "plain", "-f", "0", "--device", "cpu")
    assert "Members are averaged." in plain.out
    applied = run("apply_postprocessing", "-i", "plain", "-o", "applied")
    assert applied.status == 0, applied
    for path in sorted((copy / "planned").glob("*.txt")):
        assert path.read_text() == (copy / "applied" / path.name).read_text()
    run("apply_postprocessing", "-i", "planned", "-o", "never").names("planned", "already")
    run("apply_postprocessing", "-i", "plain", "-o", "never", "-d", "102").names(UNTRAINED, PLAN_FILE)
    run("apply_postprocessing", "-i", "nowhere", "-o", "never", "--plan", file).names("nowhere")
    combined = run("ensemble", "-i", "plain", "applied", "-o", "both", "--combine", "median")
    assert combined.status == 0, combined
    assert "Wrote 2 score maps" in combined.out
    run("ensemble", "-i", "plain", "-o", "never").names("plain", "at least two")
    run("ensemble", "-i", "plain", "nowhere", "-o", "never").names("nowhere")
    assert not (copy / "never").exists()


SELECTING = ("find_best_configuration", "-d", "101", "--device", "cpu", "-np", "1")


def test_selecting_what_cannot_be_judged(run, copy):
    run("find_best_configuration", "-d", "55").names("'55'")
    run("find_best_configuration", "-d", "102").names(UNTRAINED, "no finished fold", "nnood_train")
    run(*SELECTING, "-f", "4").names("no trained fold 4")
    run(*SELECTING, "-r", "soup").names("no finished fold that fits")
    raw = copy / "nnood_data/raw" / DATASET
    settings = copy / MEMBER / "fold_0" / "settings.json"
    content = read_json(settings)
    case = content["fold"]["val_cases"][0]
    file = raw / "imagesTr" / f"{case}_0000.nii.gz"
    intact = file.read_bytes()
    truncated(file)
    run(*SELECTING).names(file, "damaged")
    write(volume(9, (10, 24, 16)), file)
    run(*SELECTING).names(file, "does not fit its foreground")
    file.unlink()
    run(*SELECTING).names(raw / "dataset.json", "numTraining")
    description = read_json(raw / "dataset.json")
    write_json(raw / "dataset.json", description | {"numTraining": 4})
    run(*SELECTING).names(DATASET, case, "no training case")
    write_json(raw / "dataset.json", description)
    file.write_bytes(intact)
    write_json(settings, content | {"fold": content["fold"] | {"val_cases": content["fold"]["train_cases"]}})
    run(*SELECTING).names(DATASET, "leaves cases out")
    settings.unlink()
    run(*SELECTING).names(settings)
    assert not (copy / "nnood_data/results" / DATASET / PLAN_FILE).exists()


def test_a_plan_is_made_and_not_overwritten_once_edited(run, copy):
    made = run(*SELECTING)
    assert made.status == 0, made
    file = copy / "nnood_data/results" / DATASET / PLAN_FILE
    assert f"Wrote {file}" in made.out
    assert made.out.splitlines()[-1] == "Next: nnood_predict -i IMAGES -o OUTPUT -d 101"
    for part in ("configuration", "members", "combination", "post-processing", "sample score", "chosen"):
        assert part in made.out
    images = copy / "nnood_data/raw" / DATASET / "imagesTs"
    assert f"Following the inference plan {file}" in run("predict", "-i", images, "-o", "o", "--device", "cpu").out
    content = read_json(file)
    write_json(file, content | {"combination": "median"})
    edited = file.read_bytes()
    run(*SELECTING).names(file, "edited")
    assert file.read_bytes() == edited


def test_a_full_disk_while_selecting(run, copy, small_files):
    small_files(2_000)  # less than a score map takes
    outcome = run(*SELECTING)
    small_files(resource.RLIM_INFINITY)
    outcome.names("disk")
    assert not (copy / "nnood_data/results" / DATASET / PLAN_FILE).exists()
    assert run(*SELECTING).status == 0


def test_evaluating_what_does_not_fit(run, copy):
    raw = copy / "nnood_data/raw" / DATASET
    assert run("predict", "-i", raw / "imagesTs", "-o", "scores", "--device", "cpu").status == 0
    lost = copy / "scores" / "phantom_006.nii.gz"
    intact = lost.read_bytes()
    lost.unlink()
    run("evaluate", "-p", "scores", "-l", raw / "labelsTs").names("phantom_006.nii.gz", "missing")
    write(np.zeros((3, 4, 5), np.float32), lost)
    run("evaluate", "-p", "scores", "-l", raw / "labelsTs").names("phantom_006.nii.gz", "geometry")
    lost.write_bytes(intact)
    run("evaluate", "-p", "scores", "-l", raw / "labelsT").names("labelsT")
    run("evaluate", "-p", "scores", "-l", raw / "labelsTs", "-o", lost / "evaluation.json").names(lost)
    assert not (copy / "scores" / "evaluation.json").exists()


def test_benchmarks_that_cannot_be_made(run, user, tmp_path):
    never = tmp_path / "never"
    common = ("-o", never, "-np", "1")
    run("make_benchmark", "-d", "55", *common).names("'55'")
    run("make_benchmark", "-d", "101", *common, "--kinds", "blur,soup").names("'soup'", "slice_shuffle", "mood22")
    run("make_benchmark", "-d", "101", *common, "--kinds", "lesions").names("lesions", "--masks")
    run("make_benchmark", "-d", "101", *common, "--kinds", "foreign").names("foreign", "--foreign")
    run("make_benchmark", "-d", "101", *common, "--foreign", "101").names(DATASET, "--foreign")
    run("make_benchmark", "-d", "101", *common, "--masks", user / "nowhere").names("nowhere")
    run("make_benchmark", "-d", "101", *common, "--fold", "9").names("fold 9", "0 to 4")
    run("make_benchmark", "-d", "102", *common, "--fold", "0").names(f"{UNTRAINED}/cross_validation/nnood.json")
    run("make_benchmark", "-d", "101", *common, "--fold", "0", "-r", "soup").names(
        "soup.json", "nnood_cross_validation"
    )
    assert not never.exists()


def test_a_benchmark_without_test_images_says_what_to_do(run, copy):
    shutil.rmtree(copy / "nnood_data/raw" / DATASET / "imagesTs")
    run("make_benchmark", "-d", "101", "-o", "never", "-np", "1").names("imagesTs", "--fold")


def test_kinds_of_anomaly_are_listed(run):
    shown = run("make_benchmark", "--list")
    assert (shown.status, shown.err) == (0, "")
    for name in ("noise", "slice_shuffle", "orientation", "mood22", "close to"):
        assert name in shown.out


def test_a_benchmark_is_made_evaluated_and_reported(run, copy):
    made = run(
        *("make_benchmark", "-d", "101", "-o", "bench", "--kinds", "blur,addition,orientation", "--per_kind", "2"),
        *("-np", "1"),
    )
    assert made.status == 0, made
    normal = len(list((copy / "bench/imagesTs").glob("normal_*")))
    assert f"Wrote {normal + 6} cases" in made.out
    assert run("predict", "-i", "bench/imagesTs", "-o", "scores", "--device", "cpu").status == 0
    evaluated = run("evaluate", "-p", "scores", "-l", "bench/labelsTs", "--baselines", "--threshold", "0.5")
    assert evaluated.status == 0, evaluated
    for part in (
        "z-score by voxel",
        "addition*",
        "blur ",
        "Dice at the threshold 0.5",
        "anomalous as a whole",
    ):
        assert part in evaluated.out
    assert "MOOD pixel-level AP 0." in run("evaluate", "-p", "scores", "-l", "bench/labelsTs", "--mood").out
    reported = run("report", "-p", "scores", "-l", "bench/labelsTs", "-o", "report.html", "--baselines")
    assert reported.status == 0, reported
    assert (copy / "report.html").stat().st_size > 100_000
    run("make_benchmark", "-d", "101", "-o", "bench", "--seed", "1", "-np", "1").names("bench", "--seed")


def test_baselines_that_lack_something(run, copy):
    raw = copy / "nnood_data/raw" / DATASET
    assert run("predict", "-i", raw / "imagesTs", "-o", "scores", "--device", "cpu").status == 0
    shutil.copytree(raw / "labelsTs", copy / "elsewhere/labelsTs")
    evaluation = ("evaluate", "-p", "scores", "-l", "elsewhere/labelsTs", "--baselines")
    run(*evaluation).names("elsewhere", "-d")
    run(*evaluation, "-d", "101").names("elsewhere/imagesTs")
    assert run(*evaluation, "-d", "101", "-i", raw / "imagesTs").status == 0


def test_reports_of_nothing(run, copy):
    raw = copy / "nnood_data/raw" / DATASET
    run("report", "-o", "report.html").names("nnood_train")
    run("report", "-o", "report.html", "-d", "102").names(UNTRAINED, "nnood_train")
    run("report", "-o", "report.html", "-l", raw / "labelsTs").names("-p")
    run("report", "-o", "report.html", "-p", "nowhere").names("nowhere")
    run("report", "-o", ".", "-d", "101").names("report.html")
    assert run("report", "-o", "report.html", "-d", "101").status == 0


# ---- what cannot be written -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", [False, True], ids=["the folder is a file", "its parent is a file"])
def test_an_output_folder_that_cannot_be_written(run, user, tmp_path, monkeypatch, below):
    file = tmp_path / "file"
    file.write_text("precious")
    target = file / "below" if below else file
    images = user / "nnood_data/raw" / DATASET / "imagesTs"
    run("predict", "-i", images, "-o", target, "--device", "cpu").names(target)
    run("demo", "-o", target, "--device", "cpu").names(target)
    monkeypatch.setenv("nnood_results", str(target))
    run("train", *TRAINING).names(file)
    monkeypatch.setenv("nnood_preprocessed", str(target))
    run("plan_and_preprocess", *PLANNING).names(file)
    monkeypatch.setenv("nnood_raw", str(target))
    run("convert", "folder", "-i", images, "-d", "7", "-n", "Never", "-np", "1").names(file)
    assert file.read_text() == "precious"


def contents(folder):
    """All files by path, but logs, which say of every call that it was made."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}


def without_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full_disk(monkeypatch):
    """Returns a switch: from then on no file reaches the disk."""

    def fill():
        monkeypatch.setattr("nnood.safety.flush", without_space)

    return fill


def test_a_full_disk_while_predicting(run, copy, full_disk):
    images = copy / "nnood_data/raw" / DATASET / "imagesTs"
    assert run("predict", "-i", images, "-o", "scores", "--device", "cpu").status == 0
    before = contents(copy / "scores")
    assert len(before) == 7
    full_disk()
    run("predict", "-i", images, "-o", "scores", "--device", "cpu", "--checkpoint", "final").names("disk is full")
    assert contents(copy / "scores") == before


def test_a_full_disk_while_evaluating(run, copy, full_disk):
    raw = copy / "nnood_data/raw" / DATASET
    arguments = ("-p", "scores", "-l", raw / "labelsTs")
    assert run("predict", "-i", raw / "imagesTs", "-o", "scores", "--device", "cpu").status == 0
    assert run("evaluate", *arguments).status == 0
    before = contents(copy / "scores")
    full_disk()
    run("evaluate", *arguments).names("disk is full")
    assert contents(copy / "scores") == before


def test_a_full_disk_while_planning(run, copy, full_disk):
    before = contents(copy / "nnood_data")
    full_disk()
    run("plan_and_preprocess", *PLANNING, "-c", "2d").names("disk is full")
    assert contents(copy / "nnood_data") == before


def test_a_full_disk_while_converting(run, copy, full_disk):
    images = copy / "nnood_data/raw" / DATASET / "imagesTs"
    full_disk()
    run("convert", "folder", "-i", images, "-d", "7", "-n", "New", "-np", "1").names("disk is full")
    assert not list((copy / "nnood_data/raw").rglob("Dataset007_New/**/*.nii.gz"))


@pytest.fixture
def small_files():
    """Returns a switch: from then on a file that grows beyond the bytes given cannot be written, from C++ neither."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def as_if_killed_before_the_end(fold):
    for name in ("checkpoint_final.pth", "checkpoint_final.sha256.json"):
        (fold / name).unlink()


def test_a_full_disk_while_training(run, copy, small_files):
    fold = copy / MEMBER / "fold_0"
    as_if_killed_before_the_end(fold)
    before = {path: path.read_bytes() for path in fold.glob("checkpoint_*")}
    small_files(20_000)
    run("train", *TRAINING, "--continue").names("checkpoint_final.pth", "disk full")
    small_files(resource.RLIM_INFINITY)
    assert {path: path.read_bytes() for path in fold.glob("checkpoint_*")} == before
    assert load_checkpoint(fold / LATEST, torch.device("cpu"))["current_epoch"] == 2
    assert run("train", *TRAINING, "--continue").status == 0
    assert (fold / "checkpoint_final.pth").exists()


def test_a_full_disk_while_preprocessing(run, copy, small_files):
    stored = copy / "nnood_data/preprocessed" / DATASET / "nnoodPlans_3d_fullres" / "phantom_001.b2nd"
    stored.unlink()
    small_files(10_000)
    outcome = run("plan_and_preprocess", *PLANNING)
    small_files(resource.RLIM_INFINITY)
    outcome.names("the disk is full")


# ---- the commands themselves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_version(run, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = run(command, "--help")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.startswith(f"usage: nnood_{command} ")
    assert "--debug" in shown.out
    assert "Example: nnood_" in shown.out
    assert run(command, "--version")[1:] == (0, f"nnood {__version__}\n", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_and_abbreviated_options_are_refused(run, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    needed = {
        "convert": ["folder", "-i", "in", "-d", "1", "-n", "Name"],
        "plan_and_preprocess": ["-d", "1"],
        "tasks": [],
        "recipes": [],
        "train": ["1", "0"],
        "predict": ["-i", "in", "-o", "out"],
        "ensemble": ["-i", "in", "-o", "out"],
        "apply_postprocessing": ["-i", "in", "-o", "out"],
        "cross_validation": ["-d", "1"],
        "find_best_configuration": ["-d", "1"],
        "make_benchmark": ["-d", "1", "-o", "out"],
        "evaluate": ["-p", "in", "-l", "labels"],
        "report": ["-o", "out.html"],
        "demo": [],
        "export": ["-o", "model.zip"],
        "install": ["model.zip"],
        "status": [],
    }[command]
    for option in ("--epoch", "--debu", "--devise=cpu"):
        run(command, *needed, option).refuses(option)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "arguments", "part"),
    [
        ("train", ["1", "0", "--epochs", "0"], "--epochs"),
        ("train", ["1", "0", "--seeds", "x"], "--seeds"),
        ("train", ["1", "0", "--whole_every", "-1"], "--whole_every"),
        ("train", ["1", "0", "-num_gpus", "0"], "-num_gpus"),
        ("train", ["1", "0", "--iterations", "many"], "--iterations"),
        ("train", ["1"], "FOLD"),
        ("plan_and_preprocess", ["-d", "1", "--gpu_memory_target", "-3"], "--gpu_memory_target"),
        ("plan_and_preprocess", ["-d", "1", "--gpu_memory_target", "nan"], "--gpu_memory_target"),
        ("plan_and_preprocess", [], "-d"),
        ("predict", ["-i", "in"], "-o"),
        ("predict", ["-i", "in", "-o", "out", "--checkpoint", "worst"], "--checkpoint"),
        ("cross_validation", ["-d", "1", "--folds", "0"], "--folds"),
        ("cross_validation", ["-d", "1", "--folds", "few"], "--folds"),
        ("cross_validation", [], "-d"),
        ("find_best_configuration", [], "-d"),
        ("find_best_configuration", ["-d", "1", "--max_cases", "0"], "--max_cases"),
        ("find_best_configuration", ["-d", "1", "--checkpoint", "latest"], "--checkpoint"),
        ("ensemble", ["-i", "one", "two"], "-o"),
        ("ensemble", ["-i", "one", "two", "-o", "out", "--combine", "soup"], "--combine"),
        ("apply_postprocessing", ["-o", "out"], "-i"),
        ("make_benchmark", ["-d", "1", "-o", "out", "--per_kind", "0"], "--per_kind"),
        ("make_benchmark", ["-d", "1", "-o", "out", "--seed", "x"], "--seed"),
        ("report", ["-p", "in"], "-o"),
        ("convert", ["nowhere", "-i", "in", "-d", "1", "-n", "Name"], "SOURCE"),
        ("convert", [], "SOURCE"),
        ("convert", ["folder", "-i", "in"], "-d"),
        ("convert", ["folder", "-i", "in", "-d", "-1"], "-d"),
    ],
)
def test_wrong_options_are_named(run, command, arguments, part):
    run(command, *arguments).refuses(part)


def test_debug_shows_the_traceback(run, user):
    run("train", "55", "0").names("'55'")
    outcome = run("train", "55", "0", "--debug")
    assert outcome.status == 2
    assert outcome.err.startswith("Traceback")
    assert outcome.err.splitlines()[-1].startswith("nnood_train: error: ")


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError("nought"), 1), (KeyboardInterrupt(), 130)])
def test_faults_of_our_own_and_interruptions_are_worded_too(run, user, monkeypatch, error, status):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("nnood.training.train.train", fail)
    outcome = run("train", "101", "1")
    assert outcome.status == status
    assert len(outcome.err.splitlines()) == 1
    assert "Traceback" not in outcome.err
    assert ("--debug" if status == 1 else "interrupted; start the command again with --continue") in outcome.err
