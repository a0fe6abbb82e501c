"""The run folder: numbered, never overwritten, with its options and its table of results.

Files that matter are written beside their place and moved there when they are whole and on the
disk, so that a crash leaves either the old file or the new one.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..runs import new_run_dir as new_run_dir


@contextmanager
def replacing(path: Path, *, previous: Path | None = None) -> Iterator[Path]:
    """Give the path of a temporary file, which takes the place of `path` when all went well.

    Args:
        path: the file to be written; its folder is made.
        previous: where the file that has been at `path` is kept. None: it is not.

    Raises:
        ValueError: if it cannot be written; then `path` and `previous` are what they were.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".part", f".{path.name}.", path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp gives the owner only
        if previous is not None and path.exists():
            _keep(path, previous)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise write_fault(path, error) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove the temporary files of writers that were killed."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def write_fault(path: Path, error: OSError) -> ValueError:
    """Return the error that says what could not be written, why, and what mends it."""
    mend = {
        errno.ENOSPC: "free space on that disk, or choose another place",
        errno.EDQUOT: "free space in your quota, or choose another place",
        errno.EFBIG: "files may not grow that large here (see `ulimit -f`): raise the limit",
        errno.EROFS: "that disk is read-only: choose another place",
    }.get(error.errno or 0, "make sure that the folder can be written, or choose another place")
    where = path if path.is_dir() else path.parent
    reason = error.strerror or error
    return ValueError(f"{path}: cannot be written ({reason}); folder {where}: {mend}")


def _keep(path: Path, previous: Path) -> None:
    """Let `previous` be the file at `path`, which stays there too, if the disk knows links."""
    link = previous.with_name(f".{previous.name}.part")
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
    except OSError:
        path.replace(previous)
    else:
        link.replace(previous)


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file by way of `replacing`: it is never half there.

    It is UTF-8 whatever the text holds: half a surrogate pair, as in the name of a file that is no
    UTF-8, is written as an escape.
    """
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


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
