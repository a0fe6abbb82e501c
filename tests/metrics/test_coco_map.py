"""coco_eval against pycocotools' own COCOeval on damaged ground truth of real data sets."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import sys
from typing import Any

import numpy as np
import pytest

from maskwright.metrics import coco_eval
from maskwright.metrics.detection import evaluator

SIZES = ("all", "small", "medium", "large")


def reference(gt: dict, found: list[dict], iou_type: str, max_det: int) -> dict[str, float]:
    """pycocotools' arrays (not ours), averaged here by the letters of the protocol."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(gt)
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(copy.deepcopy(found)), iou_type)
        limits = sorted({1, min(10, max_det), max_det})
        run.params.maxDets = limits
        run.evaluate()
        run.accumulate()
        if limits == [1, 10, 100]:
            run.summarize()
    p, r = run.eval["precision"], run.eval["recall"]

    def mean(values: np.ndarray) -> float:
        values = values[values > -1]
        return float(np.mean(values)) if values.size else math.nan

    out = {
        "AP": mean(p[..., 0, -1]),
        "AP50": mean(p[0, ..., 0, -1]),
        "AP75": mean(p[5, ..., 0, -1]),
    }
    for i, size in enumerate(SIZES[1:], 1):
        out[f"AP_{size}"] = mean(p[..., i, -1])
        out[f"AR_{size}"] = mean(r[..., i, -1])
    out |= {"AR_1": mean(r[..., 0, 0]), "AR_10": mean(r[..., 0, 1]), "AR": mean(r[..., 0, -1])}
    names = {c["id"]: c["name"] for c in gt["categories"]}
    for k, category in enumerate(run.params.catIds):
        out[f"AP/{names[category]}"] = mean(p[:, :, k, 0, -1])
    if limits == [1, 10, 100]:  # and the printed table of pycocotools itself
        keys = "AP AP50 AP75 AP_small AP_medium AP_large AR_1 AR_10 AR AR_small AR_medium AR_large"
        for key, value in zip(keys.split(), run.stats, strict=True):
            assert out[key] == pytest.approx(value, abs=1e-12) or value == -1
    return out


def assert_same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=1e-9, nan_ok=True), key


@pytest.mark.parametrize(
    ("iou_type", "max_det"),
    [
        *(("bbox", 10), ("segm", 100)),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("bbox", 100), ("segm", 10))),
    ],
)
def test_coco_equals_pycocotools(coco_gt, coco_found, iou_type, max_det, capfd):
    assert sum(a["iscrowd"] for a in coco_gt["annotations"]) > 5
    before = json.dumps([coco_gt, coco_found])
    ours = coco_eval(coco_gt, coco_found, iou_type, max_det=max_det)
    assert capfd.readouterr() == ("", "")
    assert json.dumps([coco_gt, coco_found]) == before
    assert 0.1 < ours["AP"] < 0.9
    assert any(math.isnan(v) for v in ours.values())  # a class of the 80 without an object here
    assert_same(ours, reference(coco_gt, coco_found, iou_type, max_det))


@pytest.mark.parametrize("iou_type", ["bbox", pytest.param("segm", marks=pytest.mark.slow)])
def test_dense_scenes_follow_max_det(nuclei_gt, nuclei_found, iou_type):
    wide = coco_eval(nuclei_gt, nuclei_found, iou_type, max_det=500)
    assert_same(wide, reference(nuclei_gt, nuclei_found, iou_type, 500))
    tight = coco_eval(nuclei_gt, nuclei_found, iou_type, max_det=10)
    assert_same(tight, reference(nuclei_gt, nuclei_found, iou_type, 10))
    assert tight["AP"] < 0.7 * wide["AP"]


def test_masks_without_boxes_are_measured_by_mask_area(coco_gt, coco_found):
    bare = [{k: v for k, v in det.items() if k != "bbox"} for det in coco_found]
    ours = coco_eval(coco_gt, bare, "segm")
    assert_same(ours, reference(coco_gt, bare, "segm", 100))
    assert ours["AP_small"] != coco_eval(coco_gt, coco_found, "segm")["AP_small"]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_fallback_gives_the_same_numbers(coco_gt, coco_found, iou_type, monkeypatch, capfd):
    first = coco_eval(coco_gt, coco_found, iou_type)
    monkeypatch.setitem(sys.modules, "hotcoco", None)  # import raises ImportError
    before = json.dumps(coco_gt)
    assert_same(coco_eval(coco_gt, coco_found, iou_type), first)
    assert json.dumps(coco_gt) == before
    assert capfd.readouterr() == ("", "")


