"""Data sets put together, with other classes, or without some objects: their arrays made anew."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskwright.errors import OptionError
from maskwright.structures import IGNORED

from ..building.packing import take_ranges
from ..columns import ANY_CLASS, Columns, pack_offsets, pack_texts
from ..maps.encoding import Drawn, Encoding, Mixed, Segments, Values, identity
from ..records import Dataset

OF_OBJECTS = ("ann_ids", "boxes", "areas", "labels", "crowd", "ignored", "kinds", "keypoints")
PLAIN = ("image_ids", "sizes", "path_bytes", "points", "rle_bytes", *OF_OBJECTS)
FIRST = ("path_first", "ann_first", "part_first", "point_first", "rle_first")


def with_classes(dataset: Dataset, table: Sequence[int], names: Sequence[str]) -> Dataset:
    """Return a data set with other classes.

    Objects of a class that goes are left out, its pixels in label maps ignored. Images stay, but
    for those that had one label and have none now.

    Args:
        dataset: the data set.
        table: the new label of each class, -1 for one that goes.
        names: of the new classes.

    Raises:
        OptionError: if the background of label maps that are drawn would go.
    """
    new = np.asarray([*table, ANY_CLASS], np.int64)  # at -1: a region of unknown class
    drawn = isinstance(dataset.encoding, Drawn)
    if drawn and table[0] != 0:
        raise OptionError(f"{dataset.names[0]!r} is what objects are drawn on: it stays")
    columns, labels = dataset.columns, dataset.columns.labels.numpy()
    goes = (labels != ANY_CLASS) & (new[labels] < 0)
    columns = replace(columns, labels=torch.from_numpy(new[labels]))
    if isinstance(dataset.encoding, Segments):  # each pixel of the file is of one of them
        marks = torch.from_numpy(goes)
        columns = replace(columns, crowd=columns.crowd | marks, ignored=columns.ignored | marks)
    elif goes.any():
        columns = _without(columns, goes)
    rows = dataset.rows
    if columns.label_first is not None and columns.image_labels is not None:
        owners = np.repeat(np.arange(len(columns.sizes)), columns.label_first.diff().numpy())
        pairs = np.stack([owners, new[columns.image_labels.numpy()]], 1)
        pairs = np.unique(pairs[pairs[:, 1] >= 0], axis=0)  # merged classes count once
        counts = np.bincount(pairs[:, 0], minlength=len(columns.sizes))
        if not dataset.multilabel:
            rows = rows[torch.from_numpy(counts)[rows] > 0]
        columns = replace(
            columns,
            label_first=pack_offsets(counts),
            image_labels=torch.from_numpy(np.ascontiguousarray(pairs[:, 1])),
        )
    if columns.checked_first is not None and columns.checked is not None:
        columns = _checked(columns, np.asarray(table, np.int64), len(names))
    ids = [-1] * len(names)
    for old, label in zip(dataset.category_ids, table, strict=True):
        if label >= 0 and ids[label] == -1:
            ids[label] = old
    changed = dataset.like(columns, rows, names=list(names), category_ids=ids)
    if dataset.records == "maps":
        changed.encoding = _relabelled(dataset.encoding or identity(), new[:-1])
    return changed


def _checked(columns: Columns, table: np.ndarray, classes: int) -> Columns:
    """Return the arrays with what images were looked through for in other classes.

    One that several become was looked for where all of these were.
    """
    assert columns.checked_first is not None and columns.checked is not None
    wanted = np.bincount(table[table >= 0], minlength=classes)
    owners = np.repeat(np.arange(len(columns.sizes)), columns.checked_first.diff().numpy())
    labels = table[columns.checked.numpy()]
    keys, counts = np.unique((owners * classes + labels)[labels >= 0], return_counts=True)
    owners, labels = np.divmod(keys[counts >= wanted[keys % classes]], classes)
    first = pack_offsets(np.bincount(owners, minlength=len(columns.sizes)))
    return replace(columns, checked_first=first, checked=torch.from_numpy(labels))


def _relabelled(encoding: Encoding, new: np.ndarray) -> Encoding:
    """Return how label maps store their classes, with other labels; -1 becomes ignored."""

    def moved(labels: np.ndarray) -> np.ndarray:
        own = (labels >= 0) & (labels < len(new))
        found = np.where(own, new[np.where(own, labels, 0)], labels)
        return np.where(own & (found < 0), IGNORED, found).astype(labels.dtype)

    if isinstance(encoding, Mixed):
        return replace(encoding, parts=tuple(_relabelled(one, new) for one in encoding.parts))
    if isinstance(encoding, Values):
        return replace(
            encoding, numbers=moved(encoding.numbers), code_labels=moved(encoding.code_labels)
        )
    return encoding  # of labels that stand elsewhere


def _without(columns: Columns, goes: np.ndarray) -> Columns:
    """Return the arrays without some annotations, goes (A,) bool."""
    kept = np.flatnonzero(~goes)
    owners = np.repeat(np.arange(len(columns.sizes)), columns.ann_first.diff().numpy())
    parts = columns.part_first.numpy()
    points, _ = take_ranges(columns.points.numpy(), columns.point_first.numpy()[parts], kept)
    lengths, part_first = take_ranges(columns.point_first.diff().numpy(), parts, kept)
    rle, rle_first = take_ranges(columns.rle_bytes.numpy(), columns.rle_first.numpy(), kept)
    chosen = torch.from_numpy(kept)
    return replace(
        columns,
        ann_first=pack_offsets(np.bincount(owners[kept], minlength=len(columns.sizes))),
        part_first=torch.from_numpy(part_first),
        point_first=pack_offsets(lengths),
        points=torch.from_numpy(points),
        rle_first=torch.from_numpy(rle_first),
        rle_bytes=torch.from_numpy(rle),
        **{name: getattr(columns, name)[chosen] for name in OF_OBJECTS},
    )


def common_names(datasets: Sequence[Dataset]) -> list[str]:
    """Return the classes of all, each once, in the order in which they come."""
    return list(dict.fromkeys(name for one in datasets for name in one.names))


def with_names(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Return a data set whose labels are places in `names`, which has all its classes."""
    if dataset.names == list(names):
        return dataset
    return with_classes(dataset, [list(names).index(name) for name in dataset.names], names)


