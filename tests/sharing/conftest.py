"""One tiny member with an inference plan, its archive, and images to score."""

import shutil
from pathlib import Path

import pytest

from nnood.inference.calibration import Calibration, Threshold
from nnood.inference.inference_plan import PLAN_FILE, default_plan
from nnood.inference.members import find_members
from nnood.inference.postprocessing import Step
from nnood.inference.predict import find_model
from nnood.paths import NNUNET_VARIABLES, VARIABLES, Roots
from nnood.phantoms import write_demo_dataset
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.safety import write_json
from nnood.sharing import export_model
from nnood.training.train import train

NAME = "Dataset101_Shared"


@pytest.fixture(scope="session")
def shared_once(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Fold 0 of 3d_fullres, an inference plan with a bit of everything, two test images; not to be changed."""
    roots = Roots.under(tmp_path_factory.mktemp("shared") / "nnood_data")
    write_demo_dataset(roots.raw / NAME, num_train=5, num_test=2, shape=(16, 24, 18))
    with pytest.MonkeyPatch.context() as environment:
        for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
            environment.setenv(name, "")
        plan_and_preprocess(NAME, roots, base_features=4, gpu_memory_target=0.5, processes=1)
        train(NAME, ["0"], roots, epochs=1, iterations=1, device="cpu")
    plan = default_plan(find_members(roots, dataset=NAME, recipe=None, configuration=None)).to_dict() | {
        "steps": [Step("restrict_to_foreground", {"dilation_mm": 1.0}).to_dict()],
        "sample_score": "top_1_percent",
        "within_foreground": True,
        "calibration": Calibration((0.0, 1e-3, 0.3, 1.0), (0.0, 0.2, 0.6, 1.0)).to_dict(),
        "thresholds": [Threshold("voxel", 0.01, 0.4, 0.3, 0.5, True).to_dict()],
        "notes": ["phantom_003 was hard."],
    }
    write_json(roots.results / NAME / PLAN_FILE, plan)
    return roots


@pytest.fixture
def shared(shared_once: Roots, tmp_path: Path) -> Roots:
    """A copy to change at will."""
    shutil.copytree(shared_once.raw.parent, tmp_path / "nnood_data")
    return Roots.under(tmp_path / "nnood_data")


@pytest.fixture(scope="session")
def model_once(shared_once: Roots, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's archive; not to be changed."""
    file = tmp_path_factory.mktemp("archive") / "model.zip"
    export_model(find_model(shared_once, dataset=NAME), shared_once, file)
    return file


@pytest.fixture(scope="session")
def images(shared_once: Roots) -> Path:
    """The folder of test images."""
    return shared_once.raw / NAME / "imagesTs"
