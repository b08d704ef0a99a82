"""Tiny members of two configurations, trained for one iteration each."""

import shutil
from pathlib import Path

import pytest

from nnood.paths import NNUNET_VARIABLES, VARIABLES, Roots
from nnood.phantoms import write_demo_dataset
from nnood.planning.plan_and_preprocess import plan_and_preprocess
from nnood.training.train import train

NAME = "Dataset101_Members"


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Folds 0 and 1 of 3d_fullres and fold 0 of 2d, and two test images; not to be changed."""
    roots = Roots.under(tmp_path_factory.mktemp("members"))
    write_demo_dataset(roots.raw / NAME, num_train=5, num_test=2, shape=(16, 24, 18))
    with pytest.MonkeyPatch.context() as environment:
        for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
            environment.setenv(name, "")
        for configuration, folds in (("3d_fullres", ["0", "1"]), ("2d", ["0"])):
            plan_and_preprocess(
                NAME, roots, configurations=[configuration], base_features=4, gpu_memory_target=0.5, processes=1
            )
            train(NAME, folds, roots, configuration=configuration, epochs=1, iterations=1)
    return roots


@pytest.fixture
def trained(trained_once: Roots, tmp_path: Path) -> Roots:
    """The same with results of its own, to change at will."""
    results = tmp_path / "results"
    shutil.copytree(trained_once.results, results)
    return Roots(trained_once.raw, trained_once.preprocessed, results)
