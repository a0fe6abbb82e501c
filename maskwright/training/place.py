"""Where a training stands: all that changes in its loop, kept in every checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields


@dataclass
class Place:
    """Where the training stands.

    Attributes:
        epoch: epochs done, validation included.
        batch: batches done of the next epoch.
        step: optimiser steps done.
        bad: steps with a non-finite or exploded loss in a row, up to now.
        first_loss: loss of the first step.
        sums: sums over the steps of this epoch of each loss term.
        counted: number of steps in `sums`.
        images: number of images seen in this epoch, by all processes.
        seconds: time spent in this epoch.
        fitted: 1 once the stage after the training is done, for a model that has one.
        best: best score so far, -1 before the first validation and as long as it is undefined.
        best_epoch: epochs done when it was reached.
        unscored: epochs since then whose score is undefined.
        best_metrics: all numbers of that validation.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    bad: int = 0
    first_loss: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    images: int = 0
    seconds: float = 0.0
    fitted: int = 0
    best: float = -1.0
    best_epoch: int = 0
    unscored: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.type == "int":
                good = type(value) is int and value >= 0
            elif entry.type == "float":
                good = type(value) in (int, float) and math.isfinite(value)
            else:
                good = isinstance(value, dict)
            if not good:
                raise ValueError(f"{entry.name} is {value!r}")
