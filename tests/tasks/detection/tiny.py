"""A data set for any detector: coins with outlines and points, several sizes, one bare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

SIZES = ((96, 72), (64, 96), (33, 40), (120, 50))  # width, height
COINS = (((10, 12, 34, 30), (50, 20, 30, 40)), ((8, 40, 40, 44),), (), ((60, 6, 36, 36),))
POINTS = ((0.5, 0.1), (0.9, 0.5), (0.5, 0.9), (0.1, 0.5), (0.5, 0.5))  # of a coin's width, height
TAKES_REGIONS = ("fast_rcnn", "sppnet", "rcnn")


def write(root: Path) -> Path:
    """Write train and val of four images each."""
    for shade, split in enumerate(("train", "val")):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (size, coins) in enumerate(zip(SIZES, COINS, strict=True), 1):
            picture = Image.new("RGB", size, (30, 30 + 20 * shade, 60))
            pen = ImageDraw.Draw(picture)
            name = f"{number}.png"
            images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
            for x, y, w, h in coins:
                pen.ellipse((x, y, x + w - 1, y + h - 1), fill=(220, 200, 40))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": 1 + len(annotations) % 2,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                        "keypoints": [v for a, b in POINTS for v in (x + a * w, y + b * h, 2)],
                        "num_keypoints": len(POINTS),
                    }
                )
            picture.save(folder / name)
        points = {"keypoints": [*"nesw", "middle"], "skeleton": [[1, 5]]}
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i, "name": name, **points} for i, name in ((1, "a"), (2, "b"))],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root


def options(name: str) -> dict[str, Any]:
    """Return the options of a training that a model needs beside those of all tasks."""
    if name.startswith("detect_then_segment"):
        return {"max_det": 10}  # a network looks at each
    return {"model_args": {"source": "sliding_window:50"}} if name.startswith(TAKES_REGIONS) else {}


def together(name: str) -> dict[str, Any]:
    """Return what two processes need to equal one: no statistics of a part of a batch.

    And no SVMs: they mine hard negatives, where one more changes all that follow.
    """
    own = {"norm": "affine", **options(name).get("model_args", {})}
    if name.startswith(("rcnn", "sppnet")):
        own["classifier"] = "softmax"
    if name.startswith("yolo_v"):  # these share the statistics of all processes
        del own["norm"]
    return {"model_args": own}
