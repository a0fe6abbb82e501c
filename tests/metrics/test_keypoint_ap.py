"""Keypoint AP against pycocotools on the persons of COCO, and with other keypoints."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskwright.metrics import coco_eval, explain_zero, pr_curve

STATS = (
    *("AP", "AP50", "AP75", "AP_medium", "AP_large"),
    *("AR", "AR50", "AR75", "AR_medium", "AR_large"),
)


@pytest.fixture(scope="module")
def person_gt(shared_data: Path) -> dict[str, Any]:
    """109 persons in 67 photos, one crowd, many without a labelled keypoint."""
    file = shared_data / "coco_subset/annotations/person_keypoints_val.json"
    return json.loads(file.read_text())


def perturb(gt: dict[str, Any], spread: float = 0.05) -> list[dict[str, Any]]:
    """Moved keypoints, doubles, misses, and false positives with equal scores."""
    rng = np.random.default_rng(0)
    found = []
    for ann in gt["annotations"]:
        for _ in range(rng.choice([0, 1, 1, 2])):
            x, y, w, h = ann["bbox"]
            points = np.reshape(ann["keypoints"], (-1, 3)).astype(float)
            hidden = points[:, 2] == 0
            points[:, :2] += rng.normal(0, spread, (len(points), 2)) * math.sqrt(ann["area"])
            points[hidden, :2] = rng.uniform((x, y), (x + w, y + h), (int(hidden.sum()), 2))
            points[:, 2] = rng.random(len(points))
            entry = {"image_id": ann["image_id"], "category_id": ann["category_id"]}
            score = round(float(rng.random()), 2)
            found.append({**entry, "score": score, "keypoints": points.ravel().tolist()})
    return found


def reference(
    gt: dict[str, Any], found: list[dict[str, Any]], sigmas: Any = None, max_det: int = 20
) -> dict[str, float]:
    """The table that pycocotools prints."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(gt)
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(copy.deepcopy(found)), "keypoints")
        if sigmas is not None:
            run.params.kpt_oks_sigmas = np.array(sigmas)
        assert run.params.maxDets == [20]
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(STATS, run.stats.tolist(), strict=True))


def fewer(rows: list[dict[str, Any]], joints: int) -> list[dict[str, Any]]:
    """Keep the first keypoints of annotations or detections."""
    rows = [dict(row, keypoints=row["keypoints"][: 3 * joints]) for row in rows]
    for row in rows:
        if "num_keypoints" in row:
            row["num_keypoints"] = int((np.array(row["keypoints"][2::3]) > 0).sum())
    return rows


def assert_same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=1e-9), key


@pytest.mark.parametrize("with_boxes", [False, True])
def test_equals_pycocotools(person_gt: Any, with_boxes: bool, capfd: Any) -> None:
    found = perturb(person_gt)
    if with_boxes:  # then the area of the box decides what is medium and large
        boxes = {ann["image_id"]: ann["bbox"] for ann in person_gt["annotations"]}
        found = [dict(row, bbox=boxes[row["image_id"]]) for row in found]
    before = json.dumps([person_gt, found])
    ours = coco_eval(person_gt, found, "keypoints", max_det=20)
    assert capfd.readouterr() == ("", "") and json.dumps([person_gt, found]) == before
    assert 0.1 < ours["AP"] < 0.9 and ours["AP/person"] == ours["AP"]
    assert set(ours) == {*STATS, "AR_1", "AR_10", "AP/person"}
    assert_same(ours, reference(person_gt, found))


@pytest.mark.parametrize("joints", [1, 5])
def test_any_number_of_keypoints(person_gt: Any, joints: int) -> None:
    annotations = fewer(person_gt["annotations"], joints)
    category = dict(person_gt["categories"][0])
    category["keypoints"] = category["keypoints"][:joints]
    gt = {**person_gt, "annotations": annotations, "categories": [category]}
    found = fewer(perturb(person_gt), joints)
    for sigmas in (None, [0.03 + 0.02 * i for i in range(joints)]):
        ours = coco_eval(gt, found, "keypoints", max_det=20, sigmas=sigmas)
        assert_same(ours, reference(gt, found, sigmas or [0.05] * joints))


