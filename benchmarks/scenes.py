"""Drawn and cut-out data sets for `localize.py`: one object an image, its place known exactly.

All are COCO JSON with the splits train and test, drawn from one fixed seed whatever seed a training
has: trainings differ, the images do not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskwright.data.discover import open_dataset

SEED = 2014
SIDE = 144  # of drawn images, pixels
WINDOW = 320  # side of what is cut out of the photographs, pixels
# Corners on a circle of radius 1, clockwise, the first above.
SHAPES: dict[str, list[tuple[float, float]]] = {
    "triangle": [(math.sin(a), -math.cos(a)) for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)],
    "bar": [(-0.25, -1), (0.25, -1), (0.25, 1), (-0.25, 1)],
    "square": [(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)],
    "disc": [(math.sin(a), -math.cos(a)) for a in np.linspace(0, 2 * math.pi, 24)],
    "star": [
        (r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5))
        for k, r in enumerate((1, 0.4) * 5)
    ],
}
DART = [(0.0, -1.0), (0.7, 0.8), (0.0, 0.35), (-0.7, 0.8)]
JOINTS = ["tip", "right_wing", "notch", "left_wing"]


@dataclass
class Split:
    """What is to be written of a split: images, and what is in them."""

    images: list[np.ndarray] = field(default_factory=list)
    objects: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        image: np.ndarray,
        label: int = 0,
        box: Sequence[float] = (),
        points: Sequence[float] | None = None,
    ) -> None:
        """Keep an image and the class and box (xyxy) of its object, if it has one."""
        if len(box):
            x1, y1, x2, y2 = box
            one = {"image_id": len(self.images), "category_id": label + 1, "iscrowd": 0}
            one |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            if points is not None:
                one |= {"keypoints": points, "num_keypoints": len(points) // 3}
            self.objects.append({"id": len(self.objects) + 1, **one})
        self.images.append(image)

    def write(
        self, root: Path, split: str, names: Sequence[str], joints: Sequence[str] = ()
    ) -> None:
        """Write images and annotations below a folder."""
        (root / "images" / split).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        images = []
        for number, pixels in enumerate(self.images):
            name = f"{split}{number:04d}.png"
            Image.fromarray(pixels).save(root / "images" / split / name)
            height, width = pixels.shape[:2]
            images.append({"id": number, "file_name": name, "height": height, "width": width})
        points = {"keypoints": joints, "skeleton": []} if joints else {}
        kinds = [{"id": k + 1, "name": name, **points} for k, name in enumerate(names)]
        content = {"images": images, "annotations": self.objects, "categories": kinds}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))


def scenes(root: Path, *, empty: float) -> Path:
    """Draw one shape of five kinds on texture, under lines that belong to nothing.

    Args:
        root: folder to write into.
        empty: share of the images without a shape.
    """
    rng = np.random.default_rng(SEED)
    for split, count in (("train", 250), ("test", 150)):
        made = Split()
        for number in range(count):
            image = texture(rng)
            label = number % len(SHAPES)
            if rng.random() < empty:
                made.add(lines(image, rng))
                continue
            corners = _place(np.array(list(SHAPES.values())[label]), rng, 16)
            made.add(lines(paint(image, corners, rng), rng), label, _box(corners))
        made.write(root, split, list(SHAPES))
    return root


def darts(root: Path) -> Path:
    """Draw one dart, its four corners moved a little, with these as keypoints."""
    rng = np.random.default_rng(SEED)
    for split, count in (("train", 250), ("test", 150)):
        made = Split()
        for _ in range(count):
            corners = _place(np.array(DART) + rng.normal(0, 0.08, (4, 2)), rng, 30)
            points = [value for x, y in corners.tolist() for value in (x, y, 2)]
            image = lines(paint(texture(rng), corners, rng), rng)
            made.add(image, 0, _box(corners), points)
        made.write(root, split, ["dart"], JOINTS)
    return root


def texture(rng: np.random.Generator) -> np.ndarray:
    """Return (SIDE, SIDE, 3) uint8: noise at four scales in two colours."""
    mix = np.zeros((SIDE, SIDE))
    for cells in (3, 9, 36, SIDE):
        noise = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        mix += np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 4
    low, high = rng.uniform(0, 255, (2, 3))
    return (low + (high - low) * mix.clip(0, 1)[..., None]).clip(0, 255).astype(np.uint8)


def paint(image: np.ndarray, corners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image with a polygon of another texture."""
    mask = Image.new("L", (4 * SIDE, 4 * SIDE))
    ImageDraw.Draw(mask).polygon((4 * corners).ravel().tolist(), fill=255)
    cover = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX))[..., None] / 255
    mixed: np.ndarray = (image * (1 - cover) + texture(rng) * cover).astype(np.uint8)
    return mixed


