"""COCO average precision and recall as a flat dict of numbers, overall and per class.

Lin et al. 2014 (Microsoft COCO) and its evaluation protocol. Differs from pycocotools' summary in
that every number follows `max_det` (theirs prints AP at 100 whatever the setting), that numbers
exist per class, and that what is undefined is nan and not -1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .boundary import DILATION
from .evaluator import KEYPOINT_AREAS, Accumulated, FloatArray, accumulate

# Recall is also given for so few detections per image and class.
FEW = (1, 10)


def coco_eval(
    gt: Path | str | dict[str, Any],
    detections: Sequence[dict[str, Any]],
    iou_type: str,
    *,
    max_det: int = 100,
    sigmas: Sequence[float] | None = None,
    dilation: float = DILATION,
) -> dict[str, float]:
    """Return the COCO metrics of detections against ground truth, equal to pycocotools.

    Args:
        gt: COCO ground truth (`images`, `annotations`, `categories`), or the path of its file.
        detections: COCO results: `image_id`, `category_id`, `score`, `bbox` (xywh, pixels of the
            image), for "segm" and "boundary" `segmentation` (RLE), for "keypoints" `keypoints` (x,
            y, anything of each, in one list). As in pycocotools a detection with a
            `bbox` has the area of its box in AP_small, AP_medium and AP_large; results for "segm"
            without `bbox` are measured by the area of the mask, as other libraries report it,
            those for "keypoints" by the extent of the keypoints.
        iou_type: "bbox" for boxes, "segm" for masks, "keypoints" for keypoints, where object
            keypoint similarity stands for IoU, "boundary" for masks by the lesser of mask IoU and
            boundary IoU (Cheng et al. 2021).
        max_det: detections counted per image and class, by falling score. COCO's own tables
            count 100, and 20 for keypoints.
        sigmas: for "keypoints", how far each may lie from the truth, relative to the object's
            size. None: COCO's own for the 17 keypoints of a person, 0.05 for all others, which
            is a little stricter than their mean.
        dilation: for "boundary", width of the edges as a part of the image's diagonal.

    Returns:
        Numbers in [0, 1], nan where there is no object to find: "AP" (mean over IoU 0.5 to 0.95),
        "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1" and "AR_10" (up to `max_det`),
        "AR" (at `max_det`), "AR_small", "AR_medium", "AR_large", and "AP/<class name>". Classes
        without an object are left out of the means. For "keypoints" objects without a labelled
        keypoint do not count, there are no numbers for small objects, and "AR50" and "AR75" come
        on top. Where categories have LVIS's `frequency`: "AP_rare", "AP_common", "AP_frequent".

    Raises:
        ValueError: on an unknown `iou_type`, a `max_det` below 1, or incomplete input, or if
            `sigmas` does not fit the keypoints.

    Example:
        >>> image = {"id": 1, "height": 9, "width": 9}
        >>> box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
        >>> gt = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "a"}]}
        >>> round(coco_eval(gt, [box | {"score": 0.9}], "bbox")["AP"], 3)
        1.0
    """
    limits = [n for n in FEW if n < max_det] + [max_det]
    return summarize(
        accumulate(gt, detections, iou_type, max_dets=limits, sigmas=sigmas, dilation=dilation)
    )


def summarize(arrays: Accumulated) -> dict[str, float]:
    """Return the numbers of `coco_eval` from the arrays of an evaluation at the ten COCO IoUs."""
    precision, recall = arrays.precision, arrays.recall
    last = len(arrays.max_dets) - 1
    numbers = {
        "AP": _mean(precision[:, :, :, 0, last]),
        "AP50": _mean(precision[0, :, :, 0, last]),
        "AP75": _mean(precision[5, :, :, 0, last]),
    }
    for i, area in enumerate(arrays.areas[1:], start=1):
        numbers[f"AP_{area}"] = _mean(precision[:, :, :, i, last])
    for i, limit in enumerate(arrays.max_dets):
        if limit in FEW:
            numbers[f"AR_{limit}"] = _mean(recall[:, :, 0, i])
    numbers["AR"] = _mean(recall[:, :, 0, last])
    if arrays.areas == KEYPOINT_AREAS:
        numbers["AR50"], numbers["AR75"] = (
            _mean(recall[0, :, 0, last]),
            _mean(recall[5, :, 0, last]),
        )
    for i, area in enumerate(arrays.areas[1:], start=1):
        numbers[f"AR_{area}"] = _mean(recall[:, :, i, last])
    for letter, word in (("r", "rare"), ("c", "common"), ("f", "frequent")):
        if own := [i for i, often in enumerate(arrays.frequencies) if often == letter]:
            numbers[f"AP_{word}"] = _mean(precision[:, :, own, 0, last])
    for i, name in enumerate(arrays.names):
        numbers[f"AP/{name}"] = _mean(precision[:, :, i, 0, last])
    return numbers


def _mean(values: FloatArray) -> float:
    """Return the mean of the defined entries; the protocol marks the others with -1."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan
