"""Recall of proposals against loops over every object and proposal."""

from __future__ import annotations

import math

import numpy as np
import pytest

from maskwright.metrics.detection.proposal_recall import IOUS, proposal_recall


def slow_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return inter / (sum(areas) - inter)


def slow_recall(gt: list[np.ndarray], boxes: list[np.ndarray], count: int, iou: float) -> float:
    hits = [
        any(slow_iou(obj.tolist(), box.tolist()) >= iou for box in found[:count])
        for objects, found in zip(gt, boxes, strict=True)
        for obj in objects
    ]
    return sum(hits) / len(hits)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 50, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 50, (count, 2))], 1)


def test_recall_equals_loops() -> None:
    rng = np.random.default_rng(0)
    gt = [random_boxes(rng, n) for n in (3, 0, 5, 2)]
    boxes = [random_boxes(rng, n) for n in (40, 10, 0, 25)]
    got = proposal_recall(gt, boxes, counts=(1, 5, 30, 100))
    assert got.objects == 10
    for row, count in enumerate(got.counts):
        for column, iou in enumerate(IOUS):
            assert got.recall[row, column] == slow_recall(gt, boxes, count, iou)
    # The area under recall over IoU, by many small steps.
    steps = np.linspace(0.5, 1, 301)
    for row, count in enumerate(got.counts):
        area = np.mean([slow_recall(gt, boxes, count, iou) for iou in steps])
        assert got.average[row] == pytest.approx(area, abs=5e-3)


def test_objects_as_proposals_are_all_found() -> None:
    rng = np.random.default_rng(1)
    gt = [random_boxes(rng, 4)]
    got = proposal_recall(gt, gt)
    assert got.counts[-1] == 4 and (got.recall[-1] == 1).all() and got.average[-1] == 1
    assert got.recall[0, 0] < 1, "the first proposal alone is one object"


def test_without_objects_or_proposals() -> None:
    empty = np.zeros((0, 4))
    got = proposal_recall([empty], [np.array([[0.0, 0, 5, 5]])])
    assert np.isnan(got.recall).all() and math.isnan(got.average[0]) and got.objects == 0
    got = proposal_recall([np.array([[0.0, 0, 5, 5]])], [empty])
    assert not got.recall.any() and got.counts == (1,)
    assert proposal_recall([], []).objects == 0
    with pytest.raises(ValueError, match="1 images with objects, but 0"):
        proposal_recall([empty], [])
    with pytest.raises(ValueError, match="at least 1"):
        proposal_recall([empty], [empty], counts=(0, 3))
