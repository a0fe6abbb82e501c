"""The options `page` and `channels`: which image of a file, and which of its channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import OptionError

MOST_CHANNELS = 16


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


def parse_page(value: Any) -> int | str | None:
    """Read the option `page`: the number of an image in its file, from 0 on, or "all".

    Returns:
        The number, "all", or None for the first.

    Raises:
        OptionError: if it is anything else.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word == "all":
            return word
        if word.isdecimal():
            return int(word)
    raise OptionError(
        f"page={value}; expected the number of an image in its file, from 0 on, or all"
    )


def parse_one_page(value: Any) -> int | None:
    """Read the option `page` where it is one image of each file; see `parse_page`."""
    page = parse_page(value)
    if isinstance(page, str):
        raise OptionError(
            "page=all makes an image of each page in `predict`; annotations belong to one page of "
            "each file: give its number"
        )
    return page


def describe_channels(channels: Sequence[int] | None) -> str:
    """Return what a model was trained with, in words: "red, green and blue" or "channels=0,2"."""
    if channels is None:
        return "3 channels (red, green and blue)"
    count = "1 channel" if len(channels) == 1 else f"{len(channels)} channels"
    return f"{count} (channels={','.join(map(str, channels))})"
