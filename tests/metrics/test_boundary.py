"""Boundary IoU and AP against masks of the whole image, eroded step by step."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskwright.metrics import boundary_iou, coco_eval


def plain_edge(mask: np.ndarray, dilation: float = 0.02) -> np.ndarray:
    steps = max(1, round(dilation * math.hypot(*mask.shape)))
    padded = np.pad(mask, 1)
    for _ in range(steps):
        shifts = [np.roll(padded, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        padded = np.logical_and.reduce(shifts)
        padded[[0, -1]] = padded[:, [0, -1]] = False
    return mask & ~padded[1:-1, 1:-1]


def plain_iou(a: np.ndarray, b: np.ndarray, crowd: bool = False) -> float:
    union = a.sum() if crowd else (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0


def disc(size: tuple[int, int], y: float, x: float, r: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 < r * r


@pytest.mark.parametrize("dilation", [0.001, 0.02, 0.1, 0.4])
def test_boundary_iou_equals_erosion_step_by_step(dilation: float) -> None:
    size = (60, 90)
    masks = [
        disc(size, 30, 40, 20),
        disc(size, 31, 42, 21),
        disc(size, 5, 3, 30),  # over the border of the image
        disc(size, 30, 40, 20) & ~disc(size, 30, 40, 6),  # a hole has an edge as well
        np.ones(size, bool),
        disc(size, 50, 80, 1),
        np.zeros(size, bool),
        np.random.default_rng(0).random(size) > 0.3,
    ]
    for a in masks:
        for b in masks:
            expected = plain_iou(plain_edge(a, dilation), plain_edge(b, dilation))
            assert boundary_iou(a, b, dilation) == pytest.approx(expected, abs=1e-12)
    pair = boundary_iou(torch.from_numpy(masks[0]), torch.from_numpy(masks[1]), dilation)
    assert pair == boundary_iou(masks[0], masks[1], dilation)


def test_a_small_error_at_the_edge_costs_a_large_mask_more_than_its_iou_tells() -> None:
    a, b = disc((200, 200), 100, 100, 80), disc((200, 200), 100, 104, 80)
    assert plain_iou(a, b) > 0.93
    assert boundary_iou(a, b) < 0.6
    assert boundary_iou(a, a) == 1


def test_faulty_input_is_named() -> None:
    mask = np.ones((4, 5), bool)
    with pytest.raises(ValueError, match="one size"):
        boundary_iou(mask, mask[:3])
    for dilation in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="dilation must be above 0"):
            boundary_iou(mask, mask, dilation)


def scene() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    images = [{"id": i, "height": 80, "width": 100 + 8 * i} for i in (1, 2, 3)]
    annotations: list[dict[str, Any]] = []
    for image in images:
        for k in range(6):
            size = (image["height"], image["width"])
            mask = disc(size, rng.uniform(0, 80), rng.uniform(0, 100), rng.uniform(6, 24))
            code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": 1 + k % 2,
                    "iscrowd": int(k == 5),
                    "bbox": [float(v) for v in rle.toBbox(code)],
                    "area": float(rle.area(code)),
                    "segmentation": {"size": list(size), "counts": code["counts"].decode()},
                }
            )
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def shifted(gt: dict[str, Any]) -> list[dict[str, Any]]:
    """Every mask once or twice, a little beside its place; scores tie. Areas are of the masks."""
    rng = np.random.default_rng(4)
    found = []
    for ann in gt["annotations"] * 2:
        moved = np.roll(rle.decode(ann["segmentation"]), rng.integers(-2, 3, 2), (0, 1))
        code = rle.encode(np.asfortranarray(moved))
        found.append(
            {
                "image_id": ann["image_id"],
                "category_id": ann["category_id"],
                "score": round(float(rng.random()), 1),
                "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
            }
        )
    return found


class PlainEval(COCOeval):
    """The IoUs from masks of the whole image."""

    dilation = 0.02

    def computeIoU(self, imgId, catId):
        found = sorted(self._dts[imgId, catId], key=lambda d: -d["score"])
        objects = self._gts[imgId, catId]
        if not found or not objects:
            return []
        ious = np.zeros((len(found), len(objects)))
        for i, det in enumerate(found[: self.params.maxDets[-1]]):
            for j, ann in enumerate(objects):
                a, b = (rle.decode(entry["segmentation"]) > 0 for entry in (det, ann))
                edges = plain_edge(a, self.dilation), plain_edge(b, self.dilation)
                ious[i, j] = min(plain_iou(a, b), plain_iou(*edges))
                if ann["iscrowd"]:  # its own edge is none of an object
                    ious[i, j] = plain_iou(a, b, crowd=True)
        return ious


@pytest.mark.parametrize("dilation", [0.02, 0.05])
def test_boundary_ap_equals_whole_masks_in_the_coco_protocol(dilation: float) -> None:
    gt = scene()
    rows = shifted(gt)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = gt
        truth.createIndex()
        run = PlainEval(truth, truth.loadRes([dict(row) for row in rows]), "segm")
        run.dilation = dilation
        run.evaluate()
        run.accumulate()
        run.summarize()
    numbers = coco_eval(gt, rows, "boundary", dilation=dilation)
    keys = ["AP", "AP50", "AP75", "AP_small", "AP_medium"]
    assert [numbers[key] for key in keys] == pytest.approx(run.stats[:5].tolist(), abs=1e-12)
    assert [numbers["AR_1"], numbers["AR"]] == pytest.approx([run.stats[6], run.stats[8]])
    assert 0 < numbers["AP"] < coco_eval(gt, rows, "segm")["AP"]
    whole = [
        {
            "image_id": ann["image_id"],
            "category_id": ann["category_id"],
            "score": 0.5,
            "segmentation": ann["segmentation"],
        }
        for ann in gt["annotations"]
        if not ann["iscrowd"]
    ]
    assert coco_eval(gt, whole, "boundary")["AP"] == pytest.approx(1)


def test_a_detection_in_a_crowd_is_ignored_whatever_its_edge() -> None:
    def code(low: int, high: int) -> dict[str, Any]:
        mask = np.zeros((100, 100), np.uint8, order="F")
        mask[low:high, low:high] = 1
        found = rle.encode(mask)
        return {"size": found["size"], "counts": found["counts"].decode()}

    common = {"image_id": 1, "category_id": 1}
    gt = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            common | {"id": 1, "iscrowd": 0, "segmentation": code(5, 25)},
            common | {"id": 2, "iscrowd": 1, "segmentation": code(40, 100)},
        ],
    }
    inside = common | {"score": 0.9, "segmentation": code(55, 75)}
    right = common | {"score": 0.8, "segmentation": code(5, 25)}
    assert coco_eval(gt, [inside, right], "boundary")["AP"] == pytest.approx(1)
    outside = common | {"score": 0.9, "segmentation": code(20, 40)}
    assert coco_eval(gt, [outside, right], "boundary")["AP"] == pytest.approx(0.5)
