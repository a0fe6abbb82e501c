"""Errors that are told apart: a wrong option, and a training that cannot go on."""

from __future__ import annotations


class OptionError(ValueError):
    """An option is out of range or contradicts another: wrong usage, whatever the files hold."""


class TrainingError(RuntimeError):
    """A training cannot go on; the message says why, and what to try."""
