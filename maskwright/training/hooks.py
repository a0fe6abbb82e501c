"""What is called as a training goes: one table for figures, trackers and functions of the caller.

In several processes only the first one calls them, as it alone writes files.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import NoOptionError, OptionError, nearest
from ..models.base import Model
from ..tasks.recipe import TrainRecipe
from .result import TrainResult

# In the order in which they come.
EVENTS = ("on_train_start", "on_step_end", "on_epoch_end", "on_train_end")


@dataclass(frozen=True)
class Moment:
    """Where a training stands when a function is called.

    Attributes:
        event: one of `EVENTS`.
        dir: the run folder.
        model: the model itself; what is changed in it is trained on.
        recipe: the options.
        epoch: epochs done.
        step: optimiser steps done, of `steps`.
        steps: of the whole training; with `minutes` an estimate.
        numbers: behind a step its `lr` and losses; behind an epoch its row of `results.csv`, where
            None is what was not measured; otherwise nothing.
        better: whether the epoch is the best so far.
        result: at the end, what the training left.
    """

    event: str
    dir: Path
    model: Model
    recipe: TrainRecipe
    epoch: int
    step: int
    steps: int
    numbers: Mapping[str, float | int | None] = field(default_factory=dict)
    better: bool = False
    result: TrainResult | None = None
    _stop: Callable[[], None] = field(default=lambda: None, repr=False)

    def stop(self) -> None:
        """End the training behind the epoch that is under way or has just ended, report included.

        `resume` goes on from there.
        """
        self._stop()


Function = Callable[[Moment], object]


def split_functions(options: dict[str, Any]) -> dict[str, tuple[Function, ...]]:
    """Take the functions out of the options of a training.

    Args:
        options: by name; those in `EVENTS` are a function or several, None for none.

    Raises:
        OptionError: if one is no function that takes one argument.
        NoOptionError: for another name that begins as they do.

    Example:
        >>> options = {"epochs": 3, "on_epoch_end": print}
        >>> split_functions(options), options
        ({'on_epoch_end': (<built-in function print>,)}, {'epochs': 3})
    """
    found: dict[str, tuple[Function, ...]] = {}
    for name in [name for name in options if name.startswith("on_")]:
        if name not in EVENTS:
            raise NoOptionError(f"train has no option {name!r}{nearest(name, EVENTS)}")
        given = options.pop(name)
        if given is None:
            continue
        several = isinstance(given, Iterable) and not callable(given)
        functions = tuple(given) if several and not isinstance(given, str) else (given,)
        for function in functions:
            _require_function(name, function)
        found[name] = functions
    return found


def _require_function(name: str, function: object) -> None:
    if not callable(function):
        raise OptionError(
            f"{name} is a function of one argument, the moment, or a list of such; got {function!r}"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some built-in functions nothing is known
        return
    try:
        signature.bind(None)
    except TypeError:
        raise OptionError(
            f"{name}={called(function)} takes {signature}: it is called with one argument, the "
            "moment"
        ) from None


def called(function: object) -> str:
    """Return the name of a function, and the line where it stands."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    code = getattr(function, "__code__", None)
    return name if code is None else f"{name} ({Path(code.co_filename).name}:{code.co_firstlineno})"


class Hooks:
    """The table of what is called, by event.

    Args:
        given: functions of the caller, see `split_functions`.

    Attributes:
        stopping: whether one of them has asked for the end.
        fault: what one of them raised; it is passed on as it is, with a note of whose it is.
    """

    def __init__(self, given: Mapping[str, Iterable[Function]] | None = None) -> None:
        self.stopping = False
        self.fault: Exception | None = None
        self._own: dict[str, list[Function]] = {event: [] for event in EVENTS}
        self._given = {event: tuple((given or {}).get(event, ())) for event in EVENTS}

    def add(self, event: str, function: Function) -> None:
        """Call a function of ours at an event, before those of the caller."""
        self._own[event].append(function)

    def wanted(self, event: str) -> bool:
        """Return whether anything is called at an event."""
        return bool(self._own[event] or self._given[event])

    def call(self, moment: Moment, afterwards: str) -> None:
        """Call what stands at an event.

        Args:
            moment: where the training stands.
            afterwards: what the caller can do about an error of theirs.
        """
        for function in self._own[moment.event]:
            function(moment)
        for function in self._given[moment.event]:
            try:
                function(moment)
            except Exception as error:
                error.add_note(
                    f"raised by {moment.event}={called(function)}, which was given to train; all "
                    f"{moment.step} steps of {moment.dir} are kept; {afterwards}"
                )
                self.fault = error
                raise

    def stop(self) -> None:
        """Ask for the end of the training."""
        self.stopping = True
