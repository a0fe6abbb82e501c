"""Items made in a thread of their own, a few ahead of who takes them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

ROOM = 4  # items that wait
PATIENCE = 1.0  # seconds for the thread to end; one that waits for a camera ends by itself later


class Ahead(Iterator[T], Generic[T]):
    """Takes items out of a generator in a thread: decoding and computing go on side by side.

    Attributes:
        dropped: items that nobody was ready for, if those are dropped.
    """

    def __init__(self, items: Generator[T], *, newest: bool = False) -> None:
        """Start.

        Args:
            items: makes them; it is closed in the thread.
            newest: while nobody takes items, drop the older of them; False: make no more.
        """
        self.dropped = 0
        self._items, self._newest = items, newest
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended)
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def close(self) -> None:
        """Let the thread end: nothing more is made."""
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(PATIENCE)

    def _fill(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    if self._newest and self._ready:
                        self._ready.popleft()
                        self.dropped += 1
                    self._changed.wait_for(lambda: len(self._ready) < ROOM or self._stopped)
                    if self._stopped:
                        break
                    self._ready.append(item)
                    self._changed.notify_all()
        except BaseException as error:  # raised where the items are taken
            self._error = error
        finally:
            self._items.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()
