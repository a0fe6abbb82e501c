"""Average precision of Pascal VOC (Everingham et al. 2010, section 4.2; the 2012 development kit).

A detection belongs to the object that it overlaps most, and is false if a better one has found that
object already; COCO gives it the best object that is still free. Differs from the kit in that
boxes are continuous: with xmin - 1 as left side (as `read_voc` has it) their IoU is that of VOC's
pixels, "+ 1" included. Recall levels are compared as whole numbers, so that 3 of 10 objects reach
level 0.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .entries import class_names, read_ground_truth, renumber
from .table import box_iou, by_image, read_table

BoolArray = npt.NDArray[np.bool_]
IGNORED = ("difficult", "ignore", "iscrowd")
LEVELS = 10  # steps of recall in the measure of 2007, 11 levels


def voc_eval(
    gt: Path | str | dict[str, Any],
    detections: Sequence[dict[str, Any]],
    *,
    iou: float = 0.5,
    eleven_point: bool = False,
) -> dict[str, float]:
    """Return the average precisions of boxes at one IoU by Pascal VOC's protocol.

    Args:
        gt: COCO ground truth, or the path of its file. Annotations marked `difficult`, `ignore` or
            `iscrowd` need not be found, and detections on them count neither way.
        detections: COCO results with `bbox` (xywh, pixels of the image); all of them count. Those
            on unknown images are left out with a warning, those of unknown categories silently.
        iou: smallest IoU of a match, VOC: 0.5.
        eleven_point: mean of the best precisions at recall 0, 0.1, ..., 1, as VOC measured until
            2009; else the area under the curve made monotone, as from 2010 on.

    Returns:
        Numbers in [0, 1]: "AP", the mean over the classes that have an object to find, and
        "AP/<class name>", nan for the others.

    Raises:
        ValueError: if `iou` is not above 0 and at most 1, or the input is incomplete.

    Example:
        >>> image = {"id": 1, "height": 9, "width": 9}
        >>> box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
        >>> gt = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "a"}]}
        >>> voc_eval(gt, [box | {"score": 0.9}])
        {'AP': 1.0, 'AP/a': 1.0}
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou must lie above 0 and at most at 1, got {iou}")
    gt = read_ground_truth(gt)
    truth, results = renumber(gt, detections, "bbox")
    objects = read_table(truth, truth["annotations"])
    ignored = np.array([any(ann.get(key) for key in IGNORED) for ann in gt["annotations"]], bool)
    found = read_table(truth, results["annotations"])
    order = np.argsort(-found.scores, kind="stable")
    found = found[order]

    # The object that each detection overlaps most, -1 where no overlap is enough.
    best = np.full(len(found), -1)
    for _, (dets, objs) in by_image(len(truth["images"]), found, objects):
        if len(dets) and len(objs):
            overlap = box_iou(found.boxes[dets], objects.boxes[objs])
            overlap[found.label[dets][:, None] != objects.label[objs][None]] = -1.0
            column = overlap.argmax(1)  # the first of equals, as in the kit
            enough = overlap[np.arange(len(dets)), column] >= iou
            best[dets] = np.where(enough, objs[column], -1)
    # The first of the detections on one object finds it; rows stand by falling score.
    right = np.zeros(len(found), bool)
    owners, first = np.unique(best, return_index=True)
    right[first[owners >= 0]] = True
    neutral = np.zeros(len(found), bool)
    neutral[best >= 0] = ignored[best[best >= 0]]

    numbers: dict[str, float] = {}
    for label, name in enumerate(class_names(gt)):
        total = int((~ignored & (objects.label == label)).sum())
        counted = right[(found.label == label) & ~neutral]
        numbers[f"AP/{name}"] = _average(counted, total, eleven_point)
    defined = [value for value in numbers.values() if not math.isnan(value)]
    return {"AP": sum(defined) / len(defined) if defined else math.nan, **numbers}


def _average(right: BoolArray, total: int, eleven_point: bool) -> float:
    """Return the average precision of one class.

    Args:
        right: by falling score, which detections found an object.
        total: objects to find.
    """
    if not total:
        return math.nan
    hits = right.cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or above
    if eleven_point:
        # hits / total >= level / 10, without rounding
        place = np.searchsorted(hits * LEVELS, np.arange(LEVELS + 1) * total)
        reached = place < len(hits)
        return float(envelope[place[reached]].sum()) / (LEVELS + 1)
    # Recall rises by 1 / total at every hit.
    return float(envelope[right].sum()) / total
