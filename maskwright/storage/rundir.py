"""The run folder: numbered, never overwritten, with its options and its table of results.

Files that matter are written beside their place and moved there when they are whole and on the
disk, so that a crash leaves either the old file or the new one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import remove_parts as remove_parts
from ..files import replacing as replacing
from ..files import write_fault as write_fault
from ..files import write_whole as write_whole
from ..runs import new_run_dir as new_run_dir


def write_args(
    path: Path, options: Mapping[str, Any], resolved: Mapping[str, Any] | None = None
) -> None:
    """Write options as YAML, in their order, and under `resolved` what was left to be chosen."""
    import yaml

    content = dict(options)
    if resolved is not None:
        content["resolved"] = dict(resolved)
    write_whole(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_args(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `write_args` wrote: options and resolved values.

    Raises:
        ValueError: if the file cannot be read.
    """
    import yaml

    try:
        options = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        return options, dict(options.pop("resolved"))
    except (OSError, yaml.YAMLError, UnicodeError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: the options of the run cannot be read ({reason})") from None


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
            if self.rows:
                self._write()
            else:
                self.path.unlink()

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.path, text.getvalue())
