"""PR curves against AP50, the confusion matrix against a plain loop."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from maskwright.metrics import coco_eval, confusion_matrix, pr_curve
from maskwright.metrics.detection.diagnostics import pr_curves


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_mean_of_the_curves_is_ap50(coco_gt, coco_found, iou_type):
    curves = pr_curve(coco_gt, coco_found, iou_type)
    numbers = coco_eval(coco_gt, coco_found, iou_type)
    assert set(curves) == {
        name.removeprefix("AP/")
        for name, value in numbers.items()
        if name.startswith("AP/") and value == value
    }
    assert np.mean([p.mean() for _, p in curves.values()]) == pytest.approx(
        numbers["AP50"], abs=1e-9
    )
    for recall, precision in curves.values():
        assert recall.shape == precision.shape == (101,)
        assert recall[[0, 1, 100]].tolist() == [0, 0.01, 1]
        assert (np.diff(precision) <= 0).all() and precision.min() >= 0 and precision.max() <= 1


def test_curve_at_another_iou_and_max_det(nuclei_gt, nuclei_found):
    ((name, (_, precision)),) = pr_curve(
        nuclei_gt, nuclei_found, "bbox", iou=0.75, max_det=500
    ).items()
    assert name == "nucleus"
    wide = coco_eval(nuclei_gt, nuclei_found, "bbox", max_det=500)
    assert precision.mean() == pytest.approx(wide["AP75"], abs=1e-9)
    ((_, (_, low)),) = pr_curve(nuclei_gt, nuclei_found, "bbox", max_det=10).items()
    tight = coco_eval(nuclei_gt, nuclei_found, "bbox", max_det=10)
    assert low.mean() == pytest.approx(tight["AP50"], abs=1e-9)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_means_of_all_three_curves_are_the_aps(coco_gt, coco_found, iou_type):
    panels = pr_curves(coco_gt, coco_found, iou_type)
    numbers = coco_eval(coco_gt, coco_found, iou_type)
    keys = {"IoU 0.5": "AP50", "IoU 0.75": "AP75", "mean IoU 0.5 to 0.95": "AP"}
    assert list(panels) == list(keys)
    for title, key in keys.items():
        mean = np.mean([precision.mean() for _, precision in panels[title].values()])
        assert mean == pytest.approx(numbers[key], abs=1e-9)
    for name, (_, precision) in panels["mean IoU 0.5 to 0.95"].items():
        assert precision.mean() == pytest.approx(numbers[f"AP/{name}"], abs=1e-9)


def plain_iou(a: list[float], b: list[float]) -> tuple[float, float]:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(w, 0.0) * max(h, 0.0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter), inter / (a[2] * a[3])


def plain_matrix(gt: dict, found: list[dict], iou: float, conf: float, classes: int) -> np.ndarray:
    index = {c: i for i, c in enumerate(sorted(c["id"] for c in gt["categories"]))}
    matrix = np.zeros((classes + 1, classes + 1), int)
    for image in gt["images"]:
        here = [a for a in gt["annotations"] if a["image_id"] == image["id"]]
        objects = [a for a in here if not a["iscrowd"]]
        crowds = [a for a in here if a["iscrowd"]]
        dets = [d for d in found if d["image_id"] == image["id"] and d["score"] > conf]
        while True:
            best, pair = iou, None
            for a in objects:
                for d in dets:
                    overlap = plain_iou(a["bbox"], d["bbox"])[0]
                    if overlap > best or (overlap == best and pair is None):
                        best, pair = overlap, (a, d)
            if pair is None:
                break
            a, d = pair
            matrix[index[a["category_id"]], index[d["category_id"]]] += 1
            objects = [o for o in objects if o is not a]
            dets = [o for o in dets if o is not d]
        for a in objects:
            matrix[index[a["category_id"]], classes] += 1
        for d in dets:
            if all(plain_iou(d["bbox"], c["bbox"])[1] < iou for c in crowds):
                matrix[classes, index[d["category_id"]]] += 1
    return matrix


@pytest.mark.parametrize(("iou", "conf"), [(0.5, 0.25), (0.3, 0.6)])
def test_confusion_matrix_equals_plain_loop(coco_gt, coco_found, iou, conf):
    ours = confusion_matrix(coco_gt, coco_found, iou=iou, conf=conf)
    assert ours.dtype.kind == "i" and ours.shape == (81, 81)
    expected = plain_matrix(coco_gt, coco_found, iou, conf, 80)
    np.testing.assert_array_equal(ours, expected)
    objects = sum(not a["iscrowd"] for a in coco_gt["annotations"])
    assert ours[:-1].sum() == objects and ours[-1, -1] == 0


def test_confusion_matrix_of_dense_scenes(nuclei_gt, nuclei_found):
    images = nuclei_gt["images"][:12]
    keep = {image["id"] for image in images}
    gt = nuclei_gt | {
        "images": images,
        "annotations": [a for a in nuclei_gt["annotations"] if a["image_id"] in keep],
    }
    found = [d for d in nuclei_found if d["image_id"] in keep]
    ours = confusion_matrix(gt, found, num_classes=3)
    np.testing.assert_array_equal(ours, plain_matrix(gt, found, 0.5, 0.25, 3))


def test_confusion_matrix_ignores_detections_on_crowds_only():
    gt = {
        "images": [{"id": 1}],
        "categories": [{"id": 4, "name": "b"}, {"id": 2, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 4, "bbox": [0, 0, 100, 100], "iscrowd": 1},
            {"id": 2, "image_id": 1, "category_id": 4, "bbox": [10, 10, 20, 20], "iscrowd": 0},
        ],
    }
    found = [
        {"image_id": 1, "category_id": 2, "bbox": [10, 10, 20, 20], "score": 0.9},
        {"image_id": 1, "category_id": 2, "bbox": [50, 50, 20, 20], "score": 0.9},
        {"image_id": 1, "category_id": 2, "bbox": [150, 50, 20, 20], "score": 0.9},
        {"image_id": 1, "category_id": 4, "bbox": [150, 50, 20, 20], "score": 0.2},
        {"image_id": 1, "category_id": 9, "bbox": [150, 50, 20, 20], "score": 0.9},
        {"image_id": 8, "category_id": 2, "bbox": [150, 50, 20, 20], "score": 0.9},
    ]
    assert confusion_matrix(gt, found).tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert confusion_matrix(gt, []).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    with pytest.raises(ValueError, match="num_classes=1, but the ground truth has 2"):
        confusion_matrix(gt, found, num_classes=1)


def test_masks_without_boxes_count_by_the_box_of_the_mask(coco_gt, coco_found):
    bare = [{k: v for k, v in d.items() if k != "bbox"} for d in coco_found]
    from pycocotools import mask as rle

    boxed = [dict(d, bbox=rle.toBbox(d["segmentation"]).tolist()) for d in bare]
    np.testing.assert_array_equal(confusion_matrix(coco_gt, bare), confusion_matrix(coco_gt, boxed))


def test_package_is_lazy():
    import subprocess

    code = (
        "import sys, json, maskwright.metrics as m; dir(m); "
        "print(json.dumps([n for n in ('torch', 'numpy', 'hotcoco', 'pycocotools') "
        "if n in sys.modules]))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(loaded.stdout) == []
    with pytest.raises(AttributeError, match="no attribute 'coco_evil'"):
        from maskwright import metrics

        _ = metrics.coco_evil
