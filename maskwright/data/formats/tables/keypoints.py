"""A CSV of keypoints: a path and two numbers for each point of the one object of an image.

The header names the points, as in path,left_eye_x,left_eye_y,nose_x,nose_y, or numbers them, as in
path,x1,y1,x2,y2,x3,y3 (three at least: two are the corners of a box). An empty cell is a point that
nobody marked; a column nose_v or v3 has COCO's visibility, 0, 1 or 2. The box of the object stands
in xmin,ymin,xmax,ymax, else it is that of its points.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwright.structures import Skeleton

from ...building.builder import Builder
from ...building.image_names import best_root, clean_path
from ...pixels.images import image_header
from ...records import Dataset
from ..beside import image_roots
from ..folders import ANNOTATION_FOLDERS, SPLITS, Tree, split_name
from ..source import BaseSource, ReadOptions
from .rows import COLUMNS, OF_BOX
from .text import delimiter, header_line, table_text

FEWEST = 3  # points that are numbered instead of named
CORNERS = ("xmin", "ymin", "xmax", "ymax")
OBJECT = "object"  # the one class


@dataclass(frozen=True)
class PointColumns:
    """Which column is what.

    Attributes:
        path: of the image file.
        names: of the points.
        points: for each of them x, y and visibility; the last is None without one.
        corners: of the box, or nothing.
        split: of the split, or None.
    """

    path: int
    names: tuple[str, ...]
    points: tuple[tuple[int, int, int | None], ...]
    corners: tuple[int, ...] = ()
    split: int | None = None


@dataclass(frozen=True)
class PointSource(BaseSource):
    """Where one split lies: rows of a CSV of keypoints.

    Attributes:
        annotations: the file.
        divided: its rows are divided by a column; else all are of the split.
    """

    annotations: Path
    divided: bool = False

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        return _PointReader(self.annotations, split).read(names, divided=self.divided)


class LoneColumnError(ValueError):
    """A table of keypoints has one of a point's two numbers only."""


def point_columns(file: Path) -> PointColumns | None:
    """Return which column of a table is what; None for a table without keypoints.

    Raises:
        LoneColumnError: if a point has an x and no y.
        ValueError: if the file cannot be read.
    """
    header = header_line(file)
    words = next(csv.reader([header], delimiter=delimiter(header)), [])
    place = {word.strip().casefold(): number for number, word in enumerate(words)}
    path = next((place[word] for word in COLUMNS["path"] if word in place), None)
    if path is None:
        return None
    named = [word.strip()[:-2] for word in words if word.strip().casefold().endswith("_x")]
    named = [name for name in named if f"{name.casefold()}_" not in OF_BOX]
    pairs = [(name, f"{name}_x", f"{name}_y", f"{name}_v") for name in named]
    if not pairs:
        count = 0
        while f"x{count + 1}" in place and f"y{count + 1}" in place:
            count += 1
        if count < FEWEST:
            return None
        pairs = [(f"point_{k}", f"x{k}", f"y{k}", f"v{k}") for k in range(1, count + 1)]
    folded = [(name, x.casefold(), y.casefold(), v.casefold()) for name, x, y, v in pairs]
    lone = [f"{name}_y" for name, _, y, _ in folded if y not in place]
    if len(lone) == len(folded) or (lone and any(word in place for word in COLUMNS["label"])):
        return None
    if lone:
        raise LoneColumnError(
            f"{file}: {lone[0][:-2]}_x has no column {lone[0]} beside it: each point has two"
        )
    split = next((place[word] for word in COLUMNS["split"] if word in place), None)
    corners = tuple(place[side] for side in CORNERS if side in place)
    return PointColumns(
        path,
        tuple(name for name, *_ in folded),
        tuple((place[x], place[y], place.get(v)) for _, x, y, v in folded),
        corners if len(corners) == 4 else (),
        split,
    )


def fits_points(file: Path) -> bool:
    """Return True for a table of keypoints."""
    try:
        return point_columns(file) is not None
    except LoneColumnError:
        return True  # for its reader to refuse
    except ValueError:
        return False


def find_points(tree: Tree, path: Path) -> dict[str, PointSource]:
    """Return the splits of a folder with tables of keypoints, {} for others.

    Raises:
        ValueError: if the names of the files do not tell which is which.
    """
    places = (path, *tree.named(path, ANNOTATION_FOLDERS))
    files = [file for one in places for file in tree.files(one, ".csv") if fits_points(file)]
    named = {split: file for file in files if (split := split_name(file.stem)) is not None}
    if named:
        return {split: PointSource(file) for split, file in named.items()}
    if len(files) > 1:
        raise ValueError(
            f"{path} has {len(files)} tables of keypoints ({', '.join(f.name for f in files[:5])})"
            ": give the one that is meant, or name them train.csv, val.csv and test.csv"
        )
    return point_splits(files[0]) if files else {}


