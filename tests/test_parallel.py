import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nnood.errors import UserError
from nnood.parallel import map_cases
from nnood.safety import is_alive


def _halve(number: int) -> int:
    if number % 2:
        raise UserError(f"{number} is odd.")
    return number // 2


def _die(number: int) -> int:
    os._exit(number)


def _touch_then_fail(path: Path, fail: bool) -> None:
    if fail:
        raise OSError(28, "No space left on device")
    time.sleep(0.2)
    path.write_text("done")


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_results_in_order_and_faults_collected(processes: int) -> None:
    arguments = {"d": (8,), "c": (3,), "b": (4,), "a": (1,)}
    results, faults = map_cases(_halve, arguments, processes=processes, description="Halving")
    assert results == {"d": 4, "b": 2}
    assert list(results) == ["d", "b"]
    assert faults == ["3 is odd.", "1 is odd."]


def test_nothing_to_do() -> None:
    assert map_cases(_halve, {}, processes=2, description="Halving") == ({}, [])


def test_dead_worker_is_said_in_plain_words() -> None:
    arguments = {str(number): (number,) for number in range(1, 5)}
    with pytest.raises(UserError, match=r"worker process died.*fewer processes.*__main__"):
        map_cases(_die, arguments, processes=2, description="Dying")


@pytest.mark.parametrize("processes", [1, 2])
def test_other_errors_end_the_work_at_once(tmp_path: Path, processes: int) -> None:
    arguments = {str(i): (tmp_path / str(i), i == 0) for i in range(40)}
    with pytest.raises(OSError, match="No space"):
        map_cases(_touch_then_fail, arguments, processes=processes, description="Filling the disk")
    assert len(list(tmp_path.iterdir())) < 20


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from nnood.parallel import map_cases\n"
        "from work_without_end import work\n"
        "if __name__ == '__main__':\n"
        "    cases = {name: (name, sys.argv[1]) for name in 'ab'}\n"
        "    map_cases(work, cases, processes=2, description='')\n"
    )
    (tmp_path / "work_without_end.py").write_text(
        "import os, pathlib, time\n"
        "def work(name, folder):\n"
        "    part = pathlib.Path(folder, name + '.part')\n"
        "    part.write_text(str(os.getpid()))\n"
        "    part.rename(pathlib.Path(folder, name + '.pid'))\n"
        "    time.sleep(60)\n"
    )
    (tmp_path / "main.py").write_text(code)
    with subprocess.Popen([sys.executable, str(tmp_path / "main.py"), str(tmp_path)]) as parent:
        files = [tmp_path / f"{name}.pid" for name in "ab"]
        _wait_until(lambda: all(file.exists() for file in files))
        parent.kill()
    numbers = [int(file.read_text()) for file in files]
    _wait_until(lambda: not any(_works(number) for number in numbers))


def _works(number: int) -> bool:
    """Whether a process lives and is no zombie, which nobody may be there to bury."""
    stat = Path(f"/proc/{number}/stat")
    try:
        return is_alive(number) and not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
    except OSError:  # it ended meanwhile
        return False


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
