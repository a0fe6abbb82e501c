"""Run folders: numbered, never overwritten; and what the option `save` means in every command."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from .errors import OptionError
from .files import reason
from .paths import takes_paths


@takes_paths
def new_run_dir(project: str | Path, task: str, name: str | None = None) -> Path:
    """Make a new folder `project/task/name`, with 2, 3, ... behind the name if it is taken.

    Args:
        project: folder of all runs.
        task: "train", "val" or "predict".
        name: name of the run; None: as the task.

    Raises:
        ValueError: if the folder cannot be made.
    """
    parent = Path(project) / task
    name = name or task
    _check_name(name)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = parent / (name if number == 1 else f"{name}{number}")
            try:
                path.mkdir()  # fails if another run took the name meanwhile
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise ValueError(
            f"cannot make a run folder in {parent} ({reason(error, parent)}); give another place "
            "with project="
        ) from None


@takes_paths
def check_save(
    save: bool | str | Path | None, project: str | Path = "runs", name: str | None = None
) -> bool | Path:
    """Return what the option `save` means: True: a new run folder, False: nothing, or the folder.

    Every command and its Python function take it in this one sense.

    Raises:
        OptionError: if it is neither, or `project` and `name` say otherwise.
        ValueError: if nothing can be written there, which is better known before the work.
    """
    word = save.strip().lower() if isinstance(save, str) else ""
    save = {"true": True, "false": False, "none": None}.get(word, save)
    if save is None or save is False:
        if name is not None:
            raise OptionError(
                f"name={name} names the run folder, and nothing is saved: give save=true"
            )
        return False
    if save is True:
        _check_name("run" if name is None else name)
        _check_writable(Path(project), "project")
        return True
    if not isinstance(save, str | os.PathLike) or not str(save):
        raise OptionError(f"save is true, false or the path of a folder, got {save!r}")
    if name is not None or str(project) != "runs":
        raise OptionError(
            f"save={save} is the folder itself, project and name make one: leave out either"
        )
    path = Path(save)
    if difflib.get_close_matches(word, ("true", "false"), 1, 0.75) and not path.exists():
        raise OptionError(f"save={save}: did you mean true or false? Of a folder write ./{save}")
    if path.exists() and not path.is_dir():
        raise OptionError(f"save={save} is a file: give the path of a folder")
    _check_writable(path, "save")
    return path


@takes_paths
def save_dir(
    save: bool | str | Path | None, project: str | Path, task: str, name: str | None = None
) -> Path | None:
    """Make the folder that `save` asks for and return it; None: nothing is to be written.

    Raises:
        OptionError: as `check_save`.
        ValueError: if it cannot be made.
    """
    where = check_save(save, project, name)
    if isinstance(where, bool):
        return new_run_dir(project, task, name) if where else None
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make the folder {where} ({reason(error, where)}); give another one with save="
        ) from None
    return where


def _check_writable(folder: Path, option: str) -> None:
    """Refuse a folder in which nothing can be made, neither in it nor in those right below."""
    place = folder.absolute()
    try:
        while not place.exists() and place.parent != place:
            place = place.parent
        below = list(place.iterdir()) if place == folder.absolute() and place.is_dir() else []
        is_folder, below = place.is_dir(), [one for one in below if one.is_dir()]
    except OSError:  # not even looked at: making it tells why
        return
    places = [place, *below]
    if is_folder and not any(os.access(one, os.W_OK | os.X_OK) for one in places):
        raise ValueError(
            f"{option}={folder}: nothing can be written in {place} (no permission, or a read-only "
            f"disk): give another place with {option}="
        )


def _check_name(name: str) -> None:
    if not name or Path(name).name != name or name in (".", "..") or "\0" in name:
        raise OptionError(f"name={name!r}: expected the name of a folder, without slashes")
