"""Segmentations of COCO files, checked once on reading so that nothing later can stumble over them.

Polygons of one object are its parts, never holes. Run lengths, compressed or not, are checked by
unpacking them and kept compressed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskwright.ops.rle import FAR, decode_rle, encode_crop, measure_rle, outline_length

NO_MASK, POLYGONS, RLE = 0, 1, 2
# Anything narrower is nothing: in float32, its two sides may be the same number.
LEAST = 0.01  # pixels
MAX_OUTLINE = 1_000_000  # pixels around one polygon; the scaled one may be longer
NUMBERS = {int, float}
FEW_POINTS = "polygon with too few points"
BOX_SERVES = ": its box serves as its mask"  # the end of such a note


class BadSegment(ValueError):  # noqa: N818 - an outcome of reading, caught by the reader
    """A box or mask that cannot be used.

    Attributes:
        kind: the kind of the fault.
        nothing: there is certainly nothing of an object in the image, so nothing to ignore either.
    """

    def __init__(self, kind: str, message: str, *, nothing: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.nothing = nothing


@dataclass
class Segment:
    """A checked segmentation.

    Attributes:
        kind: NO_MASK, POLYGONS or RLE.
        parts: polygons, each (n, 2) float64 x and y in original pixels.
        counts: compressed run lengths.
        extent: xyxy of the mask or of the polygons, original pixels.
        pixels: number of pixels of run lengths.
        notes: (kind, message) of what was repaired.
    """

    kind: int = NO_MASK
    parts: list[np.ndarray] = field(default_factory=list)
    counts: bytes = b""
    extent: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    pixels: int = 0
    notes: list[tuple[str, str]] = field(default_factory=list)

    def area(self) -> float:
        """Return the area of the mask or the polygons in pixels, by the shoelace formula."""
        total = float(self.pixels)
        for points in self.parts:
            x, y = points.T
            total += 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
        return total


def read_segment(value: Any, size: tuple[int, int]) -> Segment:
    """Check the `segmentation` entry of an annotation.

    Args:
        value: polygons, run lengths, or nothing.
        size: (height, width) of the image.

    Raises:
        BadSegment: if there is a segmentation and nothing of it is usable.
    """
    if value is None or value == [] or value == {}:
        return Segment()
    if isinstance(value, dict):
        return _read_rle(value, size)
    if isinstance(value, list):
        return _read_polygons(value, size)
    raise BadSegment("bad segmentation", f"segmentation is a {type(value).__name__}")


def box_segment(box: Sequence[float]) -> Segment:
    """Return the rectangle xyxy as a polygon."""
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)
    return Segment(POLYGONS, [corners], extent=(x1, y1, x2, y2))


def _read_polygons(value: list[Any], size: tuple[int, int]) -> Segment:
    segment = Segment(POLYGONS)
    if not isinstance(value[0], list):
        value = [value]
        segment.notes.append(("flat polygon", "the polygon is not inside a list; read as one part"))
    if len(value) == 1:  # most objects
        try:
            points, segment.extent = _read_polygon(value[0], size)
        except BadSegment as bad:
            raise BadSegment(bad.kind, f"polygon 1 of 1 {bad}", nothing=bad.nothing) from None
        segment.parts.append(points)
        return segment
    problems: list[BadSegment] = []
    extents = []
    for number, part in enumerate(value, 1):
        try:
            points, extent = _read_polygon(part, size)
        except BadSegment as bad:
            message = f"polygon {number} of {len(value)} {bad}"
            problems.append(BadSegment(bad.kind, message, nothing=bad.nothing))
            continue
        segment.parts.append(points)
        extents.append(extent)
    # Without a part that covers some of the object, the mask would teach it as background.
    lost = [bad for bad in problems if not (bad.nothing or bad.kind == FEW_POINTS)]
    if lost or not segment.parts:
        raise next((bad for bad in (*lost, *problems) if not bad.nothing), problems[0])
    segment.notes += [(bad.kind, f"{bad}; this part is left out") for bad in problems]
    x1, y1, x2, y2 = zip(*extents, strict=True)
    segment.extent = (min(x1), min(y1), max(x2), max(y2))
    return segment


def _read_polygon(
    part: Any, size: tuple[int, int]
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Return the (n, 2) points of a polygon and the xyxy around them."""
    if not isinstance(part, list) or not {*map(type, part)} <= NUMBERS:
        raise BadSegment("bad polygon", "is no list of numbers")
    if len(part) % 2:
        raise BadSegment("bad polygon", "is no flat list x1, y1, x2, y2, ...")
    if len(part) < 6:
        raise BadSegment(FEW_POINTS, f"has {len(part) // 2} point(s), not 3")
    try:
        finite = math.isfinite(sum(part))  # a sum is finite only if all numbers are
        points = np.array(part, dtype=np.float64).reshape(-1, 2)
    except OverflowError:
        finite = False
    if not finite:
        raise BadSegment("NaN or infinite coordinates", "has coordinates that are not finite")
    # For a few dozen numbers this is faster than numpy.
    xs, ys = part[0::2], part[1::2]
    x1, y1, x2, y2 = float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))
    height, width = size
    if x2 - x1 < LEAST or y2 - y1 < LEAST:
        raise BadSegment("polygon without area", "has no width or no height", nothing=True)
    if x2 < LEAST or y2 < LEAST or x1 > width - LEAST or y1 > height - LEAST:
        raise BadSegment("polygon outside the image", "lies outside the image", nothing=True)
    # The rasteriser walks along every edge: a point at 1e9 would cost gigabytes.
    if max(-x1, x2 - width) > min(width + 100, FAR) or (
        max(-y1, y2 - height) > min(height + 100, FAR)
    ):
        raise BadSegment("polygon outside the image", "reaches far beyond the image")
    if len(xs) * max(x2 - x1, y2 - y1) > MAX_OUTLINE:  # a bound; seldom passed
        length = outline_length(points)
        if length > MAX_OUTLINE:
            raise BadSegment(
                "endless polygon",
                f"has an outline of {length:.3g} pixels, more than {MAX_OUTLINE:.3g}: simplify it",
            )
    return points, (x1, y1, x2, y2)


def _read_rle(value: dict[str, Any], size: tuple[int, int]) -> Segment:
    stated = value.get("size")
    if not isinstance(stated, list) or stated != list(size):
        swapped = " (height and width are swapped)" if stated == list(size[::-1]) else ""
        raise BadSegment(
            "RLE of another size",
            f"run lengths are for size {str(stated)[:60]} (height, width), the image has "
            f"{list(size)}{swapped}",
        )
    counts = value.get("counts")
    rle = {"size": list(size), "counts": counts}
    try:
        area, frame = measure_rle(rle)
    except ValueError as error:
        raise BadSegment("bad RLE", str(error).removeprefix("RLE: ")) from None
    if not area:
        message = "the run lengths hold no pixel of the object"
        raise BadSegment("empty mask", message, nothing=True)
    if isinstance(counts, str):
        text = counts.encode("ascii")
    else:
        crop, frame = decode_rle(rle)
        text = encode_crop(crop, frame, size)["counts"]
    x1, y1, x2, y2 = (float(side) for side in frame)
    return Segment(RLE, counts=text, extent=(x1, y1, x2, y2), pixels=area)
