"""What a row of the table of formats is, and the folder that rows are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path

from ..records import Dataset
from .coco.layout import CocoFinder
from .folders import Tree
from .source import Source
from .voc.layout import VocFinder


@dataclass
class Look:
    """What a folder is found to hold; each part is looked for when first asked for.

    Attributes:
        path: the folder.
        keypoints: prefer COCO's files of keypoints.
        tree: the file system.
        format: what it is said to be, perhaps with more behind a colon; None: nobody said.
    """

    path: Path
    keypoints: bool = False
    tree: Tree = field(default_factory=Tree)
    format: str | None = None

    @cached_property
    def coco(self) -> CocoFinder:
        """Its JSON files."""
        return CocoFinder(self.tree, self.path, self.keypoints)

    @cached_property
    def voc(self) -> VocFinder:
        """Its XML files and their lists."""
        finder = VocFinder(self.tree)
        finder.look(self.path)
        return finder


Found = Mapping[str, Source]
Find = Callable[[Look], Found]


@dataclass(frozen=True)
class Layout:
    """One row of the table.

    Attributes:
        name: what it is called; for a format of files, what `sniff` calls it.
        looks: an example for messages; "" where an earlier row shows it.
        find: returns the splits of a folder that looks so, nothing for others; None: not read yet.
        records: what its images have, "objects", "labels" or "maps"; see `Dataset`.
        file: returns the splits of a single file that is given as the data.
        format: `Dataset.format` of what is read, and the word that the option `format` takes.
        write: writes a data set into a folder, as it is read from there; None: not written.
        keeps: of `lost.WORDS`, what the written format holds.
        outlined: masks may be polygons in it, if the user wants that.
        edited: it is of a tool in which people move the corners of polygons.
        last: asked only where no other row of either kind of records fits.
        todo: what to do with data that is not read.
    """

    name: str
    looks: str = ""
    find: Find | None = None
    _: KW_ONLY
    records: str = "objects"
    file: Callable[[Path], Found] | None = None
    format: str = ""
    write: Callable[[Dataset, Path], Path] | None = None
    keeps: frozenset[str] = frozenset()
    outlined: bool = False
    edited: bool = False
    last: bool = False
    todo: str = ""
