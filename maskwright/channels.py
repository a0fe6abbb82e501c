"""The options `page` and `channels`: which image of a file, and which of its channels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from .errors import OptionError

MOST_CHANNELS = 16
ALL_PAGES = (range(sys.maxsize),)


class AllChannels(tuple[int, ...]):
    """All channels of the files of a data set, 0 to C - 1: a file that has others is refused.

    Where they were chosen, a plain tuple stands: of files that have more, these are taken.
    """


def parse_channels(value: Any) -> tuple[int, ...] | None:
    """Read the option `channels`: numbers from 0 on, in the order in which the network gets them.

    One may stand several times, where a file has fewer than the network takes.

    Args:
        value: None; "auto"; a number; or numbers, as a sequence or as text: 3,0,1.

    Returns:
        The numbers; None for auto.

    Raises:
        OptionError: if it is anything else, or more than `MOST_CHANNELS`.

    Examples:
        >>> parse_channels("3,0,1"), parse_channels(2), parse_channels("auto")
        ((3, 0, 1), (2,), None)
    """
    if value is None or (isinstance(value, str) and value.strip().lower() == "auto"):
        return None
    parts: list[Any] = [value]
    if isinstance(value, str):
        parts = [part.strip() for part in value.strip(" ()[]").split(",")]
    elif isinstance(value, Sequence):
        parts = list(value)
    try:
        found = tuple(int(part) for part in parts if not isinstance(part, float | bool))
    except (TypeError, ValueError):
        found = ()
    shown = ",".join(map(str, parts))
    if len(found) != len(parts) or not found or min(found) < 0:
        raise OptionError(
            f"channels={shown}; expected auto, or numbers of channels from 0 on, as in channels=0 "
            "or channels=3,0,1"
        )
    if len(found) > MOST_CHANNELS:
        raise OptionError(f"channels={shown}: at most {MOST_CHANNELS} channels")
    return found


def parse_page(value: Any) -> int | tuple[range, ...] | None:
    """Read the option `page`: which images of a file of several, by their numbers from 0 on.

    Args:
        value: None; a number; "all"; numbers and ranges, both ends included, as text: 0-4,7 or 12-
            (to the last); or numbers, as a sequence.

    Returns:
        The number; the ranges that are asked for, of all `ALL_PAGES`; or None for the first.

    Raises:
        OptionError: if it is anything else.

    Examples:
        >>> parse_page(3), parse_page("0-4,7")
        (3, (range(0, 5), range(7, 8)))
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    parts: list[Any] = [value]
    if isinstance(value, str):
        word = value.strip(" ()[]").lower()
        if word == "all":
            return ALL_PAGES
        if word.isdecimal():
            return int(word)
        parts = word.split(",")
    elif isinstance(value, Sequence):
        parts = list(value)
    ranges = tuple(_range(part) for part in parts)
    found = tuple(one for one in ranges if one is not None and len(one))
    if not found or len(found) < len(ranges):
        shown = value if isinstance(value, str) else ",".join(map(str, parts))
        raise OptionError(
            f"page={shown}; expected the number of an image in its file, from 0 on, several as in "
            "page=0-4 or page=1,3, or all"
        )
    return found


def _range(part: Any) -> range | None:
    """Return the pages of a part of the option `page`; None: it is none."""
    if isinstance(part, int) and not isinstance(part, bool):
        return range(part, part + 1) if part >= 0 else None
    if not isinstance(part, str):
        return None
    first, dash, last = (word.strip() for word in part.partition("-"))
    if not first.isdecimal() or not (last.isdecimal() or not last):
        return None
    if not dash:
        return range(int(first), int(first) + 1)
    return range(int(first), int(last) + 1 if last else ALL_PAGES[0].stop)


def parse_one_page(value: Any) -> int | None:
    """Read the option `page` where it is one image of each file; see `parse_page`."""
    page = parse_page(value)
    if isinstance(page, tuple):
        shown = value if isinstance(value, str) else ",".join(map(str, value))
        raise OptionError(
            f"page={shown}: `predict` makes an image of each of several pages; here it is one page "
            "of each file, to which the annotations belong: give its number"
        )
    return page


def describe_channels(channels: Sequence[int] | None) -> str:
    """Return what a model was trained with, in words: "red, green and blue" or "channels=0,2"."""
    if channels is None:
        return "3 channels (red, green and blue)"
    count = "1 channel" if len(channels) == 1 else f"{len(channels)} channels"
    return f"{count} (channels={','.join(map(str, channels))})"
