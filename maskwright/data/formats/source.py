"""What every format gives: where a split lies, and what reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

from ..records import Dataset, Fault


@dataclass(frozen=True)
class ReadOptions:
    """What a reader may be told.

    Attributes:
        difficult: take objects that Pascal VOC marks `difficult` as objects like others.
        crowd_as_objects: take what COCO JSON marks iscrowd=1 as objects like others.
        ignore: numbers and names of classes of label maps that are ignored, beside 255.
    """

    difficult: bool = False
    crowd_as_objects: bool = False
    ignore: tuple[int | str, ...] = ()


class Source(Protocol):
    """Where one split lies."""

    @property
    def annotations(self) -> Path:
        """What faults and errors name."""

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What lies beside it and is not read."""

    @property
    def others(self) -> tuple[Source, ...]:
        """The same split in other formats; see `rivals.settled`."""

    @property
    def beside(self) -> tuple[Path, ...]:
        """Other files that it reads."""

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""

    def with_faults(self, faults: tuple[Fault, ...]) -> Self:
        """Return the same source with these faults."""

    def with_others(self, others: tuple[Source, ...]) -> Self:
        """Return the same source with these beside it."""


@dataclass(frozen=True, kw_only=True)
class BaseSource:
    """The part that all sources share."""

    faults: tuple[Fault, ...] = ()
    others: tuple[Source, ...] = ()

    @property
    def beside(self) -> tuple[Path, ...]:
        """Other files that it reads."""
        return ()

    def with_faults(self, faults: tuple[Fault, ...]) -> Self:
        """Return the same source with these faults."""
        return replace(self, faults=faults)

    def with_others(self, others: tuple[Source, ...]) -> Self:
        """Return the same source with these beside it."""
        return replace(self, others=others)


@dataclass(frozen=True, kw_only=True)
class FieldSource(BaseSource):
    """A source whose objects have several fields, of which one tells the classes.

    Attributes:
        field: its name, behind the colon of the option `format`; "": it is looked for.
    """

    field: str = ""


def passed_over(path: Path, why: str) -> Fault:
    """Return the fault of a file or folder that is not read."""
    message = f"{path} is not read: {why}"
    return Fault(str(path), None, None, "file passed over", message, "left out")
