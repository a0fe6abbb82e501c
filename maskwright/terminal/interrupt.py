"""Signals as a wish, not an accident: the running step is finished first.

Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 are treated alike; the last three only where nobody has
decided otherwise: `nohup`, or the program that calls this one. Outside the main thread Python
delivers no signals.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from ..processes import STOP_SIGNALS, Stopped, signal_name
from . import console

T = TypeVar("T")
Handler = Callable[[int, FrameType | None], None]
# Seconds in which the same wish comes again: `timeout` sends its signal to the process and to the
# group, torchrun passes it on, systemd adds a SIGHUP. Ctrl-C comes once, but for torchrun.
ECHO = 2.0
ABORT_SECONDS = 10.0  # from the second wish to the end, whatever code is running


class Wishes:
    """Tells the echo of a wish to stop from a second one."""

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0

    def repeated(self, number: int) -> bool:
        """Take a signal in; True if it is a second wish."""
        now = time.monotonic()
        if not self.number:
            self.number, self._since = number, now
            return False
        relayed = number != signal.SIGINT or "TORCHELASTIC_RUN_ID" in os.environ
        return not (relayed and now - self._since < ECHO)


@contextmanager
def stoppable() -> Iterator[None]:
    """Treat the other signals like Ctrl-C, so that what cleans up after it does so after them."""
    wishes = Wishes()

    def stop(number: int, frame: FrameType | None) -> None:
        first = not wishes.number
        if wishes.repeated(number) or first:
            _survive_hangup(number)
            raise Stopped(number)

    with _handlers(stop, [number for number in STOP_SIGNALS if number != signal.SIGINT]):
        yield


class Interrupt:
    """Context manager in which the first signal sets `wanted` and the second one aborts.

    Attributes:
        wanted: True after the first signal.
        left: True if `listen` has ended early.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.left = False
        self._process = os.getpid()
        self._wishes = Wishes()
        self._waiting = False
        self._context: Any = None

    @property
    def number(self) -> int:
        """Number of the first signal, 0 before."""
        return self._wishes.number

    def __enter__(self) -> Self:
        self._context = _handlers(self._on_signal, STOP_SIGNALS)
        self._context.__enter__()
        _open.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _open.remove(self)
        self._context.__exit__(None, None, None)

    def pass_on(self, number: int) -> None:
        """Take in a signal that another process was sent; from any thread."""
        self._wishes.repeated(number)
        self.wanted = True

    def listen(self, items: Iterable[T], *, waits: bool = True) -> Iterator[T]:
        """Yield items until a signal comes.

        Args:
            items: what is yielded.
            waits: whether the next item is waited for, not made here: then the signal ends the
                wait as well. What is being made is finished.
        """
        source = iter(items)
        while True:
            try:
                self._waiting = waits
                if self.wanted:
                    raise _HeardError
                item = next(source)
            except _HeardError:
                self.left = True
                return
            except StopIteration:
                return
            finally:
                self._waiting = False
            yield item

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked process that is no helper of ours
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self._wishes.repeated(number):
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)
        if self.wanted:
            return
        self.wanted = True
        _survive_hangup(number)
        _say(f"{signal_name(number)}: stopping after this step; a second one aborts at once")
        if self._waiting:
            raise _HeardError


_open: list[Interrupt] = []


def pass_on(number: int) -> None:
    """Let all that this process is doing know of a signal that another process was sent."""
    for one in list(_open):
        one.pass_on(number)


class _HeardError(BaseException):
    """A signal in a wait; no library takes it for an error of its own."""


@contextmanager
def _handlers(handler: Handler, numbers: Iterable[int]) -> Iterator[None]:
    """Handle signals; SIGHUP and the user signals only if nobody ignores or handles them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    for number in numbers:
        known: Any = signal.getsignal(number)
        ours = known == signal.SIG_DFL or getattr(known, "__module__", "") == __name__
        if ours or number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)


def _survive_hangup(number: int) -> None:
    """Send to nowhere what would be printed on a terminal that has gone."""
    if number != getattr(signal, "SIGHUP", None):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            if stream.isatty():
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _say(text: str) -> None:
    """Warn from within a signal handler: the same stream may be in use at that moment."""
    try:
        console.warn(text)
    except (RuntimeError, OSError):
        with suppress(OSError):
            os.write(2, f"warning: {text}\n".encode())


@contextmanager
def ended_by_second_signal() -> Iterator[None]:
    """End this process some seconds after a second wish, even where no Python code runs.

    Handlers run between two instructions of Python: not while a library computes or waits for
    another process. The bytes that the system writes for each signal come at once. For programs,
    not for libraries: it takes the one place that Python has for this.
    """
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    finished = threading.Event()

    def watch() -> None:
        wishes = Wishes()
        while data := os.read(reader, 64):
            for number in data:
                if number not in STOP_SIGNALS or not wishes.repeated(number):
                    continue
                if not finished.wait(ABORT_SECONDS):
                    with suppress(OSError):
                        os.write(2, f"error: ended by {signal_name(number)}\n".encode())
                    os._exit(128 + number)
        os.close(reader)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        finished.set()
        signal.set_wakeup_fd(before)
        os.close(writer)
