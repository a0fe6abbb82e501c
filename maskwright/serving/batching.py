"""One thread computes for all models: images of all requests wait for theirs in a bounded queue.

Images that are seen at one size with one set of options are computed as one batch. None waits for
company but while others are on their way, so that a single client loses nothing. An image whose
client has gone is dropped before it is computed, and one that fails takes no other with it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..prediction.predictor import Predictor
from ..prediction.reading import Loaded, Reading
from ..tasks.base import Settings
from .limits import Limits, RefusedError
from .metrics import Metrics

KEPT = 0.8  # share of the old in the running mean of the seconds of an image
FULL = "the queue is full: ask again after the seconds that Retry-After names"


@dataclass(frozen=True)
class Asked:
    """What a request wants of its images.

    Attributes:
        options: as they were given, by name.
        settings: these, checked.
        rule: how images are resized.
        reading: what is taken of the files.
        explainer: gives a result its heat map; None: not asked for.
    """

    options: tuple[tuple[str, Any], ...]
    settings: Settings
    rule: Any
    reading: Reading
    explainer: Callable[[Any], Any] | None = None

    def alike(self, loaded: Loaded) -> Hashable:
        """Return what images have in common that can be computed as one batch."""
        size = loaded.pixels.shape[:2]
        if self.settings.tiling is not None and not self.settings.tiling.fits(size):
            return object()  # its tiles are a batch already
        targets = tuple(rule.target_size(*size) for rule in self.settings.rules(self.rule))
        return self.options, targets


@dataclass(eq=False)
class Job:
    """An image that waits, and the result that its request waits for."""

    loaded: Loaded
    asked: Asked
    result: Future[Any] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.alike = self.asked.alike(self.loaded)


class Worker:
    """Has the images of all requests for one model computed.

    Attributes:
        predictor: the model.
        name: of the model.
    """

    def __init__(
        self,
        name: str,
        predictor: Predictor,
        limits: Limits,
        metrics: Metrics,
        computer: Executor,
    ) -> None:
        """Begin to wait for images.

        Args:
            name: of the model.
            predictor: the model.
            limits: of the service.
            metrics: takes what is counted.
            computer: the one thread that computes, for other models as well: see `single_threads`.
        """
        self.name, self.predictor = name, predictor
        self._computer = computer
        self._limits, self._metrics = limits, metrics
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._held = self._computed = 0  # images in the house; those of them that are computed
        self._seconds = 0.0  # of an image, a running mean
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"model {name}", daemon=True)
        self._thread.start()
        metrics.watch(name, lambda: float(len(self._jobs)))

    def reserve(self, count: int) -> None:
        """Take places for images that will come; each is to be given back by `release`.

        Raises:
            RefusedError: if there are none, with the seconds that the queue will take.
        """
        with self._changed:
            if self._ended:
                raise RefusedError(503, "the service is stopping")
            if self._held + count > self._limits.queue:
                wait = min(max(math.ceil(self._held * self._seconds), 1), 600)
                raise RefusedError(429, FULL, wait)
            self._held += count

    def release(self, count: int) -> None:
        """Give places back."""
        with self._changed:
            self._held -= count
            self._changed.notify_all()

    def submit(self, job: Job) -> None:
        """Put an image into the queue; its place was reserved."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()
        job.result.add_done_callback(lambda result: self._forget(job, result))

    def _forget(self, job: Job, result: Future[Any]) -> None:
        """Take an image out of the queue whose client has gone: its pixels are memory."""
        if result.cancelled():
            with self._changed, suppress(ValueError):
                self._jobs.remove(job)

    def close(self) -> None:
        """Compute what waits, and end."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            self._metrics.batch(self.name, len(batch))
            seconds = self._computer.submit(self._timed, batch).result() / len(batch)
            self._seconds = KEPT * (self._seconds or seconds) + (1 - KEPT) * seconds
            self._metrics.stage("compute", self.name, seconds)
            with self._changed:
                self._computed = 0

    def _next(self) -> list[Job]:
        """Return the next batch; nothing at the end."""
        with self._changed:
            while True:
                first = self._first()
                if first is not None:
                    break
                if self._ended:
                    return []
                self._changed.wait()
            end = time.monotonic() + self._limits.wait / 1e3
            while self._more_may_come(first) and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            batch: list[Job] = []
            for job in [first, *[one for one in self._jobs if one.alike == first.alike]]:
                if len(batch) == self._limits.batch:
                    break
                if job is not first:
                    self._jobs.remove(job)
                if job.result.set_running_or_notify_cancel():
                    batch.append(job)
            self._computed = len(batch)
            return batch or self._next()

    def _first(self) -> Job | None:
        """Return the first image whose client still waits, out of the queue."""
        while self._jobs:
            job = self._jobs.popleft()
            if not job.result.cancelled():
                return job
        return None

    def _more_may_come(self, first: Job) -> bool:
        alike = 1 + sum(job.alike == first.alike for job in self._jobs)
        coming = self._held - len(self._jobs) - 1 - self._computed
        return alike < self._limits.batch and coming > 0 and not self._ended

    def _timed(self, batch: Sequence[Job]) -> float:
        """Compute a batch; return the seconds, without those that it waited for other models."""
        start = time.monotonic()
        for job in batch:
            self._metrics.stage("queue", self.name, start - job.since)
        self._compute(batch)
        return time.monotonic() - start

    def _compute(self, batch: Sequence[Job]) -> None:
        """Set the result of each image, or why there is none."""
        asked = batch[0].asked
        try:
            images = [job.loaded for job in batch]
            found = self.predictor.infer(images, asked.rule, asked.settings)
        except Exception as error:
            if len(batch) > 1:  # one of them
                for job in batch:
                    self._compute([job])
            else:
                batch[0].result.set_exception(error)
            return
        for job, result in zip(batch, found, strict=True):
            try:
                explain = job.asked.explainer
                job.result.set_result(result if explain is None else explain(result))
            except Exception as error:
                job.result.set_exception(error)
