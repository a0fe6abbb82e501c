"""The one kind of error that is told apart: an option that cannot have the value it was given."""

from __future__ import annotations


class OptionError(ValueError):
    """An option is out of range or contradicts another: wrong usage, whatever the files hold."""
