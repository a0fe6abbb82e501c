"""voc_eval against a slow reading of the development kit, a published example and scikit-learn."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskwright.data import open_dataset
from maskwright.metrics import coco_eval, voc_eval

Boxes = list[dict[str, Any]]


def pixel_iou(a: list[float], b: list[float]) -> float:
    """IoU as the kit has it: of xmin, ymin, xmax, ymax, counted from 1, the last included."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return width * height / (union - width * height)


def pixels(box: list[float]) -> list[float]:
    """Box xywh of COCO as the pixels of VOC."""
    return [box[0] + 1, box[1] + 1, box[0] + box[2], box[1] + box[3]]


def kit(gt: dict, found: Boxes, iou: float, eleven_point: bool) -> dict[str, float]:
    """VOCevaldet and VOCap, loop by loop, with recall as fractions."""
    out = {}
    for category in gt["categories"]:
        objects = [a for a in gt["annotations"] if a["category_id"] == category["id"]]
        hard = [bool(a.get("difficult") or a.get("iscrowd")) for a in objects]
        taken = [False] * len(objects)
        total = hard.count(False)
        right: list[bool] = []
        mine = [d for d in found if d["category_id"] == category["id"]]
        for detection in sorted(mine, key=lambda d: -d["score"]):
            best, which = -math.inf, -1
            for k, entry in enumerate(objects):
                if entry["image_id"] == detection["image_id"]:
                    overlap = pixel_iou(pixels(detection["bbox"]), pixels(entry["bbox"]))
                    if overlap > best:
                        best, which = overlap, k
            if best >= iou:
                if hard[which]:
                    continue
                right.append(not taken[which])
                taken[which] = True
            else:
                right.append(False)
        if not total:
            out[category["name"]] = math.nan
            continue
        recall = [Fraction(sum(right[: i + 1]), total) for i in range(len(right))]
        precision = [Fraction(sum(right[: i + 1]), i + 1) for i in range(len(right))]
        if eleven_point:
            levels = [Fraction(k, 10) for k in range(11)]
            tops = [
                max((p for p, r in zip(precision, recall, strict=True) if r >= t), default=0)
                for t in levels
            ]
            out[category["name"]] = float(sum(tops, Fraction(0)) / 11)
        else:
            recall = [Fraction(0), *recall, Fraction(1)]
            precision = [Fraction(0), *precision, Fraction(0)]
            for i in range(len(precision) - 2, -1, -1):
                precision[i] = max(precision[i], precision[i + 1])
            steps = range(1, len(recall))
            area = sum(((recall[i] - recall[i - 1]) * precision[i] for i in steps), Fraction(0))
            out[category["name"]] = float(area)
    return out


def few(gt: dict, found: Boxes, classes: int) -> tuple[dict, Boxes]:
    """The most frequent classes only: the reference is slow."""
    ids = [a["category_id"] for a in gt["annotations"]]
    kept = set(sorted(set(ids), key=lambda i: -ids.count(i))[:classes])
    annotations = [a for a in gt["annotations"] if a["category_id"] in kept]
    categories = [c for c in gt["categories"] if c["id"] in kept]
    return (
        {**gt, "annotations": annotations, "categories": categories},
        [d for d in found if d["category_id"] in kept],
    )


@pytest.mark.parametrize("eleven_point", [False, True])
@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
def test_like_the_kit_on_photographs(
    iou: float, eleven_point: bool, coco_gt: dict, coco_found: Boxes
) -> None:
    gt, found = few(coco_gt, coco_found, 8)
    rng = np.random.default_rng(0)
    for annotation in gt["annotations"]:  # crowds are there; some are difficult beside
        annotation["difficult"] = int(rng.random() < 0.15)
    expected = kit(gt, found, iou, eleven_point)
    result = voc_eval(gt, found, iou=iou, eleven_point=eleven_point)
    assert {key.removeprefix("AP/"): value for key, value in result.items() if "/" in key} == (
        pytest.approx(expected, abs=1e-12, nan_ok=True)
    )
    assert result["AP"] == pytest.approx(np.nanmean(list(expected.values())), abs=1e-12)
    assert 0.01 < result["AP"] < 0.9


def test_like_the_kit_on_blood_cells(shared_data: Path) -> None:
    gt = open_dataset(shared_data / "bccd", "val").to_coco()
    rng = np.random.default_rng(1)
    found = []
    for annotation in gt["annotations"]:
        for _ in range(rng.choice([0, 1, 1, 2])):
            # Whole pixels, as the kit expects them: many overlaps are equal.
            box = (np.array(annotation["bbox"]) + rng.integers(-9, 10, 4)).clip(1).tolist()
            score = round(float(rng.random()), 2)
            found.append({**annotation, "bbox": box, "score": score, "iscrowd": 0})
    for eleven_point in (False, True):
        result = voc_eval(gt, found, eleven_point=eleven_point)
        for name, value in kit(gt, found, 0.5, eleven_point).items():
            assert result[f"AP/{name}"] == pytest.approx(value, abs=1e-12)
    # COCO's rule differs: a detection may take the second best object.
    assert voc_eval(gt, found)["AP"] <= coco_eval(gt, found, "bbox", max_det=10_000)["AP50"] + 0.01


