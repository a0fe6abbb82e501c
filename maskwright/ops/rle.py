"""COCO run-length codes and polygons, to and from masks that are stored only inside their frame.

A COCO RLE lists the lengths of runs of 0 and 1 of the full mask, column by column, 0 first; its
compressed form writes them as differences in a base-32 text (cocodataset/cocoapi:
common/maskApi.c). All functions are numpy, never build the full image, and check what they read:
the C library behind pycocotools trusts its input and ends the interpreter on a broken one.

A frame is (x1, y1, x2, y2) in whole image pixels; its crop holds the rows y1 to y2 - 1 and the
columns x1 to x2 - 1. The frame of an empty mask is (0, 0, 0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Frame: TypeAlias = tuple[int, int, int, int]
Crop: TypeAlias = NDArray[np.bool_]

# A polygon may leave the image, but the C rasteriser walks along every edge in steps of 1/5 pixel
# and takes about 100 bytes for each pixel of the way.
FAR = 100_000
_MAX_OUTLINE = 10_000_000


def encode_crop(crop: Crop, frame: Frame, size: tuple[int, int]) -> dict[str, Any]:
    """Return the mask as compressed COCO RLE, the same bytes as `pycocotools.mask.encode`.

    Args:
        crop: (h, w) bool.
        frame: where the crop lies in the image.
        size: (height, width) of the image.

    Returns:
        {"size": [height, width], "counts": bytes}.

    Raises:
        ValueError: if the frame leaves the image or does not fit the crop.
    """
    return encode_crops([crop], [frame], size)[0]


def encode_crops(
    crops: Sequence[Crop], frames: Sequence[Frame], size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Return `encode_crop` of many masks of one image, coded together.

    Args:
        crops: N arrays (h, w) bool.
        frames: where each crop lies in the image.
        size: (height, width) of the image.

    Raises:
        ValueError: if a frame leaves the image or does not fit its crop.
    """
    if not crops:
        return []
    height, width = size
    area = height * width
    # A change is the column-major position where a new run begins; `area` itself is no run.
    # Positions of mask i are shifted by i * (area + 1): rising over all masks.
    changes = np.concatenate(
        [
            i * (area + 1) + _changes(crop, frame, height, width)
            for i, (crop, frame) in enumerate(zip(crops, frames, strict=True))
        ]
    )
    # Ones down to the last row, and ones again from the first row of the next column: the end
    # and the beginning fall on the same position and cancel.
    twice = np.flatnonzero(changes[1:] == changes[:-1])
    keep = np.ones(len(changes), bool)
    keep[twice] = keep[twice + 1] = False
    mask_of, position = np.divmod(changes[keep], area + 1)
    inside = position < area
    mask_of, position = mask_of[inside], position[inside]
    # Counts of a mask: differences of 0, its changes, area.
    ends = np.cumsum(np.bincount(mask_of, minlength=len(crops)) + 1)
    at = np.arange(len(position)) + mask_of
    bounds = np.empty(ends[-1], np.int64)
    bounds[at] = position
    bounds[ends - 1] = area
    counts = np.diff(bounds, prepend=0)
    counts[ends[:-1]] = bounds[ends[:-1]]
    return [{"size": [height, width], "counts": text} for text in _compress(counts, ends)]


def decode_rle(rle: Mapping[str, Any]) -> tuple[Crop, Frame]:
    """Return the mask of a COCO RLE inside its tight frame.

    Args:
        rle: {"size": [height, width], "counts": bytes, str, or a list of run lengths}.

    Raises:
        ValueError: if the code is broken, with the reason.
    """
    height, begin, end = _runs(rle)
    if not len(begin):
        return np.zeros((0, 0), bool), (0, 0, 0, 0)
    # Cut the runs into pieces of one column each.
    first, last = begin // height, (end - 1) // height
    pieces = last - first + 1
    run = np.repeat(np.arange(len(begin)), pieces)
    column = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces) + first[run]
    top = np.maximum(begin[run] - column * height, 0)
    bottom = np.minimum(end[run] - column * height, height)
    x1, x2 = int(first[0]), int(last[-1]) + 1
    y1, y2 = int(top.min()), int(bottom.max())
    # +1 where a piece begins, -1 below its end: the running sum down a column is the mask.
    step = np.zeros((x2 - x1, y2 - y1 + 1), np.int8)
    np.add.at(step, (column - x1, top - y1), 1)
    np.add.at(step, (column - x1, bottom - y1), -1)
    crop = np.cumsum(step[:, :-1], axis=1, dtype=np.int8).astype(bool).T
    return np.ascontiguousarray(crop), (x1, y1, x2, y2)


