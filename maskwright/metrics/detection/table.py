"""COCO dicts as plain arrays: what the diagnostics share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .entries import box_of, sorted_categories

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """N objects or detections, one row each.

    Attributes:
        image: (N,) position of the image in `gt["images"]`, -1 where it is unknown.
        label: (N,) class index (position of the category by id), -1 where it is unknown.
        boxes: (N, 4) xyxy, pixels of the image.
        scores: (N,), 1 for ground truth.
        crowd: (N,) bool.
    """

    image: IntArray
    label: IntArray
    boxes: FloatArray
    scores: FloatArray
    crowd: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: Any) -> Table:
        return Table(
            self.image[rows],
            self.label[rows],
            self.boxes[rows],
            self.scores[rows],
            self.crowd[rows],
        )


def read_table(gt: dict[str, Any], entries: Sequence[dict[str, Any]]) -> Table:
    """Return annotations or detections (COCO dicts with `bbox` xywh or RLE) as a table."""
    images = {image["id"]: i for i, image in enumerate(gt["images"])}
    labels = {category["id"]: i for i, category in enumerate(sorted_categories(gt))}
    sizes = {image["id"]: image for image in gt["images"]}
    boxes = np.array([box_of(e, sizes.get(e["image_id"], {})) for e in entries], np.float64)
    boxes = boxes.reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Table(
        np.array([images.get(entry["image_id"], -1) for entry in entries], np.int64),
        np.array([labels.get(entry["category_id"], -1) for entry in entries], np.int64),
        boxes,
        np.array([entry.get("score", 1.0) for entry in entries], np.float64),
        np.array([bool(entry.get("iscrowd", 0)) for entry in entries], bool),
    )


def by_image(count: int, *tables: Table) -> Iterator[tuple[int, tuple[IntArray, ...]]]:
    """Yield for each of `count` images its position and, per table, its rows in their order."""
    orders = [np.argsort(table.image, kind="stable") for table in tables]
    edges = [
        np.searchsorted(table.image[order], np.arange(count + 1))
        for table, order in zip(tables, orders, strict=True)
    ]
    for i in range(count):
        yield (
            i,
            tuple(order[e[i] : e[i + 1]] for order, e in zip(orders, edges, strict=True)),
        )


def box_iou(a: FloatArray, b: FloatArray, *, over_a: bool = False) -> FloatArray:
    """Return (N, M) IoU of (N, 4) and (M, 4) xyxy, or with `over_a` intersection over area of a."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(-1)
    area_a = np.clip(a[:, 2:] - a[:, :2], 0, None).prod(-1)[:, None]
    area_b = np.clip(b[:, 2:] - b[:, :2], 0, None).prod(-1)[None]
    whole = np.broadcast_to(area_a, inter.shape) if over_a else area_a + area_b - inter
    ratio: FloatArray = np.divide(inter, whole, out=np.zeros_like(inter), where=whole > 0)
    return ratio
