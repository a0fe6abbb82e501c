"""RetinaNet's tables: lines path,x1,y1,x2,y2,class without a header, and classes.csv beside them.

An image without an object has a line of its path and nothing else (`path,,,,,`). The lines of
classes.csv are a name and its number.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwright.files import write_whole
from maskwright.paths import takes_paths

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.objects import written_number
from ...pixels.images import image_header
from ...pixels.kinds import image_suffixes
from ...records import Dataset
from ...segments import BadSegment
from ..beside import file_of_split, image_roots
from ..folders import Tree, folder_split, split_name
from ..outgoing import Names, copy_image, is_object, objects_of, one_file, refuse_written
from ..source import BaseSource, ReadOptions
from ..tables.text import header_line, table_text

FORMAT = "retinanet"
CLASSES = "classes.csv"
CELLS = 6
SIDES = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class RetinaNetSource(BaseSource):
    """Where one split lies: a table of boxes.

    Attributes:
        annotations: the table.
        classes: the table of classes; None: there is none.
    """

    annotations: Path
    classes: Path | None = None

    @property
    def beside(self) -> tuple[Path, ...]:
        """The table of classes."""
        return () if self.classes is None else (self.classes,)

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = _Reader(self.annotations, split, FORMAT)
        listed = None if self.classes is None else _listed(self.classes)
        by_name = None if listed is None else {name: name for name in listed}
        roots = image_roots(self.annotations, split)
        rows = _rows(self.annotations)
        return reader.read(lambda: reader.pictures(rows, roots), roots, by_name, names)


def find_retinanet(tree: Tree, path: Path) -> dict[str, RetinaNetSource]:
    """Return the splits of a folder with RetinaNet's tables, {} for others.

    Raises:
        ValueError: if two are of one split.
    """
    files = file_of_split(tree, path, ".csv", fits_retinanet)
    return {split: RetinaNetSource(file, _classes(file, path)) for split, file in files.items()}


def retinanet_file(path: Path) -> dict[str, RetinaNetSource]:
    """Return the split of a single table, {} for others."""
    if path.suffix.lower() != ".csv" or not fits_retinanet(path):
        return {}
    split = split_name(path.stem) or folder_split(path.parent) or "train"
    return {split: RetinaNetSource(path, _classes(path, path.parent))}


def fits_retinanet(file: Path) -> bool:
    """Return whether the first line is an image, four numbers or none, and a class."""
    try:
        cells = next(csv.reader([header_line(file)]), [])
    except (ValueError, csv.Error):
        return False
    if len(cells) != CELLS or Path(cells[0].strip()).suffix.lower() not in image_suffixes():
        return False
    return not any(cell.strip() for cell in cells[1:]) or all(
        _is_number(cell) for cell in cells[1:5]
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _classes(file: Path, top: Path) -> Path | None:
    """Return the table of classes beside a table of boxes or at the top."""
    found = [
        one
        for folder in dict.fromkeys((file.parent, top))
        for one in Tree().files(folder, ".csv")
        if "class" in one.stem.lower() and one != file
    ]
    return next(iter(found), None)


def _listed(file: Path) -> list[str]:
    """Return the names of classes in the order of their numbers.

    Raises:
        ValueError: if a line is no name and number, or a number stands twice.
    """
    found: dict[int, str] = {}
    for number, cells in enumerate(csv.reader(io.StringIO(table_text(file), newline="")), 1):
        if not any(cells):
            continue
        if len(cells) != 2 or not cells[1].strip().isdecimal() or not cells[0].strip():
            raise ValueError(f"{file}, line {number}: expected a class and its number, got {cells}")
        if int(cells[1]) in found:
            message = f"the number {int(cells[1])} is that of {found[int(cells[1])]!r} already"
            raise ValueError(f"{file}, line {number}: {message}")
        found[int(cells[1])] = cells[0].strip()
    return [found[number] for number in sorted(found)]


def _rows(file: Path) -> dict[str, list[tuple[int, list[str]]]]:
    """Return the lines of each image, with their numbers.

    Raises:
        ValueError: if the table cannot be read.
    """
    reader = csv.reader(io.StringIO(table_text(file), newline=""))
    found: dict[str, list[tuple[int, list[str]]]] = {}
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                row = [cell.strip() for cell in cells]
                found.setdefault(row[0].replace("\\", "/"), []).append((reader.line_num, row[1:]))
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: {error}: it may be cut off") from None
    return found


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def pictures(
        self, rows: dict[str, list[tuple[int, list[str]]]], roots: Sequence[Path]
    ) -> Iterator[Picture]:
        """Yield the images of the table."""
        for name, own in rows.items():
            picture = Picture(self.path, name)
            if not name:
                message = f"{self.path}, line {own[0][0]}: the first cell is a path of an image"
                picture.broken = "bad image entry", message
            for root in roots:
                try:
                    picture.size = image_header(root / name).size
                    break
                except ValueError:  # the builder tells
                    continue
            for line, cells in own:
                if any(cells):
                    picture.shapes.append(_shape(cells, f"line {line}"))
            yield picture


def _shape(cells: Sequence[str], place: str) -> Shape:
    label = cells[4] if len(cells) > 4 else ""
    found = Shape(label or None, place, {})
    try:
        found.entry["bbox"] = _box(cells)
    except BadSegment as bad:
        found.entry["bbox"] = bad
    return found


def _box(cells: Sequence[str]) -> list[Any]:
    """Return a box xywh.

    Raises:
        BadSegment: if it is none.
    """
    if len(cells) != CELLS - 1:
        raise BadSegment("bad line", f"a line has {CELLS} cells, got {len(cells) + 1}")
    named = zip(SIDES, cells, strict=False)
    x1, y1, x2, y2 = (written_number(cell, name) for name, cell in named)
    return [x1, y1, x2 - x1, y2 - y1]


@takes_paths
def write_retinanet(dataset: Dataset, folder: str | Path) -> Path:
    """Write the boxes of a split as RetinaNet's table, with copies of the images.

    Args:
        dataset: the images and objects; masks, keypoints and regions that count neither way are not
            written.
        folder: where SPLIT.csv, classes.csv and images/SPLIT/ go; other splits may be there
            already.

    Returns:
        The table.

    Raises:
        ValueError: if the folder has this split or other classes already.
    """
    root = Path(folder)
    file, images = root / f"{dataset.split}.csv", root / "images" / dataset.split
    refuse_written(file, dataset)
    if wrong := [name for name in dataset.names if name != name.strip() or not name]:
        raise ValueError(f"the class name {wrong[0]!r} cannot stand in a table: rename the class")
    listed = _csv([[name, number] for number, name in enumerate(dataset.names)])
    classes = root / CLASSES
    if classes.exists() and table_text(classes) != listed:
        raise ValueError(
            f"{classes} has other classes than {dataset.source}: choose another folder"
        )
    names = Names()
    write_whole(classes, listed)
    with one_file(file, root, images) as stream:
        for record, objects in objects_of(dataset):
            image = copy_image(record, images, names.free(record.path))
            path = image.relative_to(root).as_posix()
            own = [[path, *map(repr, one.box), one.name] for one in filter(is_object, objects)]
            stream.write(_csv(own or [[path, *[""] * (CELLS - 1)]]))
    return file


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
