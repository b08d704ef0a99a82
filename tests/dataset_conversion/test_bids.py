from pathlib import Path

import numpy as np
import pytest
from raw_checks import read_folder, read_pairs, read_training, sentence_of_command, times

from dataset_conversion.bids import convert_bids
from nnood.errors import UserError
from nnood.geometry import Geometry
from nnood.images import write_image

SHAPE = (4, 5, 6)
OBLIQUE = Geometry((6, 5, 4), (0.7, 1.3, 4.5), (-9.5, 12.25, 1.0), (-1, 0, 0, 0, 0, 1, 0, 1, 0))
FILES = (
    "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
    "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii",
    "sub-02/anat/sub-02_T1w.nii.gz",
    "sub-02/anat/sub-02_FLAIR.nii.gz",
    "sub-03/anat/sub-03_acq-fast_T1w.nii.gz",
    "sub-03/anat/sub-03_acq-slow_T1w.nii.gz",
    "derivatives/masks/sub-02/anat/sub-02_T1w.nii.gz",
)


def volume(file: str) -> np.ndarray:
    return np.random.default_rng(list(file.encode())).integers(0, 99, SHAPE).astype(np.int16)


def write(folder: Path, *files: str) -> Path:
    for file in files:
        write_image(volume(file), OBLIQUE, folder / file)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write(tmp_path / "in", *FILES)
    (folder / "sub-02" / "anat" / "sub-02_T1w.json").write_text("{}")
    return folder


def convert(source: Path, **options: str | bool) -> Path:
    return convert_bids(source, source.parent / "raw", 6, "Brains", **options)  # type: ignore[arg-type]


def test_all_images_of_a_suffix(source: Path) -> None:
    dataset = convert(source)
    participants = {
        "sub-01_ses-1": "sub-01",
        "sub-01_ses-2": "sub-01",
        "sub-02": "sub-02",
        "sub-03_acq-fast": "sub-03",
        "sub-03_acq-slow": "sub-03",
    }
    assert read_pairs(dataset / "groups.csv") == participants
    found = read_training(dataset)
    assert list(found) == sorted(participants)
    files = {Path(file).name.partition("_T1w")[0]: file for file in FILES[:-1]}
    for case, (values, geometry) in found.items():
        np.testing.assert_array_equal(values[0], volume(files[case]))
        assert geometry.matches(OBLIQUE)
    assert not (dataset / "imagesTs").exists()
    assert not (dataset / "labelsTs.csv").exists()


def test_other_suffixes(source: Path) -> None:
    assert list(read_training(convert(source, suffix="FLAIR"))) == ["sub-02"]
    assert list(read_training(convert(source, suffix="acq-slow_T1w"))) == ["sub-03"]


