"""Drawn images with one rectangle or none: places that tiny trainings can learn in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

JOINTS = ["nose", "left_eye", "right_eye"]


def draw_data(root: Path, *, train: int = 48, val: int = 12, seed: int = 0) -> Path:
    """Write a COCO data set: red and blue rectangles, every sixth image without one."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            h, w = rng.integers(48, 72, 2).tolist()
            pixels = rng.integers(0, 60, (h, w, 3)).astype(np.uint8)
            name = f"{split}{number:03d}.png"
            images.append({"id": number, "file_name": name, "width": w, "height": h})
            if number % 6 != 5:
                bw, bh = rng.integers(16, 30, 2).tolist()
                x, y = int(rng.integers(0, w - bw)), int(rng.integers(0, h - bh))
                label = number % 2
                pixels[y : y + bh, x : x + bw] = ((230, 40, 40), (40, 60, 230))[label]
                annotations.append(_annotation(len(annotations) + 1, number, label, x, y, bw, bh))
            Image.fromarray(pixels).save(folder / name)
        write(root, split, images, annotations)
    return root


def _annotation(key: int, image: int, label: int, x: int, y: int, w: int, h: int) -> dict[str, Any]:
    points = [[x + fx * w, y + fy * h, 2] for fx, fy in ((0.5, 0.5), (0.1, 0.2), (0.9, 0.2))]
    return {
        "id": key,
        "image_id": image,
        "category_id": label + 1,
        "bbox": [x, y, w, h],
        "area": w * h,
        "iscrowd": 0,
        "keypoints": [value for point in points for value in point],
        "num_keypoints": 3,
    }


def write(
    root: Path, split: str, images: list[dict[str, Any]], annotations: list[dict[str, Any]]
) -> None:
    """Write the annotations of a split."""
    categories = [
        {"id": k + 1, "name": name, "keypoints": JOINTS, "skeleton": []}
        for k, name in enumerate(("red", "blue"))
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
