"""One annotation of a COCO file, checked: box, mask, area and keypoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..segments import (
    BOX_SERVES,
    LEAST,
    NO_MASK,
    NUMBERS,
    BadSegment,
    Segment,
    box_segment,
    read_segment,
)

BEYOND = 2  # pixels outside the image that nobody is told of


class CocoObject:
    """One annotation while it is read."""

    __slots__ = (
        *("area", "box", "crowd", "ignored", "keypoints", "label", "number", "row", "segment"),
    )

    def __init__(self, row: int, number: int, label: int) -> None:
        self.row = row
        self.number = number
        self.label = label
        self.ignored = False

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
            BadSegment: if neither its box nor its mask can be used.
        """
        crowd = flag(entry.get("iscrowd"))
        self.crowd = bool(crowd)
        # Alone, the key says nothing: COCO's evaluators write and overwrite it.
        self.ignored = self.crowd and bool(flag(entry.get("ignore")))
        broken: BadSegment | None = None
        try:
            segment = self.segment = read_segment(entry.get("segmentation"), size)
            if segment.parts and max(segment.extent) <= 1 and max(size) > 16:
                raise BadSegment(
                    "polygon of fractions",
                    f"the polygon lies within 0 to 1 of an image of {size[1]}x{size[0]} pixels: "
                    "fractions, to be multiplied by its width and height",
                )
        except BadSegment as bad:  # the box may be good
            segment = self.segment = Segment()
            broken = bad
        has_mask = segment.kind != NO_MASK
        if broken is not None and entry.get("bbox") is None:
            raise broken
        self.box = self._read_box(entry.get("bbox"), size, segment if has_mask else None)
        if masks and not has_mask:
            notes = segment.notes
            height, width = size
            x1, y1, x2, y2 = self.box
            inside = (max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height))
            segment = self.segment = box_segment(inside)
            segment.notes += notes
            if broken is not None:
                segment.notes.append((broken.kind, f"{broken}{BOX_SERVES}"))
            elif not self.crowd:
                message = f"no segmentation{BOX_SERVES}"
                segment.notes.append(("no mask", message))
        if crowd is None:
            message = f"iscrowd {shown(entry['iscrowd'])} is neither 0 nor 1: read as 0"
            segment.notes.append(("bad iscrowd", message))
        stated = entry.get("area")
        area = finite_number(stated)
        if area is None or area <= 0:
            if stated is not None:
                message = f"area {shown(stated)} is no number above 0: measured anew"
                segment.notes.append(("bad area", message))
            x1, y1, x2, y2 = self.box
            area = segment.area() or (x2 - x1) * (y2 - y1)
        self.area = area
        self.keypoints = self._read_keypoints(entry, size, num_joints)

    def ignore_all(self, size: tuple[int, int]) -> None:
        """Become a region that is ignored: the whole image, for nobody knows where the object is.

        Args:
            size: (height, width) of the image.
        """
        self.box = (0.0, 0.0, float(size[1]), float(size[0]))
        self.crowd, self.ignored, self.keypoints = True, True, None
        self.segment = box_segment(self.box)
        self.area = self.segment.area()

    def _read_box(
        self, value: Any, size: tuple[int, int], mask: Segment | None
    ) -> tuple[float, float, float, float]:
        """Return xyxy as annotated; a broken box is replaced by that of the mask."""
        height, width = size
        kind, message = "", ""
        x = y = w = h = 0.0
        if value is None and mask is not None:
            x1, y1, x2, y2 = mask.extent
            if (over := max(-x1, -y1, x2 - width, y2 - height)) > BEYOND:
                message = f"its polygon reaches {over:.0f} pixels beyond the image: clipped"
                self.segment.notes.append(("polygon beyond the image", message))
            return mask.extent
        nothing = False
        if isinstance(value, BadSegment):  # the reader has seen it already
            kind, message, nothing = value.kind, str(value), value.nothing
        elif not isinstance(value, list) or len(value) != 4 or not {*map(type, value)} <= NUMBERS:
            kind = "bad box"
            message = f"bbox must be four numbers [x, y, width, height], got {shown(value)}"
        elif None in map(finite_number, value):
            kind, message = "NaN or infinite coordinates", f"bbox {shown(value)} is not finite"
        else:
            x, y, w, h = map(float, value)
            if min(w, h) <= -LEAST:
                message = f"bbox {shown(value)} has a negative side: its corners put in order"
                self.segment.notes.append(("swapped corners", message))
                x, y, w, h = min(x, x + w), min(y, y + h), abs(w), abs(h)
            if w < LEAST or h < LEAST:
                kind, message = "empty box", f"bbox {shown(value)} has no width or no height"
                nothing = True
            elif max(x - width, y - height, -x - w, -y - h) > -LEAST:
                kind, message = (
                    "box outside the image",
                    f"bbox {shown(value)} lies outside the image",
                )
                nothing = True
        box = (x, y, x + w, y + h)
        if not kind and mask is not None and _iou(box, mask.extent) < 0.2:
            kind = "box and mask disagree"
            message = f"bbox {shown(value)} is not where the mask is"
            if _iou((x, y, w, h), mask.extent) > 0.5:
                message += ": it seems to be x1, y1, x2, y2 instead of x, y, width, height"
        if not kind:
            over = max(-x, -y, box[2] - width, box[3] - height)
            if over > BEYOND:
                message = f"bbox {shown(value)} reaches {over:.0f} pixels beyond the image: clipped"
                self.segment.notes.append(("box beyond the image", message))
            return box
        if mask is None:
            raise BadSegment(kind, message, nothing=nothing)
        self.segment.notes.append((kind, f"{message}; the box of the mask is used"))
        return mask.extent

    def _read_keypoints(
        self, entry: dict[str, Any], size: tuple[int, int], num_joints: int
    ) -> np.ndarray | None:
        """Return (J, 3) x, y and visibility 0, 1 or 2; None where nothing is labelled."""
        value = entry.get("keypoints")
        if not num_joints or value is None:
            return None
        notes = self.segment.notes
        if not isinstance(value, list) or len(value) != 3 * num_joints:
            given = f"{len(value)} numbers" if isinstance(value, list) else shown(value)
            message = f"keypoints must be {3 * num_joints} numbers (x, y, visibility), got {given}"
            notes.append(("bad keypoints", f"{message}: read as not labelled"))
            return None
        height, width = size
        points = np.zeros((num_joints, 3), np.float32)
        wrong, outside, broken = [], [], []
        for k in range(num_joints):
            x, y, seen = (finite_number(number) for number in value[3 * k : 3 * k + 3])
            if seen is None or seen not in (0, 1, 2):
                wrong.append(value[3 * k + 2])
                seen = 2 if seen is not None and seen > 0 else 0
            if seen and (x is None or y is None):
                broken.append(k + 1)
            elif seen and x is not None and y is not None:
                if -2 <= x <= width + 2 and -2 <= y <= height + 2:
                    points[k] = x, y, seen
                else:
                    outside.append(k + 1)
        if wrong:
            message = f"visibility is 0, 1 or 2, got {shown(wrong[:5])}: above 0 is read as 2"
            notes.append(("bad visibility of keypoints", message))
        if broken:
            message = f"keypoints {broken} are labelled but have no finite position"
            notes.append(("bad keypoints", f"{message}: read as not labelled"))
        if outside:
            message = f"keypoints {outside} lie outside the image of {width}x{height}"
            notes.append(("keypoints outside the image", f"{message}: read as not labelled"))
        count, stated = int((points[:, 2] > 0).sum()), entry.get("num_keypoints")
        if stated is not None and not (wrong or broken or outside) and stated != count:
            message = f"num_keypoints is {shown(stated)}, but {count} are labelled: counted anew"
            notes.append(("num_keypoints disagrees", message))
        return points


