"""How a long work inside a model shows its progress, without knowing the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

Piece = TypeVar("Piece")


class Track(Protocol):
    """Watches over a long work; may raise to stop it."""

    def __call__(self, label: str, pieces: Sequence[Piece], /) -> Iterator[Piece]:
        """Yield the pieces one by one."""
        ...