def point_splits(file: Path) -> dict[str, PointSource]:
    """Return the splits of a table: those of its column, else that of its name, else train.

    Raises:
        ValueError: if it cannot be read.
    """
    columns = point_columns(file)
    if columns is None:
        return {}
    if columns.split is None:
        return {split_name(file.stem) or "train": PointSource(file)}
    found = {_split_of(file, line, row, columns) for line, row in _rows(file)}
    return {split: PointSource(file, divided=True) for split in SPLITS if split in found}


def _rows(file: Path) -> Iterable[tuple[int, list[str]]]:
    """Yield number and cells of each line that is not empty."""
    text = table_text(file)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(header_line(file)))
    try:
        next(reader)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: {error}") from None


def _split_of(file: Path, line: int, row: list[str], columns: PointColumns) -> str:
    assert columns.split is not None
    word = row[columns.split] if columns.split < len(row) else ""
    split = split_name(word)
    if split is None:
        raise ValueError(f"{file}, line {line}: split {word!r} is none of train, val and test")
    return split


class _PointReader(Builder):
    """Reads the points of a table."""

    format = "csv"

    def read(self, names: Sequence[str] | None, *, divided: bool) -> Dataset:
        file, columns = self.path, point_columns(self.path)
        if columns is None:
            raise ValueError(f"{file} has no columns of keypoints")
        kept: list[tuple[int, str, list[str]]] = []
        for line, row in _rows(file):
            if divided and _split_of(file, line, row, columns) != self.split:
                continue
            written = row[columns.path] if columns.path < len(row) else ""
            clean = clean_path(written)
            if clean is None:
                self.fault(
                    "path outside the data set",
                    f"{file}, line {line}: path {written!r} is empty, absolute or leads out of the "
                    "folder: write it relative to the folder of the table or its images",
                )
            else:
                kept.append((line, clean, row))
        root = best_root(image_roots(file, self.split), [path for _, path, _ in kept])
        numbers: dict[str, int] = {}
        for _, path, _ in kept:
            numbers.setdefault(path, len(numbers) + 1)
        images = [_image(root, path, number) for path, number in numbers.items()]
        called = names[0] if names else OBJECT
        classes = self.classes([{"id": 1, "name": called}], [1], names)
        entries = self._entries(kept, numbers, columns)
        skeleton = Skeleton(columns.names)
        return self.build(images, [root], entries, False, classes, skeleton, frozenset({1}))

    def _entries(
        self, rows: list[tuple[int, str, list[str]]], numbers: dict[str, int], columns: PointColumns
    ) -> Iterable[tuple[int, dict[str, Any]]]:
        for line, path, row in rows:
            try:
                points = [_point(row, *places) for places in columns.points]
                corners = [_number(row, place) for place in columns.corners]
            except ValueError as error:
                message = f"{self.path}, line {line}: {error}"
                self.fault("bad number", message, image=numbers[path])
                continue
            shown = [(x, y) for x, y, v in points if v > 0]
            box = _box_of(shown, corners)
            if box is None:
                continue  # an image without an object
            flat = [value for point in points for value in point]
            yield (
                line,
                {"image_id": numbers[path], "category_id": 1, "bbox": box, "keypoints": flat},
            )


def _image(root: Path, path: str, number: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": number, "file_name": path}
    with contextlib.suppress(ValueError):  # the builder tells
        entry["height"], entry["width"] = image_header(root / path).size
    return entry


def _number(row: list[str], place: int) -> float | None:
    """Return the number in a cell, or None for an empty one."""
    text = row[place] if place < len(row) else ""
    if not text or text.casefold() == "nan":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]!r} is no number")
    return value


def _point(row: list[str], x: int, y: int, v: int | None) -> tuple[float, float, float]:
    """Return x, y and visibility of a point; zeros where it is not marked."""
    found, seen = (_number(row, x), _number(row, y)), 2.0
    if v is not None:
        seen = _number(row, v) or 0.0
    if found[0] is None or found[1] is None or not seen:
        return 0.0, 0.0, 0.0
    return found[0], found[1], seen


def _box_of(points: list[tuple[float, float]], corners: list[float | None]) -> list[float] | None:
    """Return the box xywh of an object, that of its points if no corners are written; or None."""
    known = [value for value in corners if value is not None]
    if len(known) == 4:
        x1, y1, x2, y2 = known
        return [x1, y1, x2 - x1, y2 - y1]
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return [min(xs), min(ys), max(max(xs) - min(xs), 1.0), max(max(ys) - min(ys), 1.0)]
