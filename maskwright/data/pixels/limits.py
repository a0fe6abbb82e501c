"""How large an image may be: a small file can hold pixels that fill the memory.

The limit is Pillow's, or the environment variable MASKWRIGHT_MAX_PIXELS: it holds wherever images
are read, in worker processes as well, and Pillow's own settings stay what they are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from maskwright.errors import OptionError

VARIABLE = "MASKWRIGHT_MAX_PIXELS"
WINDOWED = (".tif", ".tiff", ".btf", ".svs", ".ndpi", ".scn")  # what may be read by window
BY_WINDOW = 2**32  # pixels of such an image

_lock = threading.Lock()
_inside = 0
_before: int | None = None


def max_pixels() -> int:
    """Return the number of pixels above which an image is refused.

    Raises:
        OptionError: if the environment variable is no number of pixels.
    """
    from PIL import Image

    text = os.environ.get(VARIABLE, "").strip()
    if text:
        try:
            if text.lower() == "none":
                return 2**63
            number = int(float(text))
        except (ValueError, OverflowError):
            number = 0
        if number < 1:
            raise OptionError(f"{VARIABLE}={text}: expected a number of pixels, such as 200000000")
        return number
    return 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else 2**63


def most_pixels(name: str) -> int:
    """Return how many pixels an annotated image may have: more where it may be read by window.

    Args:
        name: of the file.

    Raises:
        OptionError: as `max_pixels`.
    """
    windowed = name.lower().endswith(WINDOWED)
    return max(max_pixels(), BY_WINDOW) if windowed else max_pixels()


def mend(pixels: int | None) -> str:
    """Return what to do about an image of so many pixels, which are too many."""
    value = pixels or "none"
    return (
        "cut the image into tiles, or, if you trust the file, set the environment variable "
        f"{VARIABLE}={value}, as in `{VARIABLE}={value} maskwright ...`"
    )


class TooLargeError(ValueError):
    """An image has more pixels than are allowed; the message says what to do."""


def check_pixels(height: int, width: int, name: str) -> None:
    """Raise TooLargeError for an image with more pixels than are allowed."""
    most = max_pixels()
    if height * width > most:
        raise TooLargeError(
            f"{name} is refused: {width} x {height} pixels are more than the limit of {most}, "
            f"which keeps small files from filling the memory; {mend(height * width)}"
        )


def has_own_limit() -> bool:
    """Return whether the environment variable sets the limit, in place of Pillow."""
    return bool(os.environ.get(VARIABLE, "").strip())


@contextmanager
def own_limit() -> Iterator[None]:
    """Read images under the limit of the environment variable instead of Pillow's, where it is set.

    Pillow knows its limit as a variable of its module. It is put back when the last thread leaves.
    """
    global _inside, _before
    from PIL import Image

    if not has_own_limit():
        yield
        return
    limit = max_pixels()
    with _lock:
        if not _inside:
            _before = Image.MAX_IMAGE_PIXELS
        _inside += 1
        # Pillow warns from the limit on and refuses from twice as many on.
        Image.MAX_IMAGE_PIXELS = limit
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                Image.MAX_IMAGE_PIXELS = _before
