"""Boundary IoU (Cheng et al. 2021): masks compared by their edges, where large masks differ.

The edge of a mask is the mask minus its erosion; beyond the image lies background. A mask is
background outside its frame as well, so its crop tells all.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
DILATION = 0.02


def edge_width(size: tuple[int, int], dilation: float = DILATION) -> int:
    """Return the width in pixels of edges in an image of (height, width), at least one.

    Raises:
        ValueError: if `dilation`, a part of the image's diagonal, is not above 0 and finite.
    """
    if not 0 < dilation < math.inf:
        raise ValueError(f"dilation must be above 0 and finite, got {dilation}")
    return max(1, round(dilation * math.hypot(*size)))


def edge(mask: BoolArray, width: int) -> BoolArray:
    """Return what is left of a mask (H, W) minus its erosion by `width` pixels to all sides."""
    side = 2 * width + 1
    found = mask.copy()
    if min(mask.shape) < side:  # a window always reaches beyond it
        return found
    # Erosion by a square is one by a line along each axis: all of a window must be set. Windows
    # of a length are two shorter ones that overlap.
    inner, length = mask, 1
    while length < side:
        step = min(length, side - length)
        inner = inner[step:] & inner[:-step]
        inner = inner[:, step:] & inner[:, :-step]
        length += step
    found[width:-width, width:-width] &= ~inner
    return found


def boundary_iou(a: BoolArray, b: BoolArray, dilation: float = DILATION) -> float:
    """Return the IoU of the edges of two masks.

    Args:
        a, b: (H, W) bool, of the whole image (arrays or tensors).
        dilation: width of the edges as a part of the image's diagonal.

    Returns:
        In [0, 1]; 0 if both masks are empty.

    Raises:
        ValueError: if the shapes differ, or `dilation` is not above 0.

    Reference: Cheng et al. 2021, equation 2.
    """
    first, second = np.asarray(a, bool), np.asarray(b, bool)
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(f"two masks (H, W) of one size, got {first.shape} and {second.shape}")
    rows, columns = np.nonzero((first | second).any(1))[0], np.nonzero((first | second).any(0))[0]
    if not len(rows):
        return 0.0
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    width = edge_width((first.shape[0], first.shape[1]), dilation)
    x, y = edge(first[window], width), edge(second[window], width)
    return float((x & y).sum() / (x | y).sum())
