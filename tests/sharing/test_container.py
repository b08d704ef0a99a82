"""The folder of the MOOD challenge's container, and its scripts where nothing may be written but the scores."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from sandbox import run, skip_without

import nnood
from nnood.errors import UserError
from nnood.inference.predict import find_model, predict
from nnood.paths import Roots
from nnood.safety import read_json, write_json
from nnood.sharing.container import export_mood, pinned_requirements

NAME = "Dataset101_Shared"


@pytest.fixture(scope="module")
def container_once(shared_once: Roots, model_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a model by id and one from an archive; not to be changed."""
    folder = tmp_path_factory.mktemp("container") / "mood"
    export_mood(folder, {"brain": "101", "abdom": str(model_once)}, shared_once)
    return folder


@pytest.fixture
def challenge(images: Path, tmp_path: Path) -> Path:
    """Images named as the challenge might."""
    folder = tmp_path / "challenge"
    folder.mkdir()
    for number, file in enumerate(sorted(images.iterdir())):
        shutil.copy(file, folder / f"{number:05d}.nii.gz")
    return folder


@pytest.fixture
def expected(shared_once: Roots, challenge: Path, tmp_path: Path) -> Path:
    """What nnood_predict says of them."""
    predict(challenge, tmp_path / "expected", find_model(shared_once, dataset=NAME), device="cpu")
    return tmp_path / "expected"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- the folder -----------------------------------------------------------------------------------------------------


def test_it_holds_all_that_a_build_needs(container_once):
    scripts = [f"run_{kind}_{region}.sh" for kind in ("pixel", "sample") for region in ("brain", "abdom")]
    assert names(container_once) == sorted(["Dockerfile", "models", "nnood", "requirements.txt", *scripts])
    for region in ("brain", "abdom"):
        assert names(container_once / "models" / region) == [NAME]
    own = Path(nnood.__file__).parent
    for file in own.rglob("*.py"):
        assert (container_once / "nnood" / file.relative_to(own)).read_bytes() == file.read_bytes()
    assert not [path for path in container_once.rglob("*") if path.suffix == ".pyc" or path.suffix == ".zip"]
    assert not [path for path in container_once.rglob("*") if not path.stat().st_mode & 0o004]