def joined(datasets: Sequence[Dataset], split: str) -> Dataset:
    """Return the images of several data sets as one, the classes matched by name.

    Args:
        datasets: of one kind of records, their images files of their own, or none of them.
        split: name of the new one.

    Raises:
        ValueError: if their keypoints differ, or some images are files and others are not.
    """
    names = common_names(datasets)
    datasets = [with_names(one, names) for one in datasets]
    first = datasets[0]
    if len(datasets) == 1:
        return first.like(first.columns, first.rows, split=split)
    skeletons = {one.skeleton.names: one.skeleton for one in datasets if one.skeleton is not None}
    for one in datasets:
        if one.stored != first.stored:
            raise ValueError(f"of {first.source} and {one.source}, one has its images in one file")
    if len(skeletons) > 1:
        listed = " and ".join(str(list(names)) for names in skeletons)
        raise ValueError(f"the data sets have different keypoints: {listed}")
    skeleton = next(iter(skeletons.values()), None)
    root = Path(os.path.commonpath([one.root.absolute() for one in datasets]))
    parts = [_below(one, root, len(skeleton or ())) for one in datasets]
    sizes = [len(one.sizes) for one in parts]
    table = Columns(
        **{name: torch.cat([getattr(one, name) for one in parts]) for name in PLAIN},
        **{name: _offsets([getattr(one, name) for one in parts]) for name in FIRST},
        **_optional(parts),
        **_looked(parts, len(names)),
    )
    if len(table.image_ids.unique()) < len(table.image_ids):
        table = replace(table, image_ids=torch.arange(1, len(table.image_ids) + 1))
    rows = torch.cat([one.rows + sum(sizes[:k]) for k, one in enumerate(datasets)])
    whole = first.like(table, rows, split=split, root=root, source=root, skeleton=skeleton)
    whole.faults = [fault for one in datasets for fault in one.faults]
    unread: Counter[str] = Counter()
    for one in datasets:
        unread.update(one.unread)
    whole.unread = dict(unread)
    if first.records == "maps":
        whole.encoding = _encoding(datasets)
    return whole


