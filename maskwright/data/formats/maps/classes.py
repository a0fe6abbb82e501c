"""What a data set says of the values in its label maps: names, numbers and colours of the classes.

Read are classes.txt (a name a line, numbered from 0, or lines "7: road"), CVAT's labelmap.txt,
CamVid's label_colors.txt, tables such as class_dict.csv (name,r,g,b) and Roboflow's _classes.csv
(Pixel Value, Class), and the names of a data.yaml. Classes that are called void, unlabelled or the
like are ignored; more of them, or numbers, by the option `ignore`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.errors import OptionError, nearest
from maskwright.structures import IGNORED

from ...maps.encoding import UNKNOWN, Color, Values, pack_colors, table_of
from ..folders import Tree, read_lines

FILES = (
    *("classes.txt", "class_names.txt", "labelmap.txt", "label_map.txt", "label_colors.txt"),
    *("labels.txt", "names.txt", "class_dict.csv", "labels_class_dict.csv", "classes.csv"),
    *("_classes.csv", "label_colors.csv", "data.yaml", "data.yml", "dataset.yaml"),
)
VOID = {"void", "unlabeled", "unlabelled", "ignore", "ignored", "__ignore__", "ignore_label"}
LABELME_VOID = "__ignore__"  # first line of labelme's lists, which number it -1
MOST = IGNORED  # classes that the numbers 0 to 254 tell apart
Ignore = Sequence[int | str]
# Parts of a line: name, colour, number.
LINES: tuple[re.Pattern[str], ...] = (
    re.compile(r"(?P<name>[^:]+):(?P<color>\d+\s*,\s*\d+\s*,\s*\d+|):[^:]*:[^:]*"),
    re.compile(r"(?P<color>\d+[\s,]+\d+[\s,]+\d+)[\s,]+(?P<name>\S.*)"),
    re.compile(r"(?P<name>\S.*?)[\s,]+(?P<color>\d+[\s,]+\d+[\s,]+\d+)"),
    re.compile(r"(?P<number>\d+)\s*[:=,;\s]\s*(?P<name>\S.*)"),
    re.compile(r"(?P<name>\S.*)"),
)
COLUMNS = {
    "name": ("name", "class", "label", "class_name", "label_name"),
    "number": ("pixel value", "value", "id", "index", "class_id", "label_id", "number"),
    "red": ("r", "red"),
    "green": ("g", "green"),
    "blue": ("b", "blue"),
}


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set, and what stands for each in its label maps.

    Attributes:
        names: of the classes, in their order.
        numbers: the class of a stored number, "" for one that is ignored.
        colors: the same of colours.
        source: where that is said.
        counted: the numbers are no more than the order of the names.
        by_palette: see `Values`.
        void: classes that are ignored for their name.
    """

    names: tuple[str, ...]
    numbers: Mapping[int, str]
    colors: Mapping[Color, str] = field(default_factory=dict)
    source: str = "the data set"
    counted: bool = False
    by_palette: bool = False
    void: tuple[str, ...] = ()

    def ignoring(self, ignore: Ignore) -> ClassTable:
        """Return the table without classes or numbers that the user wants ignored.

        Raises:
            OptionError: if there is no class of such a name.
        """
        left = set()
        numbers = dict(self.numbers)
        for one in ignore:
            if isinstance(one, str):
                if one not in {*self.names, *self.void}:
                    raise OptionError(
                        f"ignore={one!r}: {self.source} has no such class, only "
                        f"{', '.join(self.names)}{nearest(one, self.names)}"
                    )
                left.add(one)
            else:
                left.add(numbers.get(one, ""))
                numbers[one] = ""
        left.discard("")
        return replace(
            self,
            names=tuple(name for name in self.names if name not in left),
            numbers={value: "" if name in left else name for value, name in numbers.items()},
            colors={value: "" if name in left else name for value, name in self.colors.items()},
        )

    def encoding(self, names: Sequence[str]) -> Values:
        """Return how values become labels.

        Args:
            names: of the classes, which give the labels; values of others become errors.
        """
        label = {name: number for number, name in enumerate(names)} | {"": IGNORED}
        numbers = {value: label.get(name, UNKNOWN) for value, name in self.numbers.items()}
        packed = {_pack(color): name for color, name in self.colors.items()}
        codes = np.array(sorted(packed), np.int64)
        labels = [label.get(packed[code], UNKNOWN) for code in codes.tolist()]
        foreign = {**packed, **self.numbers}
        return Values(
            table_of(numbers),
            codes,
            np.array(labels, np.int16),
            self.by_palette,
            self.source,
            {value: name for value, name in foreign.items() if name not in label},
        )


def _pack(color: Color) -> int:
    return int(pack_colors(np.array(color)))


def numbered(
    names: Iterable[str], source: str, *, first: int = 0, numbers: Iterable[int] | None = None
) -> ClassTable:
    """Return a table of names with numbers, and 255 for what is ignored.

    Args:
        names: of the classes.
        source: where they are from.
        first: number of the first one.
        numbers: of each; None: they are counted.
    """
    names = list(names)
    values = range(first, first + len(names)) if numbers is None else list(numbers)
    table = {value: name for value, name in zip(values, names, strict=True) if value >= 0}
    return without_void(
        ClassTable(tuple(names), {IGNORED: "", **table}, source=source, counted=numbers is None)
    )


