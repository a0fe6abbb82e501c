"""What is compared: names that are trained, and files and run folders that are trained already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..data.discover import find_splits, open_dataset
from ..errors import OptionError
from ..hub.names import SHIPPED_MODELS, architecture
from ..paths import home_path
from ..prediction.load import load
from ..tasks import recipes, task_of
from ..tasks.base import Task
from ..tasks.recipe import OF_ONE, TrainRecipe, check_names


@dataclass(frozen=True)
class Entry:
    """One of the models.

    Attributes:
        name: as the user wrote it.
        trains: whether it is a registered name, which is trained.
        task: what it is for.
    """

    name: str
    trains: bool
    task: Task


def read_entries(models: Sequence[str | Path] | str | Path, device: str) -> list[Entry]:
    """Return the models of a comparison.

    Args:
        models: names, files and run folders, or one text with commas between them.
        device: where files are loaded.

    Raises:
        ValueError: if one is neither a known name (the message names the nearest) nor a model.
        OptionError: if one is given twice, or they are of several tasks.
    """
    words = models.split(",") if isinstance(models, str) else models
    words = [words] if isinstance(words, Path) else words
    names = [as_path(home_path(str(word).strip())) for word in words if str(word).strip()]
    if not names:
        raise OptionError("models is empty: give names, or run folders, with commas between them")
    if double := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise OptionError(f"models names {double[0]} twice: leave one out")
    entries = [_entry(name, device) for name in names]
    first = entries[0]
    if other := [entry for entry in entries if entry.task is not first.task]:
        raise OptionError(
            f"models of one task can be compared: {first.name} is there to {first.task.does}, "
            f"{other[0].name} to {other[0].task.does}"
        )
    return entries


def as_path(text: str) -> str:
    """Return a path that there is in one form, without a slash at its end; other text as it is."""
    path = Path(text)
    return str(path) if path.exists() else text


def _entry(name: str, device: str) -> Entry:
    path = Path(name)
    if name in SHIPPED_MODELS or path.exists() or path.suffix or len(path.parts) > 1:
        return Entry(name, False, load(name, device=device).task)
    architecture(name)
    return Entry(name, True, task_of(name))


def check_options(entries: Sequence[Entry], data: str | Path, options: Mapping[str, Any]) -> None:
    """Make sure that options are some of a training, before the first one begins.

    Raises:
        TypeError: for an unknown option; the message names the nearest.
        OptionError: for a wrong one, and for one of a single training or model.
    """
    kind = entries[0].task.recipe
    trained = [architecture(entry.name) for entry in entries if entry.trains]
    of_all = {field.name for one in recipes().values() for field in fields(one)}
    for name in options:
        having = [one.name for one in trained if name not in of_all and name in one.arguments()]
        if having or name in OF_ONE:
            why = f"it is one of {having[0]}" if having else "it is decided for each training"
            raise OptionError(
                f"compare has no option {name!r}: {why}; train such a model by itself and give its "
                "run folder as one of the models"
            )
    check_names(options, kind, recipes().values())
    for entry in entries:
        if entry.trains:
            kind(data=data, model=entry.name, **options)


def described(task: Task, recipe: TrainRecipe, model: str | None) -> dict[str, str]:
    """Return what the data holds by split, in words, so that changed data is noticed.

    Args:
        task: of the models.
        recipe: of the trainings.
        model: one that is trained; None: there is none.
    """
    own = task.finding(recipe.model if model is None else model)
    finding = {**own, "format": recipe.format}
    reading = {**finding, **task.reading(recipe)}
    found = {}
    for split in find_splits(recipe.data, **finding):
        data = open_dataset(recipe.data, split, **reading)
        found[split] = f"{len(data)} images, {task.counts(data)}"
    return found
