"""Doubts about the labels of objects: each kind by hand, and properties of the list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maskwright.metrics.detection.doubts import label_doubts
from maskwright.metrics.detection.matching import match

Box = tuple[float, float, float, float]
CLASSES = ("cat", "dog")


def row(box: Box, name: str, **more: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    category = CLASSES.index(name) + 1
    return {"image_id": 1, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], **more}


def doubts(labels: list[tuple[Box, str]], found: list[tuple[Box, str, float]]) -> list[Any]:
    gt = {
        "images": [{"id": 1, "height": 200, "width": 4000}],
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)],
        "annotations": [
            {**row(box, name), "id": k, "iscrowd": 0, "area": 1.0}
            for k, (box, name) in enumerate(labels, 1)
        ],
    }
    rows = [row(box, name, score=score) for box, name, score in found]
    return label_doubts(match(gt, rows, "bbox", max_det=1000))


def at(k: int, shift: float = 0.0) -> Box:
    """Return the k-th of boxes that are 40 wide and 20 high, moved to the right."""
    return (60.0 * k + shift, 0.0, 60.0 * k + 40 + shift, 20.0)


GOOD = [(at(k), "cat") for k in range(4)]
SEEN = [(at(k), "cat", 0.9) for k in range(4)]


def test_nothing_is_doubted_where_all_agrees() -> None:
    assert [one for one in doubts(GOOD, SEEN) if one.score > 0.11] == []


def test_a_sure_detection_without_a_label_is_a_missing_one() -> None:
    (first, *rest) = doubts(GOOD, [*SEEN, (at(8), "dog", 0.8), (at(8, 3), "cat", 0.6)])
    assert (first.kind, first.object, first.overlap) == ("missing", -1, 0)
    assert first.score == pytest.approx(0.8)
    assert all(one.kind != "missing" for one in rest), "one place is told once"


def test_a_label_of_another_class() -> None:
    first = doubts([*GOOD, (at(5), "dog")], [*SEEN, (at(5), "cat", 0.8), (at(5), "dog", 0.1)])[0]
    # IoU 1 on both sides: 0.8 (1 - 0.1).
    assert (first.kind, first.object, first.overlap) == ("class", 4, 1)
    assert first.score == pytest.approx(0.72)


@pytest.mark.parametrize(("shift", "iou"), [(10, 30 / 50), (20, 20 / 60)])
def test_a_shifted_label_beside_the_usual_place(shift: float, iou: float) -> None:
    labels = [*GOOD[:3], (at(3, shift), "cat")]
    first = doubts(labels, SEEN)[0]
    # The others are found at an IoU of 1, with the shifted one the median is 1 still.
    assert (first.kind, first.object) == ("place", 3)
    assert first.overlap == pytest.approx(iou)
    assert first.score == pytest.approx(0.9 * (1 - iou) / 0.9)


def test_a_label_that_nothing_finds_counts_by_what_is_missed_of_its_class() -> None:
    first = doubts([*GOOD, (at(8), "cat")], SEEN)[0]
    assert (first.kind, first.object, first.found) == ("false", 4, -1)
    # None of the four others is missed: (0 + 1) / (4 + 2).
    assert first.score == pytest.approx(0.05 / (0.05 + 1 / 6))
    (alone,) = [one for one in doubts([*GOOD, (at(8), "dog")], SEEN) if one.object == 4]
    assert alone.score == pytest.approx(0.05 / (0.05 + 1 / 2)), "of dogs nothing is known"


def test_small_labels_are_missed_more_often_than_large_ones() -> None:
    rng = np.random.default_rng(0)
    boxes = [(20.0 * k, 20.0 * (k % 9), 20.0 * k + s, 20.0 * (k % 9) + s)
             for k, s in enumerate(rng.permutation(np.linspace(2, 18, 150)).tolist())]  # fmt: skip
    large = [box[2] - box[0] > 10 for box in boxes]
    some = [not big and k % 2 == 0 for k, big in enumerate(large)]
    gone = large.index(True)
    found = [
        (box, "cat", 1.0) for k, box in enumerate(boxes) if (large[k] and k != gone) or some[k]
    ]
    result = {one.object: one for one in doubts([(box, "cat") for box in boxes], found)}
    area = [(box[2] - box[0]) ** 2 for box in boxes]
    order = sorted(range(150), key=lambda k: area[k])
    seen = {boxes.index(box) for box, _, _ in found}
    for k in set(range(150)) - seen:  # the share that is missed, by a plain loop
        first = min(max(order.index(k) - 20, 0), 150 - 41)
        others = [other for other in order[first : first + 41] if other != k]
        share = (sum(other not in seen for other in others) + 1) / (40 + 2)
        assert result[k].score == pytest.approx(0.05 / (0.05 + share))
    assert max(result.values(), key=lambda one: one.score).object == gone


def test_each_label_and_each_detection_comes_once_and_the_worst_first() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 300, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 60, (60, 2))], 1)
    names = rng.choice(CLASSES, 60)
    labels = [(tuple(box), name) for box, name in zip(boxes[:30], names, strict=False)]
    moved = boxes + rng.normal(0, 6, boxes.shape) * [1, 1, 0, 0]
    found = [
        (tuple(box), name, float(score))
        for box, name, score in zip(moved, names[::-1], rng.uniform(0.05, 1, 60), strict=True)
    ]
    result = doubts(labels, found)
    assert {one.kind for one in result} == {"missing", "class", "place", "false"}
    scores = [one.score for one in result]
    assert scores == sorted(scores, reverse=True) and min(scores) > 0 and max(scores) <= 1
    for side in ("object", "found"):
        told = [getattr(one, side) for one in result if getattr(one, side) >= 0]
        if side == "object":
            assert len(told) == len(set(told))
    missing = [one.found for one in result if one.kind == "missing"]
    others = {one.found for one in result if one.kind != "missing"}
    assert len(missing) == len(set(missing)) and not others & set(missing)


def test_without_labels_all_that_is_found_is_missing() -> None:
    assert [one.kind for one in doubts([], SEEN)] == ["missing"] * 4
    assert all(one.kind == "false" and one.score < 0.06 for one in doubts(GOOD, []))
