"""Which detection found which object: COCO's greedy matching at one IoU, with the pairs kept.

The evaluation libraries return curves only; the diagnostics want to know the pairs. The rule is
that of COCO (Lin et al. 2014): per image and class, detections by falling score take the free
object that they overlap most; what lies on a crowd region instead counts neither way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .entries import class_names, compressed_rle, read_ground_truth
from .table import FloatArray, IntArray, Table, by_image, read_table

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """G objects (without crowd regions) and D detections, and who found whom.

    Detections stand by falling score; those of equal score by image id, then in the order given.
    Detections of unknown images or classes and those beyond `max_det` are not among them.

    Attributes:
        names: the C class names.
        images: number of images.
        iou: IoU of a match.
        objects, found: their images, classes, boxes and scores.
        object_rows, found_rows: (G,) and (D,) positions in the lists given.
        hit: (D,) object that a detection found, -1 for none.
        taken: (G,) detection that found an object, -1 for none.
        ignored: (D,) bool: found no object, but lies on a crowd region of its class.
        near, near_iou: (D,) object of the same class with the highest IoU (-1 for none), and it.
        other, other_iou: the same among the objects of other classes.
    """

    names: tuple[str, ...]
    images: int
    iou: float
    objects: Table
    found: Table
    object_rows: IntArray
    found_rows: IntArray
    hit: IntArray
    taken: IntArray
    ignored: BoolArray
    near: IntArray
    near_iou: FloatArray
    other: IntArray
    other_iou: FloatArray

    @property
    def right(self) -> BoolArray:
        """(D,) the detections that found an object."""
        return self.hit >= 0

    @property
    def wrong(self) -> BoolArray:
        """(D,) the detections that count as false."""
        return (self.hit < 0) & ~self.ignored

    def objects_per_class(self) -> IntArray:
        """Return (C,) how many objects each class has."""
        return np.bincount(self.objects.label, minlength=len(self.names))


def match(
    gt: Path | str | dict[str, Any],
    detections: Sequence[dict[str, Any]],
    iou_type: str,
    *,
    iou: float = 0.5,
    max_det: int = 100,
) -> Matches:
    """Match detections with objects as COCO does at one IoU.

    Args:
        gt: COCO ground truth, or the path of its file.
        detections: COCO results, as `coco_eval` takes them.
        iou_type: "bbox" or "segm".
        iou: smallest IoU of a match.
        max_det: detections counted per image and class, by falling score.

    Raises:
        ValueError: on an unknown `iou_type`, or where the field that it needs is missing.
    """
    if iou_type not in ("bbox", "segm"):
        raise ValueError(f"iou_type is one of 'bbox', 'segm'; got {iou_type!r}")
    gt = read_ground_truth(gt)
    every = read_table(gt, gt["annotations"])
    shapes = _Shapes(gt, iou_type)
    object_rows = np.nonzero(~every.crowd)[0]
    crowd_rows = np.nonzero(every.crowd)[0]
    objects, crowds = every[object_rows], every[crowd_rows]
    given = read_table(gt, detections)
    found_rows = _ranked(gt, given, max_det)
    found = given[found_rows]

    count = len(found)
    hit, taken = np.full(count, -1), np.full(len(objects), -1)
    ignored = np.zeros(count, bool)
    near, other = np.full(count, -1), np.full(count, -1)
    near_iou, other_iou = np.zeros(count), np.zeros(count)
    for _, (dets, objs, regions) in by_image(len(gt["images"]), found, objects, crowds):
        if not len(dets) or not len(objs) + len(regions):
            continue
        theirs = shapes.of(detections, found_rows[dets], "detections")
        if len(objs):
            ours = shapes.of(gt["annotations"], object_rows[objs], "gt")
            overlap = shapes.iou(theirs, ours, crowd=False)
            same = found.label[dets][:, None] == objects.label[objs][None]
            near[dets], near_iou[dets] = _highest(overlap, same, objs)
            other[dets], other_iou[dets] = _highest(overlap, ~same, objs)
            for d, o in _greedy(np.where(same, overlap, 0.0), iou):
                hit[dets[d]], taken[objs[o]] = objs[o], dets[d]
        if len(regions):
            areas = shapes.of(gt["annotations"], crowd_rows[regions], "gt")
            over = shapes.iou(theirs, areas, crowd=True) >= _limit(iou)
            over &= found.label[dets][:, None] == crowds.label[regions][None]
            ignored[dets] = over.any(1) & (hit[dets] < 0)
    return Matches(
        tuple(class_names(gt)), len(gt["images"]), iou, objects, found, object_rows, found_rows,
        hit, taken, ignored, near, near_iou, other, other_iou,
    )  # fmt: skip


def _limit(iou: float) -> float:
    """Return the IoU of a match as pycocotools has it: 1 is reached but for rounding."""
    return min(iou, 1 - 1e-10)


def _ranked(gt: dict[str, Any], found: Table, max_det: int) -> IntArray:
    """Return the rows that count, by falling score; equal scores in the order of COCO."""
    rank = np.argsort(np.argsort([image["id"] for image in gt["images"]], kind="stable"))
    known = np.nonzero((found.image >= 0) & (found.label >= 0))[0]
    if not len(known):
        return known
    image = rank[found.image[known]]
    known = known[np.lexsort((known, image, -found.scores[known]))]
    # The place of each row within its image and class.
    group = found.image[known] * (found.label.max() + 1) + found.label[known]
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], group[order])
    place = np.empty(len(known), np.int64)
    place[order] = np.arange(len(known)) - first
    return known[place < max_det]


def _greedy(overlap: FloatArray, iou: float) -> list[tuple[int, int]]:
    """Return (detection, object): each row, from the first, takes the best column that is free.

    Of equal overlaps the last column wins, as in pycocotools.
    """
    free = overlap.copy()
    count = free.shape[1]
    pairs = []
    for d in np.nonzero(free.max(1) >= _limit(iou))[0].tolist():
        o = count - 1 - int(free[d, ::-1].argmax())
        if free[d, o] >= _limit(iou):
            pairs.append((d, o))
            free[:, o] = 0.0
    return pairs


def _highest(overlap: FloatArray, among: BoolArray, objs: IntArray) -> tuple[IntArray, FloatArray]:
    """Return for each row the object that it overlaps most among the marked, -1 for none."""
    masked = np.where(among, overlap, 0.0)
    best = masked.argmax(1)
    value = masked[np.arange(len(masked)), best]
    return np.where(value > 0, objs[best], -1), value


class _Shapes:
    """What IoUs are measured between: boxes or run-length codes, both by pycocotools' code."""

    def __init__(self, gt: dict[str, Any], iou_type: str) -> None:
        self._field = "bbox" if iou_type == "bbox" else "segmentation"
        self._images = {image["id"]: image for image in gt["images"]}

    def of(self, entries: Sequence[dict[str, Any]], rows: IntArray, where: str) -> list[Any]:
        """Return the shapes of some entries of a list."""
        shapes: list[Any] = []
        for row in rows.tolist():
            entry = entries[row]
            shape = entry.get(self._field)
            if not shape:
                raise ValueError(
                    f"{where}: {self._field!r} is missing in entry {row}, of image "
                    f"{entry['image_id']!r}"
                )
            if self._field == "segmentation":
                shape = compressed_rle(shape, self._images[entry["image_id"]])
            shapes.append(shape)
        return shapes

    def iou(self, found: list[Any], objects: list[Any], *, crowd: bool) -> FloatArray:
        """Return (D, G) IoU, over the area of the detection alone for crowd regions."""
        from pycocotools import mask as rle

        if self._field == "bbox":
            found, objects = np.array(found, float), np.array(objects, float)  # type: ignore[assignment]
        overlap: FloatArray = np.asarray(rle.iou(found, objects, [int(crowd)] * len(objects)))
        return overlap
