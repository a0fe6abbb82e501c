"""Pairs against COCO's own numbers: the same AP and recall come out of them."""

from __future__ import annotations

import numpy as np
import pytest

from maskwright.metrics import coco_eval
from maskwright.metrics.detection.error_split import average_precision
from maskwright.metrics.detection.matching import match


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("iou", "key"), [(0.5, "AP50"), (0.75, "AP75")])
def test_pairs_give_the_ap_of_coco(coco_gt, coco_found, iou_type, iou, key):
    matches = match(coco_gt, coco_found, iou_type, iou=iou)
    counts = matches.objects_per_class()
    values = []
    for k in np.nonzero(counts)[0]:
        mine = (matches.found.label == k) & ~matches.ignored
        scores, right = matches.found.scores[mine], matches.right[mine]
        values.append(average_precision(scores, right, int(counts[k])))
    assert np.mean(values) == pytest.approx(coco_eval(coco_gt, coco_found, iou_type)[key], abs=1e-9)


@pytest.mark.parametrize("max_det", [3, 500])
def test_limit_per_image_and_class(nuclei_gt, nuclei_found, max_det):
    matches = match(nuclei_gt, nuclei_found, "bbox", max_det=max_det)
    recall = matches.right.sum() / len(matches.objects)
    keep = sorted(range(len(matches.found)), key=lambda i: -matches.found.scores[i])
    ap = average_precision(
        matches.found.scores[keep], matches.right[keep], int(matches.objects_per_class()[0])
    )
    numbers = coco_eval(nuclei_gt, nuclei_found, "bbox", max_det=max_det)
    assert ap == pytest.approx(numbers["AP50"], abs=1e-9)
    assert recall >= numbers["AR"]
    per_image = np.bincount(matches.found.image)
    assert per_image.max() <= max_det


def test_pairs_are_one_to_one_and_point_back(coco_gt, coco_found):
    matches = match(coco_gt, coco_found, "bbox")
    hits = np.nonzero(matches.right)[0]
    assert (matches.taken[matches.hit[hits]] == hits).all()
    assert (matches.taken >= 0).sum() == len(hits)
    assert (matches.found.label[hits] == matches.objects.label[matches.hit[hits]]).all()
    assert (matches.found.image[hits] == matches.objects.image[matches.hit[hits]]).all()
    assert (np.diff(matches.found.scores) <= 0).all()
    assert not (matches.right & matches.ignored).any()
    rows = [coco_found[i] for i in matches.found_rows]
    assert [row["score"] for row in rows] == matches.found.scores.tolist()
    assert (matches.near_iou[hits] >= 0.5).all()


def test_crowds_unknown_entries_and_missing_fields():
    gt = {
        "images": [{"id": 9, "height": 50, "width": 50}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 1, "bbox": [0, 0, 40, 40], "iscrowd": 1},
            {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 10, 10], "iscrowd": 0},
        ],
    }
    found = [
        {"image_id": 9, "category_id": 1, "bbox": box, "score": score}
        for box, score in (([0, 0, 10, 10], 0.9), ([20, 20, 9, 9], 0.8), ([45, 45, 5, 5], 0.7))
    ]
    found += [dict(found[0], image_id=3), dict(found[0], category_id=2)]
    matches = match(gt, found, "bbox")
    assert matches.hit.tolist() == [0, -1, -1]
    assert matches.ignored.tolist() == [False, True, False]
    assert matches.wrong.tolist() == [False, False, True]
    assert matches.object_rows.tolist() == [1]
    assert len(match(gt, [], "bbox").found) == 0
    nothing = match(gt | {"annotations": []}, found, "bbox")
    assert nothing.wrong.tolist() == [True] * 3 and len(nothing.objects) == 0
    with pytest.raises(ValueError, match="'segmentation' is missing in entry 0, of image 9"):
        match(gt, found, "segm")
    with pytest.raises(ValueError, match="iou_type is one of"):
        match(gt, found, "keypoints")
