"""Several data sets as one: classes matched by name, splits by theirs, twins told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from maskwright.errors import OptionError, checked_options, first_few
from maskwright.paths import home_path, takes_paths

from ..checking.verdict import spelt_alike
from ..formats.folders import SPLITS
from ..records import Dataset
from .tables import common_names, joined, with_names
from .writing import RewriteReport, new_folder, open_splits, write_splits

SHOWN = 5


@checked_options
@takes_paths
def merge_data(
    data: tuple[str, ...] | str,
    out: str | Path,
    *,
    to: str | None = None,
    format: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> RewriteReport:
    """Write several data sets as one, with copies of the images.

    The train of all becomes train, and so on; classes of one name are one class, those of the first
    data set come first. Images of one name are written with numbers; those of the same content
    stay, and are told.

    Args:
        data: what is read: folders, files, YAML files, with commas between them.
        out: a new or empty folder to write into.
        to: format to write; none: that of the first.
        format: read all of `data` as this format, where one is taken for another.
        progress: called with what is done, images done and images in all.

    Raises:
        OptionError: if an option is wrong, or the folder is not empty.
        ValueError: if the data cannot be read, or not be written as one.

    Example:
        >>> from maskwright.data import merge_data
        >>> merge_data(["cells_2024", "cells_2025"], "cells")  # doctest: +SKIP
    """
    words = data.split(",") if isinstance(data, str) else data
    places = [home_path(word) for word in words]
    if len(places) < 2:
        raise OptionError(f"data={data!r}: give two data sets or more, as in data=a,b")
    folder = new_folder(out)
    read: list[dict[str, Dataset]] = []
    for place in places:
        splits, to = open_splits(place, to, format)
        read.append(splits)
    names = common_names([one for own in read for one in own.values()])
    merged: dict[str, Dataset] = {}
    for split in SPLITS:
        if parts := [own[split] for own in read if split in own]:
            merged[split] = joined(parts, split)
    merged = {split: with_names(one, names) for split, one in merged.items()}
    assert to is not None
    report = write_splits(merged, folder, to, progress)
    report.notes += _of_parts(places, read) + _of_images(merged)
    return report


def _of_parts(places: Sequence[str | Path], read: Sequence[Mapping[str, Dataset]]) -> list[str]:
    """Return what to know of splits and classes that not all data sets have."""
    notes = []
    splits = dict.fromkeys(split for own in read for split in own)
    for place, own in zip(places, read, strict=True):
        if lacking := [split for split in splits if split not in own]:
            notes.append(f"{place} has no {' and no '.join(lacking)}")
    classes = [set(common_names(list(own.values()))) for own in read]
    for place, own_classes in zip(places, classes, strict=True):
        if lacking := sorted(set().union(*classes) - own_classes):
            notes.append(
                f"{place} does not know {first_few(lacking, SHOWN)}: where its images show them, "
                "they count as background"
            )
    notes += [
        f"classes that differ by blanks or capitals only: {alike}; `data classes rename=` makes "
        "them one"
        for alike in spelt_alike(set().union(*classes))
    ]
    return notes


def _of_images(merged: Mapping[str, Dataset]) -> list[str]:
    """Return what to know of images of one name, and of one content."""
    notes = []
    for split, dataset in merged.items():
        paths = (Path(dataset.columns.path(row)) for row in dataset.rows.tolist())
        stems = [path.stem.casefold() for path in paths]
        if again := len(stems) - len(set(stems)):
            notes.append(
                f"{split}: {again} image(s) have the name of another; where both would lie in one "
                "folder, a number is added"
            )
    for (split, other), twins in _twins(merged).items():
        again_file, first = twins[0]
        where = "" if split == other else ": scores on them tell nothing"
        notes.append(
            f"{len(twins)} image(s) of {split} are also in {other}, the first {again_file}, which "
            f"is {first}{where}"
        )
    return notes


def _twins(merged: Mapping[str, Dataset]) -> dict[tuple[str, str], list[tuple[Path, Path]]]:
    """Return images of the same content, by the splits of the second and the first."""
    found: dict[tuple[str, str], list[tuple[Path, Path]]] = {}
    each = {split: one for split, one in merged.items() if not one.stored}
    sizes = [
        np.array([one[index].path.stat().st_size for index in range(len(one))], np.int64)
        for one in each.values()
    ]
    values, counts = np.unique(np.concatenate([*sizes, []]), return_counts=True)
    shared = values[counts > 1]  # only files of one size can be the same
    first: dict[bytes, tuple[str, Path]] = {}
    for (split, one), own in zip(each.items(), sizes, strict=True):
        for index in np.flatnonzero(np.isin(own, shared)).tolist():
            path = one[index].path
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "blake2b").digest()
            other, twin = first.setdefault(digest, (split, path))
            if twin != path:
                found.setdefault((split, other), []).append((path, twin))
    return found
