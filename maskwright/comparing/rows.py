"""What is known of the models of a comparison, as it lies in `metrics.json` between two calls."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..reports.curves import LOWEST
from ..reports.page import REPORT
from ..tasks.base import Task
from ..text import to_json

METRICS = "metrics.json"
MEASURED = -1  # in `Row.faults`: no seed


@dataclass
class Run:
    """A trained model that was scored.

    Attributes:
        weights: what `val` and `predict` take as the model.
        metrics: numbers by key, see `val`.
        stamp: when its file was written, in nanoseconds.
        part: tells the images that were held out of data without a split for it; 0: there is one.
        seconds: of its training steps; nan: not known.
        epochs: of its training; 0: not known.
    """

    weights: str
    metrics: dict[str, float]
    stamp: int = 0
    part: int = 0
    seconds: float = math.nan
    epochs: int = 0


@dataclass
class Row:
    """One model.

    Attributes:
        name: as the user wrote it.
        runs: its trained models by seed; one of a file has the first.
        faults: what failed, by seed; under `MEASURED` what failed in its measurements.
        ms: milliseconds of each prediction that was timed.
        parameters: their number; 0: not known.
        memory: peak of a process that predicts, in MB; 0: not known here; nan: not measured yet.
    """

    name: str
    runs: dict[int, Run] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    ms: list[float] = field(default_factory=list)
    parameters: int = 0
    memory: float = math.nan

    def values(self, metric: str) -> list[float]:
        """Return a metric of each seed that has a number."""
        found = (run.metrics.get(metric, math.nan) for run in self.runs.values())
        return [value for value in found if math.isfinite(value)]

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the seeds, nan without a number."""
        values = self.values(metric)
        return statistics.fmean(values) if values else math.nan

    def speed(self) -> tuple[float, float, float]:
        """Return the lower quartile, the median and the upper quartile of the milliseconds."""
        if len(self.ms) < 2:
            return (self.ms[0],) * 3 if self.ms else (math.nan,) * 3
        low, middle, high = statistics.quantiles(self.ms, n=4, method="inclusive")
        return low, middle, high


def score_of(rows: list[Row], compared: Mapping[str, str]) -> str | None:
    """Return the first metric that all scored models have, as its key stands in `compared`."""
    scored = [row for row in rows if row.runs]
    for key in compared if scored else ():
        if all(row.values(key.removeprefix(LOWEST)) for row in scored):
            return key
    return None


@dataclass
class Comparison:
    """What a comparison came to.

    Attributes:
        dir: the run folder.
        rows: the models, as they were given.
        task: of the models.
        split: the images that were scored.
        options: of the call.
        data: what it holds by split, in words.
        notes: what a reader should know first.
        signal: number of the signal that ended it; 0: none did.
    """

    dir: Path
    rows: list[Row]
    task: Task
    split: str
    options: dict[str, Any]
    data: dict[str, str]
    notes: list[str]
    signal: int = 0

    @property
    def page(self) -> Path:
        """The page of all."""
        return self.dir / REPORT

    @property
    def score(self) -> str | None:
        """What the models are compared by, a key of `Task.compared`; None: none that all have."""
        return score_of(self.rows, self.task.compared)

    @property
    def failed(self) -> list[str]:
        """The models of which something failed."""
        return [row.name for row in self.rows if row.faults]


def unbeaten(rows: list[Row], score: str) -> list[Row]:
    """Return the models than which no other is both faster and better, the fastest first.

    Args:
        rows: all models.
        score: metric, see `score_of`.
    """
    sign, key = (-1.0, score[1:]) if score.startswith(LOWEST) else (1.0, score)
    timed = [row for row in rows if row.ms and row.values(key)]
    places = {row.name: (-row.speed()[1], sign * row.mean(key)) for row in timed}

    def beaten(name: str) -> bool:
        mine = places[name]
        return any(
            theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True))
            for theirs in places.values()
        )

    front = [row for row in timed if not beaten(row.name)]
    return sorted(front, key=lambda row: row.speed()[1])


def write_rows(made: Comparison) -> None:
    """Write all numbers, what is undefined as null."""
    tree = {
        "task": made.task.name,
        "split": made.split,
        "score": made.score,
        "data": made.data,
        "options": made.options,
        "models": [asdict(row) for row in made.rows],
    }
    text = to_json(_plain(tree), indent=1, allow_nan=False, default=str)
    write_whole(made.dir / METRICS, text + "\n")


def read_rows(folder: Path) -> dict[str, Row]:
    """Return the models of a comparison by name, none if there is nothing yet.

    Raises:
        ValueError: if the file is damaged.
    """
    path = folder / METRICS
    if not path.is_file():
        return {}
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {row["name"]: _row(row) for row in tree["models"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): remove it, and what is trained "
            "is scored again"
        ) from None


def _row(tree: dict[str, Any]) -> Row:
    runs = {
        int(seed): Run(
            **{
                **run,
                "seconds": _number(run["seconds"]),
                "metrics": {key: _number(value) for key, value in run["metrics"].items()},
            }
        )
        for seed, run in tree["runs"].items()
    }
    faults = {int(seed): str(text) for seed, text in tree["faults"].items()}
    return Row(**{**tree, "runs": runs, "faults": faults, "memory": _number(tree["memory"])})


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
