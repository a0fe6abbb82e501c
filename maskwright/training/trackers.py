"""Trackers: programs that show the numbers of trainings side by side.

Each gets the rows of `results.csv`, each row once, also those that it could not take when they were
written. What it calls the run stands in the run folder, so that a resumed training goes on there.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from ..paths import plain_path
from ..storage.rundir import ResultsTable, write_whole
from ..tasks.recipe import TrainRecipe
from ..terminal import console
from ..text import one_line
from .hooks import Hooks, Moment

STATE = "trackers.json"  # in the run folder: how a tracker calls the run, and the rows that it has
PROJECT = "maskwright"
AT_ONCE = 100  # parameters that MLflow takes in one request
SUFFIXES = {".html", ".png", ".jpg", ".csv", ".yaml", ".json"}
APART = ("weights", "wandb", "train")  # folders of a run that are not handed over
LARGEST = 2**24  # bytes of a file that is handed over


class Tracker(Protocol):
    """Where rows go.

    Attributes:
        run: what it calls the run.
        fresh: whether it has begun this run anew, with no row.
    """

    run: str
    fresh: bool

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Take the numbers of an epoch."""

    def keep(self, folder: Path, files: list[Path]) -> None:
        """Take files of the run folder."""

    def close(self, how: str) -> None:
        """End the run: "finished", "killed" or "failed"."""


class TensorBoard:
    """Event files in the run folder; what a killed run has written beyond `step` is hidden."""

    fresh, run = False, ""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._links = ExitStack()
        # It knows names in UTF-8 alone, and writes until the end.
        place = self._links.enter_context(plain_path(folder))
        self._writer: Any = SummaryWriter(place, purge_step=step + 1)

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Write an epoch."""
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def keep(self, folder: Path, files: list[Path]) -> None:
        """Do nothing: they lie beside its own."""

    def close(self, how: str) -> None:
        """Close the file."""
        self._writer.close()
        self._links.close()


class MLflow:
    """A run of MLflow, at `MLFLOW_TRACKING_URI` as everything of MLflow is.

    Where the caller has begun a run, that is the one, and it stays open.
    """

    def __init__(self, folder: Path, recipe: TrainRecipe, known: str | None) -> None:
        import mlflow

        self._mlflow = mlflow
        active = mlflow.active_run()
        self._ends = active is None
        if active is None:
            name = None if known else folder.name
            active = mlflow.start_run(run_id=known, run_name=name)
        self.run = active.info.run_id
        self.fresh = self.run != known
        if self.fresh:
            there = active.data.params
            new = [(k, v) for k, v in recipe.to_dict().items() if k not in there]
            try:
                for start in range(0, len(new), AT_ONCE):
                    mlflow.log_params(dict(new[start : start + AT_ONCE]))
                mlflow.set_tag("maskwright.folder", str(folder.absolute()))
            except Exception:  # the next training would take it for one that the caller has begun
                with suppress(Exception):
                    self.close("failed")
                raise

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Send an epoch; signs that MLflow has not in names become "_"."""
        named = {re.sub(r"[^\w\-. :/]", "_", key): value for key, value in numbers.items()}
        self._mlflow.log_metrics(named, step=step)

    def keep(self, folder: Path, files: list[Path]) -> None:
        """Send files as artifacts."""
        for file in files:
            inside = file.parent.relative_to(folder).as_posix()
            self._mlflow.log_artifact(str(file), None if inside == "." else inside)

    def close(self, how: str) -> None:
        """End the run."""
        if self._ends:
            self._mlflow.end_run(how.upper())