def measure_rle(rle: Mapping[str, Any]) -> tuple[int, Frame]:
    """Return the number of pixels and the tight frame of a COCO RLE without making its mask.

    Args:
        rle: as for `decode_rle`.

    Raises:
        ValueError: if the code is broken, with the reason.
    """
    height, begin, end = _runs(rle)
    if not len(begin):
        return 0, (0, 0, 0, 0)
    first, last = begin // height, (end - 1) // height
    if (first < last).any():  # over the bottom of a column to the top of the next one
        y1, y2 = 0, height
    else:
        y1, y2 = int((begin % height).min()), int(((end - 1) % height).max()) + 1
    return int((end - begin).sum()), (int(first[0]), y1, int(last[-1]) + 1, y2)


def outline_length(points: NDArray[np.float64]) -> float:
    """Return the sum over the edges of a closed polygon (n, 2) of their longer side, in pixels."""
    steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1)
    return float(steps.sum())


def _runs(rle: Mapping[str, Any]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Return the height and where the runs of 1 begin and end, column by column."""
    height, width = _rle_size(rle)
    counts = _rle_counts(rle)
    if (counts < 0).any():
        raise ValueError(f"RLE: run lengths must not be negative, got {counts.min()}")
    # Lengths beyond the image would wrap the sum around; floats do not.
    if counts.sum(dtype=np.float64) != height * width:
        raise ValueError(
            f"RLE: the run lengths sum to {counts.sum(dtype=np.float64):.0f}, but size "
            f"[{height}, {width}] has {height * width} pixels"
        )
    ends = np.cumsum(counts)
    begin, end = ends[0:-1:2], ends[1::2]
    used = begin < end
    return height, begin[used], end[used]


def rasterise_polygons(
    polygons: Sequence[Sequence[float]], size: tuple[int, int], *, far: float = FAR
) -> tuple[Crop, Frame]:
    """Return the union of polygons as a mask inside its tight frame, by COCO's own rasteriser.

    Args:
        polygons: each a flat list x0, y0, x1, y1, ... in image pixels.
        size: (height, width) of the image.
        far: how many pixels points may lie outside it.

    Raises:
        ValueError: if a polygon has under three points, an odd number of coordinates, or
            coordinates that are not finite or lie very far outside the image.
    """
    from pycocotools import mask as coco

    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be (height, width) of at least one pixel, got {size}")
    if not len(polygons):
        return np.zeros((0, 0), bool), (0, 0, 0, 0)
    checked = []
    for i, polygon in enumerate(polygons):
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"polygon {i}: expected a flat list of numbers") from None
        if points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise ValueError(
                f"polygon {i}: expected x, y pairs of at least three points in a flat list, "
                f"got shape {points.shape}"
            )
        if not np.isfinite(points).all():
            raise ValueError(f"polygon {i}: coordinates must be finite numbers")
        if np.abs(points).max() > max(height, width) + far:
            raise ValueError(
                f"polygon {i}: coordinate {points[np.abs(points).argmax()]:g} lies far outside "
                f"the image of {width} x {height} pixels"
            )
        if (length := outline_length(points.reshape(-1, 2))) > _MAX_OUTLINE:
            raise ValueError(
                f"polygon {i}: its outline of {length:.3g} pixels is longer than {_MAX_OUTLINE:.3g}"
            )
        checked.append(points.tolist())
    return decode_rle(coco.merge(coco.frPyObjects(checked, height, width)))


def _changes(crop: Crop, frame: Frame, height: int, width: int) -> NDArray[np.int64]:
    """Return the column-major image positions, rising, where the crop changes its value."""
    x1, y1, x2, y2 = frame
    h, w = crop.shape
    if (y2 - y1, x2 - x1) != (h, w) or x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        raise ValueError(
            f"frame {frame} must lie in the image of size {(height, width)} and fit the crop, "
            f"which has shape {(h, w)}"
        )
    if not crop.size:
        return np.empty(0, np.int64)
    # Compare each row with the one above it; above and below the crop all is 0.
    changed = np.empty((h + 1, w), bool)
    changed[0], changed[h] = crop[0], crop[-1]
    np.not_equal(crop[1:], crop[:-1], out=changed[1:h])
    row, column = np.divmod(np.flatnonzero(changed), w)
    changes: NDArray[np.int64] = (column + x1) * height + (row + y1)
    changes.sort()
    return changes


def _compress(counts: NDArray[np.int64], ends: NDArray[np.int64]) -> list[bytes]:
    """Return the compressed texts of run lengths, those of mask i ending before `ends[i]`."""
    begins = np.concatenate([[0], ends[:-1]])
    rank = np.arange(len(counts)) - np.repeat(begins, ends - begins)
    # From the fourth length on, the difference to the length two before is written.
    value = counts.copy()
    later = np.flatnonzero(rank > 2)
    value[later] -= counts[later - 2]
    # Five bits a character, lowest first; bit 6 says that more follow; the last one is signed.
    length = np.ones(len(counts), np.int64)
    digits = []
    number = np.arange(len(counts))
    while len(number):
        five, rest = value & 31, value >> 5
        more = rest != -(five >> 4)
        digits.append((number, five + 48 + 32 * more))
        number, value = number[more], rest[more]
        length[number] += 1
    stop = np.cumsum(length)
    begin = stop - length
    code = np.empty(stop[-1], np.uint8)
    for place, (number, characters) in enumerate(digits):
        code[begin[number] + place] = characters
    text = code.tobytes()
    stops = stop[ends - 1]
    starts = np.concatenate([[0], stops[:-1]])
    return [text[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]


def _rle_size(rle: Mapping[str, Any]) -> tuple[int, int]:
    """Return (height, width) of a COCO RLE."""
    try:
        height, width = (int(side) for side in rle["size"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"RLE: expected 'size': [height, width], got {rle.get('size')!r}"
        ) from None
    if height < 1 or width < 1 or height * width >= 2**32:
        raise ValueError(f"RLE: size must be at least one pixel a side, got {[height, width]}")
    return height, width


def _rle_counts(rle: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return the run lengths of a COCO RLE, compressed or not."""
    counts = rle.get("counts")
    if isinstance(counts, str):
        try:
            counts = counts.encode("ascii")
        except UnicodeEncodeError:
            raise ValueError("RLE: the text of 'counts' holds characters outside ASCII") from None
    if isinstance(counts, bytes):
        return _expand(counts)
    try:
        lengths = np.asarray(counts)
        if lengths.ndim != 1 or (len(lengths) and lengths.dtype.kind not in "iu"):
            raise TypeError
        return lengths.astype(np.int64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            "RLE: 'counts' is compressed text or a list of whole run lengths, got "
            f"{type(counts).__name__}"
        ) from None


def _expand(text: bytes) -> NDArray[np.int64]:
    """Return the run lengths of a compressed text: the inverse of `_compress`."""
    if not text:
        return np.empty(0, np.int64)
    code = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if code.min() < 0 or code.max() > 63:
        bad = text[int(np.flatnonzero((code < 0) | (code > 63))[0])]
        raise ValueError(f"RLE: character {chr(bad)!r} does not occur in compressed counts")
    stops = np.flatnonzero(code < 32)
    if not len(stops) or stops[-1] != len(code) - 1:
        raise ValueError("RLE: the compressed counts end in the middle of a number")
    starts = np.concatenate([[0], stops[:-1] + 1])
    digits = stops - starts + 1
    if digits.max() > 7:
        raise ValueError("RLE: the compressed counts hold a number beyond 32 bits")
    place = np.arange(len(code)) - np.repeat(starts, digits)
    value = np.add.reduceat((code & 31) << (5 * place), starts)
    value -= np.where(code[stops] & 16, np.int64(1) << (5 * digits), 0)
    # Undo the differences: two chains, from the second and from the third length on.
    value[1::2] = np.cumsum(value[1::2])
    value[2::2] = np.cumsum(value[2::2])
    return value
