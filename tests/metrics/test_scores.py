"""Thresholds, calibration and image scores against plain loops and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from maskwright.metrics.detection.matching import match
from maskwright.metrics.detection.scores import above, calibration, score_curves, score_images


def toy(found, objects=2, crowd=False):
    """Objects at x = 0, 100, ...; a detection is (x, score), right where its x is a hundred."""
    gt = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": [100 * i, 0, 10, 10]}
            for i in range(objects)
        ],
    }
    if crowd:
        box = [5000, 0, 1000, 10]
        gt["annotations"].append(
            {"id": 99, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": 1}
        )
    rows = [
        {"image_id": 1, "category_id": 1, "bbox": [x, 0, 10, 10], "score": score}
        for x, score in found
    ]
    return match(gt, rows, "bbox")


def test_best_threshold_by_hand():
    # F1 is 2/3 below 0.9, 1/2 with the false one of 0.6, 4/5 below 0.3.
    curves = score_curves(toy([(0, 0.9), (50, 0.6), (100, 0.3)]))
    assert curves.best is not None
    assert (curves.best.precision, curves.best.recall) == (2 / 3, 1)
    assert curves.best.f1 == pytest.approx(0.8)
    assert curves.best.conf == 0.14  # the middle of 0.001 to 0.29
    at = dict(zip(curves.thresholds.tolist(), curves.f1.tolist(), strict=True))
    assert at[0.29] == pytest.approx(0.8) and at[0.3] == pytest.approx(0.5)
    assert at[0.61] == pytest.approx(2 / 3) and at[0.91] == 0
    assert math.isnan(curves.precision[-1]) and curves.recall[-1] == 0
    assert list(curves.per_class) == ["a"] and curves.per_class["a"] == curves.best


def test_scores_pass_as_they_pass_a_detector():
    # torch compares float32 with the threshold as float32, and a score must be above it.
    ties = [0.001, 0.1, 0.25, 0.3, 0.7, 0.95, 1.0]
    scores = torch.tensor([0.2, 0.7, 0.95, 1.0, *ties])
    for conf in ties:
        expected = (scores > conf).tolist()
        assert above(scores.double().numpy(), conf).tolist() == expected, conf
    # All detections score 1: the best threshold is one that lets them pass.
    best = score_curves(toy([(0, 1.0), (100, 1.0)])).best
    assert best is not None and best.f1 == 1 and above(np.array([1.0]), best.conf).all()


def test_no_threshold_below_that_of_the_detections_is_advised():
    found = toy([(0, 0.9), (100, 0.8), (50, 0.55)])
    free, kept = score_curves(found).best, score_curves(found, 0.5).best
    assert free is not None and kept is not None
    assert free.conf == kept.conf == 0.67 and free.f1 == kept.f1  # the plateau above 0.55
    found = toy([(0, 0.9), (100, 0.6)])
    assert score_curves(found).best.conf < 0.3 and score_curves(found, 0.5).best.conf == 0.54
    assert score_curves(found, 0.597).best.conf == 0.597
    assert score_curves(found, 0.597).per_class["a"].conf == 0.597


def test_nothing_found_and_nothing_to_find():
    assert score_curves(toy([])).best is None
    assert score_curves(toy([(50, 0.9)])).best is None
    empty = score_curves(toy([(50, 0.9)], objects=0))
    assert empty.best is None and empty.per_class == {} and np.isnan(empty.f1).all()
    assert score_curves(toy([(0, 0.9), (100, 0.8), (5100, 0.95)], crowd=True)).best.f1 == 1


def test_curves_equal_matching_anew_at_each_threshold(coco_gt, coco_found):
    curves = score_curves(match(coco_gt, coco_found, "bbox"))
    for t in (0.001, 0.2, 0.55, 0.9):
        alone = match(
            coco_gt, [d for d in coco_found if np.float32(d["score"]) > np.float32(t)], "bbox"
        )
        i = curves.thresholds.tolist().index(t)
        right, wrong = alone.right.sum(), alone.wrong.sum()
        assert curves.precision[i] == pytest.approx(right / (right + wrong))
        assert curves.recall[i] == pytest.approx(right / len(alone.objects))
        harmonic = 2 / (1 / curves.precision[i] + 1 / curves.recall[i])
        assert curves.f1[i] == pytest.approx(harmonic)
    assert curves.best.f1 == pytest.approx(np.nanmax(curves.f1))


def test_calibration_by_hand():
    found = [(0, 0.95), (100, 0.93), (50, 0.91), (60, 0.55), (200, 0.5), (70, 0.04)]
    result = calibration(toy([*found, (5100, 0.7)], objects=3, crowd=True))
    assert result.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert result.score[9] == pytest.approx(0.93) and result.precision[9] == pytest.approx(2 / 3)
    assert result.precision[5] == 0.5 and math.isnan(result.precision[0])
    assert result.error == pytest.approx((2 * 0.025 + 3 * (0.93 - 2 / 3)) / 5)
    assert result.bias == pytest.approx((0.95 + 0.93 + 0.91 + 0.55 + 0.5) / 5 - 3 / 5)
    nothing = calibration(toy([]))
    assert math.isnan(nothing.error) and nothing.counts.sum() == 0


def test_scores_that_are_probabilities_are_calibrated():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.05, 1, 4000)
    right = rng.random(4000) < scores
    found = [
        (100 * i if hit else 100 * i + 50, float(score))
        for i, (hit, score) in enumerate(zip(right, scores, strict=True))
    ]
    matches = match_many(found)
    assert calibration(matches).error < 0.03
    assert abs(calibration(matches).bias) < 0.02
    # Half the score promises half as much; ECE is then the mean of what is missing.
    halved = calibration(match_many([(x, score / 2) for x, score in found]), smallest=0)
    assert halved.bias == pytest.approx(scores.mean() / 2 - right.mean())
    assert halved.error == pytest.approx(-halved.bias, abs=0.02)


def match_many(found):
    """As `toy`, but an object and a detection per image, so that thousands stay quick."""
    gt = {
        "images": [{"id": i} for i in range(len(found))],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [100 * i, 0, 10, 10]}
            for i in range(len(found))
        ],
    }
    rows = [
        {"image_id": i, "category_id": 1, "bbox": [x, 0, 10, 10], "score": score}
        for i, (x, score) in enumerate(found)
    ]
    return match(gt, rows, "bbox")


def test_images_by_their_errors(coco_gt, coco_found):
    matches = match(coco_gt, coco_found, "bbox")
    ranked = score_images(matches, 0.4)
    assert sorted(one.image for one in ranked) == list(range(len(coco_gt["images"])))
    assert [one.f1 for one in ranked] == sorted(one.f1 for one in ranked)
    for one in ranked[::20]:
        image_id = coco_gt["images"][one.image]["id"]
        part = coco_gt | {
            "images": [coco_gt["images"][one.image]],
            "annotations": [a for a in coco_gt["annotations"] if a["image_id"] == image_id],
        }
        found = [d for d in coco_found if d["image_id"] == image_id and d["score"] >= 0.4]
        alone = match(part, found, "bbox")
        assert one.right == alone.right.sum() and one.wrong == alone.wrong.sum()
        assert one.missed == (alone.taken < 0).sum()
    (empty,) = score_images(toy([], objects=0), 0.5)
    assert empty.f1 == 1
    (bad,) = score_images(toy([(50, 0.9), (60, 0.1)]), 0.5)
    assert (bad.right, bad.missed, bad.wrong, bad.f1) == (0, 2, 1, 0)
