"""CSVs of labelled images: path, label, and if wanted split, group and a box; read and written.

The header names the columns (`rows.COLUMNS`); MakeSense's lines have none. Labels are names or
numbers, several of them with `;` between them, or one column for each class says 0 or 1. With the
columns of a box each row is an object, an image may have several rows, and a row without a box is
an image without an object: the table can be read as objects or as labels. A box is x1, y1, x2, y2,
or x, y, w, h, or one column with x, y, width, height in brackets as on Kaggle, where images may
have ids in place of paths.
"""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskwright.files import write_whole, writing
from maskwright.paths import takes_paths

from ...building.builder import OBJECT, Builder
from ...building.image_names import best_root, clean_path
from ...building.labelled import SHOWN, LabelBuilder, Labelled
from ...pixels.images import image_header
from ...records import Dataset
from ..beside import image_of_id, image_roots
from ..class_folders import free_name
from ..folders import ANNOTATION_FOLDERS, SPLITS, Tree, folder_split, split_name
from ..outgoing import refuse_written
from ..source import BaseSource, ReadOptions
from .rows import BOX, SIDED, Row, read_header, read_rows
from .text import OF_INSTANCES, header_line, sorted_labels

FORMAT = "csv"


@dataclass(frozen=True)
class CsvSource(BaseSource):
    """Where one split lies: rows of a CSV.

    Attributes:
        annotations: the file.
        divided: its rows are divided by a column; else all are of the split.
        objects: read the boxes, not the labels alone.
    """

    annotations: Path
    divided: bool = False
    objects: bool = False

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        header = read_header(self.annotations)
        rows = read_rows(self.annotations, header)
        roots = image_roots(self.annotations, split)
        if header.columns["path"] == header.columns.get("image id"):
            rows = [replace(row, path=image_of_id(row.path, roots)) for row in rows]
        classes = sorted_labels({label for row in rows for label in row.labels})
        if self.divided:
            rows = [row for row in rows if row.split == split]
        if header.marks:
            classes = list(header.marks.values())
        elif names is None and split != "train":  # without a training split, those that occur
            classes = sorted_labels({label for row in rows for label in row.labels})
        if self.objects:
            reader = _ObjectReader(self.annotations, split)
            if "label" not in header.columns:
                classes = [OBJECT]
                rows = [replace(row, labels=(OBJECT,)) for row in rows]
                reader.fault(
                    "objects without a class",
                    f"{self.annotations} has no column of labels: the class of all objects is "
                    f"{OBJECT!r}; name the column label if there is one",
                    "kept",
                )
            dataset = reader.read(rows, roots, classes, names, sided=header.box != BOX)
        else:
            dataset = _read_labels(self.annotations, split, rows, roots, classes, names)
        dataset.unread |= {f"the column {word!r}": len(rows) for word in header.others}
        return dataset


def find_csv(tree: Tree, path: Path, *, objects: bool = False) -> dict[str, CsvSource]:
    """Return the splits of a folder with tables of images, {} for others.

    Raises:
        ValueError: if the names of the files do not tell which is which.
    """
    splits = [one for one in tree.folders(path) if folder_split(one)]
    places = (path, *tree.named(path, ANNOTATION_FOLDERS), *splits)
    files = [file for place in places for file in tree.files(place, ".csv")]
    files = [file for file in files if fits(file, objects=objects)]
    if not files:
        return {}
    named: dict[str, Path] = {}
    for file in files:
        split = split_name(file.stem) or folder_split(file.parent)
        if split is not None and split in named:
            raise ValueError(f"{named[split]} and {file} are both the {split} split: leave one")
        if split is not None:
            named[split] = file
    if named:
        return {split: CsvSource(file, objects=objects) for split, file in named.items()}
    if len(files) > 1:
        raise ValueError(
            f"{path} has {len(files)} tables of images ({', '.join(f.name for f in files[:5])}): "
            "give the one that is meant, or name them train.csv, val.csv and test.csv"
        )
    return csv_splits(files[0], objects=objects)


def csv_splits(file: Path, *, objects: bool = False) -> dict[str, CsvSource]:
    """Return the splits of a table: those of its column, else that of its name, else train.

    Raises:
        ValueError: if it is no table of images.
    """
    header = read_header(file)
    if "split" in header.columns:
        found = {row.split for row in read_rows(file, header)}
        return {
            split: CsvSource(file, divided=True, objects=objects)
            for split in SPLITS
            if split in found
        }
    split = split_name(file.stem) or "train"
    return {split: CsvSource(file, objects=objects)}


def fits(file: Path, *, objects: bool = False) -> bool:
    """Return True for a table with the columns of a path and a label, and a box for objects."""
    try:
        header = read_header(file)
    except ValueError:
        return False
    if header_line(file).strip().split(",") == OF_INSTANCES:
        return False
    return bool(header.box) if objects else "label" in header.columns or bool(header.marks)


def _usable(builder: Any, rows: Sequence[Row], roots: list[Path]) -> tuple[Path, list[Row]]:
    """Return the root of the images and the rows whose paths lie within it."""
    kept = []
    for row in rows:
        clean = clean_path(row.path)
        if clean is None:
            builder.fault(
                "path outside the data set",
                f"{builder.path}, line {row.line}: path {row.path!r} is empty, absolute or leads "
                "out of the folder: write it relative to the folder of the table or its images",
            )
        else:
            kept.append(Row(row.line, clean, row.labels, row.split, row.group, row.box))
    return best_root(roots, [row.path for row in kept]), kept


