"""A data set for any classifier: discs and squares in folders of their names, several sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

SIZES = ((96, 72), (64, 96))  # width, height


def write(root: Path) -> Path:
    """Write train and val of two images each of two classes."""
    for shade, split in enumerate(("train", "val")):
        for name in ("disc", "square"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number, size in enumerate(SIZES):
                picture = Image.new("RGB", size, (30, 30 + 20 * shade, 60))
                pen = ImageDraw.Draw(picture)
                draw = pen.ellipse if name == "disc" else pen.rectangle
                draw((12, 14, 50, 52), fill=(220, 200, 40))
                picture.save(folder / f"{number}.png")
    return root


def options(name: str) -> dict[str, Any]:
    """Return the options of a training that a model needs beside those of all tasks."""
    return {}


def together(name: str) -> dict[str, Any]:
    """Return what two processes need to equal one.

    Maps that stay larger than a pixel, and one step: batch norm of the two values that a map of one
    pixel has in two images gives +1 and -1, whichever way rounding falls.
    """
    has_norm = not name.startswith(("lenet", "alexnet", "vgg16", "vgg19")) or name.endswith("_bn")
    return {"steps": 1, "model_args": {"imgsz": 128} if has_norm else {}}
