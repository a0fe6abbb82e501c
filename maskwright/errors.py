"""Errors that are told apart, and the name that was meant in place of an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OptionError(ValueError):
    """An option is out of range or contradicts another: wrong usage, whatever the files hold."""


class TrainingError(RuntimeError):
    """A training cannot go on; the message says why, and what to try."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name nearest to `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
