"""Where label images of instances lie, as Cellpose, StarDist and napari leave them; masks of DSB.

Folders and names are those of label maps of classes, so what the numbers mean is told by the
numbers: objects are counted from 1 on without gaps, each is one piece, and every image has another
count. Where a file names classes of numbers, they are classes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...pixels.label_image import load_labels
from ...records import Dataset
from ..folders import Tree, folder_split, read_lines, split_name
from ..maps.classes import find_table
from ..maps.layout import find_maps
from ..maps.source import MapSource
from ..source import BaseSource, ReadOptions
from ..tables.text import OF_INSTANCES, table_text
from .read import InstanceReader

SAMPLE = 8  # label images that tell what their numbers are
FEWEST = 3  # objects of a lone label image
MANY = 20  # objects that are certainly no classes
SINGLE = 0.9  # share of the numbers that are one piece
CLASSES, OBJECTS = "object_classes.txt", "objects.csv"
COLUMNS = OF_INSTANCES


@dataclass(frozen=True)
class InstanceSource(BaseSource):
    """Where one split lies: label images.

    Attributes:
        maps: the folders of images and of label images, and how their names fit.
        root: folder in which the classes of the objects may be told.
    """

    maps: MapSource
    root: Path

    @property
    def annotations(self) -> Path:
        """What faults and errors name: the list, or the folder of the label images."""
        return self.maps.annotations

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = InstanceReader(self.annotations, split)
        pairs = self.maps.pairs()
        self.maps.tell(reader, pairs)
        classes, table = read_classes(self.root)
        found = [(image, [file]) for image, file in pairs.files]
        return reader.dataset(found, names, classes, table)


@dataclass(frozen=True)
class MaskFilesSource(BaseSource):
    """Where one split lies: a folder for each image, with one of masks, a file for each object.

    Attributes:
        annotations: the folder of these folders.
    """

    annotations: Path
    tree: Tree = field(default_factory=Tree, compare=False)

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        reader = InstanceReader(self.annotations, split)
        found = [
            (image, self.tree.images(masks))
            for image, masks in _image_folders(self.tree, self.annotations)
        ]
        return reader.dataset(found, names, None, {})


def find_instances(
    tree: Tree, path: Path, *, forced: bool = False
) -> dict[str, InstanceSource | MaskFilesSource]:
    """Return the splits of a folder with label images of instances, {} for others.

    Args:
        tree: the file system.
        path: the folder.
        forced: take any label images, whatever their numbers look like.

    Raises:
        ValueError: if two folders may hold the label images.
    """
    if masks := _mask_files(tree, path):
        return dict(masks)
    try:
        maps = find_maps(tree, path)
    except ValueError:
        if forced:
            raise
        return {}  # for label maps to refuse
    if not maps:
        return {}
    declared = declares_instances(path)
    if not (forced or declared or _are_instances(tree, next(iter(maps.values())))):
        return {}
    return {split: InstanceSource(source, path) for split, source in maps.items()}


def declares_instances(path: Path) -> bool:
    """Return whether a file says that label images number objects, and names their classes."""
    return (path / CLASSES).is_file()


def _mask_files(tree: Tree, path: Path) -> dict[str, MaskFilesSource]:
    """Return the splits of folders of images with masks, as the nuclei of DSB 2018 lie."""
    found: dict[str, MaskFilesSource] = {}
    for folder in (path, *tree.folders(path)):
        first = next(iter(_image_folders(tree, folder)), None)
        if first is not None and (folder == path or first[1].parent.parent == folder):
            split = folder_split(folder) or split_name(folder.name) or "train"
            found.setdefault(split, MaskFilesSource(folder, tree))
    return found


def _image_folders(tree: Tree, folder: Path) -> list[tuple[Path, Path]]:
    """Return the image and the folder of masks of x/images/x.png + x/masks/*.png, for each x."""
    found = []
    for one in tree.folders(folder):
        images, masks = tree.find(one, "images"), tree.find(one, "masks")
        if images is None or masks is None or folder_split(one):
            continue
        pictures = tree.images(images)
        if len(pictures) == 1:
            found.append((pictures[0], masks))
    return found


def _are_instances(tree: Tree, source: MapSource) -> bool:
    """Return whether the numbers of label images are those of objects."""
    if find_table(tree, source.beside) or source.table is not None:
        return False
    try:
        files = [file for _, file in source.pairs().files]
    except ValueError:
        return False
    counts, single, pieces = [], 0, 0
    for file in files[:: max(len(files) // SAMPLE, 1)][:SAMPLE]:
        try:
            numbers, palette = load_labels(file)
        except ValueError:
            continue
        present = np.unique(numbers) if numbers.ndim == 2 and palette is None else np.zeros(0)
        present = present[present > 0]
        if not len(present) or 2 * len(present) < present[-1]:
            if numbers.ndim == 3 or palette is not None or len(present):
                return False
            continue
        counts.append(len(present))
        for number in present[:100].tolist():
            pieces += 1
            single += _one_piece(numbers == number)
    if not counts or max(counts) < 2 or single < SINGLE * pieces:
        return False
    return len(set(counts)) > 1 or max(counts) > MANY or (len(files) == 1 and max(counts) >= FEWEST)


def _one_piece(mask: np.ndarray) -> bool:
    """Return whether a mask is one piece, corners counted as touching."""
    from maskwright.ops.outlines import trace_parts

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    parts = trace_parts(crop, (0, 0, crop.shape[1], crop.shape[0]))
    sizes = [len(part.outline) for part in parts]
    return len(sizes) == 1 or sum(sizes[1:]) <= 4 * (len(sizes) - 1)  # but for single pixels


def read_classes(root: Path) -> tuple[list[str] | None, dict[tuple[str, int], str]]:
    """Return the class names, and the class of each object by label image and number.

    Raises:
        ValueError: if the table cannot be read.
    """
    listing, file = root / CLASSES, root / OBJECTS
    names = [line for line in read_lines(listing) if line] if listing.is_file() else None
    table: dict[tuple[str, int], str] = {}
    if file.is_file():
        rows = csv.reader(io.StringIO(table_text(file), newline=""))
        if next(rows, None) != COLUMNS:
            raise ValueError(f"{file}: the first line must be {','.join(COLUMNS)}")
        for number, row in enumerate(rows, 2):
            if len(row) != 3 or not row[1].isdecimal():
                raise ValueError(f"{file}, line {number}: expected {','.join(COLUMNS)}, got {row}")
            table[row[0], int(row[1])] = row[2]
    return names, table
