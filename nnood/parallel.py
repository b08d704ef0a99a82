"""One function over many cases: in processes, with a progress bar, and no case lost silently."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from tqdm import tqdm

from nnood.errors import UserError

Result = TypeVar("Result")


def map_cases(
    function: Callable[..., Result], arguments: Mapping[str, tuple[Any, ...]], *, processes: int, description: str
) -> tuple[dict[str, Result], list[str]]:
    """Call `function` once per case.

    Args:
        function: A module-level function, so that it reaches the worker processes.
        arguments: Case name to positional arguments.
        processes: Number of worker processes; 1 works in this process.
        description: Title of the progress bar.

    Returns:
        The results by case, in the order of `arguments`, and one sentence per case that failed through its input.

    Raises:
        UserError: If a worker died, as it does when memory runs out.
    """
    results: dict[str, Result] = {}
    faults: dict[str, str] = {}
    with tqdm(total=len(arguments), desc=description, unit="case", disable=None) as bar:
        if processes <= 1 or len(arguments) <= 1:
            for case, values in arguments.items():
                try:
                    results[case] = function(*values)
                except UserError as error:
                    faults[case] = str(error)
                bar.update()
        else:
            _map_in_processes(function, arguments, processes, results, faults, bar)
    ordered = {case: results[case] for case in arguments if case in results}
    return ordered, [faults[case] for case in arguments if case in faults]


def _map_in_processes(
    function: Callable[..., Result],
    arguments: Mapping[str, tuple[Any, ...]],
    processes: int,
    results: dict[str, Result],
    faults: dict[str, str],
    bar: tqdm,
) -> None:
    """The parallel half of `map_cases`; fills `results` and `faults`."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(arguments)), mp_context=context, initializer=_end_with_parent)
    try:
        futures = {pool.submit(function, *values): case for case, values in arguments.items()}
        for future in as_completed(futures):
            try:
                results[futures[future]] = future.result()
            except UserError as error:
                faults[futures[future]] = str(error)
            bar.update()
    except BrokenProcessPool:
        raise UserError(
            "A worker process died, most likely because memory ran out: use fewer processes (-np) and start again, "
            "finished cases are kept. A script of your own must do its work under if __name__ == '__main__'."
        ) from None
    finally:
        # After a full disk or Ctrl-C the waiting cases must not be worked off first.
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Make a worker process end when the one that started it is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def end() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
