"""Checked objects, one after the other, into the flat arrays of a data set."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import torch

from ..columns import Columns, pack_offsets, pack_texts
from .objects import CocoObject

BLOCK = 1 << 16  # ranges that are moved at once: their indices take memory, too


class Packer:
    """Takes objects in the order of their file; `columns` sorts them by image.

    Numbers go into arrays at once: as objects of Python, a million polygons would take gigabytes.

    Args:
        num_joints: keypoints of an object.
    """

    def __init__(self, num_joints: int) -> None:
        self.num_joints = num_joints
        self.rows, self.ids, self.labels = array("q"), array("q"), array("q")
        self.boxes, self.areas, self.points = array("d"), array("d"), array("d")
        self.crowd, self.ignored, self.kinds = array("B"), array("B"), array("B")
        self.parts, self.part_points = array("q"), array("q")  # polygons, and points of each
        self.rle, self.rle_lengths = bytearray(), array("q")
        self.keypoints = array("f")

    def add(self, item: CocoObject) -> None:
        """Take the object over."""
        self.rows.append(item.row)
        self.ids.append(item.number)
        self.labels.append(item.label)
        self.boxes.extend(item.box)
        self.areas.append(item.area)
        self.crowd.append(item.crowd)
        self.ignored.append(item.ignored)
        segment = item.segment
        self.kinds.append(segment.kind)
        self.parts.append(len(segment.parts))
        for part in segment.parts:
            self.part_points.append(len(part))
            self.points.frombytes(part.tobytes())
        self.rle += segment.counts
        self.rle_lengths.append(len(segment.counts))
        if item.keypoints is not None:
            self.keypoints.frombytes(item.keypoints.tobytes())
        else:
            self.keypoints.extend([0.0] * (3 * self.num_joints))

    def columns(
        self,
        images: dict[int, tuple[str, int, int]],
        checked: Mapping[int, Sequence[int]] | None = None,
    ) -> Columns:
        """Return the arrays, which are the packer's own memory: nothing can be added any more.

        Args:
            images: path below the root, height and width by image id, in their order.
            checked: labels that an image was looked through for, by its id; None: all.
        """
        looked = None if checked is None else [sorted(checked[number]) for number in images]
        rows = _array(self.rows, np.int64)
        count = len(rows)
        order = np.argsort(rows, kind="stable")
        path_first, path_bytes = pack_texts([name for name, _, _ in images.values()])
        points = _array(self.points, np.float64).reshape(-1, 2)
        rle = np.frombuffer(self.rle, np.uint8)
        first, part_points = _offsets(self.parts), _array(self.part_points, np.int64)
        point_first, rle_first = _offsets(part_points), _offsets(self.rle_lengths)
        simple = {
            "ann_ids": _array(self.ids, np.int64),
            "boxes": _array(self.boxes, np.float64).reshape(-1, 4),
            "areas": _array(self.areas, np.float64),
            "labels": _array(self.labels, np.int64),
            "crowd": _array(self.crowd, np.bool_),
            "ignored": _array(self.ignored, np.bool_),
            "kinds": _array(self.kinds, np.uint8),
            "keypoints": _array(self.keypoints, np.float32).reshape(count, self.num_joints, 3),
        }
        if (order[1:] < order[:-1]).any():
            simple = {name: values[order] for name, values in simple.items()}
            points, _ = take_ranges(points, point_first[first], order)
            part_points, first = take_ranges(part_points, first, order)
            point_first = _offsets(part_points)
            rle, rle_first = take_ranges(rle, rle_first, order)
        return Columns(
            image_ids=torch.tensor(list(images), dtype=torch.int64),
            sizes=torch.tensor([size for _, *size in images.values()], dtype=torch.int64),
            path_first=path_first,
            path_bytes=path_bytes,
            ann_first=pack_offsets(np.bincount(rows, minlength=len(images))),
            part_first=torch.from_numpy(first),
            point_first=torch.from_numpy(point_first),
            points=torch.from_numpy(points),
            rle_first=torch.from_numpy(rle_first),
            rle_bytes=torch.from_numpy(rle),
            checked_first=None if looked is None else pack_offsets([len(one) for one in looked]),
            checked=None
            if looked is None
            else torch.tensor([label for one in looked for label in one], dtype=torch.int64),
            **{name: torch.from_numpy(values) for name, values in simple.items()},
        )


def looked_for(
    images: Iterable[int],
    checked: Mapping[int, Collection[int]] | None,
    labels: Mapping[int, int],
    classes: int,
) -> dict[int, list[int]] | None:
    """Return the labels that each image was looked through for; None where all for all.

    Args:
        images: their ids.
        checked: ids of categories by image; those that lack here, and None, for all.
        labels: label by id of a category.
        classes: how many there are.
    """
    if checked is None:
        return None
    every = list(range(classes))
    found = {
        number: sorted({labels[one] for one in checked[number] if one in labels})
        if number in checked
        else every
        for number in images
    }
    return None if all(one == every for one in found.values()) else found


def take_ranges(
    values: np.ndarray, first: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ranges of values in another order, or some of them, and their offsets.

    Args:
        values: range i is values[first[i] : first[i + 1]].
        first: offsets.
        order: the range that comes first, second, ...
    """
    lengths = np.diff(first)[order]
    placed = _offsets(lengths)
    result = np.empty((placed[-1], *values.shape[1:]), values.dtype)
    for at in range(0, len(order), BLOCK):
        block = slice(at, at + BLOCK)
        begin, end = placed[at], placed[min(at + BLOCK, len(order))]
        shift = np.repeat(first[order[block]] - placed[:-1][block], lengths[block])
        result[begin:end] = values[shift + np.arange(begin, end)]
    return result, placed


def _array(values: array, dtype: type) -> np.ndarray:
    return np.frombuffer(values, dtype)


def _offsets(lengths: Sequence[int] | np.ndarray | array) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
