"""Polygons of masks: parts with their holes, along the edges of the pixels.

The outline runs where a pixel of the mask meets one outside, so filling it gives back the mask to
the pixel (a tracer through the centres of the border pixels loses half a pixel all around). Pixels
that touch only at a corner are different parts, and what they enclose is no hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwright.structures import IGNORED

from .rle import Crop, Frame

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One connected piece of a mask.

    Attributes:
        outline: (n, 2) x, y in image pixels, not closed: the last point joins the first.
            Clockwise as seen on the screen, so its shoelace area is positive.
        holes: the same, counter-clockwise.
    """

    outline: Points
    holes: tuple[Points, ...] = ()


def trace_parts(crop: Crop, frame: Frame, *, tolerance: float = 0.0) -> list[Part]:
    """Return the polygons of a mask, the largest part first.

    Args:
        crop: (h, w) bool.
        frame: where the crop lies in the image; the pixel (x, y) covers [x, x+1] x [y, y+1].
        tolerance: leave out points that lie within this many pixels of the line without them
            (Douglas and Peucker 1973). At 0 only corners stay, and filling gives the same mask.

    Raises:
        ValueError: if the tolerance is negative or no number.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0 pixels, got {tolerance}")
    if not crop.any():
        return []
    loops, pieces = _loops(crop)
    offset = np.array(frame[:2], np.float64)
    parts: dict[int, tuple[list[Points], list[Points]]] = {}
    for loop, piece in zip(loops, pieces, strict=True):
        outlines, holes = parts.setdefault(piece, ([], []))
        points = simplify_outline(loop.astype(np.float64), tolerance) + offset
        (outlines if _area(loop) > 0 else holes).append(points)
    found = [Part(outlines[0], tuple(holes)) for outlines, holes in parts.values()]
    return sorted(found, key=lambda part: -_area(part.outline))


def trace_labels(labels: NDArray[np.uint8], *, tolerance: float = 0.0) -> dict[int, list[Part]]:
    """Return the polygons of each label of a map, `IGNORED` left out, by label.

    Args:
        labels: (H, W).
        tolerance: see `trace_parts`; above 0 neighbours may overlap, or leave gaps.
    """
    found = {}
    for label in np.unique(labels).tolist():
        if label != IGNORED:
            mask = labels == label
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            frame = (int(x1), int(y1), int(x2), int(y2))
            found[label] = trace_parts(mask[y1:y2, x1:x2], frame, tolerance=tolerance)
    return found


def as_geometry(parts: Sequence[Part]) -> dict[str, Any] | None:
    """Return polygons as the geometry of a GeoJSON feature, in image pixels; None without any.

    Rings are closed, outlines turn as RFC 7946 wants where y points up.
    """
    shapes = [
        [[*ring.tolist(), ring[0].tolist()] for ring in (part.outline, *part.holes)]
        for part in parts
    ]
    if not shapes:
        return None
    if len(shapes) == 1:
        return {"type": "Polygon", "coordinates": shapes[0]}
    return {"type": "MultiPolygon", "coordinates": shapes}


def simplify_outline(points: Points, tolerance: float) -> Points:
    """Return the corners of a closed outline (n, 2) that a tolerance in pixels needs.

    What would vanish altogether keeps its four outermost points.

    Reference: Douglas and Peucker 1973, applied to the two halves between the first point and the
    one farthest from it.
    """
    if tolerance == 0 or len(points) <= 4:
        return points
    far = int(((points - points[0]) ** 2).sum(1).argmax())
    closed = np.concatenate([points, points[:1]])
    keep = np.zeros(len(closed), bool)
    keep[[0, far]] = True
    spans = [(0, far), (far, len(closed) - 1)]
    while spans:
        begin, end = spans.pop()
        if end - begin < 2:
            continue
        distance = _distance(closed[begin + 1 : end], closed[begin], closed[end])
        worst = int(distance.argmax())
        if distance[worst] > tolerance:
            middle = begin + 1 + worst
            keep[middle] = True
            spans += [(begin, middle), (middle, end)]
    if keep[:-1].sum() < 3:
        keep[[int(k) for axis in points.T for k in (axis.argmin(), axis.argmax())]] = True
    return points[keep[:-1]]


def _distance(points: Points, begin: Points, end: Points) -> Points:
    """Return the distances (n,) of points from the stretch between two others."""
    along = end - begin
    share = (points - begin) @ along / max(float(along @ along), 1e-12)
    nearest = begin + share.clip(0, 1)[:, None] * along
    away: Points = np.hypot(*(points - nearest).T)
    return away


def _area(points: NDArray) -> float:
    """Return the signed area of a closed outline (n, 2): positive if clockwise on the screen."""
    x, y = points.T.astype(np.float64)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _loops(crop: Crop) -> tuple[list[NDArray[np.int64]], list[int]]:
    """Return the corners (n, 2) of every closed border of a mask, and the piece that it bounds.

    Borders are walked with the mask on the right, stretch by stretch.
    """
    tails, heads, directions = _stretches(np.pad(crop, 1).astype(np.int8))
    width = crop.shape[1] + 2
    tail_keys, head_keys = ((ends[:, 1] * width + ends[:, 0]).tolist() for ends in (tails, heads))
    ways = directions.tolist()
    leaving = {(key, way): k for k, (key, way) in enumerate(zip(tail_keys, ways, strict=True))}
    owner = np.full(len(ways), -1, np.int64)
    loops: list[NDArray[np.int64]] = []
    for first in range(len(ways)):
        if owner[first] >= 0:
            continue
        walk, at = [], first
        while owner[at] < 0:
            owner[at] = len(loops)
            walk.append(at)
            # Where two pixels touch only at their corner both turns are possible; the right turn
            # stays at its own pixel.
            key, way = head_keys[at], ways[at]
            right = leaving.get((key, (way + 1) % 4))
            at = leaving[key, (way + 3) % 4] if right is None else right
        loops.append(tails[walk])
    return loops, _pieces(tails, heads, directions, owner, len(loops))


def _stretches(inside: NDArray[np.int8]) -> tuple[NDArray[np.int64], ...]:
    """Return all straight stretches of the borders: tails and heads (n, 2) x, y, and directions.

    Directions count clockwise: 0 right, 1 down, 2 left, 3 up.

    Args:
        inside: (h + 2, w + 2) the mask with a frame of zeros.
    """
    tails, heads, directions = [], [], []
    for axis in (0, 1):
        # Along each line between two rows (columns), +1 where the mask lies below (to the right).
        # A stretch ends where this changes, also from +1 to -1.
        line = np.diff(inside, axis=axis)
        line = line if axis == 0 else line.T
        change = np.diff(line, axis=1) != 0
        where, along = np.nonzero(change)
        before, after = line[where, along], line[where, along + 1]
        begin, end = after != 0, before != 0  # in each line these alternate, so they pair up
        a = np.stack([along[begin], where[begin]], 1)
        b = np.stack([along[end], where[end]], 1)
        sign = after[begin]
        if axis == 1:
            a, b = a[:, ::-1], b[:, ::-1]
        # With the mask on the right: below it means to the right, right of it means up.
        swap = (sign < 0 if axis == 0 else sign > 0)[:, None]
        tails.append(np.where(swap, b, a))
        heads.append(np.where(swap, a, b))
        directions.append(np.where(swap[:, 0], 2, 0) if axis == 0 else np.where(swap[:, 0], 3, 1))
    return np.concatenate(tails), np.concatenate(heads), np.concatenate(directions)


def _pieces(
    tails: NDArray[np.int64],
    heads: NDArray[np.int64],
    directions: NDArray[np.int64],
    owner: NDArray[np.int64],
    count: int,
) -> list[int]:
    """Return a number for each border, the same for the borders of one connected piece.

    Every run of mask pixels in a row begins and ends at an upright border: both bound its piece.
    """
    upright = directions % 2 == 1
    top = np.minimum(tails[upright, 1], heads[upright, 1])
    lengths = np.abs(tails[upright, 1] - heads[upright, 1])
    steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    row = np.repeat(top, lengths) + steps
    order = np.lexsort([np.repeat(tails[upright, 0], lengths), row])
    sides = np.repeat(owner[upright], lengths)[order].reshape(-1, 2)
    piece = list(range(count))

    def root(border: int) -> int:
        while piece[border] != border:
            piece[border] = piece[piece[border]]
            border = piece[border]
        return border

    for a, b in np.unique(sides, axis=0).tolist():
        piece[root(a)] = root(b)
    return [root(border) for border in range(count)]
