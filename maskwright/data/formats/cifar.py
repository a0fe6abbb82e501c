"""CIFAR-10 and CIFAR-100, as binary files or as pickles of Python 2 (Krizhevsky 2009).

Binary: a byte for the label (CIFAR-100: coarse, then fine), then 3072 for the red, green and blue
planes of 32 x 32 pixels. Pickles are read without anything in them being called. A folder of
CIFAR-100 has its 100 fine labels; its file `coarse_label_names.txt` in place of it the 20 coarse
ones.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskwright.pickles import Thing, read_pickle

from ..building.labelled import LabelBuilder, Labelled
from ..records import Dataset
from .folders import Tree, read_lines
from .source import BaseSource, ReadOptions

FORMAT = "cifar"
PLANES = 3 * 32 * 32
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python")
TEN = re.compile(r"(data_batch_\d+|test_batch)(\.bin)?")
MOST_BYTES = 2**30  # of one file
# Of each kind of labels: bytes of them before the pixels and which counts, the key in a pickle,
# how many classes there are, the files that name them, and the key of the names.
LABELS = {
    "ten": (1, 0, "labels", 10, ("batches.meta.txt", "batches.meta"), "label_names"),
    "fine": (2, 1, "fine_labels", 100, ("fine_label_names.txt", "meta"), "fine_label_names"),
    "coarse": (2, 0, "coarse_labels", 20, ("coarse_label_names.txt", "meta"), "coarse_label_names"),
}
OF_100 = re.compile(r"(fine|coarse)_label_names\.txt", re.IGNORECASE)


@dataclass(frozen=True)
class CifarSource(BaseSource):
    """Where one split lies.

    Attributes:
        files: its batches.
        labels: one of `LABELS`.
    """

    files: tuple[Path, ...]
    labels: str = "ten"

    @property
    def annotations(self) -> Path:
        """What faults and errors name."""
        return self.files[0]

    def read(self, split: str, names: Sequence[str] | None, options: ReadOptions) -> Dataset:
        """Return the data set; see `discover.open_dataset`."""
        batches = [_read_batch(file, self.labels) for file in self.files]
        called = _class_names(self.annotations.parent, self.labels)
        images: list[Labelled] = []
        for file, (_, labels) in zip(self.files, batches, strict=True):
            if labels.max(initial=0) >= len(called):
                raise ValueError(f"{file}: label {labels.max()} of {len(called)} classes")
            images += [
                Labelled(f"{file.name}#{number}", (called[label],))
                for number, label in enumerate(labels.tolist())
            ]
        stored = torch.from_numpy(np.concatenate([pixels for pixels, _ in batches]))
        builder = LabelBuilder(self.annotations, split, FORMAT)
        root = self.annotations.parent
        return builder.build(root, images, called, names, stored=stored.reshape(-1, 3, 32, 32))


def find_cifar(tree: Tree, path: Path) -> dict[str, CifarSource]:
    """Return the splits of a folder of CIFAR's files, {} for others."""
    for folder in (path, *tree.named(path, FOLDERS)):
        found = _splits(tree, folder)
        if found:
            return found
    return {}


def cifar_splits(file: Path) -> dict[str, CifarSource]:
    """Return the splits of CIFAR-100 with the labels that a file names, {} for other files."""
    match = OF_100.fullmatch(file.name)
    found = _splits(Tree(), file.parent) if match else {}
    return {
        split: replace(source, labels=match[1].lower())
        for split, source in found.items()
        if match and source.labels == "fine"
    }


def _splits(tree: Tree, folder: Path) -> dict[str, CifarSource]:
    files = {entry.name: entry for entry in tree.entries(folder)}
    for ending in (".bin", ""):
        train = [
            files[name]
            for name in sorted(files, key=lambda name: (len(name), name))
            if (match := TEN.fullmatch(name))
            and match[1] != "test_batch"
            and (match[2] or "") == ending
        ]
        test = [files[name] for name in (f"test_batch{ending}",) if name in files]
        if train or test:
            found = {"train": tuple(train), "test": tuple(test)}
            return {split: CifarSource(own) for split, own in found.items() if own}
        if LABELS["fine"][4][0 if ending else 1] in files:
            return {
                split: CifarSource((files[f"{split}{ending}"],), "fine")
                for split in ("train", "test")
                if f"{split}{ending}" in files
            }
    return {}


def _read_batch(file: Path, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (N, 3072) uint8 and labels (N,) of one file.

    Args:
        file: the batch.
        labels: one of `LABELS`.

    Raises:
        ValueError: if it is missing, damaged or of another kind.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"{file} has more than {MOST_BYTES} bytes: no batch of CIFAR")
        if file.suffix != ".bin":
            return _read_pickle(file, LABELS[labels][2])
        content = np.fromfile(file, np.uint8)
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror or error}") from None
    count, place, *_ = LABELS[labels]
    row = count + PLANES
    if not len(content) or len(content) % row:
        raise ValueError(
            f"{file} has {len(content)} bytes, no multiple of {row} as in CIFAR-"
            f"{'10' if labels == 'ten' else '100'}: it is cut off or of another kind"
        )
    rows = content.reshape(-1, row)
    return np.ascontiguousarray(rows[:, -PLANES:]), rows[:, place]


def _read_pickle(file: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    found = _items(file)
    pixels, labels = _array(found.get("data")), found.get(key)
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        labels = []
    if pixels is None or not labels or pixels.shape != (len(labels), PLANES):
        raise ValueError(f"{file} has no {key} with data (N, {PLANES}) of bytes: no batch of CIFAR")
    numbers = np.array(labels, np.int64)
    if numbers.min(initial=0) < 0:
        raise ValueError(f"{file} has the label {numbers.min()}")
    return pixels, numbers


def _items(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            found = read_pickle(stream, {})
    except (OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"{file} cannot be read as a pickle: {error}") from None
    return found.items if isinstance(found, Thing) and found.kind is None else {}


def _array(thing: Any) -> np.ndarray | None:
    """Return a NumPy array of bytes from the record of a pickle, None for anything else."""
    match thing:
        case Thing(state=(_, tuple(shape), Thing(args=("u1", *_)), False, content)):
            pass
        case _:
            return None
    match content:
        case Thing(args=(str(text), "latin1")):  # of Python 3 in an old protocol
            content = text.encode("latin1", "replace")
        case str(text):  # of Python 2; decoded like this by `pickles`
            content = text.encode("utf-8", "surrogateescape")
        case bytes():
            pass
        case _:
            return None
    flat = np.frombuffer(bytearray(content), np.uint8)
    whole = all(type(side) is int and side >= 0 for side in shape)
    return flat.reshape(shape) if whole and int(np.prod(shape, dtype=object)) == len(flat) else None


def _class_names(folder: Path, labels: str) -> list[str]:
    """Return the names that lie beside the batches, or numbers where none do."""
    *_, count, names, key = LABELS[labels]
    for file in (folder / name for name in names):
        if not file.is_file():
            continue
        if file.suffix == ".txt":
            found: Any = [line.strip() for line in read_lines(file) if line.strip()]
        else:
            found = _items(file).get(key)
            if isinstance(found, list):  # of Python 2, written again by Python 3
                found = [
                    one.decode(errors="replace") if isinstance(one, bytes) else one for one in found
                ]
        texts = isinstance(found, list) and all(isinstance(one, str) for one in found)
        if not texts or len(set(found)) != count:
            raise ValueError(f"{file} does not name {count} different classes")
        return list(found)
    return [str(number) for number in range(count)]
