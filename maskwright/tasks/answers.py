"""What a task answers with: settings of a prediction, what a report came to, another validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from ..data.records import Dataset
from ..structures import Images, Resize, Tiling

# Adds to a batch what a model takes beside the pixels: (batch, [(pixels (H, W, 3), file)]) -> batch
Attach = Callable[[Images, Sequence[tuple[np.ndarray, Path | None]]], Images]


@dataclass(frozen=True)
class Settings:
    """The options of a prediction or a validation, checked; each task adds its own.

    Attributes:
        tiling: look at larger images in tiles; None: at all as a whole.
    """

    tiling: Tiling | None = field(default=None, kw_only=True)

    @property
    def part(self) -> int | None:
        """Most pixels a side that go through the network at once; None: the whole image."""
        return None

    def rules(self, resize: Resize) -> list[Resize]:
        """Return the rules by which an image is looked at: one for each size of it."""
        return [resize]


@dataclass(frozen=True)
class Written:
    """What a report came to.

    Attributes:
        lines: what to tell the user.
        command: the prediction that finds what the report shows, to be pasted; None: there is none.
        diagnosis: what the report is made of.
    """

    lines: Sequence[str]
    command: str | None = None
    diagnosis: Any = None


@dataclass(frozen=True)
class Study:
    """A validation of another kind than the usual one, done.

    Attributes:
        metrics: numbers by key.
        write: writes page and figures into a folder, of its title, the options of the run and the
            device; returns what to say of them.
    """

    metrics: Mapping[str, float]
    write: Callable[[Path, str, Mapping[str, Any], str], list[str]]


class Tracker(Protocol):
    """Follows what was found from frame to frame of one video.

    Attributes:
        METHODS: ways of doing it, the usual one first.
        files: first line of each of its files, by the ending of their names.
        columns: what `numbers` counts of each name.
    """

    METHODS: ClassVar[Sequence[str]]
    files: Mapping[str, str]
    columns: Sequence[str]

    def __init__(
        self,
        method: str,
        rate: float,
        settings: Any,
        *,
        line: tuple[float, ...] | None = None,
    ) -> None:
        """Begin.

        Args:
            method: one of `METHODS`.
            rate: frames a second that are looked at.
            settings: of the prediction as the user wants it.
            line: x1, y1, x2, y2 in pixels: who crosses it is counted; None: nobody.
        """

    @classmethod
    def weaker(cls, settings: Any, model: Any) -> Any:
        """Return settings by which a model finds what only carries on what was there, too."""

    def follow(self, result: Any) -> Any:
        """Return the result of the next frame with who is who in it."""

    def lines(self, result: Any) -> dict[str, str]:
        """Return what a result adds to each of `files`."""

    def draw(self, picture: Any) -> Any:
        """Return the picture of the last result with what is counted so far."""

    def numbers(self) -> dict[str, dict[str, int]]:
        """Return what was counted by name, such as tracks."""


# Opens a part of the data of a validation by its name, with options of `data.open_dataset`.
Opens = Callable[..., Dataset]
