"""A large JSON file, element by element: neither its text nor its values are ever held as a whole.

The elements are decoded by the standard library; only the outermost object and the lists directly
in it are walked through here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TextIO

from ..sniff import MEND, by_bytes

CHUNK = 1 << 22  # characters read at once
# A decoder that reached the end of what was read complains at most so far before it: about
# "-Infinit" or "\ud83d\udc0".
LONGEST_TOKEN = 16

START = object()  # stands before the elements of a list, so that an empty one is seen as well


class NoObject(ValueError):  # noqa: N818 - an outcome of reading
    """The file holds a list, a number or the like; the message says what."""


class OtherFileError(ValueError):
    """The file is of another kind, whatever its name says."""


def json_members(path: Path, lists: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield the members of the object in a JSON file.

    Args:
        path: the file, in any UTF, with or without its mark.
        lists: keys whose values, if they are lists, come as (key, START) and then as one
            (key, element) after the other. All others come as (key, value).

    Raises:
        NoObject: if there is no object in it.
        ValueError: if the file cannot be read, is no JSON, or is cut off.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder, a pipe or a device, not a JSON file")
    try:
        with path.open("rb") as head:
            first = head.read(512)
        kind = by_bytes(first)
        if kind is not None and kind != "empty file":
            todo = f": {MEND[kind]}" if kind in MEND else ""
            raise OtherFileError(f"{path} is no JSON but, by its first bytes, a {kind}{todo}")
        encoding = json.detect_encoding(first[:8])
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as file:
            yield from _Walk(file).members(lists)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to be read") from None
    except (NoObject, OtherFileError):
        raise
    except ValueError as error:
        raise ValueError(
            f"{path} is no valid JSON ({error}): it may be cut off; export or copy it again"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None


class _Walk:
    """A place in a JSON text of which a part has been read."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.text = ""
        self.at = 0  # in the text
        self.before = 0  # characters of the file before the text
        self.scan = json.JSONDecoder().raw_decode

    def members(self, lists: Collection[str]) -> Iterator[tuple[str, Any]]:
        if self._next() != "{":
            value = self._value()
            self._end()
            raise NoObject(type(value).__name__)
        self.at += 1
        if self._next() == "}":
            self.at += 1
        else:
            while True:
                if self._next() != '"':
                    raise self._fault("Expecting property name enclosed in double quotes")
                key = self._value()
                self._take(":")
                if key in lists and self._next() == "[":
                    yield key, START
                    for element in self._elements():
                        yield key, element
                else:
                    yield key, self._value()
                if self._take(",", "}") == "}":
                    break
        self._end()

    def _elements(self) -> Iterator[Any]:
        self.at += 1
        if self._next() == "]":
            self.at += 1
            return
        while True:
            yield self._value()
            if self._take(",", "]") == "]":
                return

    def _value(self) -> Any:
        """Return the value that begins here, and go behind it."""
        self._next()
        while True:
            try:
                value, end = self.scan(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.pos > len(self.text) - LONGEST_TOKEN or error.msg.startswith(
                    "Unterminated string"
                )
                place = self.before + error.pos
                if cut and self._read():
                    continue
                raise _fault(error.msg, place) from None
            # Of "1.5e-7", "1" and "1.5" are numbers as well.
            if end < len(self.text) - LONGEST_TOKEN or not self._read():
                self.at = end
                return value

    def _next(self) -> str:
        """Go to what follows the blanks and return it, "" at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\n\r":
                    return self.text[self.at]
                self.at += 1
            if not self._read():
                return ""

    def _take(self, *marks: str) -> str:
        mark = self._next()
        if mark not in marks:
            raise self._fault(f"Expecting {' or '.join(map(repr, marks))}")
        self.at += 1
        return mark

    def _end(self) -> None:
        if self._next():
            raise self._fault("Extra data")

    def _read(self) -> bool:
        """Read on, at least as much as is left, so that a long value is tried only a few times."""
        left = len(self.text) - self.at
        more = self.file.read(max(CHUNK, left))
        if more:
            self.before += self.at
            self.text, self.at = self.text[self.at :] + more, 0
        return bool(more)

    def _fault(self, message: str) -> ValueError:
        return _fault(message, self.before + self.at)


def _fault(message: str, place: int) -> ValueError:
    return ValueError(f"{message}: character {place}")