def whole_number(value: Any) -> int | None:
    """Return a whole number that fits 64 bits, from an int, 3.0 or "3"; else None."""
    if isinstance(value, str) and len(value) < 20 and value.strip().removeprefix("-").isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        return None
    return value


def whole_numbers(value: Any) -> list[int]:
    """Return the whole numbers in a list; [] where there is none."""
    found = map(whole_number, value) if isinstance(value, list) else ()
    return [number for number in found if number is not None]


def shown(value: Any) -> str:
    """Return a value of a file for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def finite_number(value: Any) -> float | None:
    """Return a finite number of sane size; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        return None
    return float(value) if math.isfinite(value) else None


def given_number(value: Any, name: str, fault: str, what: str = "a number") -> float:
    """Return a number that a file gives as one.

    Args:
        value: what the file has.
        name: of what it is.
        fault: kind of the fault if it is no number.
        what: it has to be.

    Raises:
        BadSegment: if it is none, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadSegment(fault, f"{name} must be {what}, got {shown(value)}")
    return _finite(value, value, f"{name} ")


def written_number(text: str | None, name: str | None = None, fault: str = "bad line") -> float:
    """Return a number that a file gives as text; name and fault as for `given_number`.

    Raises:
        BadSegment: if it is none, or not finite.
    """
    try:
        value = float(text or "")
    except ValueError:
        wanted = "expected numbers" if name is None else f"{name} must be a number"
        raise BadSegment(fault, f"{wanted}, got {shown(text)}") from None
    return _finite(value, text, "" if name is None else f"{name} ")


def _finite(value: float, given: Any, of: str) -> float:
    number = finite_number(value)
    if number is None:
        raise BadSegment("NaN or infinite coordinates", f"{of}{shown(given)} is not finite")
    return number


def flag(value: Any) -> bool | None:
    """Return a yes or no as files write it; missing is no, None is neither."""
    if isinstance(value, str):
        value = value.strip().lower().removesuffix(".0")
        value = _FLAGS.get(value, value)
    number = int(value) if isinstance(value, bool) else whole_number(0 if value is None else value)
    return None if number not in (0, 1) else bool(number)


_FLAGS = {"": 0, "false": 0, "no": 0, "unspecified": 0, "true": 1, "yes": 1}


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    inter = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    # Masks of thin polygons have no extent; they cannot disagree.
    return inter / union if inter or min(b[2] - b[0], b[3] - b[1]) > 0 else 1.0
