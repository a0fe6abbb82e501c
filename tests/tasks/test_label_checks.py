"""What each task doubts in labels: faults are planted, and the answers are the true labels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.data.discover import open_dataset
from maskwright.models.meta import Meta
from maskwright.tasks.classification.evaluate import ClassificationEvaluation
from maskwright.tasks.classification.label_check import ClassificationCheck
from maskwright.tasks.classification.settings import ClassificationSettings
from maskwright.tasks.detection.evaluate import DetectionEvaluation
from maskwright.tasks.detection.label_check import DetectionCheck
from maskwright.tasks.localization.evaluate import LocationEvaluation
from maskwright.tasks.localization.label_check import LocationCheck
from maskwright.tasks.semantic.label_check import doubted_regions

META = Meta("none", {}, ["cat", "dog"])
SIDE = 200


def square(k: int) -> list[float]:
    """Return the k-th of 16 squares of 30 pixels, xywh."""
    return [50.0 * (k % 4) + 5, 50.0 * (k // 4) + 5, 30.0, 30.0]


def outline(box: list[float]) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def write(root: Path, boxes: list[list[tuple[int, list[float], int]]], masks: bool) -> Path:
    """Write a COCO data set: of each image (id, box, category)."""
    (root / "images" / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    content: dict[str, Any] = {
        "images": [
            {"id": 7 + k, "file_name": f"{k}.png", "width": SIDE, "height": SIDE}
            for k in range(len(boxes))
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"id": number, "image_id": 7 + k, "category_id": category, "bbox": box,
             "area": box[2] * box[3], "iscrowd": 0,
             **({"segmentation": outline(box)} if masks else {})}
            for k, own in enumerate(boxes)
            for number, box, category in own
        ],
    }  # fmt: skip
    for image in content["images"]:
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / "val" / image["file_name"])
    (root / "annotations" / "val.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("masks", [False, True])
def test_planted_faults_of_objects_come_first(tmp_path: Path, masks: bool) -> None:
    true = [[(100 * k + n, square(n), 3 if n % 2 else 9) for n in range(12)] for k in range(4)]
    labels = [list(own) for own in true]
    labels[0] = [one for one in labels[0] if one[0] != 4]  # missing
    number, (x, y, w, h), category = labels[1][2]
    labels[1][2] = (number, [x + 12, y, w, h], category)  # IoU 18 / 42
    number, box, category = labels[2][5]
    labels[2][5] = (number, box, 9 if category == 3 else 3)
    labels[3].append((350, square(14), 3))  # where there is nothing
    data = open_dataset(write(tmp_path, labels, masks), "val")
    gt = data.to_coco(by_label=True)
    rows: list[dict[str, Any]] = []
    for k, own in enumerate(true):
        for _, box, category in own:
            row = {"image_id": 7 + k, "bbox": box, "score": 0.9, "category_id": 1 + (category == 9)}
            rows.append({**row, "segmentation": outline(box)} if masks else row)
    metrics = {"box/AP": 0.9, **({"mask/AP": 0.9} if masks else {})}
    result = DetectionEvaluation(metrics, 1.0, gt, rows, 100)
    found = sorted(DetectionCheck().suspects(result, data, META), key=lambda one: -one.score)
    told = {(one.kind, one.index, one.annotation) for one in found[:4]}
    assert told == {
        ("missing", 0, None), ("place", 1, 102), ("class", 2, 205), ("false", 3, 350),
    }  # fmt: skip
    assert all(one.score < 0.15 for one in found[4:])
    missing = next(one for one in found if one.kind == "missing")
    assert missing.found_box == (5.0, 55.0, 35.0, 85.0) and missing.label_box is None
    assert (missing.label, missing.found) == ("", "dog")
    place = next(one for one in found if one.kind == "place")
    assert place.overlap is not None and place.overlap <= 18 / 42 + 1e-6
    for one in found[:4]:
        assert one.row()["kind"] == one.kind
        picture = np.asarray(one.picture(data.image(one.index)).convert("RGB"))
        colors = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
        assert ((86, 180, 233) in colors) == (one.label_box is not None)
        assert ((230, 159, 0) in colors) == (one.found_box is not None)


def logits(probs: np.ndarray) -> np.ndarray:
    return np.log(probs).astype(np.float32)


def test_swapped_labels_of_images_come_first() -> None:
    true = np.repeat([0, 1], 50)
    probs = np.full((100, 2), 0.1)
    probs[np.arange(100), true] = 0.9
    probs[10], probs[60] = (0.99, 0.01), (0.05, 0.95)
    labels = true.copy()
    labels[[10, 60]] = 1 - labels[[10, 60]]
    settings = ClassificationSettings()
    result = ClassificationEvaluation({}, 1.0, logits(probs), labels, ["cat", "dog"], settings)
    check = ClassificationCheck()
    found = sorted(check.suspects(result, None, META), key=lambda one: -one.score)  # type: ignore[arg-type]
    assert [(one.index, one.label, one.found) for one in found] == [
        (10, "dog", "cat"), (60, "cat", "dog"),
    ]  # fmt: skip
    assert found[0].score == pytest.approx(0.98) and found[0].confidence == pytest.approx(0.99)
    assert "about 2 of 100 labels (2.0%)" in check.remarks(result)[0]


def test_labels_of_images_with_several_are_doubted_one_by_one() -> None:
    there = np.zeros((40, 2), bool)
    there[:20, 0] = there[10:30, 1] = True
    probs = np.where(there, 0.9, 0.1)
    labels = there.copy()
    labels[3, 0], labels[35, 1] = False, True
    odds = np.log(probs / (1 - probs)).astype(np.float32)
    settings = ClassificationSettings()
    result = ClassificationEvaluation({}, 1.0, odds, labels, ["cat", "dog"], settings)
    found = ClassificationCheck().suspects(result, None, META)  # type: ignore[arg-type]
    assert {(one.kind, one.index, one.label, one.found) for one in found} == {
        ("missing", 3, "", "cat"), ("false", 35, "dog", ""),
    }  # fmt: skip
    assert all(one.score == pytest.approx(0.8) for one in found)


def test_regions_count_without_their_edges() -> None:
    truth = np.zeros((200, 200), np.uint8)
    truth[:20] = 255  # nobody knows
    best = np.zeros((200, 200), np.int64)
    best[50:90, 60:80] = 1
    best[:, 150:152] = 1  # a border that is a little off
    best[:15] = 2
    probs = np.full((3, 200, 200), 0.05)
    np.put_along_axis(probs, best[None], 0.9, 0)
    (region,) = doubted_regions(truth, probs)
    # 0.5% of the diagonal is an edge of one pixel: 38 x 18 pixels are left, and count beside 9.
    assert (region.label, region.found) == (0, 1)
    assert region.frame == (61, 51, 79, 89) and region.mask.all()
    assert region.confidence == pytest.approx(0.9)
    assert region.score == pytest.approx(0.85 * 684 / (684 + 9))
    everywhere = np.stack([np.ones((9, 9)), np.zeros((9, 9))])
    assert doubted_regions(np.zeros((9, 9), np.uint8), everywhere) == []


def location(index: int, label: int, first: int, score: float, known: float) -> dict[str, Any]:
    return {
        "index": index, "label": label, "unknown": False, "named": [first, 1 - first if first < 2
        else 0], "scores": [score, 0.03], "box": [5.0, 5.0, 35.0, 35.0], "known": known,
    }  # fmt: skip


def test_one_object_an_image(tmp_path: Path) -> None:
    labels = [[(k, square(0), 3)] for k in range(7)] + [[]]
    data = open_dataset(write(tmp_path, labels, False), "val")
    rows = [location(k, 0, 0, 0.9, 0.8) for k in range(4)]
    rows += [location(4, 0, 1, 0.9, 0.8), location(5, 0, 0, 0.9, 0.2)]
    rows += [location(6, 0, 2, 0.9, 0.0), location(7, 2, 0, 0.9, math.nan)]
    found = LocationCheck().suspects(LocationEvaluation({}, 1.0, rows), data, META)
    told = {one.index: (one.kind, one.label, one.found, one.annotation) for one in found}
    assert told == {
        4: ("class", "cat", "dog", 4), 5: ("place", "cat", "cat", 5),
        6: ("false", "cat", "", 6), 7: ("missing", "", "cat", None),
    }  # fmt: skip
    scores = {one.index: one.score for one in found}
    assert scores == pytest.approx({4: 0.87, 5: 0.9 * 0.75, 6: 0.87, 7: 0.9})
    for one in found:
        assert one.picture(data.image(one.index)).width > 0
    points = [{"index": k, "unknown": False, "error": error} for k, error in enumerate([1, 1, 4])]
    (far,) = LocationCheck().suspects(
        LocationEvaluation({"keypoints/NME": 2.0}, 1.0, points), data, META
    )
    assert (far.index, far.kind, far.score) == (2, "keypoints", 0.5)
