"""What a training left behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..text import one_line


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind.

    Attributes:
        dir: the run folder.
        best: checkpoint of the best validation, without validation images that of the last epoch;
            None if there was none yet.
        last: checkpoint that `resume` goes on from.
        metrics: numbers of the best validation.
        interrupted: True if a signal, such as Ctrl-C, ended it before its time.
        signal: number of that signal; 0 if there was none.
        shown: the metrics that matter most.
    """

    dir: Path
    best: Path | None
    last: Path
    metrics: dict[str, float]
    interrupted: bool
    signal: int = 0
    shown: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say what a reader looks for first; all numbers are in `metrics`."""
        found = [f"{key} {self.metrics[key]:.4g}" for key in self.shown if key in self.metrics]
        state = ", interrupted" if self.interrupted else ""
        return f"<TrainResult {one_line(str(self.dir))}: {', '.join(found) or 'no score'}{state}>"
