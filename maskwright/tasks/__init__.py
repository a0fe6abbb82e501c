"""What differs between the tasks, and nothing else: one folder a task.

The table below is all that is read before a task is needed: words to folders.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Task
    from .recipe import TrainRecipe

# What a model calls its task, and the folder of it.
FOLDERS = {
    "detect": "detection",
    "segment": "detection",
    "keypoints": "detection",
    "segment+keypoints": "detection",
    "classify": "classification",
    "localize": "localization",
    "localize+keypoints": "localization",
    "semantic": "semantic",
}
# The task of a training whose model is not known (yet).
USUAL = "detection"


@cache
def get_task(word: str) -> Task:
    """Return the task that a model names in `Model.task`."""
    task: Task = import_module(f".{FOLDERS[word]}.task", __name__).TASK
    return task


def task_of(model: str) -> Task:
    """Return the task of a model by its registered name; the usual one for an unknown name.

    Whoever looks the name up next says what is wrong with it.
    """
    from ..models.registry import find_entry

    entry = find_entry(model)
    return get_task(next(iter(FOLDERS)) if entry is None else entry.task)


@cache
def recipes() -> dict[str, type[TrainRecipe]]:
    """Return the options of the trainings of each task by its folder; imports no torch.

    The usual task comes first, the others as in the table above.
    """
    folders = sorted(dict.fromkeys(FOLDERS.values()), key=lambda folder: folder != USUAL)
    return {folder: import_module(f".{folder}.recipe", __name__).RECIPE for folder in folders}


def tasks_with(option: str) -> list[Task]:
    """Return the tasks that have an option of `predict` and `val`."""
    words = {folder: word for word, folder in FOLDERS.items()}
    return [task for task in map(get_task, words.values()) if option in task.options]
