"""ImageNet as it is handed out: train/nXXXXXXXX/*.JPEG, and val/*.JPEG with a file of numbers.

The numbers in ILSVRC2012_validation_ground_truth.txt, 1 to 1000, follow the order of the devkit,
which is not that of the sorted names of synsets that networks use. It stands in the devkit's
`meta.mat`, or in a text file ILSVRC2012_synsets.txt with lines such as "1 n02119789". Validation
images that were moved into folders of classes are read as such folders.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..building.labelled import LabelBuilder, Labelled
from ..records import Dataset
from .class_folders import FolderSource, class_folders
from .folders import Tree, folder_split, read_lines
from .source import BaseSource, ReadOptions

FORMAT = "imagenet"
CLASSES = 1000
TRUTH, META, SYNSETS = (
    "ILSVRC2012_validation_ground_truth.txt",
    "meta.mat",
    "ILSVRC2012_synsets.txt",
)
SYNSET = re.compile(r"n\d{8}")
NUMBER = re.compile(r"(\d+)\.[^.]+")
MOST_BYTES = 2**26  # of meta.mat, unpacked


@dataclass(frozen=True)
class ImageNetSource(BaseSource):
    """Where the validation images lie.

    Attributes:
        annotations: the file of numbers.
        images: the folder.
        order: meta.mat, or the list of synsets.
    """

    annotations: Path
    images: Path
    order: Path
    tree: Tree = field(default_factory=Tree, compare=False)

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        synsets = read_synsets(self.order)
        lines = [line.strip() for line in read_lines(self.annotations) if line.strip()]
        if not all(line.isdecimal() and 1 <= int(line) <= len(synsets) for line in lines):
            raise ValueError(f"{self.annotations} must have a number 1 to {len(synsets)} a line")
        builder = LabelBuilder(self.annotations, split, FORMAT)
        images: list[Labelled] = []
        for file in self.tree.images(self.images):
            match = NUMBER.search(file.name)
            number = int(match[1]) if match else 0
            if 1 <= number <= len(lines):
                images.append(Labelled(file.name, (synsets[int(lines[number - 1]) - 1],)))
            else:
                message = f"{file} has no number from 1 to {len(lines)} at its end: no line is its"
                builder.fault("image without a label", message, file=file)
        if names is not None:  # some of the classes: those of the other images are left out
            known = set(names)
            left = [one.file for one in images if one.labels[0] not in known]
            if left:
                message = f"{len(left)} images are of other classes, the first: {left[0]}"
                builder.fault("image of another class", message)
            images = [one for one in images if one.labels[0] in known]
        return builder.build(self.images, images, sorted(synsets), names)


def find_imagenet(tree: Tree, path: Path) -> dict[str, ImageNetSource | FolderSource]:
    """Return the splits of a folder of ImageNet, {} for others.

    Raises:
        ValueError: if there is nothing that tells the order of the numbers.
    """
    for base in (path, *_below(tree, path, ("Data", "CLS-LOC"))):
        val = next((one for one in tree.folders(base) if folder_split(one) == "val"), None)
        truth = _find(tree, path, TRUTH)
        if val is None or truth is None or class_folders(tree, val):
            continue
        order = _find(tree, path, META) or _find(tree, path, SYNSETS)
        if order is None:
            raise ValueError(
                f"{truth} numbers classes in the order of the devkit: put its {META} beside it, or "
                f"a text {SYNSETS} with the number and the synset in every line"
            )
        found: dict[str, ImageNetSource | FolderSource] = {}
        train = next((one for one in tree.folders(base) if folder_split(one) == "train"), None)
        if train is not None and class_folders(tree, train):
            found["train"] = FolderSource(train, tree)
        return {**found, "val": ImageNetSource(truth, val, order, tree)}
    return {}


def _below(tree: Tree, path: Path, parts: Sequence[str]) -> list[Path]:
    for part in parts:
        inner = tree.named(path, (part,))
        if not inner:
            return []
        path = inner[0]
    return [path]


def _find(tree: Tree, path: Path, name: str) -> Path | None:
    """Return a file of the devkit: in the folder, its data, or a folder named devkit."""
    kits = [one for one in tree.folders(path) if "devkit" in one.name.lower()]
    for base in (path, *kits):
        for folder in (base, *tree.named(base, ("data",))):
            found = tree.find(folder, name)
            if found is not None:
                return found
    return None


def read_synsets(file: Path) -> list[str]:
    """Return the synsets 1 to 1000 in the order of the devkit, or as many as a text lists.

    Raises:
        ValueError: if the file does not tell them.
    """
    if file.suffix != ".mat":
        pairs = [line.split()[:2] for line in read_lines(file) if line.strip()]
        good = all(len(pair) == 2 and pair[0].isdecimal() for pair in pairs)
        found = {int(pair[0]): pair[1] for pair in pairs} if good else {}
        if not found or sorted(found) != list(range(1, len(pairs) + 1)):
            raise ValueError(f"{file} must have lines such as '1 n02119789', numbered from 1 on")
        return [found[number] for number in sorted(found)]
    # Synsets stand in it as text, one after the other by their numbers: no need to know the rest.
    try:
        text = _unpacked(file.read_bytes())
    except (OSError, zlib.error) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    found_all = list(dict.fromkeys(SYNSET.findall(text)))
    if len(found_all) < CLASSES:
        raise ValueError(f"{file} has {len(found_all)} synsets, fewer than {CLASSES}")
    return found_all[:CLASSES]


def _unpacked(content: bytes) -> str:
    """Return what a MATLAB 5 file holds as text: elements of type 15 are packed by zlib."""
    parts, at = [], 128
    while at + 8 <= len(content):
        kind = int.from_bytes(content[at : at + 4], "little")
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        body = content[at + 8 : at + 8 + size]
        if kind == 15:
            body = zlib.decompressobj().decompress(body, MOST_BYTES)
        parts.append(body)
        at += 8 + size + (-size % 8 if kind != 15 else 0)
    # Text has one or two bytes a letter.
    return b"".join(parts).replace(b"\0", b"").decode("latin-1")
