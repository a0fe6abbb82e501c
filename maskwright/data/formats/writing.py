"""A data set in any format that is written, and what that format cannot hold."""

from __future__ import annotations

from pathlib import Path

from maskwright.errors import OptionError, nearest

from ..records import Dataset
from .lost import count_lost, count_reduced
from .table import TABLE

GROUPED = ("csv", "coco")  # formats that say which images belong together
TOGETHER = (
    "images: which belong together (a video, a patient) is not written: divide before, or by by="
)


def write_dataset(dataset: Dataset, folder: str | Path, format: str) -> Path:
    """Write a split in one of the formats that are read; see the writers.

    Args:
        dataset: the split.
        folder: where it goes; other splits may be there already.
        format: such as "coco", "voc", "yolo", "folders", "csv" or "maps".

    Returns:
        What the split begins with: its JSON, list, folder or table.

    Raises:
        OptionError: if nothing writes this format.
        ValueError: see the writers.
    """
    writers = {row.format: row.write for row in TABLE if row.write is not None}
    if format not in writers:
        raise OptionError(
            f"format={format!r}: written are {', '.join(writers)}{nearest(format, writers)}"
        )
    return writers[format](dataset, Path(folder))


def lost_in(dataset: Dataset, format: str) -> dict[str, int]:
    """Return what `write_dataset` cannot write of a split, in words, and of how many objects.

    What its own files have and no record has is part of it.
    """
    row = next((row for row in TABLE if row.write is not None and row.format == format), None)
    unread = {
        f"{what}: no record has it, so it is not written": n for what, n in dataset.unread.items()
    }
    if row is None:
        return unread
    if dataset.groups is not None and format not in GROUPED:
        unread[TOGETHER] = len(dataset)
    known = row.records == "objects"
    return (count_lost(dataset, row.keeps) if known else count_reduced(dataset)) | unread
