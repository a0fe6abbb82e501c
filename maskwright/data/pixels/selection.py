"""Which page of a file and which channels of an image are asked for, and whether they are there."""

from __future__ import annotations

from collections.abc import Sequence

from maskwright.channels import AllChannels


class RefusedError(ValueError):
    """A file that is whole, but no picture for us; the message says what to do."""


def chosen_page(page: int | None, pages: int, name: str) -> int:
    """Return the number of the image that is asked for among those of a file.

    Raises:
        ValueError: if there is none.
    """
    if page is not None and not 0 <= page < pages:
        held = "one page" if pages == 1 else f"{pages} pages"
        raise RefusedError(f"{name} has {held}, numbered from 0: there is no page={page}")
    return page or 0


def chosen_channels(
    channels: Sequence[int] | None, count: int, usual: Sequence[int], name: str
) -> tuple[int, ...]:
    """Return the channels that are asked for, or the usual ones.

    Raises:
        ValueError: if there are fewer, or more than `AllChannels`.
    """
    if channels is None:
        return tuple(usual)
    held = "one channel" if count == 1 else f"{count} channels"
    if isinstance(channels, AllChannels) and len(channels) not in (count, len(usual)):
        few = count < len(channels)
        advice = ",".join(str(min(number, count - 1)) for number in range(len(channels)))
        raise RefusedError(
            f"{name} has {held}, and the images of the training data have {len(channels)}, of "
            "which all are taken; choose as many by channels=, "
            + ("of which one may stand twice, " if few else "")
            + f"as in channels={advice}"
        )
    if max(channels) >= count:
        asked = ",".join(map(str, channels))
        raise RefusedError(f"{name} has {held}, numbered from 0, but channels={asked} is asked for")
    return tuple(channels)
