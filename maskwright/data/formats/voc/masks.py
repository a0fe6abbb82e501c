"""Masks of Pascal VOC: SegmentationObject numbers the pixels of an image by object, 255 is void.

VOC gives its n-th object the number n. Tools keep less strictly to that, so a number must also fit
the box; what is left over is paired by overlap. Of an object that others hide, a part is there: if
all masks of an image lie within the boxes of their numbers, these are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.drawing.label_maps import voc_palette
from maskwright.ops.rle import Crop, Frame, encode_crop

from ...maps.encoding import pack_colors
from ...pixels.label_image import load_labels

VOID = 255
FITS = 0.5  # IoU of a box and the extent of its mask


@dataclass(frozen=True)
class ObjectMasks:
    """The masks of one image.

    Attributes:
        codes: COCO run lengths for each object, None for one without a mask.
        unused: COCO run lengths of the masks that fit no object, by their number.
    """

    codes: list[dict[str, Any] | None]
    unused: dict[int, dict[str, Any]]


def read_object_masks(path: Path, boxes: Sequence[Sequence[float]]) -> ObjectMasks:
    """Read a file of SegmentationObject.

    Args:
        path: a PNG of numbers, with a palette or grey, or of the colours that VOC's palette has for
            them, as CVAT and Datumaro export.
        boxes: N xyxy boxes of the objects in pixels, in their order in the XML file.

    Raises:
        ValueError: if the file cannot be read or has other colours.
    """
    numbers = _numbers(path)
    found: dict[int, tuple[Crop, Frame]] = {}
    for number in np.unique(numbers).tolist():
        if number not in (0, VOID):
            mask = numbers == number
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            x1, y1 = int(columns[0]), int(rows[0])
            x2, y2 = int(columns[-1]) + 1, int(rows[-1]) + 1
            found[number] = mask[y1:y2, x1:x2], (x1, y1, x2, y2)
    codes: list[dict[str, Any] | None]
    if all(
        number <= len(boxes) and _within(frame, boxes[number - 1])
        for number, (_, frame) in found.items()
    ):
        codes = [
            _code(*found[k + 1], numbers) if k + 1 in found else None for k in range(len(boxes))
        ]
        return ObjectMasks(codes, {})
    overlaps = [
        (k + 1 == number, _iou(box, frame), k, number)
        for k, box in enumerate(boxes)
        for number, (_, frame) in found.items()
    ]
    codes = [None] * len(boxes)
    # VOC's own order first, then the best overlaps.
    for _, iou, k, number in sorted(overlaps, reverse=True):
        if iou >= FITS and codes[k] is None and number in found:
            codes[k] = _code(*found.pop(number), numbers)
    return ObjectMasks(codes, {n: _code(*found[n], numbers) for n in sorted(found)})


def _within(frame: Frame, box: Sequence[float]) -> bool:
    """Return whether a mask lies within a box, but for what rounding does."""
    return (
        frame[0] >= box[0] - 1
        and frame[1] >= box[1] - 1
        and frame[2] <= box[2] + 1
        and frame[3] <= box[3] + 1
    )


def _numbers(path: Path) -> np.ndarray:
    stored, _ = load_labels(path)
    if stored.ndim == 2:
        return stored
    palette = pack_colors(voc_palette())
    order = np.argsort(palette)
    found = pack_colors(stored)
    at = np.searchsorted(palette, found, sorter=order).clip(max=len(palette) - 1)
    numbers: np.ndarray = order[at]
    if (palette[numbers] != found).any():
        raise ValueError(
            f"{path} has colours that are not those of Pascal VOC's palette, but its pixels number "
            "objects: save it with a palette, as Pascal VOC does"
        )
    return numbers


def _code(crop: Crop, frame: Frame, numbers: np.ndarray) -> dict[str, Any]:
    code = encode_crop(crop, frame, (numbers.shape[0], numbers.shape[1]))
    return {"size": code["size"], "counts": code["counts"].decode("ascii")}


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0
