"""A data set for any segmenter: discs and bars on a ground, in images of several sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZES = ((96, 72), (64, 96), (50, 40), (120, 50))  # width, height
NAMES = ("ground", "disc", "bar")
COLORS = np.array([(60, 80, 60), (220, 200, 40), (60, 90, 230)], np.uint8)


def write(root: Path) -> Path:
    """Write train and val of four images each, with one ignored line of pixels."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number, (width, height) in enumerate(SIZES):
            y, x = np.mgrid[:height, :width]
            labels = np.zeros((height, width), np.uint8)
            labels[np.hypot(x - width / 3, y - height / 2) < height / 4] = 1
            labels[:, 3 * width // 4 : 3 * width // 4 + 8] = 2
            pixels = COLORS[labels] + rng.integers(0, 20, (height, width, 3), dtype=np.uint8)
            labels[0] = 255
            Image.fromarray(pixels).save(root / "images" / split / f"{number}.png")
            Image.fromarray(labels).save(root / "masks" / split / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return root


def options(name: str) -> dict[str, Any]:
    """Return the options of a training that a model needs beside those of all tasks."""
    return {"crop": 64}


def together(name: str) -> dict[str, Any]:
    """Return what two processes need to equal one: no statistics of a part of a batch."""
    return {}