def test_the_dockerfile_copies_all_and_fetches_nothing_later(container_once):
    lines = [line for line in (container_once / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == f"FROM python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    assert "WORKDIR /workspace" in lines
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied == ["requirements.txt", "nnood", "models", "run_*.sh"]
    assert [line for line in lines if "pip install" in line] == ["RUN pip install --no-cache-dir -r requirements.txt"]
    assert not [line for line in lines if line.startswith(("CMD", "ENTRYPOINT", "USER"))]
    for script in container_once.glob("*.sh"):
        assert not re.search(r"pip|curl|wget|http", script.read_text())


def test_no_path_of_this_machine_and_no_name_of_a_case_is_in_it(container_once, shared_once):
    for path in (path for path in container_once.rglob("*") if path.is_file() and "/nnood/" not in str(path)):
        content = path.read_bytes()
        assert str(shared_once.raw.parent).encode() not in content, path
        assert b"phantom_0" not in content, path


def test_versions_are_pinned_as_they_are_here():
    pinned = dict(line.split("==") for line in pinned_requirements("nnood"))
    assert "nnood" not in pinned
    assert pinned["torch"] == version("torch").split("+")[0]
    assert {"nnunetv2", "numpy", "simpleitk", "nibabel", "scikit-image"} <= set(pinned)
    assert not {"pytest", "ruff", "pyod"} & set(pinned)
    assert set(pinned) < {line.split("==")[0] for line in pinned_requirements("nnood[test]")}
    with pytest.raises(UserError, match="not installed as a package"):
        pinned_requirements("nnood-of-nobody")


def test_one_region_is_enough(shared_once, tmp_path):
    assert export_mood(tmp_path / "mood", {"abdom": "101"}, shared_once) == [
        "run_pixel_abdom.sh",
        "run_sample_abdom.sh",
    ]
    assert not list((tmp_path / "mood").glob("*brain*"))
    assert "run_pixel_abdom.sh" in (tmp_path / "mood" / "Dockerfile").read_text()


def test_what_can_not_be_exported_leaves_nothing(shared, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="Name a model with --brain"):
        export_mood(out / "mood", {}, shared)
    with pytest.raises(UserError, match="There is no data set '102'"):
        export_mood(out / "mood", {"brain": "101", "abdom": "102"}, shared)
    with pytest.raises(UserError, match=r"none\.zip does not exist"):
        export_mood(out / "mood", {"brain": str(tmp_path / "none.zip")}, shared)
    file = shared.results / NAME / "NnoodTrainer__nnood__3d_fullres" / "dataset.json"
    write_json(file, read_json(file) | {"channel_names": {"0": "T1", "1": "T2"}})
    with pytest.raises(UserError, match="wants 2 channels, but the challenge's images have one"):
        export_mood(out / "mood", {"brain": "101"}, shared)
    assert not list(out.iterdir())
    (out / "mood").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export_mood(out / "mood", {"brain": "101"}, shared)


# ---- the scripts ----------------------------------------------------------------------------------------------------


def test_score_maps_in_the_sandbox(container_once, challenge, expected, tmp_path):
    skip_without()
    out = tmp_path / "out"
    done = run(container_once, challenge, out, "sh", "/mnt/workspace/run_pixel_brain.sh", "/mnt/data", "/mnt/pred")
    assert done.returncode == 0, done.stderr
    assert names(out) == ["00000.nii.gz", "00001.nii.gz"]
    for file in out.iterdir():
        assert file.read_bytes() == (expected / file.name).read_bytes()
        image, source = (sitk.ReadImage(str(folder / file.name)) for folder in (out, challenge))
        assert image.GetSize() == source.GetSize()
        np.testing.assert_allclose(image.GetDirection(), source.GetDirection())


def test_sample_scores_in_the_sandbox(container_once, challenge, expected, tmp_path):
    skip_without()
    out = tmp_path / "out"
    done = run(container_once, challenge, out, "sh", "/mnt/workspace/run_sample_abdom.sh", "/mnt/data", "/mnt/pred")
    assert done.returncode == 0, done.stderr
    assert names(out) == ["00000.nii.gz.txt", "00001.nii.gz.txt"]
    for file in out.iterdir():
        assert file.read_text() == (expected / file.name).read_text()
        assert 0 <= float(file.read_text()) <= 1


def test_the_sandbox_is_closed(container_once, challenge, tmp_path):
    skip_without()
    script = """
    for folder in / /mnt /mnt/workspace /mnt/data /var/tmp "$HOME"; do
        touch "$folder/written" 2>/dev/null && echo "wrote to $folder"
    done
    touch /tmp/written /dev/shm/written /mnt/pred/written && echo "user $(id -u)"
    head -c 100000000 /dev/zero > /tmp/large 2>/dev/null || echo "small"
    python -c "import socket; socket.create_connection(('1.1.1.1', 53), 2)" 2>/dev/null || echo "no network"
    """
    done = run(container_once, challenge, tmp_path / "out", "sh", "-c", script)
    assert done.stdout.splitlines() == ["user 65534", "small", "no network"], done


def script_here(container: Path, name: str, images: Path, out: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A script in this file system, as this user."""
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", **more}
    words = ["sh", str(container / name), str(images), str(out)]
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def test_a_failing_case_costs_no_other(container_once, challenge, expected, tmp_path):
    data = (challenge / "00001.nii.gz").read_bytes()
    (challenge / "00000_cut.nii.gz").write_bytes(data[: len(data) // 2])
    (challenge / "readme.txt").write_text("no image")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    out = tmp_path / "out" / "deep"
    done = script_here(container_once, "run_sample_brain.sh", challenge, out, TMPDIR=str(temporary))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "00000_cut.nii.gz has no score: " in line
    assert names(out) == ["00000.nii.gz.txt", "00001.nii.gz.txt"]
    assert (out / "00001.nii.gz.txt").read_text() == (expected / "00001.nii.gz.txt").read_text()
    assert not list(temporary.iterdir())
