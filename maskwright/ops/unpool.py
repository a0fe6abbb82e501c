"""Maxima that remember their place, and the way back (Badrinarayanan et al. 2015, section 3).

Pooling of 2 x 2 pixels without overlap, sides rounded up, so that no pixel is lost: 45 becomes 23,
and 23 becomes 45 again because the size before is told. No two maxima have one place, so that the
way back is a scatter without sums, equal on every device and in every run.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def max_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maxima of 2 x 2 pixels and their places.

    Args:
        x: (B, C, H, W).

    Returns:
        (B, C, ceil(H / 2), ceil(W / 2)), and as many int64: row * W + column, of equal maxima the
        first one's.
    """
    return F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)


def max_unpool(x: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps in which each value stands at its place, and 0 at all others.

    Args:
        x: (B, C, h, w).
        places: of the same shape, of `max_pool`.
        size: (H, W) before that pooling.

    Returns:
        (B, C, H, W).

    Example:
        >>> import torch
        >>> x = torch.tensor([[[[1.0, 4.0, 2.0]]]])
        >>> values, places = max_pool(x)
        >>> max_unpool(values, places, (1, 3))
        tensor([[[[0., 4., 2.]]]])
    """
    height, width = size
    flat = x.new_zeros((*x.shape[:2], height * width))
    return flat.scatter(2, places.flatten(2), x.flatten(2)).view(*x.shape[:2], height, width)
