"""MNIST and its kin: IDX files, packed with gzip or not (LeCun, Cortes and Burges 1998).

Big-endian: magic 0x0803, images, rows, columns, then a byte for each pixel; magic 0x0801, labels,
then a byte for each label. The images of E-MNIST are stored transposed, and only those: they are
told by the beginning of their names.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ..building.labelled import LabelBuilder, Labelled
from ..records import Dataset
from .folders import Tree, read_lines, split_name
from .source import BaseSource, ReadOptions

FORMAT = "idx"
IMAGES, LABELS = 0x0803, 0x0801
MOST_BYTES = 8 * 2**30  # of one file, unpacked
NAME = re.compile(r"(?i)(?P<set>.*?)(?P<split>train|t10k|test|val)-images[-.]idx3-ubyte(\.gz)?")
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


@dataclass(frozen=True)
class IdxSource(BaseSource):
    """Where one split lies: a file of images and one of labels.

    Attributes:
        annotations: the labels.
        images: the images.
    """

    annotations: Path
    images: Path

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        pixels = read_idx(self.images, IMAGES)
        labels = read_idx(self.annotations, LABELS)
        if len(pixels) != len(labels):
            raise ValueError(
                f"{self.images} has {len(pixels)} images and {self.annotations} {len(labels)} "
                "labels: they do not belong together"
            )
        if self.images.name.lower().startswith("emnist"):
            pixels = np.ascontiguousarray(pixels.transpose(0, 2, 1))
        called = _class_names(self.images.parent, labels)
        images = [
            Labelled(f"{self.images.name}#{number}", (called[label],))
            for number, label in enumerate(labels.tolist())
        ]
        builder = LabelBuilder(self.annotations, split, FORMAT)
        stored = torch.from_numpy(pixels)[:, None]
        return builder.build(
            self.images.parent, images, list(called.values()), names, stored=stored
        )


def _class_names(folder: Path, labels: np.ndarray) -> dict[int, str]:
    """Return the name of each label that occurs, or that classes.txt or Fashion-MNIST has."""
    listing = folder / "classes.txt"
    listed: Sequence[str] = ()
    if listing.is_file():
        listed = [line.strip() for line in read_lines(listing) if line.strip()]
    elif any("fashion" in part.lower() for part in folder.parts[-2:]):
        listed = FASHION
    found = np.unique(labels).tolist()
    if not listed:
        return {label: str(label) for label in found}
    if found and found[-1] >= len(listed):
        raise ValueError(f"{listing} names {len(listed)} classes, but a label is {found[-1]}")
    return dict(enumerate(listed))


def find_idx(tree: Tree, path: Path) -> dict[str, IdxSource]:
    """Return the splits of a folder of IDX files, {} for others.

    Raises:
        ValueError: if there are several sets, or labels are missing.
    """
    for folder in (path, *tree.named(path, ("raw",))):
        images = [file for file in tree.entries(folder) if NAME.fullmatch(file.name)]
        if images:
            return _splits(tree, folder, images)
    return {}


def idx_splits(file: Path) -> dict[str, IdxSource]:
    """Return the splits of the set to which a file of images belongs, {} for other files."""
    match = NAME.fullmatch(file.name)
    if match is None:
        return {}
    tree = Tree()
    same = [
        one
        for one in tree.entries(file.parent)
        if (other := NAME.fullmatch(one.name)) and other["set"] == match["set"]
    ]
    return _splits(tree, file.parent, same)


def _splits(tree: Tree, folder: Path, images: list[Path]) -> dict[str, IdxSource]:
    found: dict[str, IdxSource] = {}
    for file in sorted(images, key=lambda one: one.suffix == ".gz"):  # unpacked ones are quicker
        match = NAME.fullmatch(file.name)
        assert match is not None
        split = "test" if match["split"].lower() == "t10k" else split_name(match["split"])
        assert split is not None
        first = found.get(split)
        if first is not None:
            if first.images.name.removesuffix(".gz") != file.name.removesuffix(".gz"):
                raise ValueError(
                    f"{folder} has several sets of IDX files, such as {first.images.name} and "
                    f"{file.name}: give the images of the one that is meant, data={file}"
                )
            continue
        start = file.name[: match.end("split")]
        labels = [
            name
            for ending in ("-labels-idx1-ubyte", "-labels.idx1-ubyte")
            for packed in ("", ".gz")
            if (name := tree.find(folder, f"{start}{ending}{packed}")) is not None
        ]
        if not labels:
            raise ValueError(f"{file} has no labels beside it, {start}-labels-idx1-ubyte(.gz)")
        found[split] = IdxSource(labels[0], file)
    return found


def read_idx(file: Path, magic: int) -> np.ndarray:
    """Return the numbers of an IDX file, uint8: (N, rows, columns) or (N,).

    Raises:
        ValueError: if it is missing, of another kind, damaged, cut off or too long.
    """
    try:
        with file.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            if not packed:
                return _numbers(stream, file, magic)
            with gzip.GzipFile(fileobj=stream) as unpacked:
                return _numbers(unpacked, file, magic)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        what = getattr(error, "strerror", None) or error
        raise ValueError(f"{file} cannot be read ({what}): fetch it again") from None


def _numbers(stream: BinaryIO, file: Path, magic: int) -> np.ndarray:
    dimensions = magic & 0xFF
    head = stream.read(4 * (1 + dimensions))
    if len(head) < 4 or struct.unpack(">I", head[:4])[0] != magic:
        raise ValueError(f"{file} is no IDX file of {'images' if magic == IMAGES else 'labels'}")
    if len(head) < 4 * (1 + dimensions):
        raise ValueError(f"{file} is cut off: fetch it again")
    shape = struct.unpack(f">{dimensions}I", head[4:])
    count = int(np.prod(shape, dtype=object))
    if not 0 < count <= MOST_BYTES:
        raise ValueError(f"{file} says that it has {' x '.join(map(str, shape))} bytes")
    content = stream.read(count + 1)
    if len(content) != count:
        more = "more" if len(content) > count else f"only {len(content)}"
        raise ValueError(f"{file} has {more} bytes where it says {count}: fetch it again")
    return np.frombuffer(bytearray(content), np.uint8).reshape(shape)
