"""The option `window`: which range of sample values becomes the 256 steps of the network's input.

Images of 8 bits are what they are. Deeper ones (16 and 32 bits, signed, floating point) are
stretched linearly from the window (low, high) to 0 to 255; `data.depth` does it. Nothing heavy is
imported here, because the command line reads its options first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from .errors import OptionError, nearest

Window = tuple[float, float]
# Rules that take the window from the pixels: from the smallest to the largest value, or from the
# value that 0.1 % of the samples do not reach to the one that 0.1 % exceed.
RULES = ("minmax", "percentile")
PERCENTILES = (0.1, 99.9)


def parse_window(value: Any) -> Window | str | None:
    """Read the option `window`.

    Args:
        value: None or "auto"; "minmax", "percentile"; or two numbers, as text or as they are.

    Returns:
        None for auto, the name of a rule, or (low, high) with low < high.

    Raises:
        OptionError: if it is anything else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() == "auto"):
        return None
    if isinstance(value, str):
        word = value.strip().lower()
        if word in RULES:
            return word
        parts: list[Any] = [part.strip() for part in value.strip(" ()[]").split(",")]
    elif isinstance(value, Sequence) or hasattr(value, "tolist"):
        parts = list(value)
    else:
        parts = []
    try:
        numbers = [float(part) for part in parts if isinstance(part, str | Real)]
    except ValueError:
        numbers = []
    good = len(numbers) == len(parts) == 2 and all(map(math.isfinite, numbers))
    if good and numbers[0] < numbers[1]:
        return numbers[0], numbers[1]
    parts = [f"{part:g}" if isinstance(part, float) else part for part in parts]
    shown = ",".join(map(str, parts)) if parts and not isinstance(value, str) else str(value)
    reason = ": the first number must be below the second" if good else ""
    guess = nearest(shown, ("auto", *RULES)) if len(parts) == 1 else ""
    raise OptionError(
        f"window={shown}{reason}; expected auto, minmax, percentile, or the smallest and the "
        f"largest sample value, as in window=0,4095{guess}"
    )


def describe_window(window: Window | str | None) -> str:
    """Return a window as it is written: "0,4095", "minmax" or "auto"."""
    if window is None:
        return "auto"
    return window if isinstance(window, str) else ",".join(f"{value:.6g}" for value in window)
