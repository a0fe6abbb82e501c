"""The two sides of `benchmark` and their turns, in one process or each in a process of its own.

In processes of their own each side has the memory that its users have: ours keeps what it frees, as
the commands do (see `heap`), torchvision's gives it back to the system, as Python does. They still
take turns: one waits while the other computes.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol, Self

import numpy as np
import torch

from ..prediction.predictor import Predictor
from ..prediction.reading import Loaded
from ..prediction.sources import one_source
from ..processes import be_helper, start_helpers
from ..terminal.heap import keep_memory

PREPARING = "read and resize"  # the first stage


@dataclass
class Side:
    """One side of the comparison: milliseconds of each turn, by stage and in all."""

    stages: dict[str, list[float]] = field(default_factory=dict)
    total: list[float] = field(default_factory=list)

    def median(self, stage: str | None = None) -> float | None:
        """Return the median of a stage, None if there is no such stage, or of the whole."""
        times = self.total if stage is None else self.stages.get(stage)
        return statistics.median(times) if times else None


class Runner(Protocol):
    """What computes when its turn comes."""

    def __call__(self, side: Side) -> None:
        """Compute once, and add the times to `side`."""
        ...

    def result(self) -> Any:
        """Return what was found last."""
        ...


@dataclass(frozen=True)
class Job:
    """What both sides do.

    Attributes:
        make: returns the predictor; called in each process.
        pixels: (H, W, 3) uint8.
        settings: of the prediction.
        imgsz: see `benchmark`.
        threads: of torch.
    """

    make: Callable[[], Predictor]
    pixels: np.ndarray
    settings: Any
    imgsz: Any
    threads: int


class Ours:
    """Our side, in this process."""

    def __init__(self, job: Job, predictor: Predictor) -> None:
        self.predictor, self.settings = predictor, job.settings
        self.rule = predictor.resize_rule(job.imgsz)
        self.attaches = predictor.task.attach(predictor.model) is not None
        self.loaded = Loaded(one_source(job.pixels, 0), job.pixels, 0.0)
        self.last: Any = None

    def __call__(self, side: Side) -> None:
        """Compute once; see `Runner`."""
        predictor, peer = self.predictor, self.predictor.task.peer
        with Stages(side, predictor.device.type == "cuda") as stages:
            peer.watch_ours(stages, predictor.network())
            stages.watch(predictor.task, "collate", PREPARING)
            if self.attaches:
                stages.watch(predictor, "_attach", peer.attaching)
            self.last = predictor.infer([self.loaded], self.rule, self.settings)[0]
            if peer.finishing:
                with stages.stage(peer.finishing):
                    peer.finish(self.last)

    def result(self) -> Any:
        """Return what was found last."""
        return self.last


class Theirs:
    """torchvision's side, in this process; for models that it has (see `Peer.has`)."""

    def __init__(self, job: Job, predictor: Predictor) -> None:
        self.kind, self.device = predictor.task.peer, predictor.device
        rule = predictor.resize_rule(job.imgsz)
        self.peer = self.kind.build(
            predictor.model, predictor.meta, job.settings, rule, self.device
        )
        self.pixels = job.pixels
        self.last: Any = None

    def __call__(self, side: Side) -> None:
        """Compute once; see `Runner`."""
        cuda = self.device.type == "cuda"
        with Stages(side, cuda) as stages, torch.inference_mode():
            self.kind.watch_theirs(stages, self.peer)
            image = torch.from_numpy(self.pixels).to(self.device).permute(2, 0, 1) / 255
            self.last = self.kind.run(self.peer, image)

    def result(self) -> Any:
        """Return what was found last."""
        return self.last


class Apart:
    """A side in a process of its own; a context manager that ends it.

    Args:
        kind: `Ours` or `Theirs`.
        job: what it does.
    """

    def __init__(self, kind: type[Ours] | type[Theirs], job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, kind, job), daemon=True)
        start_helpers(self.process.start)
        other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.close()
        self.process.kill()  # it hears nothing else
        self.process.join()

    def __call__(self, side: Side) -> None:
        """Compute once; see `Runner`."""
        stages, total = self._ask("turn")
        side.total.append(total)
        for stage, ms in stages.items():
            side.stages.setdefault(stage, []).append(ms)

    def result(self) -> Any:
        """Return what was found last."""
        return self._ask("result")

    def _ask(self, what: str) -> Any:
        try:
            self.pipe.send(what)
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            raise RuntimeError(
                f"a process of the benchmark died (exit code {self.process.exitcode})"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(pipe: Connection, kind: type[Ours] | type[Theirs], job: Job) -> None:
    """Run a side for `Apart`: answer each "turn" with its times, "result" with what was found."""
    be_helper()
    try:
        if kind is Ours:
            keep_memory()
        torch.set_num_threads(job.threads)
        runner: Ours | Theirs | None = None
        while True:
            try:
                what = pipe.recv()
            except EOFError:
                return
            if runner is None:
                runner = kind(job, job.make())
            if what == "result":
                pipe.send(runner.result())
                continue
            side = Side()
            runner(side)
            pipe.send(({stage: ms[0] for stage, ms in side.stages.items()}, side.total[0]))
    except Exception as error:  # told where someone reads it
        pipe.send(error)


def take_turns(
    runners: Sequence[Runner], sides: Sequence[Side], repeats: int, done: Callable[[], None]
) -> None:
    """Let the runners compute in turns, the first to go alternating; one more is not counted.

    Args:
        runners: what computes.
        sides: where the times of each go.
        repeats: turns that count.
        done: called after each turn.
    """
    for turn in range(repeats + 1):
        order = range(len(runners)) if turn % 2 else reversed(range(len(runners)))
        for i in order:
            runners[i](sides[i])
        if turn == 0:  # the first one warms up
            for side in sides:
                side.stages.clear()
                side.total.clear()
        done()


class Stages:
    """Times what is watched while the context is open, as one turn of a side."""

    def __init__(self, side: Side, cuda: bool) -> None:
        self.side = side
        self.cuda = cuda
        self.open: dict[str, float] = {}
        self.handles: list[Callable[[], None]] = []

    def __enter__(self) -> Stages:
        self.begin = self.now()
        return self

    def __exit__(self, *_: object) -> None:
        self.side.total.append(1e3 * (self.now() - self.begin))
        for stage, ms in self.open.items():
            self.side.stages.setdefault(stage, []).append(ms)
        for undo in self.handles:
            undo()

    def now(self) -> float:
        """Return the time in seconds, with all that was asked of a GPU done."""
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        begin = self.now()
        yield
        self.open[name] = self.open.get(name, 0.0) + 1e3 * (self.now() - begin)

    def watch(self, owner: Any, method: str, stage: str | Callable[..., str]) -> None:
        """Time a method of an object; `stage` may depend on the arguments."""
        inner = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage if isinstance(stage, str) else stage(*args, **kwargs)):
                return inner(*args, **kwargs)

        owner.__dict__[method] = timed
        self.handles.append(lambda: owner.__dict__.pop(method))
