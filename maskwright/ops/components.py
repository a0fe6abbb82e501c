"""Connected parts of binary masks, many masks at once, in NumPy.

A mask is taken as stretches of pixels in rows (He, Chao, Suzuki 2008, run-based labelling): those
that touch in neighbouring rows belong together, and all masks of a stack are one long list of rows
with a frame of empty pixels between them. The cost follows the number of stretches, so a hundred
thresholds of one heat map are as quick as a few single masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """N connected pieces of pixels in a stack of masks, by mask and by their first pixel.

    Attributes:
        mask: (N,) number of the mask that a piece lies in.
        boxes: (N, 4) xyxy, whole pixels: the piece lies in the columns x1 to x2 - 1 and the rows y1
            to y2 - 1.
        area: (N,) pixels.
    """

    mask: IntArray
    boxes: IntArray
    area: IntArray


@dataclass(frozen=True)
class Outlines:
    """What lies inside and around the masks of a stack.

    Attributes:
        parts: pieces of pixels that touch each other, corners included.
        holes: pieces of the background without a way out of the mask, where corners are no way.
        outer: the parts that lie in no hole, with their holes filled.
        enclosed: (N,) area in the polygon through the centres of the border pixels of each of
            `outer`: what OpenCV's `contourArea` gives. 0 for a line.
    """

    parts: Parts
    holes: Parts
    outer: Parts
    enclosed: NDArray[np.float64]


@dataclass(frozen=True)
class _Runs:
    """Stretches of pixels, as places in the rows of all masks one after the other.

    Attributes:
        begins, ends: (N,), rising; a stretch holds the places begins to ends - 1.
        shape: (height, width) of a mask with its frame of one pixel.
    """

    begins: IntArray
    ends: IntArray
    shape: tuple[int, int]


def find_parts(masks: NDArray[np.bool_]) -> Parts:
    """Return the connected pieces of masks; pixels that touch at a corner belong together.

    Args:
        masks: (T, H, W).

    Example:
        >>> mask = np.array([[1, 0, 0, 0], [0, 1, 0, 1]], bool)
        >>> find_parts(mask[None]).boxes.tolist()
        [[0, 0, 2, 2], [3, 1, 4, 2]]
    """
    runs = _runs(masks)
    return _measured(runs, _joined(runs, diagonal=True)[0])


def label_parts(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the number of the piece that each pixel of a mask (H, W) belongs to; 0: none.

    The pieces are numbered from 1, as `find_parts` gives them.
    """
    runs = _runs(mask[None])
    number = np.unique(_joined(runs, diagonal=True)[0], return_inverse=True)[1]
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = np.repeat(number + 1, runs.ends - runs.begins)
    return labels


def find_outlines(masks: NDArray[np.bool_]) -> Outlines:
    """Return the pieces of masks (T, H, W), their holes and their outlines."""
    runs = _runs(masks)
    ground = _background(runs, len(masks))
    roots = _joined(ground, diagonal=False)[0]
    # The frames of all masks touch one another, and are the only piece that is no hole.
    outside = roots == (roots[0] if len(roots) else 0)
    hollow = _Runs(ground.begins[~outside], ground.ends[~outside], ground.shape)
    filled = _between(_Runs(ground.begins[outside], ground.ends[outside], ground.shape))
    owner, upper, lower = _joined(filled, diagonal=True)
    return Outlines(
        _measured(runs, _joined(runs, diagonal=True)[0]),
        _measured(hollow, roots[~outside]),
        _measured(filled, owner),
        _enclosed(filled, owner, upper, lower),
    )


def _runs(masks: NDArray[np.bool_]) -> _Runs:
    count, height, width = masks.shape
    framed = np.zeros((count, height + 2, width + 2), bool)
    framed[:, 1:-1, 1:-1] = masks
    flat = framed.reshape(-1)
    # Each row begins and ends with its frame, so no stretch goes on in the next row.
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return _Runs(changes[0::2], changes[1::2], (height + 2, width + 2))


def _background(runs: _Runs, count: int) -> _Runs:
    """Return what lies between the stretches of `count` masks, row by row."""
    height, width = runs.shape
    rows = np.arange(count * height, dtype=np.int64) * width
    begins = np.sort(np.concatenate([rows, runs.ends]))
    ends = np.sort(np.concatenate([rows + width, runs.begins]))
    return _Runs(begins, ends, runs.shape)


def _between(ground: _Runs) -> _Runs:
    """Return what lies between stretches of background that reach both ends of each row."""
    begins, ends = ground.ends[:-1], ground.begins[1:]
    real = begins < ends
    return _Runs(begins[real], ends[real], ground.shape)


def _joined(runs: _Runs, *, diagonal: bool) -> tuple[IntArray, IntArray, IntArray]:
    """Return the first stretch (N,) of the piece of each, and the pairs that touch: two (E,)."""
    count, width = len(runs.begins), runs.shape[1]
    sides = ("left", "right") if diagonal else ("right", "left")
    # Those of the next row that end behind the beginning of a stretch, and begin before its end.
    first = np.searchsorted(runs.ends, runs.begins + width, side=sides[0])  # type: ignore[call-overload]
    last = np.searchsorted(runs.begins, runs.ends + width, side=sides[1])  # type: ignore[call-overload]
    lengths = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(count), lengths)
    lower = np.arange(len(upper)) - np.repeat(np.cumsum(lengths) - lengths - first, lengths)
    return _roots(count, upper, lower), upper, lower


def _roots(count: int, a: IntArray, b: IntArray) -> IntArray:
    """Return the smallest number in the piece of each of `count` that the pairs (a, b) join."""
    root = np.arange(count)
    while len(a):
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low != high
        a, b = a[apart], b[apart]  # what is one piece stays so
        np.minimum.at(root, high[apart], low[apart])
        while not np.array_equal(root, onward := root[root]):
            root = onward
    return root


def _measured(runs: _Runs, owner: IntArray) -> Parts:
    """Return the pieces that stretches belong to."""
    height, width = runs.shape
    roots, number = np.unique(owner, return_inverse=True)
    row, left = np.divmod(runs.begins, width)
    mask, top = np.divmod(row, height)
    right = runs.ends - row * width
    boxes = np.zeros((len(roots), 4), np.int64)
    boxes[:, :2] = width + height
    np.minimum.at(boxes[:, 0], number, left - 1)  # without the frame
    np.minimum.at(boxes[:, 1], number, top - 1)
    np.maximum.at(boxes[:, 2], number, right - 1)
    np.maximum.at(boxes[:, 3], number, top)
    of = np.zeros(len(roots), np.int64)
    of[number] = mask
    area = np.bincount(number, runs.ends - runs.begins, len(roots)).astype(np.int64)
    return Parts(of, boxes, area)


def _enclosed(
    runs: _Runs, owner: IntArray, upper: IntArray, lower: IntArray
) -> NDArray[np.float64]:
    """Return the area of the polygon through the centres of the border pixels of each piece.

    Between two rows it is, for each pair of stretches that overlap in n columns, n - 1 squares and
    half a square at each end where one of them goes on.
    """
    roots, number = np.unique(owner, return_inverse=True)
    width = runs.shape[1]
    begin, end = runs.begins[lower] - width, runs.ends[lower] - width
    common = np.minimum(runs.ends[upper], end) - np.maximum(runs.begins[upper], begin)
    halves = (runs.begins[upper] != begin).astype(float) + (runs.ends[upper] != end)
    area = np.where(common > 0, common - 1 + halves / 2, 0)
    return np.bincount(number[upper], area, len(roots)).astype(np.float64)
