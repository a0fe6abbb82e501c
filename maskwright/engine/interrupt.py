"""Ctrl-C and SIGTERM as a wish, not an accident: the running step is finished first."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from . import console

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # batch systems announce the end with the second one
ECHO = 2.0  # seconds in which torchrun passes on a Ctrl-C that the terminal has delivered as well


@contextmanager
def stoppable() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that what cleans up after the one does so after the other."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Interrupt:
    """Context manager in which the first Ctrl-C sets `wanted` and the second one aborts.

    SIGTERM does the same. Outside the main thread, where Python delivers no signals, it does
    nothing.

    Attributes:
        wanted: True after the first Ctrl-C.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._process = os.getpid()
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A terminal sends Ctrl-C to the loader's forked workers too: they carry on, the first
            # process ends them.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        now = time.monotonic()
        if self.wanted:
            if "TORCHELASTIC_RUN_ID" in os.environ and now - self._since < ECHO:
                return
            raise KeyboardInterrupt
        self.wanted, self._since = True, now
        console.warn("stopping after this step; Ctrl-C again aborts at once")
