"""Outlines of objects in XML files of Pascal VOC's kind, which VOC itself has not.

Turned boxes are written by roLabelImg as centre, sides and an angle in radians, clockwise on the
screen, and by DIOR as four named corners; polygons by Roboflow and supervision as numbered points,
counted from 1 as the sides of a box are.
"""

from __future__ import annotations

import math

from ...building.geometry import corners_of, turned
from ...building.objects import written_number
from ...segments import BadSegment
from .xml_tree import Node

TURNED, POLYGON = "robndbox", "polygon"
CORNERS = ("left_top", "right_top", "right_bottom", "left_bottom")


def read_outline(node: Node) -> list[list[float]] | BadSegment | None:
    """Return the flat polygons of an object, what is wrong with them, or None without any."""
    try:
        box = node.child(TURNED)
        if box is not None:
            return [_turned(box)]
        return [_numbered(one) for one in node.all(POLYGON) if one.child("x1")] or None
    except BadSegment as bad:
        return bad


def _turned(box: Node) -> list[float]:
    """Return a turned box as a flat polygon.

    Raises:
        BadSegment: if a number is missing.
    """
    if box.child("cx") is None:
        return [_number(box, f"{axis}_{name}", TURNED) for name in CORNERS for axis in "xy"]
    cx, cy, w, h, angle = (_number(box, tag, TURNED) for tag in ("cx", "cy", "w", "h", "angle"))
    upright = corners_of(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    return turned(upright, math.degrees(angle), (cx, cy))


def _numbered(polygon: Node) -> list[float]:
    """Return the points x1, y1, x2, ... of a polygon.

    Raises:
        BadSegment: if one is missing or no number.
    """
    count = sum(one.tag.startswith("x") for one in polygon.children)
    return [
        _number(polygon, f"{axis}{k}", POLYGON) - 1 for k in range(1, count + 1) for axis in "xy"
    ]


def _number(node: Node, tag: str, of: str) -> float:
    found = node.child(tag)
    return written_number(found.text if found is not None else "", f"<{tag}> of <{of}>", "bad box")
