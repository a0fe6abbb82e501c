"""Images and label maps on the disk, for the tests of label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskwright.data import Dataset, open_dataset

RNG = np.random.default_rng(0)
SIZE = (10, 12)  # height, width


def photo(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


def numbers(*values: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Vertical stripes of these values."""
    stripes = np.array(values)[np.arange(size[1]) * len(values) // size[1]]
    return np.tile(stripes.astype(np.uint8 if max(values) < 256 else np.uint16), (size[0], 1))


def save(path: Path, labels: np.ndarray, palette: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels)
    if palette is not None:
        picture = picture.convert("P") if picture.mode != "L" else picture
        picture.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
    picture.save(path)
    return path


def pair(root: Path, image: str, label: str, labels: np.ndarray, palette: Any = None) -> np.ndarray:
    photo(root / image, (labels.shape[0], labels.shape[1]))
    save(root / label, labels, palette)
    return labels


def read(data: Any, split: str = "train", **options: Any) -> Dataset:
    return open_dataset(data, split, records="maps", **options)


def kinds(data: Dataset) -> set[tuple[str, str]]:
    return {(fault.kind, fault.action) for fault in data.faults}


def stripes(data: Dataset, index: int = 0) -> list[int]:
    """The labels of an image from left to right, each once."""
    labels = data.label_map(index)
    assert labels is not None and labels.dtype == np.uint8 and (labels == labels[:1]).all()
    row = labels[0].tolist()
    return [label for place, label in enumerate(row) if not place or row[place - 1] != label]