def test_links(source: Path) -> None:
    images = convert(source, link=True) / "imagesTr"
    assert (images / "sub-02_0000.nii.gz").readlink() == source / FILES[2]
    assert not (images / "sub-01_ses-2_0000.nii.gz").is_symlink()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Ten healthy participants, two patients with two sessions each, and one of whom nothing is known."""
    healthy = [f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz" for number in range(10)]
    ill = [f"sub-x{i}/ses-{j}/anat/sub-x{i}_ses-{j}_T1w.nii.gz" for i in (1, 2) for j in (1, 2)]
    folder = write(tmp_path / "in", *healthy, *ill, "sub-u/anat/sub-u_T1w.nii.gz")
    rows = [f"sub-{number:02d}\t20\tcontrol" for number in range(10)]
    rows += ["sub-x1\t30\tpatient", "sub-x2\t31\tat risk", "sub-u\t40\tn/a", "sub-gone\t41\tcontrol"]
    (folder / "participants.tsv").write_text("\n".join(["participant_id\tage\tgroup", *rows, ""]))
    return folder


def test_normal_participants(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = convert(study, normal="group=control")
    labels = read_pairs(dataset / "labelsTs.csv")
    groups = read_pairs(dataset / "groups.csv")
    assert list(read_training(dataset)) == sorted(groups)
    held_out = {case for case, label in labels.items() if label == "0"}
    assert len(groups) == 8
    assert len(held_out) == 2
    assert held_out != {"sub-08", "sub-09"}  # who may all be of one site
    assert held_out | set(groups.values()) == {f"sub-{number:02d}" for number in range(10)}
    assert {case for case, label in labels.items() if label == "1"} == {
        f"sub-x{i}_ses-{j}" for i in (1, 2) for j in (1, 2)
    }
    assert set(read_folder(dataset / "imagesTs")) == {f"{case}_0000" for case in labels}
    assert "1 participant(s) have no group; left out." in caplog.text


def test_the_same_participants_are_held_out_again(study: Path) -> None:
    dataset = convert(study, normal="group=control")
    before = times(dataset)
    missing = next((dataset / "imagesTs").iterdir())
    missing.unlink()
    convert(study, normal="group=control")
    assert [path for path, time in times(dataset).items() if before.get(path) != time] == [missing]


def test_no_participant_is_on_both_sides(tmp_path: Path) -> None:
    ids = [f"sub-{number:02d}" for number in range(6)]
    files = [f"{one}/ses-{j}/anat/{one}_ses-{j}_T1w.nii.gz" for one in ids for j in (1, 2)]
    folder = write(tmp_path / "in", *files)
    (folder / "participants.tsv").write_text("\n".join(["participant_id\tgroup", *(f"{one}\tHC" for one in ids)]))
    dataset = convert(folder, normal="group=HC")
    tested = {case.partition("_")[0] for case in read_pairs(dataset / "labelsTs.csv")}
    assert len(tested) == 2
    assert tested | set(read_pairs(dataset / "groups.csv").values()) == set(ids)
    assert not tested & set(read_pairs(dataset / "groups.csv").values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suffix", "bold"], "has no images of the suffix bold; found are images of T1w."),
        (["--normal", "control"], "--normal is 'control'; expected COLUMN=VALUE of "),
        (["--normal", "diagnosis=none"], "participants.tsv lacks the column(s) diagnosis"),
        (
            ["--normal", "group=Control"],
            "has 0 participant(s) with group=Control and images, expected 2 or more; the values of group are "
            "at risk (1), control (10), n/a (1), patient (1).",
        ),
        (["--normal", "group=patient"], "has 1 participant(s) with group=patient and images"),
    ],
)
def test_options_that_are_refused(
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(study.parent)
    assert message in sentence_of_command(monkeypatch, capsys, "bids", "-i", study, "-d", "6", *options)
    assert not list(study.parent.glob("*/raw/*"))


def test_trees_that_are_refused(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing is not a folder; give the folder of a BIDS data set"):
        convert(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no images of the suffix T1w; found are images of none at all"):
        convert(tmp_path / "empty")
    write(study, "sub-01/anat/sub-01_T1w.nii")
    with pytest.raises(UserError, match=r"sub-01_T1w\.nii\.gz and sub-01_T1w\.nii have the same name"):
        convert(study)
    (study / "sub-01" / "anat" / "sub-01_T1w.nii").unlink()
    write(study, "sub-new/anat/sub-new_T1w.nii")
    with pytest.raises(UserError, match=r"participants\.tsv lacks 1 participant\(s\) with images, such as sub-new"):
        convert(study, normal="group=control")
    (study / "participants.tsv").unlink()
    with pytest.raises(UserError, match=r"participants\.tsv does not exist"):
        convert(study, normal="group=control")
    assert not (tmp_path / "raw").exists()


def test_bad_images_are_listed(source: Path) -> None:
    """A cut-off image, and a link to content that was never fetched."""
    cut = source / FILES[0]
    cut.write_bytes(cut.read_bytes()[:-9])
    gone = source / "sub-04" / "anat" / "sub-04_T1w.nii.gz"
    gone.parent.mkdir(parents=True)
    gone.symlink_to("nowhere.nii.gz")
    with pytest.raises(UserError, match=r"2 fault\(s\) were found") as caught:
        convert(source)
    assert f"{cut} is damaged or cut off" in str(caught.value)
    assert f"{gone} does not exist" in str(caught.value)
