"""Where a training stands: all that changes in its loop, kept in every checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

UNKNOWN = 10**6  # steps to come: as many as nobody makes


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
        spent: time spent on all steps but the first, which is that of `TrainRecipe.minutes`.
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
    spent: float = 0.0
    fitted: int = 0
    best: float = -1.0
    best_epoch: int = 0
    unscored: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)

    def count_time(self, seconds: float) -> None:
        """Count the time of a step, which is done."""
        self.seconds += seconds
        self.spent += seconds if self.step > 1 else 0.0

    def steps_in(self, seconds: float) -> int:
        """Return the steps of a training of so many seconds, at the speed up to now."""
        left = seconds - self.spent
        if left <= 0:
            return self.step
        speed = (self.step - 1) / self.spent if self.spent else math.inf
        return self.step + max(round(min(speed * left, UNKNOWN)), 1)

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
