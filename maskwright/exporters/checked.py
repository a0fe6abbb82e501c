"""Write a file, compare it with the model in eager torch, and only then give it its name.

It is compared on photos, on an image with nothing in it, at two batch sizes and two image sizes.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files import require_space, writing
from ..graphs.sessions import open_graph
from ..graphs.trace import lean_network, trace, whole_model
from ..graphs.writers import rewrite_graph, write_graph
from ..structures import Images
from ..tasks import get_task
from ..tasks.graph import GraphModel, GraphSpec, Photo
from ..terminal import console
from .guard import Int8Plan, files_size, write_int8
from .report import Case, ExportReport

_SMALLER = 0.75  # the second image size
_GREY = 127


@dataclass(frozen=True)
class Job:
    """A file to write.

    Attributes:
        model: the model, on the CPU.
        spec: the description of its graph.
        format: the format.
        target: the file.
        photos: three of them.
        plan: of its int8 form; None: it stays in floating point.
    """

    model: Any
    spec: GraphSpec
    format: str
    target: Path
    photos: Sequence[Photo]
    plan: Int8Plan | None = None


def write_checked(job: Job, report: ExportReport) -> ExportReport:
    """Write into a folder beside the target, compare, and only then give the files their names.

    Args:
        job: what to write.
        report: takes the figures.

    Raises:
        ValueError: if the format cannot hold the graph, it differs from the model, or int8 loses
            too much; then there is no file.
    """
    target, spec = job.target, job.spec
    parents = [path for path in target.parents if not path.exists()]
    sizes = [value.numel() * value.itemsize for value in job.model.state_dict().values()]
    require_space(target, sum(sizes) // (2 if spec.precision == "fp16" else 1))
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    try:
        with writing(target):
            _write_within(folder, job, report)
            report.size_bytes = files_size(folder)
            if target.exists():
                report.notes.append(f"{target} was there before and is replaced")
            for file in folder.iterdir():
                if file.is_file():
                    file.replace(target.parent / file.name)
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)
            for parent in parents:  # those that stay empty, the innermost first
                parent.rmdir()
    return report


def _write_within(folder: Path, job: Job, report: ExportReport) -> None:
    """Write the files of a job into a folder; what passes lies in a folder in it."""
    target, made = job.target, folder / job.target.name
    if job.plan is None:
        _write_float(job, made, report)
        _judge(report, job.spec, target)
        return
    passing = folder / "passing"
    alone = passing / "float"
    alone.mkdir(parents=True)
    between = passing / "float.onnx"
    graph = _write_float(job, alone / target.name, report, between)
    _judge(report, job.spec, target)
    report.int8, report.nodes = write_int8(job.plan, graph, between, job.format, made, target)
    report.seconds |= report.int8.seconds
    report.notes += report.int8.notes


def _write_float(
    job: Job, made: Path, report: ExportReport, between: Path | None = None
) -> GraphModel:
    """Write a graph and compare it with eager torch; return it, open.

    Args:
        job: what to write.
        made: the file to write.
        report: takes the figures.
        between: where the ONNX file stays from which the graph is made; None: nowhere.
    """
    model, spec = job.model, job.spec
    cases = _cases(model, spec, job.photos)
    with console.progress("export", total=3 + len(cases), unit="step") as bar:

        def timed(step: str, since: float) -> None:
            report.seconds[step] = report.seconds.get(step, 0.0) + time.perf_counter() - since
            bar.update(1)

        start = time.perf_counter()
        network = lean_network(model, spec)
        program = trace(whole_model(network, spec), spec)
        timed("trace", start)
        start = time.perf_counter()
        if between is None:
            report.nodes = write_graph(job.format, program, made, spec)
        else:
            write_graph("onnx", program, between, spec)
            report.nodes = rewrite_graph(job.format, between, made, spec)
        timed("write", start)
        start = time.perf_counter()
        graph: GraphModel = open_graph(made, trust=True)
        timed("load", start)
        # Rounded weights are judged beside the same weights: what rounding them does to the
        # accuracy is not for a handful of photos to say.
        eager = network if spec.precision == "fp16" else model
        for what, images in cases:
            start = time.perf_counter()
            report.cases += _compare(eager, graph, what, images, spec)
            timed("check", start)
    return graph


def _cases(model: Any, spec: GraphSpec, photos: Sequence[Photo]) -> list[tuple[list[str], Images]]:
    """Return the calls of the comparison: names of the images, and the batch."""
    first, second, third = photos
    grey = Photo("flat grey", np.full_like(second.pixels, _GREY), blank=True)
    calls: list[tuple[list[Photo], float]] = [
        ([first], 1.0),
        ([second, grey], 1.0),
        ([third], _SMALLER),
    ]
    return [
        ([photo.name for photo in some], spec.kind.batch(some, model, spec, factor))
        for some, factor in calls
    ]


def _compare(
    eager: Any, graph: Any, what: list[str], images: Images, spec: GraphSpec
) -> list[Case]:
    task, settings = get_task(spec.task), spec.own.settings
    with torch.inference_mode():
        wanted, found = (
            task.decode(task.compute(one, [images], settings, spec.meta), [images], settings, one)
            for one in (eager, graph)
        )
    size = (images.pixels.shape[2], images.pixels.shape[3])
    return [
        Case(name, len(images), size, spec.kind.compare(one, other, spec))
        for name, one, other in zip(what, wanted, found, strict=True)
    ]


def _judge(report: ExportReport, spec: GraphSpec, target: Path) -> None:
    """Raise unless the file finds what the model finds."""
    kind, matches = spec.kind, [case.match for case in report.cases]
    if not kind.agrees(matches):
        worst = max(report.cases, key=lambda case: kind.gap(case.match))
        raise ValueError(
            f"{target.name} does not find what the model finds, so it was not written; in "
            f"{worst.what}: {kind.describe(worst.match)}"
        )
    report.notes += kind.doubts(matches)
    if spec.batch is not None and spec.batch > 1:
        report.notes.append(f"the graph takes {spec.batch} images; fewer are padded to that")
