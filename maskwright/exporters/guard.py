"""Int8 graphs under guard: what rounding costs is measured before a file may appear.

Ranges come from images of the training split, the metrics (`GraphKind.judged`) from the validation
split, before and after, both on exported files of the same format with the options that the file
will have. So what is measured is what is shipped, and `maskwright val` with the options in the file
gives the same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.discover import open_dataset
from ..data.records import Dataset, describe_faults
from ..errors import OptionError
from ..graphs.int8 import quantise
from ..graphs.sessions import open_graph
from ..graphs.writers import INT8_FORMATS, rewrite_graph
from ..models.meta import Meta
from ..structures import Images
from ..tasks import get_task
from ..tasks.evaluation import evaluate
from ..tasks.graph import GraphKind, Quantised, graph_kind
from ..terminal import console


@dataclass(frozen=True)
class Int8Plan:
    """What an int8 export works with.

    Attributes:
        calibration: the images that give the ranges, of the training split.
        train_size: number of images of that split.
        val: the validation split.
        data: what the user calls the data set.
        max_drop: points, hundredths, that none of the metrics may lose more than.
    """

    calibration: Dataset
    train_size: int
    val: Dataset
    data: str
    max_drop: float


@dataclass(frozen=True)
class Int8Report:
    """What quantisation came to.

    Attributes:
        layers: number of layers in int8.
        images: number of calibration images.
        val_images: number of images that was measured on.
        before: metrics of the float graph by key, in [0, 1].
        after: the same of the int8 graph.
        ms: milliseconds per image on this machine, of the float graph and of the int8 graph.
        float_bytes: size of the float graph's files.
        seconds: by step: "quantise", "val".
        notes: what else there is to say.
    """

    layers: int
    images: int
    val_images: int
    before: dict[str, float]
    after: dict[str, float]
    ms: tuple[float, float]
    float_bytes: int
    seconds: dict[str, float]
    notes: list[str]

    @property
    def drops(self) -> dict[str, float]:
        """Points that int8 costs, by key; negative where it gains."""
        return {key: 100 * (value - self.after[key]) for key, value in self.before.items()}


def check_options(
    format: str, half: bool, data: str | Path | None, max_drop: float, calibration: int
) -> None:
    """Raise unless the options of an int8 export fit together.

    Raises:
        OptionError: naming the one that does not.
    """
    if format not in INT8_FORMATS:
        able = " and ".join(f"format={name}" for name in INT8_FORMATS)
        raise OptionError(f"int8=true is there for {able}, not for format={format}")
    if half:
        raise OptionError(
            "int8=true and half=true are two precisions of the same weights: take one"
        )
    if data is None:
        raise OptionError(
            "int8=true needs data=...: images of its training split for the ranges, and its "
            "validation split to measure what int8 costs"
        )
    if not 0 <= max_drop <= 100:
        raise OptionError(f"max_drop is points of the metrics, from 0 to 100; got {max_drop}")
    if calibration < 1:
        raise OptionError(f"calibration is a number of images, at least 1; got {calibration}")


def make_plan(
    model: Any, meta: Meta, data: str | Path, *, max_drop: float, calibration: int
) -> Int8Plan:
    """Open the data of an int8 export and check that it can judge the model.

    Args:
        model: the model.
        meta: its names.
        data: the data set.
        max_drop: see `Int8Plan`.
        calibration: most images to calibrate on; they are spread evenly over the training split.

    Raises:
        ValueError: if a split is missing or unusable, or it has names that the model does not
            know, or lacks what the model finds.
    """
    task = get_task(model.task)
    reading = {**task.finding(model), **task.scoring(model, meta, {})}
    val = open_dataset(data, "val", **reading)
    task.check_scored(meta, val)
    graph_kind(model.task).judges(model, val)
    if faults := describe_faults(val):
        console.warn(faults)
    train = open_dataset(data, "train", **reading)
    val.window = train.window = meta.window
    val.channels = train.channels = meta.taken
    count = min(calibration, len(train))
    chosen = train.select([i * len(train) // count for i in range(count)])
    return Int8Plan(chosen, len(train), val, str(data), max_drop)


def write_int8(
    plan: Int8Plan, graph: Any, source: Path, format: str, path: Path, target: Path
) -> tuple[Int8Report, int]:
    """Write the int8 form of a graph, if it keeps its accuracy.

    Args:
        plan: what to work with.
        graph: the float graph in the same format, which agrees with the model; its files are
            alone in their folder.
        source: the float graph as ONNX; its folder is for files of passing use.
        format: the format.
        path: the file to write.
        target: what messages call it.

    Returns:
        The report, and the number of nodes of the graph.

    Raises:
        ValueError: if it loses more than the plan allows, or that cannot be measured.
    """
    seconds = {"quantise": 0.0, "val": 0.0}
    start = time.perf_counter()
    before, float_ms, notes = _measure(plan, graph, "val, float")
    kind = graph.spec.kind
    for key, value in before.items():
        if math.isnan(value) or value == 0:
            used = get_task(graph.task).used(graph.spec.own.settings)
            own = ", ".join(f"{name}={option}" for name, option in used.items())
            raise ValueError(
                f"the val split of {plan.data} {kind.nothing(value)} ({kind.judged[key]} "
                f"{100 * value:.1f}{own and f' at {own}'}), so what int8 costs cannot be measured: "
                "give data that the model was trained for"
            )
    seconds["val"] += time.perf_counter() - start
    start = time.perf_counter()
    spec = replace(graph.spec, precision="int8")
    quantised = source.with_name("int8.onnx")
    layers = quantise(source, quantised, spec, _calibration_images(plan, graph))
    # OpenVINO maps its files into memory: those that are measured are not written over.
    trial = source.with_name(f"trial{path.suffix}")
    rewrite_graph(format, quantised, trial, spec)
    seconds["quantise"] += time.perf_counter() - start
    start = time.perf_counter()
    after, int8_ms, _ = _measure(plan, open_graph(trial), "val, int8")
    seconds["val"] += time.perf_counter() - start
    count = len(plan.calibration)
    report = Int8Report(
        len(layers),
        count,
        len(plan.val),
        before,
        after,
        (float_ms, int8_ms),
        files_size(Path(graph.source).parent),
        seconds,
        notes,
    )
    _judge(plan, report, target, kind)
    nodes = rewrite_graph(
        format, quantised, path, replace(spec, quantised=Quantised(count, before, after))
    )
    return report, nodes


def files_size(folder: Path) -> int:
    """Return the bytes of the files of a folder, those of its folders left out."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _measure(plan: Int8Plan, graph: Any, label: str) -> tuple[dict[str, float], float, list[str]]:
    """Return metrics by key, milliseconds per image, and what there is to say."""
    spec = graph.spec
    task = get_task(graph.task)
    result = evaluate(
        task.evaluator(graph, spec.meta, plan.val, spec.own.settings, {}),
        graph,
        task.eval_loader(graph, plan.val, batch=spec.batch or 1),
        total=len(plan.val),
        label=label,
    )
    assert result is not None
    judged = {key: result.metrics[key] for key in spec.kind.judged if key in result.metrics}
    return judged, result.ms, result.warnings()


