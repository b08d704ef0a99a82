"""A data set whose networks train in a second."""

import shutil
from pathlib import Path

import pytest

from nnood.paths import NNUNET_VARIABLES, VARIABLES, Roots
from nnood.phantoms import write_demo_dataset
from nnood.planning.plan_and_preprocess import plan_and_preprocess

NAME = "Dataset999_Phantoms"


@pytest.fixture(scope="session")
def tiny_once(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Six tiny phantoms, planned for a tiny network; not to be changed."""
    roots = Roots.under(tmp_path_factory.mktemp("tiny") / "nnood_data")
    write_demo_dataset(roots.raw / NAME, num_train=6, num_test=0, shape=(16, 24, 16))
    with pytest.MonkeyPatch.context() as environment:
        for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
            environment.setenv(name, "")
        plan_and_preprocess(NAME, roots, base_features=4, gpu_memory_target=0.5)
    return roots


@pytest.fixture
def tiny(tiny_once: Roots, tmp_path: Path) -> Roots:
    """A copy of `tiny_once` to change at will."""
    shutil.copytree(tiny_once.raw.parent, tmp_path / "nnood_data")
    return Roots.under(tmp_path / "nnood_data")
