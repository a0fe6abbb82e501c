"""A data set for any localizer: one coin with its outline and points in images of several sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

SIZES = ((96, 72), (64, 96), (50, 40), (120, 50))  # width, height
COINS = ((10, 12, 34, 30), (8, 40, 40, 44), (5, 5, 20, 30), (60, 6, 36, 36))
POINTS = ((0.5, 0.1), (0.9, 0.5), (0.5, 0.9), (0.1, 0.5), (0.5, 0.5))  # of a coin's width, height


def write(root: Path) -> Path:
    """Write train and val of four images each."""
    for shade, split in enumerate(("train", "val")):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (size, (x, y, w, h)) in enumerate(zip(SIZES, COINS, strict=True), 1):
            picture = Image.new("RGB", size, (30, 30 + 20 * shade, 60))
            pen = ImageDraw.Draw(picture)
            pen.ellipse((x, y, x + w - 1, y + h - 1), fill=(220, 200, 40))
            picture.save(folder / f"{number}.png")
            images.append(
                {"id": number, "file_name": f"{number}.png", "width": size[0], "height": size[1]}
            )
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "keypoints": [v for a, b in POINTS for v in (x + a * w, y + b * h, 2)],
                    "num_keypoints": len(POINTS),
                }
            )
        category = {"id": 1, "name": "coin", "keypoints": [*"nesw", "middle"], "skeleton": [[1, 5]]}
        content = {"images": images, "annotations": annotations, "categories": [category]}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root


def options(name: str) -> dict[str, Any]:
    """Return the options of a training that a model needs beside those of all tasks."""
    return {}


def together(name: str) -> dict[str, Any]:
    """Return what two processes need to equal one: no statistics of a part of a batch."""
    return {"model_args": {"norm": "affine"}}
