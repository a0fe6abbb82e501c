"""The rows of a table of images, and what its header says of the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ...pixels.kinds import image_suffixes
from ..folders import split_name
from .text import delimiter, header_line, table_text

COLUMNS: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img"),
        *("image_name", "image_file", "img_name", "img_path", "img_fname"),
    ),
    "label": (
        *("label", "labels", "class", "classes", "class_name", "category", "target", "tags"),
        *("class_label", "label_name", "category_name", "choice"),
    ),
    "split": ("split", "set", "subset"),
    "group": ("group", "group_id", "patient", "patient_id", "subject", "scene"),
    "x1": ("x1", "xmin", "x_min", "xtl", "left"),
    "y1": ("y1", "ymin", "y_min", "ytl", "top"),
    "x2": ("x2", "xmax", "x_max", "xbr", "right"),
    "y2": ("y2", "ymax", "y_max", "ybr", "bottom"),
    "x": ("x",),
    "y": ("y",),
    "w": ("w",),
    "h": ("h",),
    "width": ("width",),
    "height": ("height",),
    "box": ("bbox", "box", "bndbox"),
    "image id": ("image_id", "imageid"),
}
OF_BOX = ("bbox_", "box_", "bbx_")  # before the name of a side
SIZES = ("img_w", "img_h", "image_width", "image_height", "")  # those of the file count
BOX = ("x1", "y1", "x2", "y2")
SIDED = ("x", "y", "w", "h")
# MakeSense exports lines of these without a header.
LINE = ("label", *SIDED, "path", "width", "height")
SAMPLE = 50  # rows that tell whether columns are marks of classes


@dataclass(frozen=True)
class Header:
    """What the columns of a table are.

    Attributes:
        columns: number of each column of COLUMNS that is there.
        box: the columns that make a box: corners, the first corner and sides, one that has all of
            these, or none.
        bare: there is no header, the first line is a row.
        marks: names of classes by the number of the column that says 0 or 1 of each.
        others: names of those that are not read.
    """

    columns: dict[str, int]
    marks: dict[int, str]
    others: tuple[str, ...]
    box: tuple[str, ...] = ()
    bare: bool = False


@dataclass(frozen=True)
class Row:
    """One line: as COLUMNS; `box` as written, see `Header`, empty texts where there is none."""

    line: int
    path: str
    labels: tuple[str, ...]
    split: str
    group: str
    box: tuple[str, ...]


def read_header(file: Path) -> Header:
    """Return what the columns of a table are.

    Raises:
        ValueError: if there is no path or no label, or two columns are the same.
    """
    line = header_line(file)
    words = [word.strip() for word in next(csv.reader([line], delimiter=delimiter(line)), [])]
    if _is_line(words):
        return Header({name: k for k, name in enumerate(LINE)}, {}, (), SIDED, bare=True)
    found: dict[str, int] = {}
    others: dict[int, str] = {}
    for number, word in enumerate(words):
        name = _meaning(word.casefold())
        if name is None:
            others[number] = word
        elif name in found:
            raise ValueError(
                f"{file}: the columns {words[found[name]]!r} and {word!r} are both the {name}: "
                "leave one"
            )
        elif name:
            found[name] = number
    box = _box_of(found)
    unused = [name for name in (*SIDED, "box") if name in found and name not in box]
    if "image id" in found and found.setdefault("path", found["image id"]) != found["image id"]:
        unused.append("image id")
    others |= {found[name]: words[found[name]] for name in unused}
    marks: dict[int, str] = {}
    if (
        "path" in found
        and not ({"label", *BOX} & found.keys() or box)
        and _marked(file, line, others)
    ):
        marks, others = others, {}
    wanted = ["path"] if box == ("box",) else ["path", "label"]
    if missing := [name for name in wanted if name not in found and not marks]:
        raise ValueError(
            f"{file}: the first line names no column for the {' and the '.join(missing)}, it has "
            f"{[word[:40] for word in words[:12]]}: write a header such as path,label or "
            "path,label,split,group,x1,y1,x2,y2, or x,y,w,h, or bbox with [x, y, w, h]"
        )
    sides = [side for side in BOX if side in found]
    if sides and len(sides) < 4:
        raise ValueError(f"{file}: a box has the columns x1, y1, x2, y2; only {sides} are there")
    return Header(found, marks, tuple(others.values()), box)


def _is_line(words: Sequence[str]) -> bool:
    """Return whether a line is one of MakeSense: a label, four numbers, an image and its size."""
    if len(words) != len(LINE) or Path(words[5]).suffix.lower() not in image_suffixes():
        return False
    numbers = (*words[1:5], *words[6:])
    return all(word.lstrip("-").replace(".", "", 1).isdecimal() for word in numbers)


def _box_of(found: dict[str, int]) -> tuple[str, ...]:
    """Return which columns make a box; width and height are its sides beside x and y alone."""
    if any(side in found for side in BOX):
        return BOX
    if "x" in found and "y" in found and not {"w", "h"} & found.keys():
        found.update({side[0]: found[side] for side in ("width", "height") if side in found})
    if all(side in found for side in SIDED):
        return SIDED
    return ("box",) if "box" in found else ()


def _meaning(word: str) -> str | None:
    """Return of COLUMNS what a column is; "" for what is known and not needed, None for others."""
    side = next((word.removeprefix(one) for one in OF_BOX if word.startswith(one)), "")
    if side in ("width", "height"):
        return side[0]
    for name, spellings in COLUMNS.items():
        if word in spellings or (name in (*BOX, *SIDED) and side in spellings):
            return name
    return "" if word in SIZES else None


def _marked(file: Path, header: str, columns: Collection[int]) -> bool:
    """Return whether columns say 0 or 1 in the first rows of a table: each is a class."""
    with file.open(encoding="utf-8-sig", newline="", errors="replace") as stream:
        reader = csv.reader(islice(stream, 1, 1 + SAMPLE), delimiter=delimiter(header))
        rows = [row for row in reader if any(row)]
    return bool(rows and columns) and all(
        number < len(row) and row[number].strip() in ("0", "1")
        for row in rows
        for number in columns
    )


def read_rows(file: Path, header: Header) -> list[Row]:
    """Return the rows of a table.

    Raises:
        ValueError: if it cannot be read, has no rows, or one of them has a split of no known name.
    """
    text = table_text(file)
    line = header_line(file)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(line))
    rows: list[Row] = []
    try:
        for _ in range(not header.bare):
            next(reader)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(_row(file, reader.line_num, cells, header))
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: {error}") from None
    if not rows:
        raise ValueError(f"{file} has a header but no rows")
    return rows


def _row(file: Path, line: int, cells: list[str], header: Header) -> Row:
    columns = header.columns

    def cell(name: str) -> str:
        place = columns.get(name, len(cells))
        return cells[place].strip() if place < len(cells) else ""

    split = "train"
    if "split" in columns:
        found = split_name(cell("split"))
        if found is None:
            raise ValueError(
                f"{file}, line {line}: split {cell('split')!r} is none of train, val and test"
            )
        split = found
    labels = tuple(dict.fromkeys(part.strip() for part in cell("label").split(";") if part.strip()))
    if header.marks:
        labels = tuple(_marks(file, line, cells, header.marks))
    box = tuple(cell(side) for side in header.box or BOX)
    if header.box == ("box",):  # "[834.0, 222.0, 56.0, 36.0]"; without an object empty or nan
        words = tuple(box[0].strip("[]() ").replace(",", " ").split())
        box = ("",) * 4 if words in ((), ("nan",)) else words
    return Row(line, cell("path"), labels, split, cell("group"), box)


def _marks(file: Path, line: int, cells: list[str], marks: Mapping[int, str]) -> Iterator[str]:
    """Yield the classes whose column says 1."""
    for number, name in marks.items():
        mark = cells[number].strip() if number < len(cells) else ""
        if mark not in ("0", "1"):
            raise ValueError(f"{file}, line {line}: {name} is 0 or 1, got {mark[:80]!r}")
        if mark == "1":
            yield name
