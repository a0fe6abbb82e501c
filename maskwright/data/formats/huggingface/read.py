"""Reader of Hugging Face's data sets of objects.

A row is an image (its file inside the table, or the path of one) with boxes and classes. Whether a
box is x, y, width, height or x1, y1, x2, y2 is written nowhere: of both, that counts which fits all
images, or the stated areas; where both fit, the user says it by the format. Images inside a table
are written once into the folder of fetched files, below `unpacked`.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from maskwright.files import writing
from maskwright.paths import cache_dir

from ...building.annotated import AnnotatedReader, Picture, Shape
from ...building.builder import ANY
from ...building.geometry import BOMB
from ...building.objects import finite_number, flag, shown
from ...pixels.images import image_header
from ...records import Dataset
from ...segments import BadSegment
from ..beside import below, listed_names
from ..folders import Tree, folder_split, split_name
from ..outgoing import Names
from ..source import BaseSource, ReadOptions
from ..tables.text import sorted_labels
from .tables import (
    ARROW,
    BOX,
    IMAGE,
    LABEL,
    LINES,
    OBJECTS,
    PARQUET,
    class_names,
    columns_of,
    rows_of,
)

FORMAT = "huggingface"
XYWH, XYXY = "xywh", "xyxy"
ORDERS = {f"{FORMAT}_{order}": order for order in (XYWH, XYXY)}  # formats that say the order
DEEPEST = 3
USED = frozenset((*BOX, *LABEL, "area", "iscrowd", "ignore", "id", "bbox_id"))
OF_IMAGES = frozenset((*IMAGE, "image_id", "width", "height"))
SLACK = 2.0  # pixels that a box may reach beyond its image
FEW = 0.01  # share of the boxes that may be wrong
SIZES = "sizes.json"


@dataclass(frozen=True)
class HuggingFaceSource(BaseSource):
    """Where one split lies: tables.

    Attributes:
        files: the tables.
        order: of the sides of a box, where the user says it.
    """

    files: tuple[Path, ...]
    order: str | None = None

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
        reader = _Reader(self.annotations, split, FORMAT, pixels=False)
        return reader.dataset(self, names)


def find_huggingface(
    tree: Tree, path: Path, format: str | None = None
) -> dict[str, HuggingFaceSource]:
    """Return the splits of a folder with tables of images and objects, {} for others.

    Raises:
        ValueError: if a table cannot be read, or pyarrow is not installed.
    """
    order = ORDERS.get(format or "")
    return {
        split: HuggingFaceSource(tuple(files), order)
        for split, files in tables_by_split(tree, path).items()
        if _has_objects(files[0])
    }


def tables_by_split(tree: Tree, path: Path) -> dict[str, list[Path]]:
    """Return the tables below a folder, by what their names or folders tell; else train."""
    found: dict[str, list[Path]] = {}
    for folder in tree.below(path, DEEPEST):
        files = tree.files(folder, PARQUET, ARROW)
        files += [one for one in tree.files(folder, ".jsonl") if one.name == LINES]
        for file in files:
            if file.name.startswith("cache-"):  # of `datasets`
                continue
            inner = [folder, *folder.parents[: len(folder.relative_to(path).parts)]]
            told = next((split for one in inner if (split := folder_split(one))), None)
            split = (None if file.name == LINES else split_name(file.stem)) or told or "train"
            found.setdefault(split, []).append(file)
    return found


def huggingface_file(path: Path) -> dict[str, HuggingFaceSource]:
    """Return the split of a single table, {} for others.

    Raises:
        ValueError: see `find_huggingface`.
    """
    if path.suffix.lower() not in (PARQUET, ARROW) and path.name != LINES:
        return {}
    split = split_name(path.stem) or folder_split(path.parent) or "train"
    return {split: HuggingFaceSource((path,))} if _has_objects(path) else {}


def _has_objects(file: Path) -> bool:
    """Return whether a table has a column of images, and one of objects or boxes."""
    names, _ = columns_of(file)
    has = set(names)
    return bool(has.intersection(IMAGE)) and bool(has.intersection((*OBJECTS, *BOX)))


@dataclass
class _Order:
    """How well the boxes of all rows fit, read in either order.

    Attributes:
        count: boxes.
        wrong: of these, how many are none, or reach beyond the image, by order.
        areas: how many have the area that is stated, by order.
        largest: the largest side of any.
    """

    count: int = 0
    wrong: dict[str, int] = field(default_factory=lambda: {XYWH: 0, XYXY: 0})
    areas: dict[str, int] = field(default_factory=lambda: {XYWH: 0, XYXY: 0})
    largest: float = 0.0

    def add(self, box: Any, area: Any, size: tuple[int, int]) -> None:
        """Take note of a box; what is none tells nothing."""
        numbers = _numbers(box)
        if numbers is None:
            return
        a, b, c, d = numbers
        height, width = size
        self.count += 1
        self.largest = max(self.largest, a, b, c, d)
        fraction = max(numbers) <= 1
        w, h, slack = (1.0, 1.0, SLACK / width) if fraction else (width, height, SLACK)
        self.wrong[XYWH] += min(c, d) <= 0 or a + c > w + slack or b + d > h + slack
        self.wrong[XYXY] += c <= a or d <= b or c > w + slack or d > h + slack
        stated = finite_number(area)
        if stated is not None and stated > 0:
            self.areas[XYWH] += abs(c * d - stated) <= FEW * stated
            self.areas[XYXY] += abs((c - a) * (d - b) - stated) <= FEW * stated

    def decide(self, file: Path) -> str:
        """Return the order.

        Raises:
            ValueError: if nothing tells it.
        """
        if not self.count:
            return XYWH
        few = FEW * self.count
        for order, other in ((XYWH, XYXY), (XYXY, XYWH)):
            if self.wrong[order] <= few < self.wrong[other]:
                return order
        for order, other in ((XYWH, XYXY), (XYXY, XYWH)):
            if self.areas[order] > self.count / 2 > self.areas[other]:
                return order
        both = max(self.wrong.values()) <= few
        raise ValueError(
            f"{file}: whether its boxes are x, y, width, height or x1, y1, x2, y2 is not written, "
            f"and they fit the images as {'both' if both else 'neither'} ({self.count} boxes): say "
            f"it with format={FORMAT}_xywh or format={FORMAT}_xyxy"
        )


class _Reader(AnnotatedReader):
    """State of reading one split."""

    def dataset(self, source: HuggingFaceSource, names: Sequence[str] | None) -> Dataset:
        """Return the data set."""
        columns, features = columns_of(self.path)
        self.titles = class_names(features) or listed_names(self.path.parent, ())
        image = next(name for name in IMAGE if name in columns)
        own = [name for name in (*OBJECTS, *BOX, *LABEL, "area") if name in columns]
        root, images = image_files(source.files, image, self.split)
        order, keys = _Order(), set()
        for name in columns:
            if name not in OF_IMAGES and name not in own:
                self.unread[f"the column {name!r}"] = len(images)
        for (_, _, row), (_, size, _) in zip(rows_below(source.files, own), images, strict=True):
            for _, one in _objects(row):
                if (key := self._key(one)) is not None:
                    keys.add(key)
                if size is not None:
                    order.add(_first(one, BOX), one.get("area"), size)
        way = source.order or order.decide(self.path)
        self.fractions = order.count > 0 and order.largest <= 1
        listed = self.titles or sorted_labels(keys)
        by_name = {name: name for name in listed}

        def scan() -> Iterator[Picture]:
            rows = rows_below(source.files, own)
            for (file, number, row), (name, size, problem) in zip(rows, images, strict=True):
                yield self._picture(file, number, row, name, size, problem, way)

        return self.read(scan, [root], by_name or None, names)

    def _key(self, one: dict[str, Any]) -> str | None:
        """Return the class of an object; None where it has none."""
        value = _first(one, LABEL)
        if isinstance(value, bool) or value is None:
            return None
        if isinstance(value, int) and self.titles is not None:
            return self.titles[value] if 0 <= value < len(self.titles) else f"number {value}"
        if isinstance(value, int | str) and str(value).strip():
            return str(value) if value != -1 else None
        return None

    def _picture(
        self,
        file: Path,
        number: int,
        row: dict[str, Any],
        name: str,
        size: tuple[int, int] | None,
        problem: str,
        order: str,
    ) -> Picture:
        where = f"line {number}" if file.name == LINES else f"row {number}"
        picture = Picture(file, name, size)
        if problem:
            picture.broken = "unreadable image", f"{file}, {where}: {problem}"
            return picture
        for k, one in _objects(row):
            found = Shape(self._key(one), f"{where}, object {k}", {})
            for name in one.keys() - USED:
                if one[name] is not None:
                    self.leave(f"the entry {shown(name)} of an object")
            if flag(one.get("iscrowd")) or flag(one.get("ignore")):
                found.entry.update(iscrowd=1, ignore=int(bool(flag(one.get("ignore")))))
                if found.key is None:
                    found.key = ANY
            box, numbers = _first(one, BOX), _numbers(_first(one, BOX))
            if numbers is None:
                found.entry["bbox"] = BadSegment(
                    "bad box", f"a box is four finite numbers, got {shown(box)}"
                )
            else:
                a, b, c, d = numbers
                if self.fractions and size is not None:
                    a, b, c, d = a * size[1], b * size[0], c * size[1], d * size[0]
                found.entry["bbox"] = [a, b, c, d] if order == XYWH else [a, b, c - a, d - b]
            picture.shapes.append(found)
        return picture


def rows_below(
    files: Sequence[Path], columns: Sequence[str]
) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Yield the rows of tables, each with its table and its number there."""
    for file in files:
        for number, row in rows_of(file, columns):
            yield file, number, row


