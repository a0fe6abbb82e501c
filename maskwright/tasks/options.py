"""Options of `predict` and `val` that are not for every task: which of them are a task's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import OptionError
from .base import Task


def own_options(
    task: Task, model: str, given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return those options that are the task's.

    Args:
        task: asked for its `options`.
        model: its name.
        given: options by name.
        defaults: what they are if nobody says anything.

    Raises:
        OptionError: for another task's option with another value than its default.
    """
    for name, value in given.items():
        if name not in task.options and value is not None and value != defaults.get(name):
            from . import tasks_with

            others = " or ".join(other.does for other in tasks_with(name)) or "do something else"
            raise OptionError(
                f"{name} is for models that {others}; {model} is there to {task.does}: leave it out"
            )
    return {name: given[name] for name in task.options if name in given}
