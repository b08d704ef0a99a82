"""Scores in the challenge's layout, whatever happens to single images."""

import shutil

import pytest

from nnood.errors import UserError
from nnood.inference.predict import find_model, predict
from nnood.sharing import mood
from nnood.sharing.mood import load_unpacked, score_folder

NAME = "Dataset101_Shared"


@pytest.fixture
def planned(shared_once):
    return find_model(shared_once, dataset=NAME)


def test_files_are_named_after_the_images_files(planned, images, tmp_path):
    """nnood_predict would take _0000 for a channel's number; the challenge looks for the file's own name."""
    folder = tmp_path / "in"
    folder.mkdir()
    for file in images.iterdir():
        shutil.copy(file, folder / f"{file.name.removesuffix('.nii.gz').removesuffix('_0000')}_0000.nii.gz")
    assert score_folder("pixel", planned, folder, tmp_path / "maps", device="cpu") == []
    assert score_folder("sample", planned, folder, tmp_path / "scores", device="cpu") == []
    wanted = sorted(file.name for file in folder.iterdir())
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == wanted
    assert sorted(file.name for file in (tmp_path / "scores").iterdir()) == [f"{name}.txt" for name in wanted]
    predict(folder, tmp_path / "usual", planned, device="cpu")
    for name in wanted:
        usual = tmp_path / "usual" / name.replace("_0000", "")
        assert (tmp_path / "maps" / name).read_bytes() == usual.read_bytes()
        assert (tmp_path / "scores" / f"{name}.txt").read_text() == usual.with_name(f"{usual.name}.txt").read_text()


def test_any_error_is_that_images_only(planned, images, tmp_path, monkeypatch):
    calls = []

    def out_of_memory(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("CUDA out of memory")
        return original(*arguments)

    original = mood.score_image
    monkeypatch.setattr(mood, "score_image", out_of_memory)
    faults = score_folder("sample", planned, images, tmp_path / "out", device="cpu")
    first = min(file.name for file in images.iterdir())
    assert faults == [f"{first} has no score: CUDA out of memory"]
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_scores_are_made_anew_and_leftovers_removed(planned, images, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / f".tmp-{2**22 + 1}-a.nii.gz").write_text("of a killed call")
    first = min(file.name for file in images.iterdir())
    (out / f"{first}.txt").write_text("0.5 of another model")
    score_folder("sample", planned, images, out, device="cpu")
    assert len(list(out.iterdir())) == 2
    assert "other" not in (out / f"{first}.txt").read_text()


def test_a_folder_that_holds_no_model(tmp_path):
    with pytest.raises(UserError, match="Expected one model in"):
        load_unpacked(tmp_path)


@pytest.mark.parametrize("what", ["model", "images"])
def test_a_fault_is_told_in_one_line(what, shared_once, tmp_path, monkeypatch, capsys):
    model = tmp_path if what == "model" else shared_once.results
    words = ["nnood.sharing.mood", "pixel", str(model), str(tmp_path), str(tmp_path / "out"), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as caught:
        mood.main()
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    expected = "Expected one model in" if what == "model" else f"{tmp_path} holds no images; expected .nii.gz."
    assert line.startswith(f"error: {expected}")