def lines(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image with four lines over all of it, which belong to nothing."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for _ in range(4):
        ends = rng.uniform(0, SIDE, 4).tolist()
        draw.line(ends, fill=tuple(rng.integers(0, 256, 3).tolist()), width=2)
    return np.asarray(picture)


def _place(corners: np.ndarray, rng: np.random.Generator, least: float) -> np.ndarray:
    """Return corners turned by up to 60 degrees, scaled and put where all of them are inside."""
    angle, radius = rng.uniform(-math.pi / 3, math.pi / 3), rng.uniform(least, 50)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turned = radius * corners @ turn.T
    low, high = -turned.min(0), SIDE - turned.max(0)
    moved: np.ndarray = turned + rng.uniform(low, np.maximum(high, low))
    return moved


def _box(corners: np.ndarray) -> list[float]:
    return [*corners.min(0).tolist(), *corners.max(0).tolist()]


def white_cells(root: Path, bccd: Path) -> tuple[Path, Path]:
    """Cut windows out of BCCD's photographs: one with a whole white cell, one without any part.

    Returns:
        Folders of classes, white and red, without any place; and the same windows with the boxes
        of the white cells, as objects.
    """
    rng = np.random.default_rng(SEED)
    labels, boxes = root / "labels", root / "boxes"
    for split, source in (("train", "train"), ("test", "val")):
        data, made = open_dataset(bccd, source), Split()
        for index in range(len(data)):
            record, image = data[index], data.image(index)
            white = record.boxes[record.labels == data.names.index("WBC")]
            for name, x, y in _windows(white, image.shape, rng):
                pixels = image[y : y + WINDOW, x : x + WINDOW]
                folder = labels / split / name
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{len(made.images):04d}.png")
                if name == "white":
                    whole = _inside(white, x, y) == 4
                    made.add(pixels, 0, (white[whole][0] - (x, y, x, y)).tolist())
                else:
                    made.add(pixels)
        made.write(boxes, split, ["white"])
    return labels, boxes


def _windows(
    white: np.ndarray, shape: Any, rng: np.random.Generator
) -> Iterator[tuple[str, int, int]]:
    """Yield class and corner of windows, at most one of each class."""
    found: dict[str, tuple[int, int]] = {}
    for _ in range(40):
        x, y = int(rng.integers(shape[1] - WINDOW + 1)), int(rng.integers(shape[0] - WINDOW + 1))
        low = np.maximum(white[:, :2], (x, y))
        high = np.minimum(white[:, 2:], (x + WINDOW, y + WINDOW))
        touched = int((low < high).all(1).sum())
        if touched == 0:
            found.setdefault("red", (x, y))
        elif touched == 1 and (_inside(white, x, y) == 4).any():
            found.setdefault("white", (x, y))
    for name, corner in found.items():
        yield name, *corner


def _inside(boxes: np.ndarray, x: int, y: int) -> np.ndarray:
    """Return how many of its four sides each box has inside a window."""
    inside: np.ndarray = (boxes[:, :2] >= (x, y)).sum(1) + (
        boxes[:, 2:] <= (x + WINDOW, y + WINDOW)
    ).sum(1)
    return inside