def _read_labels(
    file: Path,
    split: str,
    rows: Sequence[Row],
    roots: list[Path],
    classes: Sequence[str],
    names: Sequence[str] | None,
) -> Dataset:
    builder = LabelBuilder(file, split, FORMAT)
    root, rows = _usable(builder, rows, roots)
    boxes = any(any(row.box) for row in rows)
    several = boxes or any(len(row.labels) > 1 for row in rows)
    images: dict[str, Labelled] = {}
    twice: set[str] = set()
    for row in rows:
        first = images.setdefault(row.path, Labelled(row.path, row.labels, row.group))
        if not boxes and set(first.labels) != set(row.labels):
            twice.add(row.path)
        elif first.labels != row.labels:
            labels = tuple(dict.fromkeys((*first.labels, *row.labels)))
            images[row.path] = Labelled(row.path, labels, first.group)
    for path in twice:
        message = f"{path} stands in several rows with different labels: write them in one, as a;b"
        builder.fault("different labels", message)
    without = [one.file for one in images.values() if not one.labels]
    if without and not several:
        builder.fault(
            "image without a label",
            f"{len(without)} row(s) of {file} have no label, the first: {without[0]}",
        )
    left = twice | (set() if several else set(without))
    usable = [one for one in images.values() if one.file not in left]
    return builder.build(root, usable, classes, names)


class _ObjectReader(Builder):
    """Reads the boxes of a table."""

    format = FORMAT

    def read(
        self,
        rows: Sequence[Row],
        roots: list[Path],
        classes: Sequence[str],
        names: Sequence[str] | None,
        *,
        sided: bool,
    ) -> Dataset:
        self.sided = sided  # boxes are x, y, w, h, not corners
        root, rows = _usable(self, rows, roots)
        numbers: dict[str, int] = {}
        for row in rows:
            numbers.setdefault(row.path, len(numbers) + 1)
        images = [self._image(root, path, number) for path, number in numbers.items()]
        ids = {name: number for number, name in enumerate(classes, 1)}
        entries = list(self._entries(rows, numbers, ids))
        categories = [{"id": number, "name": name} for name, number in ids.items()]
        used = [entry["category_id"] for _, entry in entries]
        found = self.classes(categories, used, names)
        return self.build(images, [root], entries, False, found)

    def _image(self, root: Path, path: str, number: int) -> dict[str, Any]:
        entry: dict[str, Any] = {"id": number, "file_name": path}
        with contextlib.suppress(ValueError):  # the builder tells
            entry["height"], entry["width"] = image_header(root / path).size
        return entry

    def _entries(
        self, rows: Sequence[Row], numbers: dict[str, int], ids: dict[str, int]
    ) -> Iterable[tuple[int, dict[str, Any]]]:
        for row in rows:
            if not any(row.box):
                continue
            where = f"{self.path}, line {row.line}: "
            if len(row.labels) != 1:
                message = f"{where}an object has one label, got {len(row.labels)}"
                self.fault("object without one class", message, image=numbers[row.path])
                continue
            try:
                x1, y1, x2, y2 = map(float, row.box)
            except ValueError:
                sides = ", ".join(SIDED if self.sided else BOX)
                message = f"{where}{sides} must be numbers, got {', '.join(row.box)[:80]}"
                self.fault("bad box", message, image=numbers[row.path])
                continue
            box = [x1, y1, x2, y2] if self.sided else [x1, y1, x2 - x1, y2 - y1]
            entry = {"image_id": numbers[row.path], "category_id": ids[row.labels[0]], "bbox": box}
            yield row.line, entry


@takes_paths
def write_csv(dataset: Dataset, folder: str | Path) -> Path:
    """Write the labels of a split as a table, with copies of the images.

    Args:
        dataset: images with labels, one or several.
        folder: where SPLIT.csv and images/ go; other splits may be there already.

    Returns:
        The table.

    Raises:
        ValueError: if it exists, the images have no labels or are no files, or a class name has
            a `;`.
    """
    folder = Path(folder)
    table = folder / f"{dataset.split}.csv"
    refuse_written(table, dataset)
    if wrong := [name for name in dataset.names if ";" in name or name != name.strip()]:
        raise ValueError(f"the class name(s) {wrong[:SHOWN]} cannot stand in a table: rename them")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    grouped = dataset.groups is not None
    writer.writerow(["path", "label", *["group"] * grouped])
    with writing(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for index in range(len(dataset)):
            record = dataset[index]
            if record.image_labels is None or record.stored:
                why = "has no labels of its own" if record.image_labels is None else "is no file"
                raise ValueError(f"{record.path} {why}: a table names files with labels")
            target = free_name(folder / "images", record.path, range(1, len(dataset) + 2))
            shutil.copyfile(record.path, target)
            labels = ";".join(dataset.names[label] for label in record.image_labels.tolist())
            writer.writerow([f"images/{target.name}", labels, *[record.group] * grouped])
    write_whole(table, stream.getvalue())
    return table
