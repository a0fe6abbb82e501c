"""Interleaved timing of two ways to do the same work, in one process or each in its own.

The sides take turns, so that a machine that slows down slows both; the ratio of each turn is taken
first and the median of the ratios last. `apart` gives each side a process and the memory of its
users; `parse` gives a script its options, `machine` its header
and `header` and `line` its table; `half_interval` tells how sure a mean is; `Rows` keeps what long
experiments found.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

import maskwright as mw

# In a process of one side: who asks for turns, and of which side.
_asked: tuple[Connection, int] | None = None


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one side, one number per turn."""

    name: str
    ms: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.ms)


@dataclass(frozen=True)
class Comparison:
    """One row: the baseline against ours."""

    title: str
    baseline: Timing
    ours: Timing

    @property
    def ratios(self) -> list[float]:
        """Baseline over ours, turn by turn: above 1, ours is faster."""
        return [a / b for a, b in zip(self.baseline.ms, self.ours.ms, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def compare(
    title: str,
    baseline: Callable[[], object],
    ours: Callable[[], object],
    *,
    repeats: int = 11,
    warmup: int = 2,
) -> Comparison:
    """Time two functions in turns; each turn starts with the other side."""
    sides = [baseline, ours]
    if _asked is not None:
        _answer(sides, *_asked)
    for _ in range(warmup):
        for run in sides:
            run()
    ms: list[list[float]] = [[], []]
    for turn in range(repeats):
        for side in (turn % 2, 1 - turn % 2):
            start = time.perf_counter()
            sides[side]()
            ms[side].append(1e3 * (time.perf_counter() - start))
    return Comparison(title, Timing("baseline", ms[0]), Timing("ours", ms[1]))


def timed(pair: Callable[..., Any], given: Sequence[Any], row: str, repeats: int) -> Comparison:
    """Return the times of a row of a pair of sides; with `partial` it can be pickled for `apart`.

    Args:
        pair: makes both sides; its `rows()` are what can be timed, by name, for so many turns.
        given: its arguments.
        row: the name.
        repeats: turns that count.
    """
    found: Comparison = pair(*given).rows()[row](repeats)
    return found


def apart(row: Callable[[], Comparison], title: str, repeats: int) -> Comparison:
    """Time what a row compares, each side in a process of its own: ours keeps memory there.

    Args:
        row: ends with `compare`; can be pickled.
        title: of the comparison.
        repeats: turns that count.
    """
    with ExitStack() as stack:
        sides = [stack.enter_context(_process(row, number)) for number in range(2)]
        return compare(title, *sides, repeats=repeats)


@contextmanager
def _process(row: Callable[[], Comparison], number: int) -> Iterator[Callable[[], None]]:
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=_serve, args=(other, row, number, torch.get_num_threads()))
    process.start()
    other.close()

    def turn() -> None:
        pipe.send(True)
        pipe.recv()

    try:
        yield turn
    finally:
        pipe.close()
        process.join()


def _serve(pipe: Connection, row: Callable[[], object], number: int, threads: int) -> None:
    global _asked
    _asked = pipe, number
    sys.stdout = sys.stderr  # the table alone goes to standard output
    torch.set_num_threads(threads)
    if number == 1:
        mw.keep_memory()
    row()


def _answer(sides: Sequence[Callable[[], object]], pipe: Connection, number: int) -> None:
    """Compute one side whenever it is asked for, until nobody asks."""
    while True:
        try:
            pipe.recv()
        except EOFError:
            raise SystemExit from None
        sides[number]()
        pipe.send(True)


def header(baseline: str) -> str:
    """Return the head of the Markdown table that `line` fills."""
    return (
        f"| what | {baseline}, ms | maskwright, ms | ratio (lowest to highest) |\n"
        "| --- | ---: | ---: | --- |"
    )


def line(row: Comparison) -> str:
    """Return medians, and the median ratio with its lowest and highest, as a row of the table."""
    times = f"{row.baseline.median:.2f} | {row.ours.median:.2f}"
    low, high = min(row.ratios), max(row.ratios)
    return f"| {row.title} | {times} | {row.ratio:.2f} ({low:.2f} to {high:.2f}) |"


def half_interval(values: Sequence[float], level: float) -> float:
    """Return half the width of the interval of a mean, by Student's t.

    Args:
        values: two or more.
        level: share of such intervals that hold the true mean, such as 0.95.
    """
    from scipy.stats import t

    quantile = float(t.ppf((1 + level) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / len(values) ** 0.5


def machine() -> str:
    """Return processor, threads and versions in one line."""
    return (
        f"{_processor()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    )


class Rows(list[dict[str, Any]]):
    """The rows of one experiment, kept in a JSON file beside those of others.

    Attributes:
        kept: all rows that were in the file at the start.

    Args:
        out: the file, which need not be there; None: rows are kept nowhere.
        experiment: its name.
    """

    def __init__(self, out: Path | None, experiment: str) -> None:
        self.out, self.experiment = out, experiment
        self.kept = json.loads(out.read_text()) if out is not None and out.exists() else []
        super().__init__(row for row in self.kept if row["experiment"] == experiment)

    def add(self, made: Iterable[dict[str, Any]]) -> None:
        """Take rows in, and write the file."""
        self += [{**row, "experiment": self.experiment} for row in made]
        if self.out is not None:
            others = [row for row in self.kept if row["experiment"] != self.experiment]
            self.out.write_text(json.dumps(others + list(self), indent=1) + "\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def parse(description: str | None, *, repeats: int = 11) -> argparse.Namespace:
    """Read the options that every script has: repeats, threads and a filter on the titles."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=repeats, help="turns of each comparison")
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice if left out")
    parser.add_argument("--only", default="", help="run the rows whose title has this text")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    return options
