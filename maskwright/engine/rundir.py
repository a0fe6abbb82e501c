"""The run folder: numbered, never overwritten, with its options and its table of results."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import OptionError


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
    if Path(name).name != name or name in (".", ".."):
        raise OptionError(f"name={name!r}: expected the name of a folder, without slashes")
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
            f"cannot make a run folder in {parent} ({error.strerror or error}); give another "
            "place with project="
        ) from None


def write_args(path: str | Path, options: Mapping[str, Any]) -> None:
    """Write options as YAML, in their order."""
    import yaml

    text = yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file so that it is never half there: the old one stays until the new is whole.

    An interruption or a full disk leaves no trace beside the file.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class ResultsTable:
    """The rows of `results.csv`, one per epoch; the file is replaced whole, so never torn.

    Attributes:
        path: the file.
        rows: all rows so far, text by column name.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, str]] = []
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))

    def append(self, row: Mapping[str, float | int | None]) -> None:
        """Add a row and write the file; None and missing columns become empty cells."""
        self.rows.append({key: "" if value is None else repr(value) for key, value in row.items()})
        self._write()

    def truncate(self, count: int) -> None:
        """Keep the first `count` rows: what came after the checkpoint happens again."""
        if count < len(self.rows):
            self.rows = self.rows[:count]
            self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.path, text.getvalue())
