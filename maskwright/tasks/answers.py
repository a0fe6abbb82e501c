"""What a task answers with: settings of a prediction, what a report came to, another validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


# Opens a part of the data of a validation by its name, with options of `data.open_dataset`.
Opens = Callable[..., Dataset]
