"""A data set in another format: each split is read and written, and what is lost is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskwright.errors import OptionError, checked_options, nearest
from maskwright.paths import takes_paths

from ..discover import find_splits, open_dataset
from ..formats.table import TABLE, lost_in, write_dataset
from ..records import Dataset, Kind


@dataclass
class ConvertReport:
    """What `convert_data` wrote.

    Attributes:
        out: the folder.
        written: what each split begins with: its JSON, list, folder or table.
        images, objects: how many, by split; the second without regions that count neither way.
        lost: what the format cannot hold, in words, and of how many objects, by split.
        faults: what reading left out, ignored or repaired: kind and action, how often, by split.
    """

    out: Path
    written: dict[str, Path] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    lost: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)


@checked_options
@takes_paths
def convert_data(
    data: str | Path | Mapping[str, Any],
    to: str,
    out: str | Path,
    *,
    format: str | None = None,
) -> ConvertReport:
    """Write all splits of a data set in another format, with copies of the images.

    What both formats can hold is kept; the writers say how precisely. All splits get the same
    classes: those of the training split, then those that only others have.

    Args:
        data: what is read: a folder, a file, a YAML file.
        to: format to write: coco, voc, yolo, labelme, cvat, labelstudio, supervisely, instances;
            maps, folders or csv for label maps and labels of images.
        out: a new or empty folder to write into.
        format: read `data` as this format, where it is taken for another.

    Raises:
        OptionError: if nothing writes the format, or the folder is not empty.
        ValueError: if the data cannot be read, or not be written in that format.
    """
    rows = {row.format: row for row in TABLE if row.write is not None}
    if to not in rows:
        raise OptionError(f"to={to!r}: written are {', '.join(rows)}{nearest(to, rows)}")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OptionError(f"out={str(out)!r} is there already: choose a new or empty folder")
    kind: Kind = rows[to].records  # type: ignore[assignment]
    splits = list(find_splits(data, records=kind, format=format))
    read = {split: open_dataset(data, split, records=kind, format=format) for split in splits}
    names = list(dict.fromkeys(name for one in read.values() for name in one.names))
    report = ConvertReport(folder)
    for split, dataset in read.items():
        if dataset.names != names:
            dataset = open_dataset(data, split, records=kind, format=format, names=names)
        _write(dataset, split, to, report)
    return report


def _write(dataset: Dataset, split: str, to: str, report: ConvertReport) -> None:
    report.lost[split] = lost_in(dataset, to)
    report.written[split] = write_dataset(dataset, report.out, to)
    report.images[split] = len(dataset)
    report.objects[split] = int(dataset.objects_per_class().sum())
    report.faults[split] = Counter((fault.kind, fault.action) for fault in dataset.faults)
