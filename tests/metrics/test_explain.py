"""Each accident that makes AP zero is recognised and gets a sentence with numbers and a mend."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from maskwright.metrics import coco_eval, explain_zero


def as_found(gt: dict[str, Any], *, masks: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    """Perfect detections with scores of a trained network."""
    rng = np.random.default_rng(seed)
    found = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": [float(v) for v in a["bbox"]],
            "score": float(rng.uniform(0.3, 1)),
        }
        for a in gt["annotations"]
        if not a["iscrowd"]
    ]
    if masks:
        shapes = [a["segmentation"] for a in gt["annotations"] if not a["iscrowd"]]
        for det, shape in zip(found, shapes, strict=True):
            if not isinstance(shape["counts"], str):
                shape = rle.frPyObjects(shape, *shape["size"])
            det["segmentation"] = shape
    return found


def reasons(gt: dict, found: list[dict], iou_type: str = "bbox", **options: Any) -> list[str]:
    numbers = coco_eval(gt, found, iou_type, max_det=500)
    assert not numbers["AP"] >= 5e-3, "this accident does not make AP zero"
    key = {"bbox": "box/", "segm": "mask/"}[iou_type]
    sentences = explain_zero(gt, found, {key + k: v for k, v in numbers.items()}, **options)
    assert sentences and all(s[0].isupper() or s[0].isdigit() for s in sentences)
    assert all(s.endswith(".") for s in sentences)
    return sentences


@pytest.fixture(scope="session")
def coco_perfect(coco_gt) -> list[dict[str, Any]]:
    return as_found(coco_gt)


def test_silent_where_ap_is_not_zero(coco_gt, coco_perfect):
    numbers = coco_eval(coco_gt, coco_perfect, "bbox")
    assert explain_zero(coco_gt, coco_perfect, {"AP": numbers["AP"], "AP_large": 0.0}) == []


def test_no_predictions(nuclei_gt):
    (text,) = reasons(nuclei_gt, [])
    assert "no predictions on 84 images with 3020 objects" in text and "conf" in text


def test_no_objects(nuclei_gt):
    (text,) = reasons(nuclei_gt | {"annotations": []}, as_found(nuclei_gt))
    assert "has no objects (84 images" in text


def test_other_image_ids(nuclei_gt):
    found = [dict(d, image_id=d["image_id"] + 5000) for d in as_found(nuclei_gt)]
    with pytest.warns(UserWarning, match="3020 of 3020"):
        (text,) = reasons(nuclei_gt, found)
    assert "3020 of 3020 predictions carry an image_id" in text and "383" in text


def test_image_ids_of_another_type(nuclei_gt):
    found = [dict(d, image_id=str(d["image_id"])) for d in as_found(nuclei_gt)]
    with pytest.warns(UserWarning, match="3020 of 3020"):
        (text,) = reasons(nuclei_gt, found)
    assert "'383'" in text and "type" in text


def test_class_index_for_category_id(nuclei_gt):
    found = [dict(d, category_id=0) for d in as_found(nuclei_gt)]
    (text,) = reasons(nuclei_gt, found)
    assert "3020 of 3020 predictions carry a category_id" in text
    assert "after adding +1" in text


def test_boxes_of_a_resized_image(coco_gt, coco_perfect):
    sizes = {i["id"]: max(i["height"], i["width"]) for i in coco_gt["images"]}
    found = [
        dict(d, bbox=(np.array(d["bbox"]) * 1333 / sizes[d["image_id"]]).tolist())
        for d in coco_perfect
    ]
    # Large objects may still touch: take the small ones, of which none does.
    found = [d for d in found if d["bbox"][0] > 1.2 * d["bbox"][2]]
    assert any("long side 13" in text for text in reasons(coco_gt, found)) or any(
        "after scaling by 0.48" in text for text in reasons(coco_gt, found)
    )


def test_boxes_of_another_scale(nuclei_gt):
    found = [dict(d, bbox=[v * 1.6 for v in d["bbox"]]) for d in as_found(nuclei_gt)]
    found = [d for d in found if d["bbox"][0] > 2 * d["bbox"][2] or d["bbox"][1] > 200]
    text = " ".join(reasons(nuclei_gt, found))
    assert "after scaling by 0.62" in text or "after scaling by 0.63" in text


def test_corners_for_width_and_height(nuclei_gt):
    found = as_found(nuclei_gt)
    for det in found:
        x, y, w, h = det["bbox"]
        det["bbox"] = [x, y, x + w, y + h]
    found = [d for d in found if d["bbox"][0] > 30]
    text = " ".join(reasons(nuclei_gt, found))
    assert "write x, y, width, height" in text


def test_swapped_axes(nuclei_gt):
    found = [dict(d, bbox=[d["bbox"][i] for i in (1, 0, 3, 2)]) for d in as_found(nuclei_gt)]
    found = [d for d in found if abs(d["bbox"][0] - d["bbox"][1]) > 40]
    assert "write x first" in " ".join(reasons(nuclei_gt, found))


def test_fractions_of_the_image(nuclei_gt):
    sizes = {i["id"]: np.array([i["width"], i["height"]] * 2) for i in nuclei_gt["images"]}
    found = [dict(d, bbox=(d["bbox"] / sizes[d["image_id"]]).tolist()) for d in as_found(nuclei_gt)]
    assert "write pixels, not fractions" in " ".join(reasons(nuclei_gt, found))


def test_boxes_outside_the_image(nuclei_gt):
    rng = np.random.default_rng(0)
    found = [
        dict(d, bbox=[float(v) for v in (*rng.uniform(3000, 9000, 2), *rng.uniform(5, 40, 2))])
        for d in as_found(nuclei_gt)
    ]
    text = " ".join(reasons(nuclei_gt, found))
    assert "3020 of 3020 predicted boxes lie wholly outside" in text


def test_classes_in_another_order(coco_gt, coco_perfect):
    ids = sorted(c["id"] for c in coco_gt["categories"])
    turned = {c: ids[(i + 1) % len(ids)] for i, c in enumerate(ids)}
    found = [dict(d, category_id=turned[d["category_id"]]) for d in coco_perfect]
    text = " ".join(reasons(coco_gt, found))
    assert "but with another class" in text and "'person' as 'bicycle'" in text
    assert "off by +1" in text


def test_empty_masks(nuclei_gt):
    found = as_found(nuclei_gt, masks=True)
    for det in found:
        h, w = det["segmentation"]["size"]
        blank = rle.encode(np.zeros((h, w), np.uint8, order="F"))
        det["segmentation"] = {"size": [h, w], "counts": blank["counts"]}
    text = " ".join(reasons(nuclei_gt, found, "segm"))
    assert "3020 of 3020 predicted masks are empty" in text


def test_masks_of_another_size(nuclei_gt):
    found = as_found(nuclei_gt, masks=True)
    small = rle.encode(np.ones((28, 28), np.uint8, order="F"))
    for det in found:
        det["segmentation"] = {"size": [28, 28], "counts": small["counts"]}
    # The evaluators may refuse such masks, so the numbers are given here.
    (text,) = explain_zero(nuclei_gt, found, {"box/AP": 0.9, "mask/AP": 0.0})
    assert "3020 of 3020 masks have another size" in text and "28 x 28" in text


def test_masks_in_another_place(nuclei_gt):
    found = as_found(nuclei_gt, masks=True)
    for det in found:
        pixels = np.asfortranarray(np.roll(rle.decode(det["segmentation"]), 60, 1))
        det["segmentation"] = rle.encode(pixels)
    numbers = coco_eval(nuclei_gt, found, "segm", max_det=500)
    (text,) = explain_zero(nuclei_gt, found, {"box/AP": 0.9, "mask/AP": 0.0})
    assert numbers["AP50"] < 0.05
    assert "3020 of 3020 objects, but their masks do not" in text


def test_untrained_scores(nuclei_gt):
    rng = np.random.default_rng(0)
    found = [
        dict(
            d, bbox=[*rng.uniform(0, 200, 2), *rng.uniform(80, 250, 2)], score=0.5 + 1e-3 * i / 9e3
        )
        for i, d in enumerate(as_found(nuclei_gt))
    ]
    text = reasons(nuclei_gt, found)[0]
    assert "All 3020 scores lie between 0.500 and 0.500" in text and "checkpoint" in text


def test_scores_all_low_and_overlap_too_small(nuclei_gt):
    rng = np.random.default_rng(0)
    found = [
        dict(
            d, bbox=[*rng.uniform(0, 200, 2), *rng.uniform(80, 250, 2)], score=rng.uniform(0, 0.04)
        )
        for d in as_found(nuclei_gt)
    ]
    (text,) = reasons(nuclei_gt, found)
    assert "highest of 3020 scores is 0.04" in text
    trained = [dict(d, score=25 * d["score"]) for d in found]
    (text,) = reasons(nuclei_gt, trained)
    assert "overlap the objects too little" in text and "of 3020" in text


@pytest.mark.parametrize("by", ["model", "training"])
def test_a_user_reads_no_guesses_about_our_own_code(nuclei_gt, by):
    """Ids, frames and weights of our own models are right: what is left is what a user can do."""
    rng = np.random.default_rng(0)
    halved = [{**det, "bbox": [0.62 * v for v in det["bbox"]]} for det in as_found(nuclei_gt)]
    spoilt = {
        "boxes of another scale": (halved, "bbox", "overlap the objects too little"),
        "equal scores": ([{**d, "score": 0.5} for d in halved], "bbox", "untrained weights"),
        "low scores": (
            [{**d, "score": 0.04 * rng.random()} for d in halved], "bbox", "sees nothing for sure"
        ),
        "nothing": ([], "bbox", "no predictions"),
    }  # fmt: skip
    for found, kind, says in spoilt.values():
        text = " ".join(reasons(nuclei_gt, found, kind, by=by))
        assert says in text
        for word in ("loaded", "re-initialised", "scaling", "pixels of another", "frame", "pasted"):
            assert word not in text, text
        assert ("usual in the first epochs" in text) == (by == "training")
    empty = [det | {"segmentation": _empty(nuclei_gt, det)} for det in as_found(nuclei_gt)]
    text = " ".join(reasons(nuclei_gt, empty, "segm", by=by))
    assert "masks are empty" in text and "loaded" not in text


def _empty(gt: dict[str, Any], det: dict[str, Any]) -> dict[str, Any]:
    image = next(image for image in gt["images"] if image["id"] == det["image_id"])
    size = [image["height"], image["width"]]
    return {"size": size, "counts": [size[0] * size[1]]}


def test_classes_one_by_one(coco_gt, coco_perfect):
    ids = {c["name"]: c["id"] for c in coco_gt["categories"]}
    found = [d for d in copy.deepcopy(coco_perfect) if d["category_id"] != ids["dog"]]
    for det in found:
        if det["category_id"] == ids["person"]:
            det["bbox"] = [0.0, 0.0, 3.0, 3.0]
    numbers = coco_eval(coco_gt, found, "bbox")
    assert numbers["AP"] > 0.5
    absent = sum(math.isnan(v) for k, v in numbers.items() if k.startswith("AP/"))
    first, second, third = explain_zero(coco_gt, found, numbers)
    assert f"No object in the ground truth for {absent} of 80 classes" in first
    assert "No prediction for 1 of 80 classes ('dog' (" in second
    assert "for 1 of 80 classes ('person' (" in third and "confusion matrix" in third


def test_names_that_the_model_does_not_know(nuclei_gt):
    text = reasons(nuclei_gt, [], names=["cell", None])[-1]
    assert "no class named 'nucleus'; it knows 'cell'" in text
    assert len(reasons(nuclei_gt, [], names=["nucleus"])) == 1
