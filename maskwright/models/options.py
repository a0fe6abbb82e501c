"""Checks that the options of models share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import OptionError


def check_dropout(share: float, name: str = "dropout") -> None:
    """Raise OptionError for a share that dropout, the option `name`, cannot have."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise OptionError(f"{name} must be a share from 0 up to 1, without 1, got {share!r}")


def check_ranges(options: object, ranges: Mapping[str, tuple[int, int]]) -> None:
    """Check whole numbers among options.

    Args:
        options: the options.
        ranges: least and largest value by name.

    Raises:
        OptionError: naming the first that is none, or out of its range.
    """
    for name, (least, most) in ranges.items():
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise OptionError(
                f"{name} must be a whole number from {least} to {most}, got {value!r}"
            )


def check_within(name: str, value: Any, least: float, most: float) -> None:
    """Raise OptionError, naming the option, for what is no number from `least` to `most`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        raise OptionError(f"{name} must be a number from {least:g} to {most:g}, got {value!r}")


def check_pixels(options: object) -> None:
    """Raise OptionError for what are no statistics of red, green and blue samples."""
    for name, least in (("pixel_mean", -math.inf), ("pixel_std", 0.0)):
        values = getattr(options, name)
        if values is None:
            continue
        good = isinstance(values, list | tuple) and len(values) == 3
        if not good or not all(isinstance(v, int | float) and least < v < math.inf for v in values):
            raise OptionError(
                f"{name} is red,green,blue, 0 to 255 (a deviation is above 0), got {values!r}"
            )
        object.__setattr__(options, name, tuple(float(value) for value in values))


def check_auxiliary(weight: float) -> None:
    """Raise OptionError for what cannot be the weight of auxiliary heads in the loss."""
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not 0 <= weight < math.inf:
        raise OptionError(f"auxiliary must be a weight from 0 up, got {weight!r}")