def test_failure_of_hotcoco_is_said_and_survived(coco_gt, coco_found, monkeypatch):
    def fail(*args: Any) -> None:
        raise RuntimeError("broken pipe organ")

    first = coco_eval(coco_gt, coco_found, "bbox")
    monkeypatch.setattr(evaluator, "_with_hotcoco", fail)
    with pytest.warns(UserWarning, match="broken pipe organ"):
        assert_same(coco_eval(coco_gt, coco_found, "bbox"), first)


def toy(**change: Any) -> dict[str, Any]:
    ann = {"id": 0, "image_id": 3, "category_id": 7, "bbox": [10, 10, 20, 20], "area": 400}
    other = {"id": 1, "image_id": 4, "category_id": 7, "bbox": [5, 5, 50, 50], "area": 2500}
    return {
        "images": [{"id": i, "height": 100, "width": 100} for i in (4, 3)],
        "annotations": [ann | {"iscrowd": 0}, other | {"iscrowd": 0}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 7, "name": "cat"}],
    } | change


def hit(image_id: Any, box: list[float], score: float = 0.9, category_id: int = 7) -> dict:
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


@pytest.mark.parametrize("fallback", [False, True])
def test_annotation_id_0_counts(fallback, monkeypatch):
    if fallback:
        monkeypatch.setitem(sys.modules, "hotcoco", None)
    ours = coco_eval(toy(), [hit(3, [10, 10, 20, 20]), hit(4, [5, 5, 50, 50])], "bbox")
    assert ours["AP"] == pytest.approx(1)
    assert ours["AP/cat"] == pytest.approx(1)
    assert math.isnan(ours["AP/dog"])
    assert math.isnan(ours["AP_large"])


@pytest.mark.parametrize("fallback", [False, True])
def test_no_detections_is_zero_and_no_objects_is_nan(coco_gt, fallback, monkeypatch):
    if fallback:
        monkeypatch.setitem(sys.modules, "hotcoco", None)
    for iou_type in ("bbox", "segm"):
        ours = coco_eval(coco_gt, [], iou_type)
        assert ours["AP"] == ours["AR"] == ours["AP/person"] == ours["AP_small"] == 0
    empty = coco_eval(toy(annotations=[]), [hit(3, [1, 1, 5, 5])], "bbox")
    assert all(math.isnan(v) for v in empty.values())


def test_input_forms(tmp_path):
    found = [hit(3, [10, 10, 20, 20]), hit(4, [60, 60, 5, 5])]
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(toy()))
    whole = coco_eval(toy(), found, "bbox")
    assert_same(coco_eval(path, found, "bbox"), whole)
    named = json.loads(path.read_text().replace('"image_id": 3', '"image_id": "b"'))
    named["images"][1]["id"] = "b"
    named["images"][0]["id"] = named["annotations"][1]["image_id"] = "c"
    renamed = [dict(d, image_id={3: "b", 4: "c"}[d["image_id"]]) for d in found]
    assert_same(coco_eval(named, renamed, "bbox"), whole)
    plain = toy()
    for ann in plain["annotations"]:
        del ann["area"], ann["iscrowd"]
    assert_same(coco_eval(plain, found, "bbox"), whole)


def test_area_is_filled_in_from_the_mask(coco_gt, coco_found):
    bare = copy.deepcopy(coco_gt)
    keep = [a for a in bare["annotations"] if not a["iscrowd"]]
    bare["annotations"] = keep
    full = coco_eval(bare, coco_found, "segm")
    for ann in keep:
        del ann["area"]
    ours = coco_eval(bare, coco_found, "segm")
    # Polygon area and pixel count differ a little, so only a few objects change their size class.
    assert ours["AP"] == pytest.approx(full["AP"], abs=1e-12)
    assert ours["AP_small"] == pytest.approx(full["AP_small"], abs=0.02)


def test_unknown_images_are_named_and_left_out():
    found = [hit(3, [10, 10, 20, 20]), hit(4, [5, 5, 50, 50]), hit(99, [0, 0, 9, 9])]
    with pytest.warns(UserWarning, match=r"1 of 3 .*image_id 99"):
        assert coco_eval(toy(), found, "bbox")["AP"] == pytest.approx(1)


def test_equal_class_names_keep_their_own_number():
    twins = toy(categories=[{"id": 9, "name": "cat"}, {"id": 7, "name": "cat"}])
    ours = coco_eval(twins, [hit(3, [10, 10, 20, 20])], "bbox")
    assert ours["AP/cat#7"] > 0 and math.isnan(ours["AP/cat#9"])


