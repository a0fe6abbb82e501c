"""ADE20K of the scene parsing challenge (Zhou et al. 2017): 150 classes from 1 on; 0 is ignored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from maskwright.structures import IGNORED

from ..folders import Tree, read_lines
from .classes import ClassTable
from .layout import find_maps
from .source import MapSource

FORMAT = "ade20k"
TABLE = "objectInfo150.txt"


def find_ade20k(tree: Tree, path: Path) -> dict[str, MapSource]:
    """Return the splits of a folder with the challenge's table of classes, {} for others.

    Raises:
        ValueError: if the table cannot be read.
    """
    file = tree.find(path, TABLE)
    if file is None:
        return {}
    table = read_info(file)
    return {
        split: replace(source, table=table, beside=(), format=FORMAT)
        for split, source in find_maps(tree, path).items()
    }


def read_info(file: Path) -> ClassTable:
    """Return the classes of a table with the columns Idx and Name, named by their first word.

    Raises:
        ValueError: if it has no such columns.
    """
    head, *rows = [line.split("\t") for line in read_lines(file) if line.strip()] or [[""]]
    titles = [title.strip() for title in head]
    if not {"Idx", "Name"} <= set(titles) or not rows:
        raise ValueError(
            f"{file} has the columns {titles}: expected Idx and Name, with tabs between"
        )
    number, name = titles.index("Idx"), titles.index("Name")
    try:
        words = {int(row[number]): row[name].strip() for row in rows}
    except (ValueError, IndexError):
        raise ValueError(f"{file} must have a number and a name in each row") from None
    first = {value: word.partition(",")[0].partition(";")[0] for value, word in words.items()}
    names = first if len(set(first.values())) == len(first) else words
    return ClassTable(tuple(names.values()), {0: "", IGNORED: "", **names}, source=str(file))
