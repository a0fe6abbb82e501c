"""The numbers of a data set as tables, from its annotations alone: no photo is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from maskwright.errors import checked_options
from maskwright.paths import takes_paths

from ..discover import find_splits, open_dataset
from ..pixels.images import image_header
from ..records import Dataset
from .check import CheckReport, look_over
from .labels import LabelStats
from .maps import MapStats, check_map
from .statistics import SHAPE_HEADER, SplitStats, shape_rows

Table = tuple[str, list[str], list[list[Any]]]
MOST_SIZES = 8  # of images, that a table lists


@dataclass
class Overview:
    """What a data set is made of.

    Attributes:
        report: splits, faults of reading, notes.
        datasets: by split.
        tables: title, header and rows of each.
    """

    report: CheckReport
    datasets: dict[str, Dataset]
    tables: list[Table]


@checked_options
@takes_paths
def overview(
    data: str | Path | Mapping[str, Any],
    *,
    records: Literal["objects", "labels", "maps"] | None = None,
    ignore: int | str | tuple[int | str, ...] | None = None,
    format: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Overview:
    """Count what the splits of a data set have: images, objects, classes, sizes, shapes.

    Args:
        data: a file or a folder, as for `check_data`.
        records: what is looked at, where a folder has several: objects, labels of images, or maps
            of labels; None: the first of these that there is.
        ignore: numbers or names of classes of label maps that are ignored.
        format: read the data as this format, where a folder has several or is taken for another.
        progress: called with split, images done and images in all.

    Raises:
        ValueError: if the data cannot be read.
    """
    report = CheckReport(str(data))
    datasets: dict[str, Dataset] = {}
    names: list[str] | None = None
    for split in find_splits(data, records=records, format=format):
        dataset = datasets[split] = open_dataset(
            data, split, names=names, records=records, ignore=ignore, format=format
        )
        names = names or dataset.names
        report.faults += [(split, fault) for fault in dataset.faults]
        stats = report.splits[split] = look_over(dataset)
        for index in range(len(dataset)):
            if isinstance(stats, MapStats):
                report.faults += [(split, one) for one in check_map(dataset, index, stats)]
            if not isinstance(stats, SplitStats):
                stats.image_sizes[_size(dataset, index)] += 1
            if progress is not None:
                progress(split, index + 1, len(dataset))
    report.notes += report.remarks()
    return Overview(report, datasets, [*report.tables(), *_more(report)])


def _size(dataset: Dataset, index: int) -> tuple[int, int]:
    """Return (height, width) of an image; of one that only its file knows, by its header."""
    record = dataset[index]
    if min(record.size):
        return record.size
    try:
        return image_header(record.path).size
    except ValueError:  # a fault that `data check` tells
        return 0, 0


def _more(report: CheckReport) -> list[Table]:
    """Return the tables beside those of a check."""
    found: list[Table] = []
    rows: list[list[Any]] = []
    for split, stats in report.splits.items():
        if isinstance(stats, SplitStats):
            rows += [[split, *row] for row in shape_rows(stats)]
    if rows:
        found.append(("Sizes and shapes of the objects", ["split", *SHAPE_HEADER], rows))
    sizes: dict[tuple[int, int], dict[str, int]] = {}
    for split, stats in report.splits.items():
        for size, count in stats.image_sizes.items():
            sizes.setdefault(size, {})[split] = count
    often = sorted(sizes, key=lambda size: -sum(sizes[size].values()))
    rows = [
        [f"{width} x {height}", *(sizes[height, width].get(split, 0) for split in report.splits)]
        for height, width in often[:MOST_SIZES]
    ]
    if more := often[MOST_SIZES:]:
        counts = [sum(sizes[size].get(split, 0) for size in more) for split in report.splits]
        rows.append([f"{len(more)} others", *counts])
    found.append(("Sizes of the images, width x height", ["size", *report.splits], rows))
    return found


def key_figures(report: CheckReport) -> list[tuple[str, str]]:
    """Return the first numbers of all: each with what it is."""
    stats = list(report.splits.values())
    names = {name for one in stats for name in one.per_class}
    figures = [(f"{sum(one.images for one in stats):,}", "images")]
    objects = [one.objects for one in stats if isinstance(one, SplitStats)]
    figures += [(f"{sum(objects):,}", "objects")] if objects else []
    several = [one.several for one in stats if isinstance(one, LabelStats)]
    figures += [(f"{sum(several):,}", "images with several labels")] if any(several) else []
    return [*figures, (f"{len(names):,}", "classes"), (str(len(stats)), "splits")]