class Wandb:
    """A run of Weights & Biases, offline with `WANDB_MODE=offline`.

    Where the caller has begun a run, that is the one, and it stays open. Files lie in the run
    folder, unless `WANDB_DIR` says where.
    """

    def __init__(self, folder: Path, recipe: TrainRecipe, known: str | None) -> None:
        import wandb

        self._ends = wandb.run is None
        self._run: Any = wandb.run
        if self._ends:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=os.environ.get("WANDB_NAME", folder.name),
                id=known,
                resume=None if known is None else "allow",
                dir=os.environ.get("WANDB_DIR", str(folder)),
            )
        self.run = self._run.id
        self.fresh = self.run != known
        self._run.config.update(recipe.to_dict(), allow_val_change=True)
        self._run.define_metric("*", step_metric="step")  # its own goes up by calls

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Send an epoch."""
        self._run.log({**numbers, "step": step})

    def keep(self, folder: Path, files: list[Path]) -> None:
        """Send files."""
        for file in files:
            self._run.save(str(file), base_path=str(folder), policy="now")

    def close(self, how: str) -> None:
        """End the run."""
        if self._ends:
            self._run.finish(exit_code=int(how == "failed"))


KINDS: Mapping[str, Any] = {"mlflow": MLflow, "wandb": Wandb}


class Feed:
    """What a tracker has of a training, and what it has not got yet.

    Where it cannot take a row, one warning says so and the training goes on; the row is sent again
    with a later one, though never so often that more than a tenth of the time goes into it.

    Args:
        name: of the tracker.
        tracker: where rows go.
        table: the rows.
        sent: how many of them it has.
        patient: whether a row that is not taken is sent again; False: an error ends the training.
    """

    def __init__(
        self, name: str, tracker: Tracker, table: ResultsTable, sent: int, *, patient: bool = True
    ) -> None:
        self.name, self.tracker, self.sent = name, tracker, sent
        self._table, self._patient = table, patient
        self._told = False
        self._failed, self._cost = -math.inf, 0.0  # when, and the seconds that it took

    def send(self, *, last: bool = False) -> None:
        """Send what it has not got yet."""
        start = time.monotonic()
        if start - self._failed < 10 * self._cost and not last:
            return
        try:
            for row in self._table.rows[self.sent :]:
                self.tracker.add(_numbers(row), int(row["step"]))
                self.sent += 1
        except Exception as error:
            self._missed(error, start)

    def finish(self, folder: Path) -> None:
        """Send the rest, and the files of the run."""
        self.send(last=True)
        if missing := len(self._table.rows) - self.sent:
            console.warn(
                f"{self.name} has not taken {missing} of {len(self._table.rows)} epochs: they "
                f"stand in {self._table.path}"
            )
            return
        try:
            self.tracker.keep(folder, _files(folder))
        except Exception as error:
            if not self._patient:
                raise
            console.warn(f"{self.name} has not taken the files of {folder}: {_said(error)}")

    def _missed(self, error: Exception, start: float) -> None:
        if not self._patient:
            raise error
        self._failed = time.monotonic()
        self._cost = self._failed - start
        if not self._told:
            self._told = True
            console.warn(
                f"{self.name} does not take the numbers ({_said(error)}): the training goes "
                "on, and they are sent again later"
            )


@contextmanager
def tracked(
    hooks: Hooks, folder: Path, table: ResultsTable, recipe: TrainRecipe, step: int
) -> Iterator[None]:
    """Let trackers follow a training while inside: TensorBoard if it is installed, and `log`.

    Args:
        hooks: where they are called.
        folder: the run folder.
        table: `results.csv`.
        recipe: the options.
        step: optimiser steps done before.

    Raises:
        ValueError: if one cannot be reached at the beginning.
    """
    place = folder / STATE
    state = _read_state(place)
    feeds: list[Feed] = []
    how = "failed"
    try:
        try:
            board = TensorBoard(folder, step)
        except ImportError:
            pass
        else:
            feeds.append(Feed("tensorboard", board, table, len(table.rows), patient=False))
        for name in recipe.logs:
            known = state.get(name, {})
            tracker = _begin(name, folder, recipe, known.get("run"))
            sent = 0 if tracker.fresh else min(int(known["rows"]), len(table.rows))
            feeds.append(Feed(name, tracker, table, sent))

        def keep_state() -> None:
            for feed in feeds:
                if feed.tracker.run:
                    state[feed.name] = {"run": feed.tracker.run, "rows": feed.sent}
            if state:
                write_whole(place, json.dumps(state, indent=1) + "\n")

        def send(moment: Moment) -> None:
            for feed in feeds:
                feed.send()
            keep_state()

        def finish(moment: Moment) -> None:
            nonlocal how
            for feed in feeds:
                feed.finish(folder)
            keep_state()
            stopped = moment.result is not None and moment.result.interrupted
            how = "killed" if stopped else "finished"

        keep_state()
        hooks.add("on_epoch_end", send)
        hooks.add("on_train_end", finish)
        yield
    except KeyboardInterrupt:
        how = "killed"
        raise
    finally:
        for feed in feeds:
            try:
                feed.tracker.close(how)
            except Exception as error:
                console.warn(f"{feed.name} has not ended its run: {_said(error)}")


def _read_state(place: Path) -> dict[str, Any]:
    """Return how trackers call the run, and the rows that they have.

    Raises:
        ValueError: if the file is damaged.
    """
    if not place.is_file():
        return {}
    try:
        state = dict(json.loads(place.read_text(encoding="utf-8")))
        return {name: {"run": one["run"], "rows": int(one["rows"])} for name, one in state.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{place} is damaged ({type(error).__name__}): remove it, and trackers begin a new run "
            "with all epochs"
        ) from None


def require_trackers(recipe: TrainRecipe) -> None:
    """Make sure that the packages of the trackers are there, before a training begins.

    Raises:
        ImportError: if one is missing; the message says what to install.
    """
    from importlib.util import find_spec

    for name in recipe.logs:
        found = find_spec(name)
        # A folder of that name where the user stands, as Weights & Biases makes one, has no origin.
        if found is None or found.origin is None:
            raise ImportError(
                f"log={name} needs the package {name}: pip install 'maskwright[{name}]'"
            )


def _begin(name: str, folder: Path, recipe: TrainRecipe, known: str | None) -> Tracker:
    try:
        tracker: Tracker = KINDS[name](folder, recipe, known)
    except Exception as error:
        going_on = "" if known is None else f"; it was its run {known}, log=none goes on without it"
        raise ValueError(f"log={name}: {_said(error)}{going_on}") from error
    console.note(f"{name} follows as its run {tracker.run}")
    return tracker


def _said(error: Exception) -> str:
    """Return what an error says first; those of trackers may have pages."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(lines[0].strip() if lines else type(error).__name__)


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    """Return the finite numbers of a row."""
    numbers = {key: float(text) for key, text in row.items() if text}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def _files(folder: Path) -> list[Path]:
    """Return the files of a run that a tracker keeps: figures, pictures, tables and the report."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in SUFFIXES
        and path.relative_to(folder).parts[0] not in APART
        and path.name != STATE
        and path.stat().st_size <= LARGEST
    ]
