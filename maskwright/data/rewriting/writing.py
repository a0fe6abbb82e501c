"""What all commands that write data sets share: reading all splits, writing them, what is said."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from maskwright.errors import OptionError, nearest
from maskwright.files import writing

from ..discover import find_splits, open_dataset
from ..formats.rows import Layout
from ..formats.table import TABLE
from ..formats.writing import lost_in, write_dataset
from ..records import Dataset, Kind, Record
from .outlines import Traced, as_polygons
from .tables import common_names, with_names

UNFINISHED = ".unfinished"  # hidden, and so read by nobody
Progress = Callable[[str, int, int], None]  # what is done, images done, images in all


@dataclass
class RewriteReport:
    """What was written as a data set.

    Attributes:
        out: the folder.
        format: what it was written as.
        written: what each split begins with: its JSON, list, folder or table.
        images, objects: how many, by split; the second without regions that count neither way.
        classes: images of each class, by split; empty for label maps that were not looked at.
        lost: what the format cannot hold, in words, and of how many objects, by split.
        faults: what reading left out, ignored or repaired: kind and action, how often, by split.
        notes: what else is to be known.
    """

    out: Path
    format: str
    written: dict[str, Path] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    lost: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def new_folder(out: str | Path) -> Path:
    """Return the folder to write into.

    Raises:
        OptionError: if it is there and not empty.
    """
    folder = Path(out)
    if folder.exists() and not (
        folder.is_dir() and all(one.name == UNFINISHED for one in folder.iterdir())
    ):
        raise OptionError(f"out={str(out)!r} is there already: choose a new or empty folder")
    return folder


def open_splits(
    data: str | Path | Mapping[str, Any], to: str | None, format: str | None
) -> tuple[dict[str, Dataset], str]:
    """Return all splits of a data set, with the same classes, and the format to write.

    Args:
        data: what is read.
        to: format to write; None: that of the data.
        format: what the data is to be read as; None: what is recognised.

    Raises:
        OptionError: if nothing writes the format.
        ValueError: if the data cannot be read.
    """
    kind: Kind | None = None if to is None else written_row(to).records  # type: ignore[assignment]
    splits = find_splits(data, records=kind, format=format)
    read = {split: open_dataset(data, split, records=kind, format=format) for split in splits}
    names = common_names(list(read.values()))
    read = {split: with_names(dataset, names) for split, dataset in read.items()}
    if to is None:
        first = next(iter(read.values()))
        to = first.format
        if to not in written() or written()[to].records != first.records:
            those = [one for one, row in written().items() if row.records == first.records]
            raise OptionError(
                f"data={str(data)!r} is of a format that is read and not written: say what is to "
                f"be written, to={' or '.join(those)}"
            )
    return read, to


def written() -> dict[str, Layout]:
    """Return the rows of the table whose format is written, by its name."""
    return {row.format: row for row in TABLE if row.write is not None}


def written_row(to: str) -> Layout:
    """Return the row of a format that is written.

    Raises:
        OptionError: if none is.
    """
    rows = written()
    if to not in rows:
        raise OptionError(f"to={to!r}: written are {', '.join(rows)}{nearest(to, rows)}")
    return rows[to]


def write_splits(
    splits: Mapping[str, Dataset],
    out: Path,
    to: str,
    progress: Progress | None = None,
    *,
    polygons: float | None = None,
) -> RewriteReport:
    """Write the splits of a data set into a folder: all of them, or nothing.

    Args:
        splits: by name, with the same classes.
        out: the folder.
        to: format to write.
        progress: see `Progress`.
        polygons: pixels by which polygons may stray from the masks that they stand for; None: masks
            stay masks.

    Raises:
        ValueError: see the writers.
    """
    report = RewriteReport(out, to)
    with _whole(out) as place:
        for split, dataset in splits.items():
            _write_split(report, split, dataset, place, progress, polygons)
    return report


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Give a folder whose content goes to `out` when all is written; of less nothing stays."""
    made, place = not out.exists(), out / UNFINISHED
    try:
        with writing(out):
            shutil.rmtree(place, ignore_errors=True)  # of a process that was killed
            place.mkdir(parents=True)
        yield place
        with writing(out):
            for one in sorted(place.iterdir()):
                one.rename(out / one.name)
            place.rmdir()
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        if made:
            with suppress(OSError):
                out.rmdir()
        raise


def _write_split(
    report: RewriteReport,
    split: str,
    dataset: Dataset,
    place: Path,
    progress: Progress | None,
    polygons: float | None,
) -> None:
    """Write a split into a folder, and take into the report what is to be told."""
    changed: dict[str, int] = {}
    if polygons is not None:
        tell = None if progress is None else partial(_tell, progress, split, len(dataset))
        dataset, traced = as_polygons(dataset, polygons, tell)
        changed = traced.lost(polygons)
        if traced.masks:
            report.notes.append(_outlined(split, traced, polygons))
    lost = lost_in(Watched.of(dataset, f"look at {split}", progress), report.format)
    report.lost[split] = changed | lost
    file = write_dataset(Watched.of(dataset, f"write {split}", progress), place, report.format)
    report.written[split] = report.out / file.relative_to(place)
    report.images[split] = len(dataset)
    report.objects[split] = int(dataset.objects_per_class().sum())
    counts = dataset.images_per_class().tolist()
    report.classes[split] = dict(zip(dataset.names, counts, strict=True)) if any(counts) else {}
    report.faults[split] = Counter((fault.kind, fault.action) for fault in dataset.faults)


def _tell(progress: Progress, split: str, total: int, done: int) -> None:
    progress(f"outline {split}", done, total)


def _outlined(split: str, traced: Traced, polygons: float) -> str:
    """Return what became of masks, in words."""
    same = traced.masks - traced.changed
    exact = f"{same} of them exactly" if traced.changed else "all of them exactly"
    return f"{split}: {traced.masks} masks are polygons now (polygons={polygons:g}), {exact}"


class Watched(Dataset):
    """A data set that tells how far it has been gone through, each time anew."""

    _what: str
    _progress: Progress | None
    _last: int
    _round: int

    @classmethod
    def of(cls, dataset: Dataset, what: str, progress: Progress | None) -> Self:
        """Return a data set that tells.

        Args:
            dataset: the data set.
            what: is done with it.
            progress: is told.
        """
        one = cls.__new__(cls)
        vars(one).update(vars(dataset), _what=what, _progress=progress, _last=-1, _round=1)
        return one

    def __getitem__(self, index: int) -> Record:
        record = super().__getitem__(index)
        if self._progress is not None and record.index != self._last:
            self._round += record.index < self._last
            self._last = record.index
            what = self._what if self._round == 1 else f"{self._what} ({self._round})"
            self._progress(what, record.index + 1, len(self))
        return record
