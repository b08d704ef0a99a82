"""Python and JSON in the guides are right: Python is run as it stands, JSON is read by what reads it in earnest."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnood
from nnood import cli
from nnood.datasets import Overrides, load_dataset
from nnood.inference.calibration import Threshold
from nnood.paths import NNUNET_VARIABLES, VARIABLES, Roots, get_roots
from nnood.phantoms import write_demo_dataset
from nnood.safety import write_json
from nnood.training.case_folds import CASE_FOLDS_FILE, read_case_folds
from nnood.training.cross_validation import folds_file, load_folds
from nnood.training.recipes import get_recipe, read_recipe

DOCUMENTATION = Path(__file__).parents[1] / "documentation"
PAGES = sorted(DOCUMENTATION.rglob("*.md"))
NAME = "Dataset101_Heads"
# Their Python is run in this order in one folder, the second page on what the first one made.
RUN = ("use_from_python.md", "choose_a_threshold.md")
JSON = [
    pytest.param(page, block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```json\n(.*?)```", page.read_text(), flags=re.DOTALL))
]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of the blocks to run."""
    return re.findall(r"```(python|bash)\n(.*?)```", page.read_text(), flags=re.DOTALL)


def limited(function: Callable[..., Any], **limits: Any) -> Callable[..., Any]:
    return lambda *arguments, **options: function(*arguments, **options | limits)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: a planned data set of tiny heads, and new scans with masks."""
    folder = tmp_path_factory.mktemp("snippets")
    roots = Roots.under(folder / "nnood_data")
    raw = roots.raw / NAME
    write_demo_dataset(raw, num_train=5, num_test=2, shape=(16, 24, 18))
    nnood.plan_and_preprocess(NAME, roots, gpu_memory_target=0.5, base_features=4)
    (folder / "masks").mkdir()
    for number, name in enumerate(("phantom_005", "phantom_006"), start=1):
        target = folder / "new_scans" / f"head_{number}.nii.gz"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(raw / "imagesTs" / f"{name}_0000.nii.gz", target)
    shutil.copy(raw / "labelsTs" / "phantom_006.nii.gz", folder / "masks" / "head_2.nii.gz")
    return folder


@pytest.fixture
def user(made_once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder is the current one, and trainings are as short as can be."""
    monkeypatch.chdir(made_once)
    for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
        monkeypatch.delenv(name, raising=False)
    limits = {
        "plan_and_preprocess": {"processes": 1},
        "train": {"epochs": 1, "iterations": 1, "whole_every": 0},
        "find_best_configuration": {"processes": 1, "max_cases": 1},
    }
    for name, own in limits.items():
        monkeypatch.setitem(vars(nnood), name, limited(getattr(nnood, name), **own))
    return made_once


def run_command(line: str) -> None:
    name, *arguments = shlex.split(line)
    parser, run = getattr(cli, name.removeprefix("nnood_")).build()
    run(parser.parse_args(arguments), get_roots())


def test_python_runs_as_it_stands(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [next(page for page in PAGES if page.name == name) for name in RUN]
    first, second = (blocks(page) for page in pages)
    space: dict[str, Any] = {"__name__": "__main__"}
    for language, text in first:
        if language == "python":
            exec(text, space)  # our own guide
        else:
            for line in text.splitlines():
                run_command(line)
    for language, text in second:
        if language == "python":
            exec(text, {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert "Members: NnoodTrainer__nnood__3d_fullres" in printed
    assert np.abs(space["again"].score_map - space["result"].score_map).max() < 1e-5
    assert "No model: model.zip does not exist" in printed
    assert "voxel at 1%" in printed
    assert (user / "head_1_scores.nii.gz").is_file()
    assert (user / "head_1_mask.nii.gz").is_file()


def test_every_page_with_python_is_run_somewhere() -> None:
    with_python = {page.name for page in PAGES if "```python" in page.read_text()}
    assert with_python == {*RUN, "add_a_task.md"}  # that one in test_documentation.py


def read_own_recipe(content: Any, folder: Path) -> None:
    file = folder / "mine.json"
    write_json(file, content)
    assert read_recipe(file).name == content["name"]


def read_block(content: Any, folder: Path) -> None:
    """A whole dataset.json, or a part with the block only."""
    block = content["nnood"]
    if set(content) == {"nnood"}:
        folders = {"lesion_masks": str(folder)} if "lesion_masks" in block else {}
        Overrides.from_dict(block | folders, folder / "dataset.json")
    else:
        assert set(content) == {"channel_names", "numTraining", "file_ending", "nnood"}


def read_folds(content: Any, folder: Path) -> None:
    recipe = get_recipe("nnood")
    cases = sorted({case for fold in content for case in (*fold["train_cases"], *fold["val_cases"])})
    write_json(folds_file(folder, recipe.name), content)
    assert len(load_folds(folder, recipe, cases)) == len(content)


def read_shared_folds(content: Any, folder: Path) -> None:
    cases = sorted({case for fold in content["folds"] for case in (*fold["train"], *fold["val"])})
    write_json(folder / CASE_FOLDS_FILE, content)
    assert len(read_case_folds(folder, cases).folds) == len(content["folds"])


def read_threshold(content: Any, folder: Path) -> None:
    assert Threshold(**content).to_dict() == content


READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Path], None]], ...] = (
    (lambda content: isinstance(content, list) and "train_cases" in content[0], read_folds),
    (lambda content: "tasks" in content, read_own_recipe),
    (lambda content: "nnood" in content, read_block),
    (lambda content: "folds" in content, read_shared_folds),
    (lambda content: "level" in content, read_threshold),
)


@pytest.mark.parametrize(("page", "block"), JSON)
def test_json_is_what_the_program_reads(page: Path, block: str, tmp_path: Path) -> None:
    content = json.loads(block)
    readers = [read for fits, read in READERS if fits(content)]
    assert readers, f"{page.name}: say in READERS what reads this"
    readers[0](content, tmp_path)


def test_there_is_json_to_check() -> None:
    assert len(JSON) >= 3


def test_the_example_of_dataset_json_is_a_data_set(tmp_path: Path) -> None:
    text = (DOCUMENTATION / "how_to" / "use_your_own_data.md").read_text()
    (block,) = re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)
    content = json.loads(block)
    roots = Roots.under(tmp_path)
    folder = roots.raw / NAME
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "dataset.json").write_text(block)
    for number in range(content["numTraining"]):
        (folder / "imagesTr" / f"head_{number}_0000{content['file_ending']}").touch()
    loaded = load_dataset(NAME, roots)
    assert list(loaded.overrides.mirror_axes) == content["nnood"]["mirror_axes"]
    assert list(loaded.overrides.anomaly_size or ()) == content["nnood"]["anomaly_size"]
