"""What all tests of converters share."""

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """They write many small files, and none of them is killed."""
    monkeypatch.setattr("nnood.safety.flush", lambda _: None)
