"""One annotation of a COCO file, checked: box, mask, area and keypoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .segments import LEAST, NO_MASK, BadSegment, Segment, box_segment, read_segment


class CocoObject:
    """One annotation while it is read."""

    __slots__ = ("area", "box", "crowd", "keypoints", "label", "number", "row", "segment")

    def __init__(self, row: int, number: int, label: int) -> None:
        self.row = row
        self.number = number
        self.label = label

    def read(
        self, entry: dict[str, Any], size: tuple[int, int], masks: bool, num_joints: int
    ) -> None:
        """Check and take over box, mask, area and keypoints.

        Args:
            entry: the annotation.
            size: (height, width) of the image.
            masks: whether the file has masks at all.
            num_joints: keypoints expected.

        Raises:
            BadSegment: if the object cannot be used.
        """
        self.crowd = entry.get("iscrowd") in (1, True)
        segment = self.segment = read_segment(entry.get("segmentation"), size)
        has_mask = segment.kind != NO_MASK
        self.box = self._read_box(entry.get("bbox"), size, segment if has_mask else None)
        if masks and not has_mask and not self.crowd:
            height, width = size
            x1, y1, x2, y2 = self.box
            inside = (max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height))
            notes = segment.notes
            segment = self.segment = box_segment(inside)
            segment.notes += [*notes, ("no mask", "no segmentation: its box serves as its mask")]
        area = finite_number(entry.get("area"))
        if area is None or area <= 0:
            x1, y1, x2, y2 = self.box
            area = segment.area() or (x2 - x1) * (y2 - y1)
        self.area = area
        self.keypoints = self._read_keypoints(entry.get("keypoints"), num_joints)

    def _read_box(
        self, value: Any, size: tuple[int, int], mask: Segment | None
    ) -> tuple[float, float, float, float]:
        """Return xyxy as annotated; a broken box is replaced by that of the mask."""
        height, width = size
        kind, message = "", ""
        x = y = w = h = 0.0
        sides = [finite_number(side) for side in value] if isinstance(value, list) else []
        if value is None and mask is not None:
            return mask.extent
        if len(sides) != 4:
            kind, message = "bad box", f"bbox must be [x, y, width, height], got {str(value)[:60]}"
        elif None in sides:
            kind, message = "NaN or infinite coordinates", f"bbox {value} is not finite"
        else:
            x, y, w, h = (side for side in sides if side is not None)
            if w < LEAST or h < LEAST:
                kind, message = "empty box", f"bbox {value} has no width or no height"
            elif max(x - width, y - height, -x - w, -y - h) > -LEAST:
                kind, message = "box outside the image", f"bbox {value} lies outside the image"
        box = (x, y, x + w, y + h)
        if not kind and mask is not None and _iou(box, mask.extent) < 0.2:
            kind = "box and mask disagree"
            message = f"bbox {value} is not where the mask is"
            if _iou((x, y, w, h), mask.extent) > 0.5:
                message += ": it seems to be x1, y1, x2, y2 instead of x, y, width, height"
        if not kind:
            over = max(-x, -y, box[2] - width, box[3] - height)
            if over > 2:
                message = f"bbox {value} reaches {over:.0f} pixels beyond the image: clipped"
                self.segment.notes.append(("box beyond the image", message))
            return box
        if mask is None:
            raise BadSegment(kind, message)
        self.segment.notes.append((kind, f"{message}; the box of the mask is used"))
        return mask.extent

    def _read_keypoints(self, value: Any, num_joints: int) -> np.ndarray | None:
        if not num_joints or value is None:
            return None
        numbers = [finite_number(item) for item in value] if isinstance(value, list) else []
        if len(numbers) != 3 * num_joints or None in numbers:
            message = f"keypoints must be {3 * num_joints} finite numbers: read as not labelled"
            self.segment.notes.append(("bad keypoints", message))
            return None
        return np.array(numbers, np.float32).reshape(num_joints, 3)


def whole_number(value: Any) -> int | None:
    """Return a whole number that fits 64 bits, from an int, 3.0 or "3"; else None."""
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        return None
    return value


def finite_number(value: Any) -> float | None:
    """Return a finite number of sane size; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        return None
    return float(value) if math.isfinite(value) else None


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    inter = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    # Masks of thin polygons have no extent; they cannot disagree.
    return inter / union if inter or min(b[2] - b[0], b[3] - b[1]) > 0 else 1.0
