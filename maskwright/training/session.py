"""A training run: what it is made of, saved and restored.

`Place` is where the training stands; everything that decides what comes next is either in it, in
the recipe or in a tensor of the checkpoint, so that a resumed run goes on as if never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from ..data.loader import Loader
from ..data.records import Dataset
from ..models.base import Model
from ..models.meta import Meta
from ..reports.next_command import command
from ..storage.checkpoint import TrainingState, load_state, save_checkpoint
from ..storage.rundir import ResultsTable
from ..tasks.base import Task
from ..tasks.recipe import TrainRecipe
from .best import waited
from .ema import Ema
from .hooks import Hooks, Moment
from .optim import load_optimizer_tensors, optimizer_tensors
from .place import Place
from .result import TrainResult
from .resume import LAST, PREVIOUS, Resumed, damaged
from .stages import whole_run


@dataclass
class Session:
    """A training run: its parts and its place.

    Attributes:
        task: what the model is for.
        recipe: the options, with the batch size that was chosen.
        fabric: devices and processes.
        dir: the run folder.
        train_data, val_data: the images; None: there is no validation.
        loader, val_loader: batches of them, this process's share.
        model: the bare model.
        step: the training step as Fabric wraps it.
        optimizer: the bare optimiser.
        wrapped_optimizer: the optimiser as Fabric wraps it.
        ema: average of the weights, or None.
        meta: what the checkpoints say of the model.
        table: `results.csv`.
        steps_per_epoch: optimiser steps of a whole epoch.
        planned: optimiser steps of the whole training, if no clock ends it.
        lr: peak learning rate.
        start: where the first weights came from, for people.
        place: where the training stands.
        saved: when `last` was written, by the monotonic clock.
        hooks: what is called as it goes.
        halted: whether one of these has asked for the end.
        losses: of the latest step.
    """

    task: Task
    recipe: TrainRecipe
    fabric: Any
    dir: Path
    train_data: Dataset
    val_data: Dataset | None
    loader: Loader
    val_loader: Loader | None
    model: Model
    step: Any
    optimizer: Optimizer
    wrapped_optimizer: Any
    ema: Ema[Model] | None
    meta: Meta
    table: ResultsTable
    steps_per_epoch: int
    planned: int
    lr: float
    start: str
    place: Place = field(default_factory=Place)
    saved: float = field(default_factory=time.monotonic)
    hooks: Hooks = field(default_factory=Hooks)
    halted: bool = False
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Optimiser steps of the whole training; with `minutes` an estimate up to its last step."""
        minutes = self.recipe.minutes
        return self.planned if minutes is None else self.place.steps_in(60 * minutes)

    @property
    def epochs(self) -> int:
        """Number of epochs, the last one possibly cut short by `steps`."""
        return math.ceil(self.total / self.steps_per_epoch)

    def called(self, epoch: int) -> str:
        """Return the number of an epoch, and where it is known of how many."""
        return f"epoch {epoch}" + (f"/{self.epochs}" if self.recipe.minutes is None else "")

    @property
    def resuming(self) -> str:
        """The command that goes on with the run."""
        return command("maskwright", "train", f"resume={whole_run(self.dir)}")

    @property
    def first(self) -> bool:
        """True in the process that writes files and talks."""
        return bool(self.fabric.is_global_zero)

    @property
    def fits(self) -> bool:
        """True if the training is done, but the stage that follows it is not."""
        waiting = self.model.fits_after_training and not self.place.fitted
        return waiting and self.trained() is not None

    def finished(self) -> str | None:
        """Return why nothing follows, neither an epoch nor the stage after them, or None."""
        if self.place.fitted:
            return "trained, and fitted after it"
        return None if self.fits else self.trained()

    def trained(self) -> str | None:
        """Return why no further epoch follows, or None."""
        epochs = waited(self.place)
        if self.halted:
            return "a function that was given to train has stopped it"
        if self.place.step >= self.total and self.place.batch == 0:
            over = self.recipe.minutes
            return f"all {self.total} steps are done" + (
                "" if over is None else f" that {over:g} minutes hold"
            )
        if self.recipe.patience and epochs >= self.recipe.patience and self.place.best >= 0:
            return (
                f"no better {self.task.score} for {epochs} epochs (patience={self.recipe.patience})"
            )
        return None

    def call(
        self,
        event: str,
        numbers: Mapping[str, float | int | None] | None = None,
        *,
        better: bool = False,
        result: TrainResult | None = None,
    ) -> None:
        """Call in the first process what stands at an event, see `Moment`."""
        if self.first and self.hooks.wanted(event):
            place, hooks = self.place, self.hooks
            moment = Moment(
                *(event, self.dir, self.model, self.recipe, place.epoch, place.step, self.total),
                *(numbers or {}, better, result, hooks.stop),
            )
            hooks.call(moment, "" if result else f"{self.resuming} goes on without it")

    def hear(self) -> None:
        """Let all processes know whether a function in the first has asked for the end."""
        self.halted = any(self.gather(self.hooks.stopping))

    def save_last(self, *, older_than: float = 0.0) -> None:
        """Write `weights/last`: all that a resumed run needs.

        Args:
            older_than: leave it if the one that is there is younger than this, in seconds.
        """
        if time.monotonic() - self.saved < older_than:
            return
        self.saved = time.monotonic()
        if self.first:
            scalars = {
                "recipe": self.recipe.to_dict(),
                "place": asdict(self.place),
                "ema_updates": 0 if self.ema is None else self.ema.updates,
                "world": self.fabric.world_size,
            }
            ema = {} if self.ema is None else self.ema.model.state_dict()
            state = TrainingState(scalars, optimizer_tensors(self.optimizer, self.model), ema)
            weights = self.dir / "weights"
            save_checkpoint(
                weights / LAST,
                self.meta,
                self.model.state_dict(),
                training=state,
                previous=weights / PREVIOUS,
            )

    def save_best(self) -> None:
        """Write `weights/best`: the weights that were validated, with their metrics."""
        if self.first:
            model = self.model if self.ema is None else self.ema.model
            metrics = {k: v for k, v in self.place.best_metrics.items() if math.isfinite(v)}
            path = self.dir / "weights" / "best.safetensors"
            save_checkpoint(path, replace(self.meta, metrics=metrics), model.state_dict())

    def gather(self, share: Any) -> list[Any]:
        """Return the plain data that each process gives, in all of them."""
        shares: list[Any] = [share] * self.fabric.world_size
        if len(shares) > 1:
            torch.distributed.all_gather_object(shares, share)
        return shares

    def restore(self, resumed: Resumed) -> None:
        """Put everything back as it was when the checkpoint was written."""
        self.fabric.barrier()  # all processes have read the checkpoint
        if self.first:
            resumed.tidy()
        checkpoint, source = resumed.checkpoint, resumed.folder
        if checkpoint is None:
            if self.first:
                self.table.truncate(0)
            return
        state = checkpoint.training
        assert state is not None
        load_state(self.model, checkpoint.model, source)
        if self.ema is not None:
            load_state(self.ema.model, state.ema, source)
        try:
            load_optimizer_tensors(self.optimizer, self.model, state.optimizer)
            updates = int(state.scalars["ema_updates"])
            self.place = Place(**state.scalars["place"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise damaged(source, error) from None
        if self.ema is not None:
            self.ema.updates = updates
        self.place.best_metrics = {  # JSON has no nan
            key: math.nan if value is None else value
            for key, value in self.place.best_metrics.items()
        }
        if self.place.best_metrics and math.isnan(self.task.fitness(self.place.best_metrics)):
            self.place.best = -1.0  # older versions wrote 0 for what is undefined
        if self.first:
            self.table.truncate(self.place.epoch)