def image_files(
    files: Sequence[Path], column: str, split: str
) -> tuple[Path, list[tuple[str, tuple[int, int] | None, str]]]:
    """Return a folder, and of each row path below it, size, and what is wrong with the image."""
    root = files[0].parent
    first = next((row for _, _, row in rows_below(files, [column])), {}).get(column)
    if isinstance(first, dict) and isinstance(first.get("bytes"), bytes):
        root = unpack(files, column, split)
        listed = json.loads((root / SIZES).read_text())
        return root, [(name, size and (size[0], size[1]), why) for name, size, why in listed]
    found: list[tuple[str, tuple[int, int] | None, str]] = []
    for file, _, row in rows_below(files, [column]):
        value = row.get(column)
        name = value.get("path") if isinstance(value, dict) else value
        if not isinstance(name, str) or not name:
            found.append(("", None, f"an image is a path, got {shown(value)}"))
            continue
        name = below(root, file.parent, name) if file.parent == root else name
        try:
            found.append((name, image_header(root / name).size, ""))
        except ValueError:  # the builder tells
            found.append((name, None, ""))
    return root, found


def _first(one: dict[str, Any], names: Sequence[str]) -> Any:
    return next((one[name] for name in names if name in one), None)


def _numbers(box: Any) -> tuple[float, float, float, float] | None:
    """Return the four numbers of a box; None if it has not four finite ones."""
    sides = [finite_number(side) for side in box] if isinstance(box, list) else []
    if len(sides) != 4 or None in sides:
        return None
    a, b, c, d = (side for side in sides if side is not None)
    return a, b, c, d


