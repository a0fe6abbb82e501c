"""Data sets drawn by hypothesis: objects known as plain numbers, written as COCO JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from maskwright.data.formats.table import TABLE

# Formats of objects that are written; the extras `hf` and `geo` may be missing.
NEEDS = {"huggingface": "pyarrow", "shapefile": "pyogrio"}
WRITTEN = [
    row
    for row in TABLE
    if row.write is not None
    and row.records == "objects"
    and (row.format not in NEEDS or find_spec(NEEDS[row.format]) is not None)
]
CLASSES = ("cat", "dog", "Ünïcode <&\"'> 日本")


@dataclass
class Drawn:
    """One object.

    Attributes:
        label: position in `CLASSES`.
        kind: "box", "polygons" or "mask".
        box: xyxy of a box.
        polygons: parts, each (n, 2).
        mask: (H, W) bool.
        region: "" for an object, "crowd" or "ignored".
    """

    label: int
    kind: str
    box: tuple[float, float, float, float] = (0, 0, 0, 0)
    polygons: tuple[np.ndarray, ...] = ()
    mask: np.ndarray | None = None
    region: str = ""


@dataclass
class DrawnImage:
    """An image of (height, width) and its objects."""

    size: tuple[int, int]
    objects: list[Drawn]


def runs(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths of COCO: down the columns, beginning with zeros."""
    flat = mask.T.ravel().astype(np.uint8)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flat, [2]))))
    return [int(n) for n in np.diff(np.concatenate(([0], edges)))]


@st.composite
def an_object(draw: st.DrawFn, size: tuple[int, int], kinds: tuple[str, ...]) -> Drawn:
    height, width = size
    label = draw(st.integers(0, len(CLASSES) - 1))
    kind = draw(st.sampled_from(kinds))
    region = "" if kind != "mask" else draw(st.sampled_from(["", "", "", "crowd", "ignored"]))

    def place(side: int) -> float:
        return draw(st.integers(0, 1000 * side)) / 1000

    if kind == "box":
        x, y = 2 + place(width - 5), place(height - 3)
        w, h = 2 + place(1), 2 + place(1)
        return Drawn(label, kind, box=(x, y, x + w, y + h))
    if kind == "polygons":
        parts = []
        for _ in range(draw(st.integers(1, 3))):
            cx, cy = 3 + place(width - 6), 3 + place(height - 6)
            angles = np.sort(np.linspace(0, 2 * np.pi, draw(st.integers(3, 7)), endpoint=False))
            far = np.array([1.5 + place(1) for _ in angles])
            points: np.ndarray = np.stack([cx + far * np.cos(angles), cy + far * np.sin(angles)], 1)
            parts.append(points.round(3))
        return Drawn(label, kind, polygons=tuple(parts))
    bits = draw(st.lists(st.booleans(), min_size=36, max_size=36))
    mask = np.zeros(size, bool)
    mask[2:8, 2:8] = np.array(bits).reshape(6, 6)
    mask[4, 4] = True
    return Drawn(label, kind, mask=mask, region=region)


@st.composite
def data_sets(
    draw: st.DrawFn, kinds: tuple[str, ...] = ("polygons", "mask"), most: int = 4
) -> list[DrawnImage]:
    images = []  # a twin is read once, or not at all by formats of pixels
    for _ in range(draw(st.integers(1, 2))):
        size = draw(st.integers(17, 40)), draw(st.integers(17, 40))
        objects = draw(st.lists(an_object(size, kinds), max_size=most, unique_by=repr))
        images.append(DrawnImage(size, objects))
    return images


def lay(root: Path, images: list[DrawnImage], names: tuple[str, ...] = CLASSES) -> Path:
    """Write a data set as COCO JSON beside its images, image 1 as 1.png, ..."""
    root.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)],
    }
    for number, image in enumerate(images, 1):
        height, width = image.size
        Image.new("RGB", (width, height), (number, 2, 3)).save(root / f"{number}.png")
        content["images"].append(
            {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        )
        for one in image.objects:
            entry: dict[str, Any] = {
                "id": len(content["annotations"]) + 1,
                "image_id": number,
                "category_id": one.label + 1,
                "iscrowd": int(bool(one.region)),
                "ignore": int(one.region == "ignored"),
            }
            if one.kind == "box":
                x1, y1, x2, y2 = one.box
                entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            elif one.kind == "polygons":
                entry["segmentation"] = [part.ravel().tolist() for part in one.polygons]
            else:
                assert one.mask is not None
                entry["segmentation"] = {"size": [height, width], "counts": runs(one.mask)}
            content["annotations"].append(entry)
    (root / "train.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def full_mask(dataset: Any, index: int, k: int) -> np.ndarray:
    """The mask of an object at the size of its image."""
    mask = np.zeros(dataset[index].size, bool)
    crop, (x1, y1, x2, y2) = dataset.mask(index, k)
    mask[y1:y2, x1:x2] = crop
    return mask


def painted(one: Drawn, size: tuple[int, int]) -> np.ndarray:
    """The mask of a drawn object; polygons by pycocotools."""
    from pycocotools import mask as coco

    if one.mask is not None:
        return one.mask
    flat = [part.ravel().tolist() for part in one.polygons]
    found: np.ndarray = coco.decode(coco.merge(coco.frPyObjects(flat, *size))).astype(bool)
    return found
