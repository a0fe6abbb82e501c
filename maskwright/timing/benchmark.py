"""Inference side by side with torchvision: same weights, same photo, stage by stage, in turns.

torchvision's own model is built from the weights of ours. The two take turns, so that a machine
that slows down slows both; times are medians and the ratio is the median of the turns' ratios.
Whether both find the same, and what their stages are called, is the task's (`tasks.peer`).
"""

from __future__ import annotations

import copy
import statistics
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..drawing.scene import drawn_scene
from ..errors import OptionError, checked_options, whole_number
from ..paths import takes_paths
from ..prediction.predictor import Predictor
from ..prediction.reading import Reading, read
from ..prediction.sources import one_source
from ..runs import check_save, save_dir
from ..storage.rundir import write_whole
from ..tasks.options import own_options
from ..tasks.peer import Peer
from ..tasks.recipe import TrainRecipe
from ..tasks.thresholds import require_one
from ..terminal import console
from ..text import to_json
from .comparable import comparable
from .turns import PREPARING, Apart, Job, Ours, Runner, Side, Theirs, take_turns


@dataclass
class Benchmark:
    """The outcome of `benchmark`.

    Attributes:
        model: what was timed.
        size: (height, width) of the network input before padding.
        threads: of torch.
        device: where it ran.
        apart: whether each side had a process of its own.
        ours: our times.
        theirs: torchvision's; None where it has no such model.
        match: how the results agree, see `Peer.match`; None if there was nothing to compare with.
        peer: what the task says of stages and results.
        file: where all figures are; None without `save`.
    """

    model: str
    size: tuple[int, int]
    threads: int
    device: str
    apart: bool
    ours: Side
    theirs: Side | None
    match: Any
    peer: Peer
    file: Path | None = None

    @property
    def ratio(self) -> float | None:
        """torchvision's time over ours, the median of all turns."""
        if self.theirs is None:
            return None
        return statistics.median(
            a / b for a, b in zip(self.theirs.total, self.ours.total, strict=True)
        )


@checked_options
@takes_paths
def benchmark(
    model: str | Path | Predictor | None = None,
    source: Any = None,
    *,
    weights: str | Path | None = None,
    conf: float = 0.05,
    iou: float | None = None,
    max_det: int = 100,
    imgsz: int | tuple[int, int] | str | None = None,
    repeats: int = 5,
    threads: int | None = None,
    device: str = "auto",
    precision: str = "float32",
    fast: bool = True,
    apart: bool = False,
    proposal_source: str | None = None,
    save: bool | str | Path | None = None,
    project: str | Path = "runs",
    name: str | None = None,
) -> Benchmark:
    """Time inference from the photo to the whole result, beside torchvision where it has the model.

    Args:
        model: registered name, checkpoint or run folder; `maskwright models` lists the names. In
            Python also a `Predictor`, which keeps its weights, device, precision and regions. None:
            the model of a training that names none.
        source: a photo; None: a drawn scene of 800 x 1216 pixels.
        weights: for a registered name: published weights such as coco, or a checkpoint. None:
            random weights, scaled so that the model finds many objects.
        conf: smallest score of an object.
        iou: of two objects of one class that overlap more than this, the weaker is dropped. None:
            the model's own, mostly 0.5.
        max_det: most objects.
        imgsz: long side, (short, long) side or a factor such as 1.25x; None: the rule of the model.
        repeats: turns; one more is not counted.
        threads: of torch; None: its own choice.
        device: where to compute: auto, cpu, cuda, cuda:1, mps.
        precision: of our arithmetic: float32, bf16 or fp16 (see `load`); torchvision's is float32.
        fast: False: without folding and Winograd.
        apart: each side in a process of its own, with the memory that its users have: ours keeps
            what it frees, as the commands do. They still take turns.
        proposal_source: where the regions come from, for models that take them with the image;
            None: from where they came in training.
        save: write all figures to `benchmark.json`: true into a new run folder, a path into that
            folder, or into that file if it ends in .json, false nothing.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "benchmark".

    Raises:
        ValueError: if the model, the photo or an option is wrong.
    """
    require_one(conf)
    model = TrainRecipe.model if model is None else model
    repeats = whole_number("repeats", repeats)
    threads = None if threads is None else whole_number("threads", threads)
    if precision != "float32" and not fast:
        raise OptionError(
            f"precision={precision} belongs to the fast network: leave out fast=false"
        )
    if isinstance(model, Predictor):
        if apart:
            raise OptionError(
                "apart=True makes the model in each process: give its name or its file"
            )
        own = {"weights": None, "device": "auto", "precision": "float32", "proposal_source": None}
        values = (weights, device, precision, proposal_source)
        for (option, usual), value in zip(own.items(), values, strict=True):
            if value != usual:
                raise OptionError(f"{option}={value}: a Predictor keeps its own; load it with that")
    file = _figures_file(save)
    where = False if file is not None else check_save(save, project, name)
    pixels = drawn_scene() if source is None else read(one_source(source, 0), Reading()).photo
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        make = partial(_make, model, weights, device, pixels, precision, fast, proposal_source)
        predictor = make()
        given = {"conf": conf, "iou": iou, "max_det": max_det}
        settings = predictor.settings(given, benchmark)
        job = Job(make, pixels, settings, imgsz, torch.get_num_threads())
        result = _compare(job, predictor, repeats, apart)
    finally:
        torch.set_num_threads(before)
    folder = save_dir(where, project, "benchmark", name if where is True else None)
    file = folder / "benchmark.json" if folder is not None else file
    if file is not None:
        figures = {**asdict(replace(result, peer=Peer())), "ratio": result.ratio}
        del figures["file"], figures["peer"]
        write_whole(file, to_json(figures, indent=1))
        result = replace(result, file=file)
    return result


