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

from ..models.detection.base import Detector, PostProcess, TwoStageDetector
from ..models.detection.regions import ProposalDetector
from ..prediction.predictor import Predictor
from ..prediction.reading import Loaded
from ..prediction.sources import one_source
from ..processes import be_helper, start_helpers
from ..tasks.detection.result import Result
from ..tasks.detection.settings import DetectionSettings
from ..terminal.heap import keep_memory
from .peer import torchvision_model


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
class Task:
    """What both sides do.

    Attributes:
        make: returns the predictor; called in each process.
        pixels: (H, W, 3) uint8.
        post: thresholds.
        imgsz: see `benchmark`.
        threads: of torch.
    """

    make: Callable[[], Predictor]
    pixels: np.ndarray
    post: PostProcess
    imgsz: Any
    threads: int


class Ours:
    """Our side, in this process."""

    def __init__(self, task: Task, predictor: Predictor) -> None:
        self.predictor, self.post = predictor, task.post
        self.resize = predictor.resize_rule(task.imgsz)
        self.loaded = Loaded(one_source(task.pixels, 0), task.pixels, 0.0)
        self.last: Result | None = None

    def __call__(self, side: Side) -> None:
        """Compute once; see `Runner`."""
        with _Stages(side, self.predictor.device.type == "cuda") as stages:
            network: Any = self.predictor.network()
            stages.watch_ours(network)
            stages.watch(self.predictor.task, "collate", "read and resize")
            stages.watch(self.predictor, "_attach", "find regions")
            self.last = self.predictor.infer(
                [self.loaded], self.resize, DetectionSettings(self.post)
            )[0]
            with stages.stage("paste masks"):
                _ = self.last.masks

    def result(self) -> Result | None:
        """Return what was found last."""
        return self.last


class Theirs:
    """torchvision's side, in this process; for models that it has (see `peer.has_peer`)."""

    def __init__(self, task: Task, predictor: Predictor) -> None:
        resize = predictor.resize_rule(task.imgsz)
        peer = torchvision_model(predictor, task.post, resize.short, resize.long)
        assert peer is not None
        self.peer = peer
        self.pixels, self.device = task.pixels, predictor.device
        self.last: Any = None

    def __call__(self, side: Side) -> None:
        """Compute once; see `Runner`."""
        cuda = self.device.type == "cuda"
        with _Stages(side, cuda) as stages, torch.inference_mode():
            stages.watch_torchvision(self.peer)
            image = torch.from_numpy(self.pixels).to(self.device).permute(2, 0, 1) / 255
            self.last = self.peer([image])[0]

    def result(self) -> Any:
        """Return what was found last."""
        return self.last


class Apart:
    """A side in a process of its own; a context manager that ends it.

    Args:
        kind: `Ours` or `Theirs`.
        task: what it does.
    """

    def __init__(self, kind: type[Ours] | type[Theirs], task: Task) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, kind, task), daemon=True)
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


def _serve(pipe: Connection, kind: type[Ours] | type[Theirs], task: Task) -> None:
    """Run a side for `Apart`: answer each "turn" with its times, "result" with what was found."""
    be_helper()
    try:
        if kind is Ours:
            keep_memory()
        torch.set_num_threads(task.threads)
        runner: Ours | Theirs | None = None
        while True:
            try:
                what = pipe.recv()
            except EOFError:
                return
            if runner is None:
                runner = kind(task, task.make())
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


class _Stages:
    """Times what is watched while the context is open, as one turn of a side."""

    def __init__(self, side: Side, cuda: bool) -> None:
        self.side = side
        self.cuda = cuda
        self.open: dict[str, float] = {}
        self.handles: list[Callable[[], None]] = []

    def __enter__(self) -> _Stages:
        self.begin = self.now()
        return self

    def __exit__(self, *_: object) -> None:
        self.side.total.append(1e3 * (self.now() - self.begin))
        for stage, ms in self.open.items():
            self.side.stages.setdefault(stage, []).append(ms)
        for undo in self.handles:
            undo()

    def now(self) -> float:
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

    def watch_ours(self, network: Detector) -> None:
        """Time the parts of a detector with regions; of others only the whole."""
        if not isinstance(network, TwoStageDetector | ProposalDetector):
            return
        heads = network.roi_heads

        def pool_stage(*args: Any, **_: Any) -> str:
            for_boxes = args[3] == heads.box_head.pool * heads.trunk_stride
            return "pool for boxes" if for_boxes else "pool for masks, keypoints"

        self.watch(network.backbone, "forward", "backbone")
        if isinstance(network, TwoStageDetector):
            if network.fpn is not None:
                self.watch(network.fpn, "forward", "pyramid")
            if network.trunk is not None:
                self.watch(network.backbone, "tail", "last stage on regions")
            self.watch(network.rpn, "forward", "proposal head")
            self.watch(network.rpn, "propose", "proposals")
        self.watch(heads.box_head, "maps", "box head")
        self.watch(heads, "pool", pool_stage)
        self.watch(heads.box_head, "forward", "box head")
        self.watch(heads.box_head, "decode", "choose boxes")
        if heads.mask_head is not None:
            self.watch(heads.mask_head, "forward", "mask head")
        if heads.keypoint_head is not None:
            self.watch(heads.keypoint_head, "forward", "keypoint head")
            self.watch(heads.keypoint_head, "decode", "find keypoints")

    def watch_torchvision(self, peer: Any) -> None:
        """Time the parts of torchvision's detector."""
        heads = peer.roi_heads
        self.watch(peer.transform, "forward", "read and resize")
        self.watch(peer.backbone.body, "forward", "backbone")
        self.watch(peer.backbone.fpn, "forward", "pyramid")
        self.watch(peer.rpn.head, "forward", "proposal head")
        self.watch(peer.rpn, "filter_proposals", "proposals")
        self.watch(heads.box_roi_pool, "forward", "pool for boxes")
        self.watch(heads.box_head, "forward", "box head")
        self.watch(heads.box_predictor, "forward", "box head")
        self.watch(heads, "postprocess_detections", "choose boxes")
        if heads.has_mask():
            self.watch(heads.mask_roi_pool, "forward", "pool for masks, keypoints")
            self.watch(heads.mask_head, "forward", "mask head")
            self.watch(heads.mask_predictor, "forward", "mask head")
        if heads.has_keypoint():
            self.watch(heads.keypoint_roi_pool, "forward", "pool for masks, keypoints")
            self.watch(heads.keypoint_head, "forward", "keypoint head")
            self.watch(heads.keypoint_predictor, "forward", "keypoint head")
        self.watch(peer.transform, "postprocess", "paste masks")
