"""For tests of runs that are killed and started again: how to kill, and what must be the same in the end."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

TIMES = ("seconds", "seconds_per_step", "epoch_start_timestamps", "epoch_end_timestamps")


class Killed(BaseException):
    """Stands in for a kill: nothing catches it."""


def assert_same(one: Any, other: Any, where: str) -> None:
    """Equality bit by bit of all that checkpoints hold, times apart."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - {*TIMES}:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{index}")
    else:
        assert one == other, where


@contextlib.contextmanager
def killed_at(owner: Any, name: str, call: int) -> Iterator[None]:
    """The n-th call, from 1, of a function of a module or class dies at its start."""
    original, calls = getattr(owner, name), []

    def mortal(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            raise Killed
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(owner, name, mortal)
        yield
    assert len(calls) == call, "it was over before it could be killed"
