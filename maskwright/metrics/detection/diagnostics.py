"""What stands behind an AP: precision-recall curves, the confusion matrix, reasons for a zero."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .entries import read_ground_truth
from .evaluator import Accumulated, accumulate
from .explain import explain_zero
from .scores import above
from .table import FloatArray, IntArray, box_iou, by_image, read_table

__all__ = ["confusion_matrix", "explain_zero", "pr_curve", "pr_curves"]

Curves = dict[str, tuple[FloatArray, FloatArray]]


def pr_curve(
    gt: Path | str | dict[str, Any],
    detections: Sequence[dict[str, Any]],
    iou_type: str,
    iou: float = 0.5,
    max_det: int = 100,
    sigmas: Sequence[float] | None = None,
) -> Curves:
    """Return the precision-recall curve of every class that has objects.

    Args:
        gt: COCO ground truth, or the path of its file.
        detections: COCO results, as `coco_eval` takes them.
        iou_type: "bbox", "segm" or "keypoints".
        iou: IoU threshold of a match.
        max_det: detections counted per image and class.
        sigmas: for "keypoints", see `coco_eval`.

    Returns:
        Class name -> (recall (101,), precision (101,)), recall being 0, 0.01, ..., 1. The mean of
        the precisions is the AP of the class at this IoU.

    Raises:
        ValueError: as `coco_eval`.
    """
    arrays = accumulate(gt, detections, iou_type, max_dets=[max_det], iou_thrs=[iou], sigmas=sigmas)
    return _by_class(arrays, arrays.precision[0, :, :, 0, 0])


def pr_curves(
    gt: Path | str | dict[str, Any],
    detections: Sequence[dict[str, Any]],
    iou_type: str,
    max_det: int = 100,
    sigmas: Sequence[float] | None = None,
) -> dict[str, Curves]:
    """Return the precision-recall curves at "IoU 0.5", "IoU 0.75" and "mean IoU 0.5 to 0.95".

    Args and values are those of `pr_curve`; the mean of the precisions of the last is the COCO AP
    of a class.
    """
    arrays = accumulate(gt, detections, iou_type, max_dets=[max_det], sigmas=sigmas)
    precision = arrays.precision[:, :, :, 0, 0]
    return {
        "IoU 0.5": _by_class(arrays, precision[0]),
        "IoU 0.75": _by_class(arrays, precision[5]),
        "mean IoU 0.5 to 0.95": _by_class(arrays, precision.mean(0)),
    }


def _by_class(arrays: Accumulated, precision: FloatArray) -> Curves:
    """Return the curves (recall, precision) of the classes with objects from (R, C) precision."""
    recall = np.linspace(0, 1, 101)
    return {
        name: (recall, precision[:, i])
        for i, name in enumerate(arrays.names)
        if precision[0, i] > -1
    }


def confusion_matrix(
    gt: Path | str | dict[str, Any],
    detections: Sequence[dict[str, Any]],
    *,
    iou: float = 0.5,
    conf: float = 0.25,
    num_classes: int | None = None,
) -> IntArray:
    """Count which classes are taken for which.

    In each image the pairs of an object and a detection with a box IoU of at least `iou` are
    taken by falling IoU, whatever their classes, each object and each detection once. What is
    left over meets the background. Detections on a crowd region count only where they are paired.

    Args:
        gt: COCO ground truth, or the path of its file.
        detections: COCO results with `bbox` (or `segmentation` as RLE).
        iou: smallest box IoU of a pair.
        conf: the score above which a detection counts, as in `predict`.
        num_classes: classes C; those of the ground truth by default.

    Returns:
        (C + 1, C + 1): rows are the true classes, columns the predicted ones, by category id, the
        last row and column the background.

    Raises:
        ValueError: if the ground truth has more than `num_classes` categories.
    """
    gt = read_ground_truth(gt)
    known = len(gt["categories"])
    classes = known if num_classes is None else num_classes
    if classes < known:
        raise ValueError(f"num_classes={classes}, but the ground truth has {known} categories")
    objects = read_table(gt, gt["annotations"])
    found = read_table(gt, detections)
    found = found[above(found.scores, conf) & (found.label >= 0)]
    crowds, objects = objects[objects.crowd], objects[~objects.crowd]

    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for _, (rows, cols, regions) in by_image(len(gt["images"]), objects, found, crowds):
        true, boxes = objects.label[rows], found[cols]
        taken_true, taken_found = np.full(len(rows), classes), np.full(len(cols), -1)
        for t, d in _greedy_pairs(box_iou(objects.boxes[rows], boxes.boxes), boxes.scores, iou):
            taken_true[t] = boxes.label[d]
            taken_found[d] = t
        np.add.at(matrix, (true, taken_true), 1)
        on_crowd = box_iou(boxes.boxes, crowds.boxes[regions], over_a=True) >= iou
        alone = (taken_found < 0) & ~on_crowd.any(1)
        matrix[classes] += np.bincount(boxes.label[alone], minlength=classes + 1)
    return matrix


def _greedy_pairs(overlap: FloatArray, scores: FloatArray, iou: float) -> list[tuple[int, int]]:
    """Return the pairs (row, column) taken by falling overlap, then by falling score."""
    rows, cols = np.nonzero(overlap >= iou)
    order = np.lexsort((rows, -scores[cols], -overlap[rows, cols]))
    pairs: list[tuple[int, int]] = []
    used_rows: set[int] = set()
    used_cols: set[int] = set()
    for t, d in zip(rows[order].tolist(), cols[order].tolist(), strict=True):
        if t not in used_rows and d not in used_cols:
            pairs.append((t, d))
            used_rows.add(t)
            used_cols.add(d)
    return pairs