def test_fallback_gives_the_same_numbers(person_gt: Any, monkeypatch: Any, capfd: Any) -> None:
    found = perturb(person_gt)
    first = coco_eval(person_gt, found, "keypoints", sigmas=[0.04] * 17)
    monkeypatch.setitem(sys.modules, "hotcoco", None)  # import raises ImportError
    assert_same(coco_eval(person_gt, found, "keypoints", sigmas=[0.04] * 17), first)
    assert capfd.readouterr() == ("", "")


def toy() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    box = {"image_id": 7, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}
    points = [12, 12, 2, 50, 50, 1]
    gt = {
        "images": [{"id": 7, "height": 100, "width": 100}],
        "annotations": [
            {**box, "id": 1, "category_id": 1, "keypoints": points},
            {**box, "id": 2, "category_id": 2},
        ],
        "categories": [
            {"id": 1, "name": "a", "keypoints": ["p", "q"]},
            {"id": 2, "name": "b", "keypoints": ["p", "q"]},
        ],
    }
    row = {"image_id": 7, "score": 0.9, "bbox": [10, 10, 50, 50]}
    return gt, [{**row, "category_id": c, "keypoints": [12, 12, 1, 50, 50, 1]} for c in (1, 2)]


def test_objects_without_keypoints_do_not_count() -> None:
    gt, found = toy()
    numbers = coco_eval(gt, found, "keypoints")
    assert numbers["AP"] == numbers["AP/a"] == pytest.approx(1) and math.isnan(numbers["AP/b"])
    assert math.isnan(numbers["AP_large"]) and numbers["AP_medium"] == pytest.approx(1)
    del gt["annotations"][0]["keypoints"]
    assert math.isnan(coco_eval(gt, found, "keypoints")["AP"])
    recall, precision = pr_curve(*toy(), "keypoints")["a"]
    assert len(recall) == 101 and precision.min() == pytest.approx(1)


def test_similarity_is_that_of_the_definition() -> None:
    """OKS is the mean of exp(-d^2 / (2 area (2 sigma)^2)): AP is the share of levels below it."""
    gt, found = toy()
    gt["annotations"] = gt["annotations"][:1]
    found[0]["keypoints"][0] += 4.0
    for sigma in (0.02, 0.05, 0.1):
        oks = (math.exp(-(4.0**2) / (2 * 2500 * (2 * sigma) ** 2)) + 1) / 2
        numbers = coco_eval(gt, found[:1], "keypoints", sigmas=[sigma, 0.05])
        expected = sum(oks >= level for level in np.arange(0.5, 1, 0.05)) / 10
        assert numbers["AP"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sigmas": [0.1]}, "expected 2 numbers above 0, one per keypoint"),
        ({"sigmas": [0.1, 0]}, "expected 2 numbers above 0"),
        ({"iou_type": "bbox", "sigmas": [0.1, 0.1]}, "belong to iou_type='keypoints'"),
    ],
)
def test_errors_name_what_is_wrong(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        coco_eval(*toy(), **{"iou_type": "keypoints", **options})


def test_incomplete_entries_are_named() -> None:
    gt, found = toy()
    with pytest.raises(ValueError, match="needs image_id, category_id, score and keypoints"):
        coco_eval(gt, [{k: v for k, v in found[0].items() if k != "keypoints"}], "keypoints")
    with pytest.raises(ValueError, match="has 3 numbers under keypoints, expected 3 for each of 2"):
        coco_eval(gt, [dict(found[0], keypoints=[1, 2, 3])], "keypoints")


def test_reasons_for_a_zero() -> None:
    gt, found = toy()
    numbers = {"box/AP": 1.0, "keypoints/AP": 0.0}
    far = [dict(row, keypoints=[900.0, 900, 1, 800, 700, 1]) for row in found]
    assert "far outside of their boxes" in explain_zero(gt, far, numbers)[0]
    near = [dict(row, keypoints=[40.0, 40, 1, 30, 30, 1]) for row in found]
    assert "too far from the 1 labelled ones" in explain_zero(gt, near, numbers)[0]
    bare = [{k: v for k, v in row.items() if k != "keypoints"} for row in found]
    assert "have no keypoints" in explain_zero(gt, bare, numbers)[0]
    del gt["annotations"][0]["keypoints"]
    undefined = {"box/AP": 1.0, "keypoints/AP": math.nan}
    assert (
        "No object of the ground truth has a labelled keypoint"
        in explain_zero(gt, found, undefined)[0]
    )