def _figures_file(save: bool | str | Path | None) -> Path | None:
    """Return the file that `save` names, None if it names none; its folder must be there."""
    if not isinstance(save, str | Path) or Path(save).suffix.lower() != ".json":
        return None
    folder = Path(save).resolve().parent
    if not folder.is_dir():
        raise ValueError(f"save={save}: there is no folder {folder}")
    return Path(save)


def _make(
    model: str | Path | Predictor,
    weights: str | Path | None,
    device: str,
    pixels: np.ndarray,
    precision: str,
    fast: bool,
    proposal_source: str | None,
) -> Predictor:
    if isinstance(model, Predictor):
        predictor = copy.copy(model)  # whose `fast` may be set
    else:
        predictor = comparable(model, weights, device, pixels, precision=precision)
        given, usual = {"proposal_source": proposal_source}, {"proposal_source": None}
        own = own_options(predictor.task, predictor.meta.model, given, usual)
        predictor.task.adapt(predictor.model, predictor.meta.model, own)
    predictor.fast = fast
    return predictor


def _compare(job: Job, predictor: Predictor, repeats: int, apart: bool) -> Benchmark:
    rule, peer = predictor.resize_rule(job.imgsz), predictor.task.peer
    size = rule.target_size(*job.pixels.shape[:2])
    kinds: list[type[Ours] | type[Theirs]] = [Ours]
    if peer.has(predictor.meta, rule):
        kinds.append(Theirs)
    sides = [Side() for _ in kinds]
    with ExitStack() as stack:
        runners: list[Runner] = [
            stack.enter_context(Apart(kind, job)) if apart else kind(job, predictor)
            for kind in kinds
        ]
        bar = stack.enter_context(console.progress("benchmark", total=repeats + 1, unit="turn"))
        take_turns(runners, sides, repeats, bar.update)
        results = [runner.result() for runner in runners]
    alone = len(runners) == 1
    return Benchmark(
        predictor.meta.model,
        size,
        job.threads,
        str(predictor.device),
        apart,
        sides[0],
        None if alone else sides[1],
        None if alone else peer.match(*results),
        peer,
    )


def report(result: Benchmark) -> None:
    """Print the outcome as tables."""
    theirs = result.theirs
    columns = ["stage", "maskwright, ms"]
    if theirs is not None:
        columns = ["stage", "torchvision, ms", "maskwright, ms", "ratio"]
    peer = result.peer
    stages = (PREPARING, peer.attaching, *peer.stages, peer.finishing, None)
    rows: list[list[object]] = []
    for stage in stages:
        mine, other = result.ours.median(stage), theirs.median(stage) if theirs else None
        if mine is None and other is None:
            continue
        ratio = other / mine if other and mine else None
        name = "in all" if stage is None else stage
        if stage is None:
            ratio = result.ratio
        times: list[object] = [None if mine is None else round(mine, 1)]
        if theirs is not None:
            times.insert(0, None if other is None else round(other, 1))
            times.append(ratio and f"{ratio:.2f}")
        rows.append([name, *times])
    height, width = result.size
    console.table(
        f"{result.model}, {height} x {width}, {result.device}, {result.threads} threads, "
        f"{len(result.ours.total)} turns, medians{', apart' if result.apart else ''}",
        columns,
        rows,
    )
    if theirs is None:
        console.note(f"{peer.needs}: nothing to compare with")
    for text in [] if result.match is None else peer.told(result.match):
        console.note(text)
