"""Two kinds of labels of the same images: they must say the same, or the user says which counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskwright.errors import OptionError

from ..records import ANY_CLASS, Dataset, Fault
from .source import ReadOptions, Source

# Sides of two boxes may differ so far: formats round, and a box may be that of its mask.
PIXELS, SHARE = 2.0, 0.02


def settled(
    dataset: Dataset, others: Sequence[Source], names: Sequence[str] | None, options: ReadOptions
) -> Dataset:
    """Return the richest of several kinds of labels of the same images, which says so.

    Args:
        dataset: what was read.
        others: the same split in other formats.
        names: see `Source.read`.
        options: see `Source.read`.

    Raises:
        OptionError: if two disagree on an image that both have.
    """
    for source in others:
        try:
            other = source.read(dataset.split, names, options)
        except ValueError as error:
            _say(dataset, f"{source.annotations} is not compared with it: {error}")
            continue
        if other.records != dataset.records:  # labels of images and objects do not disagree
            continue
        shared = _shared(dataset, other)
        for a, b in shared:
            if wrong := difference(dataset, a, other, b):
                raise OptionError(
                    f"{dataset[a].path} has two kinds of labels that disagree, {dataset.source} "
                    f"({dataset.format}) and {other.source} ({other.format}): {wrong}; say which "
                    f"counts, format={dataset.format} or format={other.format}, or move the other "
                    "elsewhere"
                )
        if not shared:
            continue
        whole = len(shared) == len(dataset) == len(other)
        better = other if whole and _worth(other) > _worth(dataset) else dataset
        _say(
            better,
            f"{dataset.source} ({dataset.format}) and {other.source} ({other.format}) say the same "
            f"of {len(shared)} image(s): {better.format} is read",
        )
        dataset = better
    return dataset


def difference(a: Dataset, i: int, b: Dataset, j: int) -> str:
    """Return in words what one image has in one data set and not in the other; "" for nothing.

    Each object needs one of its class in nearly its box on the other side, where a region that
    counts neither way may stand for it.

    Args:
        a, i: data set and position of the image.
        b, j: the same of the other.
    """
    nameless = _nameless(a) or _nameless(b)
    for (one, at), (other, there) in (((a, i), (b, j)), ((b, j), (a, i))):
        record, found = one[at], other[there]
        boxes, candidates = record.boxes.astype(float), found.boxes.astype(float)
        for k in np.flatnonzero(~record.crowd & (record.labels != ANY_CLASS)).tolist():
            x1, y1, x2, y2 = boxes[k]
            near = np.abs(candidates - boxes[k]).max(1, initial=0)
            fits = near <= max(PIXELS, SHARE * max(x2 - x1, y2 - y1))
            name = one.names[record.labels[k]]
            own = [label != ANY_CLASS and other.names[label] for label in found.labels.tolist()]
            if not any(nameless or own[m] in (False, name) for m in np.flatnonzero(fits)):
                where = f"a {name} at x={x1:.1f} to {x2:.1f}, y={y1:.1f} to {y2:.1f}"
                instead = next((f", and a {own[k]} there" for k in np.flatnonzero(fits)), "")
                return f"{one.format} has {where}, {other.format} has none{instead}"
    return ""


def _shared(a: Dataset, b: Dataset) -> list[tuple[int, int]]:
    """Return the positions of the images that two data sets have."""
    place = {b[index].path.absolute(): index for index in range(len(b))}
    paths = [(index, a[index].path.absolute()) for index in range(len(a))]
    return [(index, place[path]) for index, path in paths if path in place]


def _worth(dataset: Dataset) -> tuple[bool, bool]:
    return dataset.has_keypoints, dataset.has_masks


def _nameless(dataset: Dataset) -> bool:
    """Return True for classes that have numbers, or one name for all, in place of names."""
    return dataset.names == ["object"] or all(name.isdecimal() for name in dataset.names)


def _say(dataset: Dataset, message: str) -> None:
    file = str(dataset.source)
    dataset.faults.append(Fault(file, None, None, "two kinds of labels", message, "kept"))