def scene(right: list[bool], objects: int) -> tuple[dict, Boxes]:
    """Detections by falling score, which are right or lie beside, in one image each."""
    size = max(objects, len(right))
    images = [{"id": i, "height": 50, "width": 50} for i in range(size)]
    box = [10.0, 10.0, 20.0, 20.0]
    annotations = [
        {"id": i + 1, "image_id": i, "category_id": 1, "bbox": box} for i in range(objects)
    ]
    found = []
    for i, hit in enumerate(right):
        place = sum(right[:i]) if hit else i
        found.append(
            {
                "image_id": place,
                "category_id": 1,
                "score": 1 - i / len(right),
                "bbox": box if hit else [30.0, 30.0, 10.0, 10.0],
            }
        )
    gt = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    return gt, found


# The worked example of Padilla et al. 2020 (A survey on performance metrics for object detection):
# 24 detections of 15 objects; 26.84% by eleven points and 24.56% by area.
WORKED = [i in (0, 2, 9, 11, 12, 13, 22) for i in range(24)]


def test_a_published_example() -> None:
    gt, found = scene(WORKED, 15)
    assert voc_eval(gt, found, eleven_point=True)["AP"] == pytest.approx(0.2684, abs=5e-5)
    assert voc_eval(gt, found)["AP"] == pytest.approx(0.2456, abs=1e-4)
    by_hand = (1 + 2 / 3 + 4 * 3 / 7 + 7 / 23) / 15
    assert voc_eval(gt, found)["AP"] == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_like_the_curve_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import precision_recall_curve

    rng = np.random.default_rng(seed)
    right = (rng.random(40) < 0.5).tolist()
    objects = sum(right) + 7
    gt, found = scene(right, objects)
    precision, recall, _ = precision_recall_curve(right, [d["score"] for d in found])
    precision, recall = precision[:-1][::-1], recall[:-1][::-1] * sum(right) / objects
    envelope = [precision[recall >= r].max() for r in recall]
    area = sum(np.diff([0.0, *recall]) * envelope)
    assert voc_eval(gt, found)["AP"] == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("objects", [3, 7, 10, 30])
def test_levels_of_recall_are_reached_exactly(objects: int) -> None:
    # 3 of 10 objects: 3 / 10 >= 0.3, which 0.1 + 0.1 + 0.1 is not.
    for hits in range(objects + 1):
        gt, found = scene([True] * hits, objects)
        reached = sum(10 * hits >= level * objects for level in range(11)) if hits else 0
        assert voc_eval(gt, found, eleven_point=True)["AP"] == pytest.approx(reached / 11)


def test_rules_one_by_one() -> None:
    image = {"id": 1, "height": 100, "width": 100}
    names = [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]

    def box(*sides: float, label: int = 1, **more: Any) -> dict[str, Any]:
        return {"image_id": 1, "category_id": label, "bbox": list(sides), **more}

    def ap(objects: Boxes, found: Boxes, **options: Any) -> dict[str, float]:
        gt = {"images": [image], "annotations": objects, "categories": names}
        return voc_eval(gt, found, **options)

    one, two = box(0, 0, 10, 10), box(8, 0, 10, 10)
    # A second detection of one object is false, even where another object is free and near.
    near = box(1, 0, 10, 10, score=0.8)
    assert ap([one, two], [box(0, 0, 10, 10, score=0.9), near], iou=0.1)["AP/x"] == 0.5
    assert ap([one], [box(0, 0, 10, 10, score=0.1), near])["AP/x"] == 1.0  # the better scored wins
    # Difficult ones: neither missed nor found, whatever lies on them, however often.
    hard = box(50, 50, 10, 10, difficult=1)
    on_hard = [box(50, 50, 10, 10, score=s) for s in (0.99, 0.98)]
    assert ap([one, hard], [*on_hard, box(0, 0, 10, 10, score=0.5)])["AP/x"] == 1.0
    for mark in ("ignore", "iscrowd"):
        assert ap([one, box(50, 50, 10, 10, **{mark: 1})], [*on_hard, near])["AP/x"] == 1.0
    # An object of another class is no object, and a class without objects has no number.
    result = ap(
        [one, box(50, 50, 9, 9, label=2, difficult=1)], [box(0, 0, 10, 10, score=1, label=2)]
    )
    assert result["AP/x"] == 0.0 and math.isnan(result["AP/y"]) and result["AP"] == 0.0
    # The limit is reached by equality: 10 of 20 pixels.
    assert ap([box(0, 0, 20, 1)], [box(0, 0, 10, 1, score=1)], iou=0.5)["AP/x"] == 1.0
    assert ap([box(0, 0, 20, 1)], [box(0, 0, 10, 1, score=1)], iou=0.51)["AP/x"] == 0.0
    assert math.isnan(ap([], [near])["AP"]) and ap([one], [])["AP"] == 0.0


def test_input_is_checked(tmp_path: Path) -> None:
    gt, found = scene([True], 1)
    for iou in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="iou must lie above 0"):
            voc_eval(gt, found, iou=iou)
    with pytest.raises(ValueError, match="'bbox' is missing"):
        voc_eval(gt, [{"image_id": 0, "category_id": 1, "score": 1.0}])
    with pytest.raises(ValueError, match="there is no file"):
        voc_eval(tmp_path / "gt.json", found)
    with pytest.warns(UserWarning, match="1 of 2 are on images that the ground truth lacks"):
        assert voc_eval(gt, [*found, {**found[0], "image_id": 77}])["AP"] == 1.0
    assert voc_eval(gt, [*found, {**found[0], "category_id": 77}])["AP"] == 1.0
