"""Processes and signals: which ones ask to stop, and how helping processes leave them to the first.

Batch systems, `timeout` and terminals send a signal to every process of a group. What is to happen
is decided in the process that a user started; its helpers carry on until it ends them, and end by
themselves when it is no more.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import TypeVar

T = TypeVar("T")

# Ctrl-C, the end as batch systems announce it, a closed terminal, and the warnings that batch
# systems can be told to send ahead (`sbatch --signal=USR1@120`).
STOP_SIGNALS = tuple(
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if (number := getattr(signal, name, None)) is not None
)
PARENT_SECONDS = 1.0  # how often a helper looks whether its parent lives
_helpers: list[BaseProcess] = []


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C asks to stop; what cleans up after Ctrl-C does so after it too.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal_name(number))
        self.number = number


def signal_name(number: int) -> str:
    """Return what people call a signal: "Ctrl-C", "SIGTERM"."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def stop_signal(error: BaseException) -> int | None:
    """Return the signal behind an error, also where a library has made its own of it, or None."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return cause.number if isinstance(cause, Stopped) else int(signal.SIGINT)
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def signals_held() -> Iterator[None]:
    """Keep signals waiting, here and in a process that is started meanwhile; see `be_helper`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_helpers(start: Callable[[], T]) -> T:
    """Return what `start` returns; the processes that it starts are helpers of this one.

    They are killed when this process ends, for they do not hear SIGTERM, and Python would wait for
    them. An error about a dead one is left to who waits for it: torch would raise it anywhere.
    """
    before = set(multiprocessing.active_children())
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    with signals_held():
        try:
            return start()
        finally:
            if main and handler is not None:
                signal.signal(signal.SIGCHLD, handler)
            _helpers[:] = [helper for helper in _helpers if helper.is_alive()]
            _helpers.extend(set(multiprocessing.active_children()) - before)
            # Before multiprocessing waits for them; what runs at exit alone is not run in a child.
            multiprocessing.util.Finalize(None, _end_helpers, exitpriority=100)


def be_helper() -> None:
    """Leave signals to the parent, and end with it: the first thing that a helper does."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # A fork server stands between the two: then only the parent's pipe tells.
    direct = os.getppid() == parent.pid
    while (os.getppid() == parent.pid) if direct else parent.is_alive():
        time.sleep(PARENT_SECONDS)
    os._exit(1)


def _end_helpers() -> None:
    for helper in _helpers:
        if helper.is_alive():
            helper.kill()