def _objects(row: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a row: of a list of them, of lists by name, or of such columns."""
    value = _first(row, OBJECTS)
    if value is None:
        value = row
    if isinstance(value, list):
        for k, one in enumerate(value):
            yield k, one if isinstance(one, dict) else {}
    elif isinstance(value, dict):
        lists = {key: each for key, each in value.items() if isinstance(each, list)}
        for k in range(max((len(lists[name]) for name in BOX if name in lists), default=0)):
            yield k, {key: each[k] for key, each in lists.items() if k < len(each)}


def unpack(files: Sequence[Path], column: str, split: str) -> Path:
    """Write the images inside tables into a folder, once, and return it.

    Raises:
        ValueError: if a table cannot be read, or the folder not be written.
    """
    marks = [f"{one.resolve()} {one.stat().st_size} {one.stat().st_mtime_ns}" for one in files]
    digest = hashlib.sha256("\n".join(marks).encode()).hexdigest()[:16]
    place = cache_dir() / "unpacked" / f"{split}-{digest}"
    if (place / SIZES).is_file():
        return place
    sizes: list[tuple[str, tuple[int, int] | None, str]] = []
    names = Names()
    part = place.with_name(f"{place.name}.part")
    with writing(place.parent):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for number, (_, row) in enumerate(
            pair for file in files for pair in rows_of(file, [column])
        ):
            sizes.append(_written(part, row.get(column), number, names))
        (part / SIZES).write_text(json.dumps(sizes))
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
    return place


def _written(
    folder: Path, value: Any, number: int, names: Names
) -> tuple[str, tuple[int, int] | None, str]:
    """Write one image; return its name, size, and what is wrong with it."""
    content = value.get("bytes") if isinstance(value, dict) else None
    if not isinstance(content, bytes):
        return "", None, f"the image has no bytes, got {shown(value)}"
    try:
        with Image.open(io.BytesIO(content)) as image:
            kind = (image.format or "").lower()
    except (OSError, ValueError, SyntaxError, BOMB) as error:
        return "", None, f"the bytes of the image are none that is read ({str(error)[:80]})"
    given = value.get("path")
    stem = PurePosixPath(str(given or "").replace("\\", "/")).stem
    plain = "".join(mark for mark in stem if mark.isalnum() or mark in " ._-()+").strip(" .")
    suffix = ".jpg" if kind == "jpeg" else f".{kind}"
    name = names.free(Path(f"{plain[:80] or number}{suffix}")) + suffix
    (folder / name).write_bytes(content)
    try:
        return name, image_header(folder / name).size, ""
    except ValueError:  # the builder tells
        return name, None, ""
