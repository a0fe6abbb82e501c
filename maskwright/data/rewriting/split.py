"""A data set divided into train, val and test: by class, by group or by folder."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.errors import OptionError, checked_options, first_few, whole_number
from maskwright.paths import nearest_path, takes_paths

from ..formats.folders import SPLITS
from ..formats.tables.rows import COLUMNS
from ..formats.tables.text import table_text
from ..records import Dataset
from .division import divide
from .tables import joined
from .writing import Progress, RewriteReport, new_folder, open_splits, write_splits

SHOWN = 5


@checked_options
@takes_paths
def split_data(
    data: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    fractions: tuple[float, ...] = (0.8, 0.1, 0.1),
    by: str | Path = "class",
    seed: int = 0,
    to: str | None = None,
    format: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> RewriteReport:
    """Write a data set divided into train, val and test, with copies of the images.

    Splits that it has are put together first. Each part gets its share of every class, rare ones
    first, and an image of each class that has enough of them.

    Args:
        data: what is read: a folder, a file, a YAML file.
        out: a new or empty folder to write into.
        fractions: share of the images in train, val and test; two numbers make no test, and 1 puts
            all splits into one.
        by: what stays together. class: each image stands alone, or with those of its group where
            the data tells groups; folder: the images of a folder; a CSV with the columns path and
            group; else a regular expression, whose first group (or whole match) in the path of an
            image names its group, as in "(patient[0-9]+)".
        seed: the same one gives the same parts.
        to: format to write; none: that of the data.
        format: read `data` as this format, where it is taken for another.
        progress: called with what is done, images done and images in all.

    Raises:
        OptionError: if an option is wrong, or the folder is not empty.
        ValueError: if the data cannot be read, or not be divided so.

    Example:
        >>> from maskwright.data import split_data
        >>> split_data("cells", "cells_split", by="(patient[0-9]+)")  # doctest: +SKIP
    """
    shares = _checked(fractions)
    seed = whole_number("seed", seed, 0)
    folder = new_folder(out)
    splits, to = open_splits(data, to, format)
    own = ("cvat", "coco")  # whose groups are videos, each of one split
    named = [one for one in splits.values() if one.groups is not None and one.format not in own]
    if by == "class" and len(splits) > 1 and named:
        raise ValueError(
            f"data={str(data)!r} has groups in several splits, which count anew in each: give the "
            "groups of all images as by=FILE.csv"
        )
    whole = joined(list(splits.values()), "train")
    units = _units(whole, by)
    images, labels = _classes(whole, progress)
    part = divide(images, labels, units, shares, seed)
    names = list(SPLITS)[: len(shares)]
    if empty := [name for k, name in enumerate(names) if not (part == k).any()]:
        number = int(units.max()) + 1
        what = "image(s)" if number == len(whole) else "group(s)"
        raise ValueError(
            f"{number} {what} of data={str(data)!r} leave nothing for {empty[0]}: give fewer "
            "fractions, or divide by something that has more groups"
        )
    parts = {name: whole.select(np.flatnonzero(part == k), name) for k, name in enumerate(names)}
    parts |= {
        name: one.like(one.columns, one.rows, faults=[])
        for name, one in parts.items()
        if name != "train"
    }
    for name in names[1:]:  # told once, as faults are
        parts[name].unread = {}
    report = write_splits(parts, folder, to, progress)
    for k, name in enumerate(names):
        counts = np.bincount(labels[part[images] == k], minlength=len(whole.names)).tolist()
        report.classes[name] = dict(zip(whole.names, counts, strict=True))
    report.notes += _missing(report)
    return report


def _checked(fractions: Any) -> tuple[float, ...]:
    """Return the fractions.

    Raises:
        OptionError: if they are no one to three numbers above 0 whose sum is 1.
    """
    found = tuple(fractions) if isinstance(fractions, tuple | list) else (fractions,)
    numbers = all(isinstance(one, int | float) and 0 < one <= 1 for one in found)
    if (
        not numbers
        or not 1 <= len(found) <= len(SPLITS)
        or not math.isclose(sum(found), 1, abs_tol=1e-3)
    ):
        raise OptionError(
            f"fractions={fractions!r}: expected one to three numbers above 0 whose sum is 1, as in "
            "0.8,0.1,0.1"
        )
    return tuple(map(float, found))


def _classes(dataset: Dataset, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
    """Return which image has which class, as `Dataset.classes_of_images`; of maps by pixels."""
    images, labels = dataset.classes_of_images()
    if dataset.records != "maps" or len(images):
        return images, labels
    found = []
    for index in range(len(dataset)):
        pixels = dataset.label_map(index)
        assert pixels is not None
        there = np.unique(pixels)
        found.append(there[there < len(dataset.names)].astype(np.int64))
        if progress is not None:
            progress("look at label maps", index + 1, len(dataset))
    images = np.repeat(np.arange(len(found)), [len(own) for own in found])
    return images, np.concatenate(found)


def _units(dataset: Dataset, by: str | Path) -> np.ndarray:
    """Return the number of what each image belongs to, (N,) from 0 on.

    Raises:
        OptionError: for what is no regular expression.
        ValueError: if an image is of no group.
    """
    if by == "class":
        groups = np.arange(len(dataset)) if dataset.groups is None else dataset.groups
        return np.unique(groups, return_inverse=True)[1]
    paths = [Path(dataset.columns.path(row)) for row in dataset.rows.tolist()]
    named: list[str | None]
    if by == "folder":
        named = [path.parent.as_posix() for path in paths]
    elif str(by).lower().endswith(".csv"):
        table = _table(Path(by))
        named = [table.get(path.as_posix(), table.get(path.name)) for path in paths]
    else:
        try:
            matches = [re.search(str(by), path.as_posix()) for path in paths]
        except re.error as error:
            raise OptionError(f"by={by!r} is no regular expression: {error}") from None
        named = [None if one is None else one[min(1, one.re.groups)] for one in matches]
    alone = [path.as_posix() for path, name in zip(paths, named, strict=True) if name is None]
    if alone:
        raise ValueError(
            f"by={str(by)!r} tells no group of {len(alone)} of {len(paths)} image(s): "
            f"{first_few(alone, SHOWN)}"
        )
    return np.unique(np.array(named), return_inverse=True)[1]


def _table(file: Path) -> dict[str, str]:
    """Return the group of each image by its path, and by its name where that is the only one.

    Raises:
        ValueError: if the file is no such table.
    """
    if not file.is_file():
        raise ValueError(f"by={str(file)!r} does not exist{nearest_path(file)}")
    rows = list(csv.reader(table_text(file).splitlines()))
    head = [cell.strip().casefold() for cell in rows[0]] if rows else []
    places = {}
    for word in ("path", "group"):
        found = [k for k, cell in enumerate(head) if cell in COLUMNS[word]]
        if not found:
            raise ValueError(f"{file} has no column {word}, only {', '.join(head)}")
        places[word] = found[0]
    groups: dict[str, str] = {}
    names: dict[str, set[str]] = {}
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) <= max(places.values()) or not row[places["group"]].strip():
            raise ValueError(f"{file}, line {number}: expected a path and a group, got {row}")
        path, group = (row[places[word]].strip().replace("\\", "/") for word in ("path", "group"))
        if groups.setdefault(path, group) != group:
            raise ValueError(f"{file}, line {number}: {path} is of {groups[path]} and of {group}")
        names.setdefault(path.rsplit("/", 1)[-1], set()).add(group)
    return {name: own.pop() for name, own in names.items() if len(own) == 1} | groups


def _missing(report: RewriteReport) -> list[str]:
    """Return a note for each split that lacks classes, of which there are too few images."""
    notes = []
    there = {name for own in report.classes.values() for name, count in own.items() if count}
    for split, own in report.classes.items():
        if lacking := [name for name in own if name in there and not own[name]]:
            notes.append(f"{split} has no image of {first_few(lacking, SHOWN)}: there are too few")
    return notes
