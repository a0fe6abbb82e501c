"""`maskwright data stats`: what a data set is made of, as tables and as a page with pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..channels import parse_channels, parse_one_page
from ..data.checking.check import STATISTICS, draw_all, require_samples
from ..data.checking.overview import Overview, Table, key_figures, overview
from ..data.pixels.large import choose
from ..errors import checked_options
from ..files import write_whole
from ..paths import takes_paths
from ..runs import check_save, save_dir
from .page import REPORT, escape, render
from .page_parts import bullets, images, name_cell, section, table
from .report import SCRIPT, STYLE


@dataclass
class DataStats:
    """The numbers of a data set.

    Attributes:
        tables: title, header and rows of each.
        notes: what else is to be known.
        faults: how many there are in what was read.
        page: the page; None without `save`.
    """

    tables: list[Table]
    notes: list[str]
    faults: int
    page: Path | None = None


@checked_options
@takes_paths
def describe_data(
    data: str | Path | Mapping[str, Any],
    *,
    save: bool | str | Path | None = None,
    project: str | Path = "runs",
    name: str | None = None,
    samples: int = 9,
    page: int | str | None = None,
    channels: int | str | tuple[int, ...] | None = None,
    records: Literal["objects", "labels", "maps"] | None = None,
    ignore: int | str | tuple[int | str, ...] | None = None,
    format: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> DataStats:
    """Count what a data set has, by split: images, objects, names, sizes, shapes.

    It reads the annotations, and only of label maps every pixel: seconds for what `data check`
    looks at for minutes.

    Args:
        data: a file or a folder, as for training.
        save: write a page with all numbers and pictures: true into a new run folder, a path into
            that folder, false nothing.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "stats".
        samples: images to draw for each split.
        page: which image of files that hold several, from 0 on, as for training; none: the first.
        channels: which channels of the files, as for training.
        records: what is looked at, where a folder has several: objects, labels of images, or maps
            of labels; none: the first of these that there is.
        ignore: numbers or names in label maps that are ignored, as for training.
        format: read the data as this format, where a folder has several or is taken for another.
        progress: called with split, images done and images in all.

    Raises:
        ValueError: if the data cannot be read, or `samples` is negative.
    """
    require_samples(samples)
    taken = parse_one_page(page), parse_channels(channels)
    check_save(save, project, name)
    found = overview(data, records=records, ignore=ignore, format=format, progress=progress)
    choose(found.datasets.values(), *taken)
    made = DataStats(found.tables, found.report.notes, len(found.report.faults))
    folder = save_dir(save, project, "stats", name)
    if folder is not None:
        made.page = _write(found, folder, samples)
    return made


def _write(found: Overview, folder: Path, samples: int) -> Path:
    report = found.report
    draw_all(report, found.datasets, folder, samples)
    numbers, *others = [
        (title, table(header, [_cells(row) for row in rows], sortable=True))
        for title, header, rows in found.tables
    ]
    parts = [
        bullets(report.notes),
        section("Splits", numbers[1]),
        section("Pictures of the numbers", *images(folder, STATISTICS, wide=True)),
        *(section(title, body) for title, body in others),
    ]
    for split in found.datasets:
        parts.append(section(f"Samples of {split}", *images(folder, f"{split}_samples.png")))
    faults = f"{len(report.faults)} fault(s) in what was read: maskwright data check lists them."
    page = render(
        report.data,
        key_figures(report),
        "\n".join(part for part in parts if part),
        style=STYLE,
        script=SCRIPT,
        footer=faults if report.faults else "",
    )
    write_whole(folder / REPORT, page)
    return folder / REPORT


def _cells(row: list[Any]) -> list[str]:
    first, *rest = row
    shown = [f"{one:,}" if isinstance(one, int) else escape(str(one)) for one in rest]
    return [name_cell(str(first)), *shown]
