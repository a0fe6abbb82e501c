"""Shapes of labelling tools as polygons and run lengths: ellipses, turned boxes, masks."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from maskwright.ops.rle import Crop, Frame, decode_rle, encode_crop, rasterise_polygons

from ..segments import BadSegment, read_segment
from .objects import finite_number, shown

BOMB = Image.DecompressionBombError  # an image that claims to be huge
SAGITTA = 0.05  # pixels that the side of an ellipse's polygon may lie inside of it


def points_of(value: Any, least: int, most: int | None = None) -> list[list[float]]:
    """Return points as lists of x and y.

    Args:
        value: as the file has it.
        least, most: how many there must be.

    Raises:
        BadSegment: if they are no such points.
    """
    points = value if isinstance(value, list) else []
    pairs = [p if isinstance(p, list) else [] for p in points]
    if not points or any(len(p) != 2 or _no_number(p[0]) or _no_number(p[1]) for p in pairs):
        raise BadSegment(
            "bad points", f"points must be [x, y] pairs of numbers, got {shown(value)}"
        )
    if any(finite_number(side) is None for p in pairs for side in p):
        raise BadSegment("NaN or infinite coordinates", f"{shown(value)} is not finite")
    if len(pairs) < least or (most is not None and len(pairs) > most):
        wanted = f"{least} to {most}" if most not in (None, least) else f"{least}"
        more = "" if most is not None else " or more"
        raise BadSegment("bad points", f"the shape needs {wanted}{more} points, got {len(pairs)}")
    return [[float(x), float(y)] for x, y in pairs]


def _no_number(value: Any) -> bool:
    return isinstance(value, bool) or not isinstance(value, int | float)


def corners_of(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    """Return a rectangle as a flat polygon."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def turned(flat: Sequence[float], degrees: float, around: tuple[float, float]) -> list[float]:
    """Return a flat polygon turned clockwise, as seen on the screen, around a point."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points = np.reshape(flat, (-1, 2)) - around
    result: list[float] = (points @ np.array([[c, s], [-s, c]]) + around).ravel().tolist()
    return result


def ellipse(cx: float, cy: float, rx: float, ry: float) -> list[float]:
    """Return an ellipse as a flat polygon, whose sides keep within `SAGITTA` of it.

    Raises:
        BadSegment: if a radius is not above 0.
    """
    if not (min(rx, ry) > 0 and max(rx, ry) < 1e6):
        raise BadSegment(
            "empty box", f"an ellipse of radii {rx:g} and {ry:g} has no area", nothing=True
        )
    sides = math.pi / math.acos(max(1 - SAGITTA / max(rx, ry), 0))
    count = 4 * max(4, math.ceil(sides / 4))  # so that its box is exact
    angles = np.arange(count) * (2 * math.pi / count)
    points = np.stack([cx + rx * np.cos(angles), cy + ry * np.sin(angles)], axis=1)
    flat: list[float] = points.ravel().tolist()
    return flat


def run_lengths(crop: Crop, left: int, top: int, size: tuple[int, int]) -> dict[str, Any]:
    """Return a mask as COCO's run lengths, cut off at the borders of the image.

    Args:
        crop: (h, w) bool.
        left, top: where it lies, in pixels.
        size: (height, width) of the image.
    """
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + crop.shape[1], size[1]), min(top + crop.shape[0], size[0])
    inside = crop[y1 - top : max(y2 - top, 0), x1 - left : max(x2 - left, 0)]
    frame = (x1, y1, x1 + inside.shape[1], y1 + inside.shape[0])
    if not inside.size:
        inside, frame = np.zeros((0, 0), bool), (0, 0, 0, 0)
    code = encode_crop(np.ascontiguousarray(inside), frame, size)
    return {"size": list(size), "counts": code["counts"].decode("ascii")}


def united(segments: Sequence[Any], size: tuple[int, int]) -> Any:
    """Return segmentations of COCO as one: polygons as parts, with run lengths among them as those.

    Raises:
        BadSegment: if one of them cannot be drawn.
    """
    if all(isinstance(one, list) for one in segments):
        return [part for one in segments for part in one]
    whole = np.zeros(size, bool)
    for one in segments:
        crop, frame = _drawn(one, size)
        x1, y1, x2, y2 = frame
        whole[y1:y2, x1:x2] |= crop
    return run_lengths(whole, 0, 0, size)


def with_holes(
    outline: list[float], holes: Sequence[list[float]], size: tuple[int, int]
) -> list[list[float]] | dict[str, Any]:
    """Return a flat polygon without its holes: itself where it has none, else run lengths.

    Raises:
        BadSegment: if it cannot be drawn.
    """
    if not holes:
        return [outline]
    mask = np.zeros(size, bool)
    for ring, inside in ((outline, True), *((hole, False) for hole in holes)):
        try:
            read_segment([ring], size)  # bounds what drawing costs
        except BadSegment as bad:
            if inside or not bad.nothing:
                raise
            continue  # a hole of no extent
        crop, (x1, y1, x2, y2) = _drawn([ring], size)
        mask[y1:y2, x1:x2][crop] = inside
    return run_lengths(mask, 0, 0, size)


def _drawn(segment: Any, size: tuple[int, int]) -> tuple[Crop, Frame]:
    try:
        return (
            rasterise_polygons(segment, size) if isinstance(segment, list) else decode_rle(segment)
        )
    except ValueError as error:
        raise BadSegment("bad polygon", str(error)) from None


def png_mask(text: Any, size: tuple[int, int]) -> Crop:
    """Return a mask that is a PNG in base64: all that is not 0.

    Args:
        text: as the file has it.
        size: (height, width) that it must have.

    Raises:
        BadSegment: if it is none, or of another size.
    """
    try:
        content = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.size != size[::-1]:
                raise BadSegment(
                    "mask of another size",
                    f"its PNG has {image.width}x{image.height} pixels, its points say "
                    f"{size[1]}x{size[0]} (width x height)",
                )
            pixels = np.asarray(image.convert("L") if image.mode in ("P", "1") else image)
    except BadSegment:
        raise
    except (binascii.Error, TypeError, ValueError, OSError, SyntaxError, BOMB) as error:
        raise BadSegment("bad mask", f"the mask is no PNG in base64: {str(error)[:100]}") from None
    return np.asarray(pixels.any(-1) if pixels.ndim == 3 else pixels > 0)


def as_png(crop: Crop) -> str:
    """Return a mask as a PNG in base64."""
    stream = io.BytesIO()
    Image.fromarray(crop).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
