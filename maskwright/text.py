"""Text that others wrote, such as names of files and classes, on its way out: to people and files.

The name of a file may be any bytes (in Python half surrogate pairs stand for those that are no
UTF-8), may hold control characters that steer a terminal, and characters that the console's
encoding lacks. Everything that shows or writes text goes through here, so that a name never ends a
program.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Shown as they are though Python calls them unprintable: spaces of other widths, and the joiners
# that Persian, Hindi and emoji are written with.
_HARMLESS = {*"\xa0\u2002\u2003\u2009\u202f\u3000", "\u200c", "\u200d"}
_HALF_PAIRS = re.compile("[\ud800-\udfff]")


def printable(text: str, keep: str = "\n\t") -> str:
    r"""Return text that any terminal or page shows as it is, what would steer it escaped.

    Escape sequences, characters that turn the direction of writing and halves of surrogate pairs
    become "\x1b", "\u202e", "\udcff".

    Args:
        text: anything.
        keep: control characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in keep or char in _HARMLESS
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def one_line(text: str) -> str:
    """Return `printable` text on one line: line breaks and tabs are escaped as well."""
    return printable(text, keep="")


def encodable(text: str, encoding: str | None) -> str:
    r"""Return text that an encoding can hold, with other characters as "\u65e5"."""
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
        return text
    except LookupError:  # a stream may claim any encoding
        return text.encode("ascii", "backslashreplace").decode("ascii")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)


def to_json(value: Any, **options: Any) -> str:
    r"""Return JSON text that is always valid UTF-8: half a surrogate pair is written "\udcff".

    Readers that take such an escape, as Python's, give the name of the file back as it was.

    Args:
        value: plain data.
        **options: of `json.dumps`.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    # Outside of strings JSON has ASCII alone, so these stand in strings, whose escape it is.
    return _HALF_PAIRS.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
