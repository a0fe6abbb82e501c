"""Tables as text: what separates their columns, and what bounds their size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..folders import MAX_LIST_BYTES

OF_INSTANCES = ["image", "number", "class"]  # the table beside label images of objects
HEADER_BYTES = 2**16


def header_line(file: Path) -> str:
    """Return the first line of a table.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return stream.readline(HEADER_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a table in UTF-8: {error}") from None


def delimiter(header: str) -> str:
    """Return what separates the columns of a header."""
    return next((mark for mark in "\t,;" if mark in header), ",")


def table_text(file: Path) -> str:
    """Return a table as text.

    Raises:
        ValueError: if it cannot be read, or is too large to be one.
    """
    try:
        if file.stat().st_size > MAX_LIST_BYTES * 16:
            raise ValueError(f"{file} has more than {MAX_LIST_BYTES * 16} bytes: divide it")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error}): save it as UTF-8") from None
    return text


def sorted_labels(labels: Iterable[str]) -> list[str]:
    """Return labels in their order: whole numbers by value, names as strings."""
    found = list(labels)
    if all(label.isascii() and label.isdecimal() for label in found):
        return sorted(found, key=int)
    return sorted(found)
