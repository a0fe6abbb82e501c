"""Class and place: ILSVRC's rule by hand and one image at a time."""

import math

import numpy as np
import pytest

from maskwright.metrics.localization import Located, best_overlaps, localization_metrics


def test_any_true_box_of_the_image_serves():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]]
    true = [[[20, 20, 30, 30], [0, 0, 10, 5]], [[5, 0, 15, 10]], []]
    assert best_overlaps(boxes, true)[:2].tolist() == pytest.approx([0.5, 1 / 3])
    assert math.isnan(best_overlaps(boxes, true)[2])
    pairs = np.array(boxes)[:, None].repeat(2, 1)
    assert best_overlaps(pairs, true).shape == (3, 2)
    assert best_overlaps(np.zeros((0, 4)), []).shape == (0,)
    with pytest.raises(ValueError, match="1 images but true ones of 2"):
        best_overlaps(boxes[:1], true[:2])


def test_measures_equal_the_rule_image_by_image():
    rng = np.random.default_rng(0)
    count, named = 60, 5
    labels = rng.integers(0, 8, count)
    classes = np.stack([rng.permutation(8)[:named] for _ in range(count)])
    true = [np.sort(rng.random((rng.integers(1, 4), 2, 2)) * 50, 1).reshape(-1, 4)
            for _ in range(count)]  # fmt: skip
    jitter = rng.normal(size=(count, named, 4)) * 4
    boxes = np.stack([boxes[0] for boxes in true])[:, None] + jitter
    known = boxes[:, 0] + 1

    def iou(a, b):
        w = min(a[2], b[2]) - max(a[0], b[0])
        h = min(a[3], b[3]) - max(a[1], b[1])
        inter = max(w, 0) * max(h, 0)
        areas = [max(c[2] - c[0], 0) * max(c[3] - c[1], 0) for c in (a, b)]
        return inter / (sum(areas) - inter) if sum(areas) > inter else 0

    def right(i, box):
        return any(iou(box, one) >= 0.5 for one in true[i])

    found = localization_metrics(
        Located(classes, best_overlaps(boxes, true), labels, best_overlaps(known, true))
    )
    pairs = [[classes[i, p] == labels[i] and right(i, boxes[i, p]) for p in range(named)]
             for i in range(count)]  # fmt: skip
    best = [max(iou(known[i], one) for one in true[i]) for i in range(count)]
    assert found == pytest.approx({
        "located1": np.mean([row[0] for row in pairs]),
        "located5": np.mean([any(row) for row in pairs]),
        "gt_known": np.mean([right(i, known[i]) for i in range(count)]),
        "IoU": np.mean(best),
        "IoU75": np.mean([value >= 0.75 for value in best]),
    })  # fmt: skip
    assert 0 < found["located1"] < found["located5"] < found["gt_known"] < 1


def test_images_without_an_object_have_no_place():
    overlaps = np.array([0.9, math.nan])
    found = localization_metrics(
        Located(np.array([[2], [3]]), overlaps[:, None], np.array([2, 3]), overlaps)
    )
    assert found["located1"] == 1 and found["gt_known"] == 1 and "located5" not in found
    none = np.zeros((0, 1))
    empty = localization_metrics(Located(none.astype(int), none, np.zeros(0, int), np.zeros(0)))
    assert empty and all(math.isnan(value) for value in empty.values())
