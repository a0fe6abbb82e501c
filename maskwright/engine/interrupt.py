"""Ctrl-C as a wish, not an accident: the running step is finished first."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from . import console


class Interrupt:
    """Context manager in which the first Ctrl-C sets `wanted` and the second one aborts.

    Outside the main thread, where Python delivers no signals, it does nothing.

    Attributes:
        wanted: True after the first Ctrl-C.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._process = os.getpid()
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A terminal sends Ctrl-C to the loader's forked workers too: they carry on, the first
        # process ends them.
        if os.getpid() != self._process:
            return
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        console.warn("stopping after this step; Ctrl-C again aborts at once")