def _calibration_images(plan: Int8Plan, graph: Any) -> Iterator[Images]:
    loader = get_task(graph.task).eval_loader(graph, plan.calibration, batch=graph.spec.batch or 1)
    with console.progress("calibrate", total=len(plan.calibration), unit="img") as bar:
        for batch in loader:
            yield batch.images
            bar.update(len(batch.indices))


def _judge(plan: Int8Plan, report: Int8Report, target: Path, kind: GraphKind) -> None:
    """Raise if a metric lost more than the plan allows."""
    drops = report.drops
    if max(drops.values()) <= plan.max_drop:
        return
    figures = ", ".join(
        f"{kind.judged[key]} {100 * value:.2f} -> {100 * report.after[key]:.2f} "
        f"({-drops[key]:+.2f})"
        for key, value in report.before.items()
    )
    more = (
        f"more calibration images (calibration={report.images} of {plan.train_size} used), "
        if report.images < plan.train_size
        else ""
    )
    raise ValueError(
        f"{target.name} was not written: int8 costs more than max_drop={plan.max_drop:g} points "
        f"of {kind.unit} on the {report.val_images} images of the val split of {plan.data}: "
        f"{figures}. Mends: {more}a larger max_drop if that is acceptable, or half=true, which "
        "keeps float arithmetic"
    )


def print_int8(report: Int8Report, size_bytes: int, kind: GraphKind) -> None:
    """Print what quantisation came to, in bytes of its files and by metric."""
    console.table(
        f"Int8 on {report.val_images} validation images",
        ["", "float", "int8", "drop"],
        [
            [
                f"{kind.judged[key]} (points)",
                f"{100 * value:.2f}",
                f"{100 * report.after[key]:.2f}",
                f"{report.drops[key]:+.2f}",
            ]
            for key, value in report.before.items()
        ]
        + [
            ["ms/image", f"{report.ms[0]:.1f}", f"{report.ms[1]:.1f}", None],
            ["MB", f"{report.float_bytes / 1e6:.1f}", f"{size_bytes / 1e6:.1f}", None],
        ],
    )
    console.note(f"{report.layers} layers in int8, ranges from {report.images} training images")
