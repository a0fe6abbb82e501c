"""Matching of detections one to one, against cases made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskwright.models import PostProcess
from maskwright.structures import Detections
from maskwright.tasks.detection.exporting.agreement import Match, agrees, compare

POST = PostProcess(0.1, 0.5, 4)


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    order = torch.tensor(scores).argsort(descending=True, stable=True)
    found = Detections(
        (64, 64),
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        torch.tensor(scores),
        torch.tensor(labels),
    )
    return found.keep(order)


BASE = detections([[4, 4, 24, 20], [30, 30, 60, 60], [5, 40, 20, 60]], [0.9, 0.8, 0.3], [0, 1, 0])


def match(found: Detections, wanted: Detections = BASE) -> Match:
    return compare(wanted, found, POST, "grid")


def test_the_same_in_another_order_agrees() -> None:
    result = match(BASE.keep(torch.tensor([2, 0, 1])))
    assert (result.found, result.total, result.ours) == (3, 3, 3)
    assert result.box == result.score == 0 and agrees([result])


@pytest.mark.parametrize(
    ("shift", "score", "same"),
    [(0.015, 0.0, True), (0.03, 0.0, False), (0.0, 4e-4, True), (0.0, 7e-4, False)],
)
def test_tolerances_of_boxes_and_scores(shift: float, score: float, same: bool) -> None:
    moved = replace(BASE, boxes=BASE.boxes + shift, scores=BASE.scores - score)
    result = match(moved)
    assert agrees([result]) == same
    assert result.box == pytest.approx(shift, abs=1e-5)
    assert result.score == pytest.approx(score, abs=1e-6)
    assert result.found == (3 if same else 0)


def test_another_class_is_another_object() -> None:
    result = match(replace(BASE, labels=1 - BASE.labels))
    assert result.found == 0 and result.unexplained == 6 and not agrees([result])


@pytest.mark.parametrize("side", ["missing", "extra"])
def test_only_what_stands_at_the_threshold_may_be_on_one_side(side: str) -> None:
    for score, same in ((0.1003, True), (0.102, False)):
        more = detections(
            [*BASE.boxes.tolist(), [50, 4, 60, 10]], [*BASE.scores.tolist(), score], [0, 1, 0, 1]
        )
        # One slot more than found, so that the last slot explains nothing.
        wanted, found = (more, BASE) if side == "missing" else (BASE, more)
        result = compare(wanted, found, replace(POST, max_det=9), "grid")
        assert agrees([result]) == same
        assert result.at_threshold == same and result.unexplained == (not same)


def test_the_last_slot_goes_to_either_of_two_equal_scores() -> None:
    boxes = [[0.0, 0, 9, 9], [10, 0, 19, 9], [20, 0, 29, 9]]
    a = detections([*boxes, [30, 0, 39, 9]], [0.9, 0.8, 0.7, 0.6], [0, 0, 0, 0])
    b = detections([*boxes, [40, 0, 49, 9]], [0.9, 0.8, 0.7, 0.6002], [0, 0, 0, 0])
    result = match(a, b)
    assert result.at_threshold == 2 and result.unexplained == 0
    # Two in four detections are more than rounding explains.
    assert not agrees([result]) and agrees([result, replace(result, total=40, at_threshold=0)])
    c = detections([*boxes, [40, 0, 49, 9]], [0.9, 0.8, 0.7, 0.65], [0, 0, 0, 0])
    assert match(a, c).unexplained == 1  # there was room for c's in a


def test_boxes_that_suppress_each_other_or_not() -> None:
    # IoU 0.5 up to rounding: 10 wide, moved by a third of the width.
    one = detections([[0, 0, 30, 10]], [0.9], [0])
    for shift, same in ((10.0, True), (9.0, False), (11.0, False)):
        both = detections([[0, 0, 30, 10], [shift, 0, 30 + shift, 10]], [0.9, 0.5], [0, 0])
        result = match(both, one)
        assert (result.unexplained == 0) == same and result.at_threshold == same
    # Of two boxes with one score, the NMS may keep either.
    a, b = detections([[0, 0, 30, 10]], [0.9], [0]), detections([[4, 0, 34, 10]], [0.9001], [0])
    assert match(a, b).at_threshold == 2 and match(a, b).unexplained == 0
    c = detections([[4, 0, 34, 10]], [0.95], [0])
    assert match(a, c).unexplained == 2


def test_what_a_tie_suppresses_is_missing_with_reason() -> None:
    # Of two equal scores one side keeps the left box, the other the right one, which covers more.
    left, right, below = [0, 0, 30, 10], [4, 0, 34, 10], [14, 0, 40, 10]
    a = detections([left, below], [0.9, 0.5], [0, 0])
    b = detections([right], [0.9, 0.5][:1], [0])
    result = match(b, a)
    assert (result.at_threshold, result.unexplained) == (3, 0)
    other_class = detections([left, below], [0.9, 0.5], [0, 1])
    assert match(b, other_class).unexplained == 1
    better = detections([left, below], [0.9, 0.95], [0, 0])
    assert match(b, better).unexplained == 1


def test_masks_differ_only_in_undecided_pixels() -> None:
    probs = torch.full((1, 8, 8), 0.9)
    probs[0, 3, 3] = 0.5005
    wanted = replace(detections([[8, 8, 16, 16]], [0.9], [0]), mask_probs=probs)
    for value, found in ((0.4995, 1), (0.45, 1), (0.1, 0)):
        other = probs.clone()
        other[0, 3, 3] = value
        if found == 0:
            other[0, 5, 5] = 0.1  # a pixel that was sure
        result = match(replace(wanted, mask_probs=other), wanted)
        assert result.mask is not None and result.mask < 0.999
        assert result.found == result.undecided == found
        assert agrees([result]) == bool(found)


def test_keypoints_are_compared() -> None:
    points = torch.tensor([[[10.0, 10, 0.5]]])
    wanted = replace(detections([[8, 8, 16, 16]], [0.9], [0]), keypoints=points)
    for shift, same in ((1.0, True), (2.0, False)):
        moved = points + torch.tensor([shift, 0, 0])
        result = match(replace(wanted, keypoints=moved), wanted)
        assert result.keypoint == shift and agrees([result]) == same


def test_nothing_found_by_either_agrees() -> None:
    none = detections([], [], [])
    assert agrees([match(none, none)])
    assert not agrees([match(none)])
    assert not agrees([match(BASE, none)])