def _below(dataset: Dataset, root: Path, joints: int) -> Columns:
    """Return the arrays of a data set, its paths below another root, with so many keypoints."""
    columns = dataset.columns
    if columns.keypoints.shape[1] != joints:
        none = columns.keypoints.new_zeros(len(columns.keypoints), joints, 3)
        columns = replace(columns, keypoints=none)
    place = dataset.root.absolute().relative_to(root)
    if place == Path():
        return columns

    def moved(path_of: Callable[[int], str]) -> tuple[Tensor, Tensor]:
        paths = map(path_of, range(len(columns.sizes)))
        return pack_texts([(place / path).as_posix() if path else "" for path in paths])

    first, content = moved(columns.path)
    columns = replace(columns, path_first=first, path_bytes=content)
    if columns.map_first is not None:
        first, content = moved(columns.map_path)
        columns = replace(columns, map_first=first, map_bytes=content)
    return columns


def _offsets(parts: Sequence[Tensor]) -> Tensor:
    """Return offsets of ranges one after the other."""
    lengths = torch.cat([one.diff() for one in parts])
    return pack_offsets(lengths.numpy())


def _optional(parts: Sequence[Columns]) -> dict[str, Tensor]:
    """Return the columns that not all data sets have; where one lacks them, zeros."""
    found: dict[str, Tensor] = {}

    def column(name: str, empty: Callable[[int], Tensor]) -> list[Tensor]:
        each = [getattr(one, name) for one in parts]
        if all(one is None for one in each):
            return []
        return [
            empty(len(own.sizes)) if one is None else one
            for own, one in zip(parts, each, strict=True)
        ]

    for offsets, content in (("map_first", "map_bytes"), ("label_first", "image_labels")):
        if own := column(offsets, lambda n: torch.zeros(n + 1, dtype=torch.int64)):
            found[offsets] = _offsets(own)
            values = [getattr(one, content) for one in parts]
            found[content] = torch.cat([one for one in values if one is not None])
    if own := column("channels", lambda n: torch.zeros(n, dtype=torch.uint8)):
        found["channels"] = torch.cat(own)
    for name in ("groups", "items"):  # numbers that begin anew with each data set
        if own := column(name, torch.arange):
            stored = [0 if one.stored is None else len(one.stored) for one in parts]
            ends = [int(one.max()) + 1 if len(one) else 0 for one in own]
            before = np.cumsum([0, *(ends if name == "groups" else stored)]).tolist()
            found[name] = torch.cat([one + before[k] for k, one in enumerate(own)])
    if images := [one.stored for one in parts if one.stored is not None]:
        if len({one.shape[1:] for one in images}) > 1:
            raise ValueError("the images of the files are of different size: write them to=folders")
        found["stored"] = torch.cat(images)
    return found


def _looked(parts: Sequence[Columns], classes: int) -> dict[str, Tensor]:
    """Return what the images of several data sets were looked through for; {} if all for all."""
    if all(one.checked_first is None for one in parts):
        return {}
    firsts, labels = [], []
    for one in parts:
        count = len(one.sizes)
        if one.checked_first is None or one.checked is None:
            firsts.append(torch.arange(count + 1) * classes)
            labels.append(torch.arange(classes).repeat(count))
        else:
            firsts.append(one.checked_first)
            labels.append(one.checked)
    return {"checked_first": _offsets(firsts), "checked": torch.cat(labels)}


def _encoding(datasets: Sequence[Dataset]) -> Encoding:
    """Return how the label maps of several data sets store their classes."""
    encodings = [one.encoding or identity() for one in datasets]
    if all(one == encodings[0] for one in encodings):
        return encodings[0]
    which = {
        str(one.root.absolute() / one.columns.path(row)): k
        for k, one in enumerate(datasets)
        for row in one.rows.tolist()
    }
    return Mixed(tuple(encodings), which)
