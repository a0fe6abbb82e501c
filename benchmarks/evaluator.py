"""Time `coco_eval` against pycocotools, from data in memory to the numbers, as `val` has it.

Boundary AP, which pycocotools has not, is timed beside our mask AP and beside pycocotools' mask AP.

    python benchmarks/evaluator.py --data FOLDER_OF_A_COCO_DATA_SET --copies 10

The detections are the ground truth with shifted boxes and masks, some twice, some of a wrong class;
the images are copied, so that a small data set counts as a large one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common import compare
from pycocotools import mask as rle

from maskwright.metrics import coco_eval
from maskwright.metrics.detection.entries import compressed_rle

STEP = 10**7  # between the ids of one copy and the next


def copied(gt: dict[str, Any], copies: int) -> dict[str, Any]:
    images, annotations = [], []
    for k in range(copies):
        images += [dict(i, id=i["id"] + k * STEP) for i in gt["images"]]
        annotations += [
            dict(a, id=len(annotations) + j + 1, image_id=a["image_id"] + k * STEP)
            for j, a in enumerate(gt["annotations"])
        ]
    return {"images": images, "annotations": annotations, "categories": gt["categories"]}


def damaged(gt: dict[str, Any], copies: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    images = {image["id"]: image for image in gt["images"]}
    ids = [category["id"] for category in gt["categories"]]
    found = []
    for ann in gt["annotations"]:
        shape = compressed_rle(ann["segmentation"], images[ann["image_id"]])
        for _ in range(rng.integers(1, 4)):
            shift = rng.integers(-4, 5, 2)
            pixels = np.asfortranarray(np.roll(rle.decode(shape), shift[::-1], (0, 1)))
            code = rle.encode(pixels)
            x, y, w, h = ann["bbox"]
            found.append(
                {
                    "image_id": ann["image_id"],
                    "category_id": int(rng.choice([ann["category_id"], rng.choice(ids)])),
                    "bbox": [float(x + shift[0]), float(y + shift[1]), float(w), float(h)],
                    "score": float(rng.random()),
                    "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
                }
            )
    return [dict(d, image_id=d["image_id"] + k * STEP) for k in range(copies) for d in found]


def with_pycocotools(gt: dict[str, Any], found: list[dict[str, Any]], iou_type: str) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        # pycocotools writes into the entries that it gets.
        coco.dataset = gt | {"annotations": [dict(a) for a in gt["annotations"]]}
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes([dict(d) for d in found]), iou_type)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/coco_subset"))
    parser.add_argument("--annotations", default="annotations/instances_val.json")
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    gt = json.loads((options.data / options.annotations).read_text())
    found = damaged(gt, options.copies)
    gt = copied(gt, options.copies)
    print(
        f"{len(gt['images']):,} images, {len(gt['annotations']):,} objects, {len(found):,} "
        f"detections; hotcoco {version('hotcoco')}, pycocotools {version('pycocotools')}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores"
    )
    print("| what | pycocotools, s | maskwright, s | ratio (lowest to highest) |")
    print("| --- | --- | --- | --- |")
    for iou_type, title in (("bbox", "boxes"), ("segm", "masks")):
        # The same work on both sides, or the ratio means nothing.
        ours, theirs = coco_eval(gt, found, iou_type)["AP"], with_pycocotools(gt, found, iou_type)
        assert abs(ours - theirs) < 1e-9, (ours, theirs)
        row = compare(
            title,
            lambda kind=iou_type: with_pycocotools(gt, found, kind),
            lambda kind=iou_type: coco_eval(gt, found, kind),
            repeats=options.repeats,
            warmup=0,
        )
        print(
            f"| {title} | {row.baseline.median / 1e3:.2f} | {row.ours.median / 1e3:.2f} | "
            f"{row.ratio:.1f} ({min(row.ratios):.1f} to {max(row.ratios):.1f}) |"
        )
    print("\n| beside boundary AP | s | boundary AP, s | boundary AP takes so many times as long |")
    print("| --- | --- | --- | --- |")
    masks = {
        "mask AP, pycocotools": lambda: with_pycocotools(gt, found, "segm"),
        "mask AP, maskwright": lambda: coco_eval(gt, found, "segm"),
    }
    for title, other in masks.items():
        row = compare(
            title,
            lambda: coco_eval(gt, found, "boundary"),
            other,
            repeats=options.repeats,
            warmup=0,
        )
        print(
            f"| {title} | {row.ours.median / 1e3:.2f} | {row.baseline.median / 1e3:.2f} | "
            f"{row.ratio:.1f} ({min(row.ratios):.1f} to {max(row.ratios):.1f}) |"
        )


if __name__ == "__main__":
    main()
