"""What an export came to, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..tasks.graph import GraphSpec
from ..terminal import console
from .guard import Int8Report, print_int8


@dataclass(frozen=True)
class Case:
    """One call of the graph beside eager torch.

    Attributes:
        what: the image or images.
        batch: number of images.
        size: (height, width) of the pixels, padding included.
        match: how the results agree, see `GraphKind.compare`.
    """

    what: str
    batch: int
    size: tuple[int, int]
    match: Any


@dataclass
class ExportReport:
    """What an export came to.

    Attributes:
        path: the file, or the one that is named to open it.
        spec: the description of the graph, before int8.
        size_bytes: of all its files.
        nodes: of the graph; for compiled code, of the graph that it was compiled from.
        seconds: by step: "trace", "write", "load", "check"; with int8 "quantise" and "val".
        cases: the comparison with eager torch; with int8, of the float graph that it is made from.
        notes: what else there is to say.
        int8: what quantisation came to; None without.
    """

    path: Path
    spec: GraphSpec
    size_bytes: int = 0
    nodes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    int8: Int8Report | None = None


def print_report(report: ExportReport) -> None:
    """Print what an export came to."""
    kind = report.spec.kind
    console.table(
        "Compared with eager torch" + ("" if report.int8 is None else ": the float graph"),
        ["image", "batch", "pixels", *kind.columns],
        [
            [case.what, case.batch, f"{case.size[0]} x {case.size[1]}", *kind.row(case.match)]
            for case in report.cases
        ],
    )
    for text in kind.tolerances([case.match for case in report.cases]):
        console.note(text)
    if report.int8 is not None:
        print_int8(report.int8, report.size_bytes, kind)
    for text in report.notes:
        console.note(text)
    times = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in report.seconds.items())
    size = f"{report.size_bytes / 1e6:.1f} MB, {report.nodes} nodes"
    console.note(f"{report.path.absolute()}: {size} ({times})")
