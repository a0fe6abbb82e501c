"""Which object of an image counts, and what is true of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...data.records import Dataset, Record


@dataclass(frozen=True)
class Chosen:
    """What is true of an image.

    Attributes:
        record: the image with the one object that counts, or without any.
        unknown: whether only regions are annotated that count neither as objects nor as
            background: then nobody knows what is true.
        boxes: (n, 4) float32 of all objects of its class, in original pixels: any of them is right.
    """

    record: Record
    unknown: bool
    boxes: np.ndarray

    @property
    def label(self) -> int | None:
        """Class of the object; None for an image without one."""
        return int(self.record.labels[0]) if len(self.record.labels) else None


def choose(record: Record, *, keypoints: bool = False) -> Chosen:
    """Return the object of an image that counts: the largest by the area of its box.

    Args:
        record: the image.
        keypoints: an object counts only if one of its keypoints is labelled.
    """
    real = ~record.crowd
    if keypoints and record.keypoints is not None:
        real &= (record.keypoints[..., 2] > 0).any(1)
    sides = record.boxes[:, 2:] - record.boxes[:, :2]
    areas = np.where(real, sides.prod(1), -1.0)
    kept = [int(areas.argmax())] if real.any() else []
    one = replace(
        record,
        boxes=record.boxes[kept],
        labels=record.labels[kept],
        crowd=record.crowd[kept],
        ann_ids=record.ann_ids[kept],
        keypoints=None if record.keypoints is None else record.keypoints[kept],
    )
    same = real & (record.labels == record.labels[kept[0]]) if kept else real
    return Chosen(one, bool(record.crowd.any()) and not kept, record.boxes[same])


def check_single(data: Dataset) -> None:
    """Make sure that no image has more than one object.

    Raises:
        ValueError: naming the first that has.
    """
    for index in range(len(data)):
        record = data[index]
        count = int((~record.crowd).sum())
        if count > 1:
            raise ValueError(
                f"{record.path} has {count} objects and several=error was asked for: take "
                "several=largest to learn the largest of them, or a detector for all"
            )


def true_labels(chosen: Sequence[Chosen], background: int) -> np.ndarray:
    """Return the classes of images, (N,) int64: the background for those without an object."""
    labels = [background if one.label is None else one.label for one in chosen]
    return np.array(labels, np.int64)
