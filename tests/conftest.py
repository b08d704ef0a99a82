"""Shared fixtures: a tiny planned data set, and the real data where it is there."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from outcomes import Outcome

from nnood import cli
from nnood.cli import messages
from nnood.paths import NNUNET_VARIABLES, VARIABLES, Roots
from nnood.phantoms import write_demo_dataset
from nnood.planning.plan_and_preprocess import plan_and_preprocess

NAME = "Dataset999_Phantoms"
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Test processes run side by side: more threads than one each would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _on_the_cpu() -> Iterator[None]:
    """What compares numbers expects those of a CPU; tests that need another device name it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnood.precision.fastest_device", lambda: torch.device("cpu"))
        yield


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    """The environment for a command: none of nnood's or nnU-Net's own variables, one thread."""
    own = (*VARIABLES.values(), *NNUNET_VARIABLES.values())
    return {key: value for key, value in os.environ.items() if key not in own} | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def _restore_environment() -> Iterator[None]:
    """What nnU-Net is told changes the environment; no test sees another's."""
    names = (*VARIABLES.values(), *NNUNET_VARIABLES.values())
    before = {name: os.environ.get(name) for name in names}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Commands show messages of more levels than tests expect; no test sees another's handlers."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if type(handler).__module__ != messages.__name__]


@pytest.fixture(scope="session")
def planned_once(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Six tiny phantoms, planned and preprocessed for the default configuration; not to be changed."""
    roots = Roots.under(tmp_path_factory.mktemp("planned"))
    write_demo_dataset(roots.raw / NAME, num_train=6, num_test=0, shape=(20, 24, 20))
    with pytest.MonkeyPatch.context() as environment:
        for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
            environment.setenv(name, "")
        plan_and_preprocess(NAME, roots)
    return roots


@pytest.fixture
def planned(planned_once: Roots, tmp_path: Path) -> Roots:
    """A copy of `planned_once` to change at will; times of modification are kept."""
    folder = tmp_path / "planned"
    shutil.copytree(planned_once.raw.parent, folder)
    return Roots.under(folder)


@pytest.fixture
def real_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip("there is no real data at ../shared/data")
    return REAL_DATA


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., Outcome]:
    """Call a command in this process."""
    for name in (*VARIABLES.values(), *NNUNET_VARIABLES.values()):
        monkeypatch.setenv(name, "")

    def call(command, *arguments):
        environment, root = dict(os.environ), logging.getLogger()
        handlers, level = root.handlers[:], root.level
        monkeypatch.setattr("sys.argv", [f"nnood_{command}", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            getattr(cli, command)()
        except SystemExit as stop:
            status = stop.code
        finally:
            os.environ.update(environment)
            root.handlers[:], root.level = handlers, level
        return Outcome(command, status, *capsys.readouterr())

    return call
