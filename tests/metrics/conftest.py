"""Detections made of ground truth by known damage: something to measure without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle


def to_rle(ann: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    shape = ann["segmentation"]
    if isinstance(shape, list):
        shape = rle.merge(rle.frPyObjects(shape, image["height"], image["width"]))
    elif isinstance(shape["counts"], list):
        shape = rle.frPyObjects(shape, *shape["size"])
    return {"size": list(shape["size"]), "counts": shape["counts"]}


def perturb(gt: dict[str, Any], *, seed: int = 0, masks: bool = True) -> list[dict[str, Any]]:
    """Jittered boxes, shifted masks, duplicates, wrong classes, false positives, equal scores."""
    rng = np.random.default_rng(seed)
    images = {image["id"]: image for image in gt["images"]}
    ids = [category["id"] for category in gt["categories"]]
    found = []
    for ann in gt["annotations"]:
        image = images[ann["image_id"]]
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            box = np.array(ann["bbox"], float)
            box[:2] += rng.normal(0, 0.12, 2) * box[2:]
            box[2:] *= np.exp(rng.normal(0, 0.15, 2))
            wrong = rng.random() < 0.15
            found.append(
                {
                    "image_id": ann["image_id"],
                    "category_id": int(rng.choice(ids)) if wrong else ann["category_id"],
                    "bbox": [round(float(v), 3) for v in box],
                    # Two decimals: many detections share a score, so the order of ties counts.
                    "score": round(float(rng.random()), 2),
                }
            )
            if masks:
                shift = rng.integers(-3, 4, 2)
                pixels = np.roll(rle.decode(to_rle(ann, image)), shift, (0, 1))
                shape = rle.encode(np.asfortranarray(pixels))
                found[-1]["segmentation"] = {
                    "size": list(shape["size"]),
                    "counts": shape["counts"].decode(),
                }
    for det in list(found[::9]):  # the same object somewhere else: false positives
        other = images[int(rng.choice(list(images)))]
        copy = dict(det, image_id=other["id"], score=round(float(rng.random()), 2))
        if masks:
            pixels = np.zeros((other["height"], other["width"]), np.uint8, order="F")
            pixels[5:40, 7:60] = 1
            shape = rle.encode(pixels)
            copy["segmentation"] = {
                "size": list(shape["size"]),
                "counts": shape["counts"].decode(),
            }
        found.append(copy)
    order = rng.permutation(len(found))
    return [found[i] for i in order]


@pytest.fixture(scope="session")
def coco_gt(shared_data: Path) -> dict[str, Any]:
    """Ground truth of 134 photos: 80 classes, crowds as uncompressed RLE, polygons."""
    return json.loads((shared_data / "coco_subset/annotations/instances_val.json").read_text())


@pytest.fixture(scope="session")
def coco_found(coco_gt: dict[str, Any]) -> list[dict[str, Any]]:
    return perturb(coco_gt)


@pytest.fixture(scope="session")
def nuclei_gt(shared_data: Path) -> dict[str, Any]:
    """Ground truth of 84 micrographs: one class, up to hundreds of small objects in one image."""
    return json.loads((shared_data / "nuclei/annotations/val.json").read_text())


@pytest.fixture(scope="session")
def nuclei_found(nuclei_gt: dict[str, Any]) -> list[dict[str, Any]]:
    return perturb(nuclei_gt, seed=1)
