"""Hugging Face's tables of images with labels: an image and a class, or several, in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...building.labelled import LabelBuilder, Labelled
from ...records import Dataset
from ..beside import listed_names
from ..folders import Tree
from ..source import BaseSource, ReadOptions
from ..tables.text import sorted_labels
from .read import FORMAT, image_files, rows_below, tables_by_split
from .tables import BOX, IMAGE, LABEL, OBJECTS, class_names, columns_of


@dataclass(frozen=True)
class LabelTables(BaseSource):
    """Where one split lies: tables.

    Attributes:
        files: the tables.
    """

    files: tuple[Path, ...]

    @property
    def annotations(self) -> Path:
        """What faults and errors name: the first table."""
        return self.files[0]

    @property
    def beside(self) -> tuple[Path, ...]:
        """All tables."""
        return self.files

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        columns, features = columns_of(self.annotations)
        image = next(name for name in IMAGE if name in columns)
        label = next(name for name in LABEL if name in columns)
        titles = class_names(features, (label,)) or listed_names(self.annotations.parent, ())
        builder = LabelBuilder(self.annotations, split, FORMAT)
        root, images = image_files(self.files, image, split)
        found = []
        rows = rows_below(self.files, [label])
        for (file, number, row), (name, _, problem) in zip(rows, images, strict=True):
            told = _labels(row.get(label), titles)
            if problem:
                builder.fault("unreadable image", f"{file}, row {number}: {problem}")
            elif not told and not isinstance(row.get(label), list):
                message = f"{file}, row {number}: {label} names no class, got {row.get(label)!r}"
                builder.fault("image without a label", message)
            else:
                found.append(Labelled(name, told))
        classes = titles or sorted_labels({one for image in found for one in image.labels})
        return builder.build(root, found, classes, names)


def find_label_tables(tree: Tree, path: Path) -> dict[str, LabelTables]:
    """Return the splits of a folder with tables of images and labels, {} for others.

    Raises:
        ValueError: if a table cannot be read, or pyarrow is not installed.
    """
    return {
        split: LabelTables(tuple(files))
        for split, files in tables_by_split(tree, path).items()
        if _has_labels(files[0])
    }


def _has_labels(file: Path) -> bool:
    """Return whether a table has a column of images and one of labels, and none of objects."""
    has = set(columns_of(file)[0])
    return (
        bool(has.intersection(IMAGE))
        and bool(has.intersection(LABEL))
        and not has.intersection((*OBJECTS, *BOX))
    )


def _labels(value: Any, titles: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes of an image; () where it has none."""
    found: list[str] = []
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, bool) or not isinstance(one, int | str):
            continue
        if isinstance(one, int) and titles is not None:
            found += titles[one : one + 1] if one >= 0 else []
        elif str(one).strip():
            found.append(str(one).strip())
    return tuple(dict.fromkeys(found))