def without_void(table: ClassTable) -> ClassTable:
    """Return a table whose classes called void, unlabelled and the like are ignored.

    Raises:
        ValueError: if no class is left, one name stands twice, or there are too many.
    """
    seen: set[str] = set()
    for name in table.names:
        if name in seen:
            raise ValueError(f"{table.source} has the class {name!r} twice: names must differ")
        seen.add(name)
    void = tuple(name for name in table.names if name.casefold() in VOID)
    table = replace(table.ignoring(void), void=void)
    if not table.names:
        raise ValueError(f"{table.source} names no class")
    if len(table.names) > MOST:
        raise ValueError(
            f"{table.source} has {len(table.names)} classes, but a label map tells at most {MOST} "
            "apart: leave some out, or join them"
        )
    return table


def find_table(tree: Tree, folders: Iterable[Path]) -> ClassTable | None:
    """Return what the files beside label maps say of their classes; None if there are none.

    Args:
        tree: the file system.
        folders: where they may lie; the first that has any counts.

    Raises:
        ValueError: if a file cannot be read, or two of one folder contradict each other.
    """
    for folder in dict.fromkeys(folders):
        found = [file for name in FILES if (file := tree.find(folder, name)) and file.is_file()]
        tables = [table for file in dict.fromkeys(found) if (table := read_table(file))]
        if tables:
            whole = tables[0]
            for other in tables[1:]:
                whole = _joined(whole, other)
            return whole
    return None


def read_table(file: Path) -> ClassTable | None:
    """Return the classes that a file names; None for a YAML file without names.

    Raises:
        ValueError: if it cannot be read.
    """
    if file.suffix.lower() in (".yaml", ".yml"):
        return _of_yaml(file)
    if file.suffix.lower() == ".csv":
        return _of_csv(file)
    lines = [line.strip() for line in read_lines(file)]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ValueError(f"{file} is empty: it must name a class a line")
    for form in LINES:
        parts = [form.fullmatch(line) for line in lines]
        if all(parts):
            rows = [part.groupdict() for part in parts if part is not None]
            break
    return _of_rows(str(file), rows)


def _of_csv(file: Path) -> ClassTable:
    try:
        head, *lines = list(csv.reader(read_lines(file), skipinitialspace=True)) or [[]]
    except csv.Error as error:
        raise ValueError(f"{file} is no table: {error}") from None
    titles = [title.strip().casefold() for title in head]
    place: dict[str, int] = {}
    for key, words in COLUMNS.items():
        having = [titles.index(word) for word in words if word in titles]
        place |= {key: having[0]} if having else {}
    colored = {"red", "green", "blue"} <= set(place)
    if "name" not in place or not (colored or "number" in place):
        raise ValueError(
            f"{file} has the columns {','.join(head)}: expected name,r,g,b or name,id, as the "
            "classes of label maps need"
        )
    rows = []
    for line in lines:
        if any(cell.strip() for cell in line):
            if len(line) < len(head):
                raise ValueError(f"{file}: the row {','.join(line)} has too few columns")
            row = {"name": line[place["name"]].strip()}
            row |= {"number": line[place["number"]].strip()} if "number" in place else {}
            if colored:
                row["color"] = ",".join(line[place[key]] for key in ("red", "green", "blue"))
            rows.append(row)
    return _of_rows(str(file), rows)


def _of_yaml(file: Path) -> ClassTable | None:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file} is no valid YAML: {error}") from None
    names = content.get("names") if isinstance(content, Mapping) else None
    return None if names is None else of_names(names, str(file))


def of_names(names: Any, source: str) -> ClassTable:
    """Return the classes of an entry `names`: a list, or names by number.

    Raises:
        ValueError: if it is something else.
    """
    if isinstance(names, list) and all(isinstance(name, str | int) for name in names) and names:
        return numbered(map(str, names), source)
    if isinstance(names, Mapping) and names and all(type(key) is int for key in names):
        return numbered(map(str, names.values()), source, numbers=names)
    raise ValueError(f"{source}: names must be a list of names, or names by number (7: road)")


def _of_rows(source: str, rows: list[dict[str, str]]) -> ClassTable:
    """Return the table of rows with a name each, and perhaps a number or a colour."""
    names = [row["name"].strip().strip(",") for row in rows]
    first = -1 if names[:1] == [LABELME_VOID] else 0
    numbers = None
    if all(row.get("number") for row in rows):
        numbers = [_whole(row["number"], source, 65535) for row in rows]
    table = numbered(names, source, first=first, numbers=numbers)
    colors: dict[Color, str] = {}
    for name, row in zip(names, rows, strict=True):
        if row.get("color"):
            parts = [
                _whole(part, source, 255) for part in re.split(r"[\s,]+", row["color"].strip())
            ]
            color = parts[0], parts[1], parts[2]
            if color in colors:
                raise ValueError(
                    f"{source} gives the colour {row['color']} to {colors[color]!r} and {name!r}"
                )
            colors[color] = name
    kept = {color: name if name in table.names else "" for color, name in colors.items()}
    return replace(table, colors=kept)


def _whole(text: str, source: str, most: int) -> int:
    if not text.strip().isdecimal() or int(text) > most:
        raise ValueError(f"{source} has {text.strip()!r}, expected a number from 0 to {most}")
    return int(text)


def _joined(one: ClassTable, other: ClassTable) -> ClassTable:
    """Return what two files say together.

    Raises:
        ValueError: if they contradict each other.
    """

    shared = one.numbers.keys() & other.numbers.keys()
    alike = (
        set(one.names) == set(other.names)
        and (
            one.counted != other.counted or all(one.numbers[k] == other.numbers[k] for k in shared)
        )
        and (not one.colors or not other.colors or one.colors == other.colors)
    )
    if not alike:
        raise ValueError(
            f"{one.source} and {other.source} both name the classes, but not alike: leave the one "
            "that is right"
        )
    declared = other if one.counted and not other.counted else one
    return replace(declared, colors=one.colors or other.colors)
