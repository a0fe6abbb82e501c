"""What values mean where a table of classes leaves it open, or where there is none; and it is said.

Looks into label maps: do they hold the colours of a table or its numbers, are 0 and 255 two
classes, which numbers are there at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from maskwright.structures import IGNORED
from maskwright.terminal import console

from ...maps.encoding import SMOOTH, pack_colors, plain_numbers
from ...pixels.label_image import load_labels
from .classes import ClassTable, numbered

SAMPLE = 20  # files of a split that are looked into where a table is there
TWO = ("background", "foreground")
MOST_BETWEEN = 0.05  # of the pixels: a mask with more values than two was interpolated
Said = tuple[str, str, str]  # kind, message and action of a `Fault`


def settle(table: ClassTable, files: Sequence[Path]) -> tuple[ClassTable, list[Said]]:
    """Return the table as it is meant in these files, and what is to be said of it.

    Args:
        table: what the data set says of its classes.
        files: label maps; some are looked into.
    """
    said: list[Said] = []
    if table.void:
        names = ", ".join(map(repr, table.void))
        message = f"{table.source}: pixels of {names} are ignored; rename it if it is a class"
        said.append(("class that is ignored", message, "ignored"))
    if table.colors:
        return _numbers_or_colors(table, _spread(files), said)
    if table.counted and len(table.names) == 2 and _values(_spread(files)) == {0, IGNORED}:
        name = table.names[1]
        message = f"{table.source}: the label maps hold 0 and 255, so 255 is {name!r}"
        said.append(("two values", message, "repaired"))
        table = replace(table, numbers={0: table.names[0], IGNORED: name})
    return table, said


def _spread(files: Sequence[Path]) -> list[Path]:
    places = np.linspace(0, len(files) - 1, min(SAMPLE, len(files))).astype(int)
    return [files[place] for place in np.unique(places).tolist()]


def _values(files: Sequence[Path]) -> set[int]:
    """Return the numbers in some files; those that cannot be read are told elsewhere."""
    found: set[int] = set()
    for file in files:
        try:
            stored, _ = load_labels(file)
        except ValueError:
            continue
        found.update(np.unique(stored).tolist())
    return found


def _numbers_or_colors(
    table: ClassTable, files: Sequence[Path], said: list[Said]
) -> tuple[ClassTable, list[Said]]:
    """Return the table, and whether files without RGB hold its colours or its numbers."""
    codes = set(pack_colors(np.array(list(table.colors))).tolist())
    numbers = False
    for file in files:
        try:
            stored, palette = load_labels(file)
        except ValueError:
            continue
        if stored.ndim == 3:
            continue
        used = np.unique(stored)
        shown = used.astype(np.int64) * 0x010101  # grey as a colour
        if palette is not None and used[-1] < len(palette):
            shown = pack_colors(palette[used])
        numbers |= used[-1] > 0 and not codes.issuperset(shown.tolist())
    if not numbers:
        grey = {
            red: name for (red, green, blue), name in table.colors.items() if red == green == blue
        }
        return replace(table, numbers=grey, by_palette=True), said
    if table.counted:
        message = (
            f"{table.source} gives colours, but the label maps hold numbers: they are taken for "
            "the places of its rows, counted from 0"
        )
        said.append(("numbers in place of colours", message, "kept"))
    return table, said


def table_from_names(names: Sequence[str], folder: Path) -> ClassTable | None:
    """Return the table of names that were given to numbers by `table_from_values`; None for others.

    Args:
        names: known from the training.
        folder: of the label maps.
    """
    if tuple(names) == TWO:
        return ClassTable(TWO, {0: TWO[0], IGNORED: TWO[1]}, source=str(folder))
    if all(name.isdecimal() and int(name) < 2**16 for name in names):
        return numbered(names, str(folder), numbers=map(int, names))
    return None


def table_from_values(
    files: Sequence[Path], ignore: Sequence[int | str], folder: Path
) -> tuple[ClassTable, list[Said]]:
    """Return the classes that the numbers in label maps make, where no file names any.

    Args:
        files: all label maps.
        ignore: numbers that are no classes.
        folder: where the files lie.

    Raises:
        ValueError: if the maps hold colours, or nothing but ignored pixels, or were interpolated.
    """
    counts: Counter[int] = Counter()
    first: dict[int, Path] = {}
    for file in console.track(files, f"numbers in {folder.name}", unit="img"):
        try:
            stored, _ = load_labels(file)
        except ValueError:  # listed when it is used
            continue
        found, pixels = np.unique(plain_numbers(file, stored), return_counts=True)
        for value, count in zip(found.tolist(), pixels.tolist(), strict=True):
            counts[value] += count
            first.setdefault(value, file)
    mend = f"name the classes in {folder.parent / 'classes.txt'}, a name a line, numbered from 0"
    values = set(counts)
    between = sorted(values - {0, IGNORED})
    if {0, IGNORED} < values and _smooth(between, counts):
        value = max(between, key=counts.__getitem__)
        raise ValueError(
            f"{folder}: nearly all pixels are 0 or {IGNORED}, and some have {len(between)} values "
            f"between, such as {value} in {first[value]}: edges that were interpolated; export the "
            "masks anew, resized by nearest neighbour alone"
        )
    if values == {0, IGNORED} and IGNORED not in ignore:
        message = f"{folder}: 0 is taken for the class 'background', {IGNORED} for 'foreground'"
        table = ClassTable(TWO, {0: TWO[0], IGNORED: TWO[1]}, source=str(folder))
        return table, [("two values", f"{message}; {mend}", "repaired")]
    kept = sorted(values - {IGNORED, *ignore})
    if not kept:
        raise ValueError(f"{folder}: no pixel of {len(files)} label maps has a class")
    table = numbered(map(str, kept), f"{folder} (which has no file of classes)", numbers=kept)
    shown = ", ".join(map(str, kept[:12])) + (" ..." if len(kept) > 12 else "")
    message = f"no file names the classes of {folder}: the numbers found are their names, {shown}"
    return table, [("classes without names", f"{message}; {mend}", "kept")]


def _smooth(between: Sequence[int], counts: Counter[int]) -> bool:
    """Return whether few pixels have many values, scattered as those of edges are."""
    scattered = len(between) > 128 or between[-1] - between[0] >= 2 * len(between)
    few = sum(counts[value] for value in between) <= MOST_BETWEEN * sum(counts.values())
    return len(between) >= SMOOTH and scattered and few
