import os
import time
from pathlib import Path

import pytest

from nnood.errors import UserError
from nnood.parallel import map_cases


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
    with pytest.raises(UserError, match=r"worker process died.*fewer processes"):
        map_cases(_die, arguments, processes=2, description="Dying")


@pytest.mark.parametrize("processes", [1, 2])
def test_other_errors_end_the_work_at_once(tmp_path: Path, processes: int) -> None:
    arguments = {str(i): (tmp_path / str(i), i == 0) for i in range(40)}
    with pytest.raises(OSError, match="No space"):
        map_cases(_touch_then_fail, arguments, processes=processes, description="Filling the disk")
    assert len(list(tmp_path.iterdir())) < 20
