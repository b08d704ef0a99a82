"""How a training is asked to end: SIGTERM sets a flag, the training writes a checkpoint, the process ends with 143."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_TERMINATED = 128 + signal.SIGTERM


class Stopped(SystemExit):
    """Training was asked to end and can go on later. Where nothing catches it, the process ends with 143."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = EXIT_TERMINATED


class StopRequest:
    """Whether somebody asked the training to end.

    Attributes:
        requested: True from the moment that somebody did.
    """

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """End here, if asked to.

        Raises:
            Stopped: If somebody asked.
        """
        if self.requested:
            raise Stopped("training was asked to end; start it again with --continue to go on.")


@contextlib.contextmanager
def listen() -> Iterator[StopRequest]:
    """For as long as the context lasts, SIGTERM is a request rather than death.

    Only the main thread may say what a signal does; in another one, requests never come.

    Yields:
        The request to look at.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    owner = os.getpid()

    def handle(number: int, _: FrameType | None) -> None:
        if os.getpid() == owner:
            request.requested = True
        else:  # a loader's worker, forked with this handler: nobody there looks at requests
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