@pytest.mark.parametrize(
    ("gt", "found", "options", "words"),
    [
        (toy(), [], {"iou_type": "mask"}, "'keypoints', 'boundary'; got 'mask'"),
        (toy(), [], {"max_det": 0}, "max_det must be 1 or more"),
        ({"images": []}, [], {}, "missing: annotations, categories"),
        ("nowhere.json", [], {}, "no file nowhere.json"),
        (toy(), [{"image_id": 3, "category_id": 7, "score": 1.0}], {}, "'bbox' is missing"),
        (toy(), [hit(3, [1, 1, 2, 2], math.nan)], {}, "image 3 is NaN"),
        (toy(), [], {"iou_type": "segm"}, "'segmentation' is missing"),
        (toy(images=[{"id": 4}]), [], {}, "annotation 0 of image 3: 3 is missing or unknown"),
    ],
)
def test_errors_name_what_is_wrong(gt, found, options, words):
    with pytest.raises(ValueError, match=words):
        coco_eval(gt, found, **({"iou_type": "bbox"} | options))


def test_broken_file_is_named(tmp_path):
    path = tmp_path / "half.json"
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"half\.json is not JSON"):
        coco_eval(path, [], "bbox")


BY_MASK = ("segm", "boundary")
OPTIONAL = {"segm": ("bbox", "area", "iscrowd", "id"), "bbox": ("area", "iscrowd", "id")}


@pytest.mark.parametrize(
    "iou_type", ["bbox", *(pytest.param(kind, marks=pytest.mark.slow) for kind in BY_MASK)]
)
def test_only_what_an_evaluation_needs_must_be_there(coco_gt, coco_found, iou_type):
    """Fields that can be told from others may lack, be null or (boxes) be empty."""
    gt = {key: coco_gt[key] for key in ("images", "annotations", "categories")}
    plain = [a for a in gt["annotations"] if not a["iscrowd"]][::3]
    gt["annotations"] = plain
    expected = coco_eval(gt, coco_found, iou_type)
    for blank in ("missing", None):
        for field in OPTIONAL["bbox" if iou_type == "bbox" else "segm"]:
            bare = [dict(ann) for ann in plain]
            for ann in bare:
                del ann[field]
                if blank is None:
                    ann[field] = None
            found = coco_eval(gt | {"annotations": bare}, coco_found, iou_type)
            # Without its area an object may change its class of size only.
            keys = [k for k in expected if field != "area" or "_" not in k]
            assert {k: found[k] for k in keys} == pytest.approx(
                {k: expected[k] for k in keys}, nan_ok=True
            )
    if iou_type == "segm":
        bare = [{k: v for k, v in ann.items() if k != "bbox"} for ann in gt["annotations"]]
        assert_same(found, reference(gt | {"annotations": bare}, coco_found, "segm", 100))


def test_boxes_of_masks_are_scored_as_pycocotools_does(nuclei_gt, nuclei_found):
    """Results with masks alone get the boxes around them, and areas of their masks."""
    bare = [{k: v for k, v in det.items() if k != "bbox"} for det in nuclei_found]
    ours = coco_eval(nuclei_gt, bare, "bbox")
    assert_same(ours, reference(nuclei_gt, bare, "bbox", 100))
    assert 0.1 < ours["AP"] < 1


def test_what_cannot_be_told_is_named():
    box, square = [1, 1, 4, 4], [[1.0, 1, 5, 1, 5, 5, 1, 5]]
    image = {"id": 7, "height": 9, "width": 9}
    ann = {"id": 3, "image_id": 7, "category_id": 1}
    gt = {"images": [image], "categories": [{"id": 1, "name": "a"}]}
    for iou_type, fields, said in (
        ("bbox", {}, "bbox"), ("segm", {"bbox": box}, "segmentation"),
        ("keypoints", {"keypoints": [2, 2, 2]}, "bbox"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"annotation 3 of image 7: '{said}' is missing"):
            coco_eval(gt | {"annotations": [ann | fields]}, [], iou_type)
    with_mask = gt | {"annotations": [ann | {"segmentation": square}]}
    assert coco_eval(with_mask, [ann | {"score": 1, "bbox": box}], "bbox")["AP"] == pytest.approx(1)
    for side in ("height", "width"):
        for size in ({side: None}, {side: 0}):
            with pytest.raises(ValueError, match=f"'{side}' is missing"):
                coco_eval(with_mask | {"images": [image | size]}, [], "segm")
