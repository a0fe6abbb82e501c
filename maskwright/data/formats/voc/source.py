"""The layouts of Pascal VOC, as rows of the table of formats ask for them, and their reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...records import Dataset
from ..source import BaseSource, ReadOptions
from .layout import VocFinder, VocPart
from .read import read_voc


@dataclass(frozen=True)
class VocSource(BaseSource):
    """Where one split lies: Pascal VOC.

    Attributes:
        parts: the lists of its images.
    """

    parts: tuple[VocPart, ...]

    @property
    def annotations(self) -> Path:
        """What faults and errors name: the first list, or its folder of XML files."""
        return self.parts[0].source

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`. Pascal VOC has no crowds."""
        return read_voc(self.parts, split=split, names=names, difficult=options.difficult)


def listed(finder: VocFinder) -> dict[str, VocSource]:
    """Return the splits of folders with lists of images."""
    return _splits(finder, lambda part: part.listing is not None)


def divided(finder: VocFinder) -> dict[str, VocSource]:
    """Return the splits that folders of images divide."""
    return _splits(finder, lambda part: part.listing is None and bool(part.divided))


def undivided(finder: VocFinder) -> dict[str, VocSource]:
    """Return whatever XML files there are."""
    return _splits(finder, lambda part: True)


def _splits(finder: VocFinder, wanted: Callable[[VocPart], bool]) -> dict[str, VocSource]:
    parts = finder.parts
    if not any(wanted(part) for own in parts.values() for part in own):
        return {}
    return {split: VocSource(tuple(own)) for split, own in parts.items()}
