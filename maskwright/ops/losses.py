"""Losses of places: points with a visibility, and one box an image. One value each; callers reduce.

Feng et al. 2018 (Wing Loss for Robust Facial Landmark Localisation); Girshick 2015 (Fast R-CNN,
smooth L1); Rezatofighi et al. 2019 (GIoU).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskwright.errors import OptionError, nearest

from .boxes import generalized_box_iou
from .checks import as_float

POINT_LOSSES = ("l1", "smooth_l1", "mse", "wing")


def wing_loss(error: Tensor, w: float = 10.0, eps: float = 2.0) -> Tensor:
    """Return w ln(1 + |x| / eps) below w, and |x| - C from there on, for each error.

    Small errors count for more than in L1, whose pull is the same at every distance. C makes the
    two parts meet. The numbers are for pixels of a picture of 256 x 256.

    Args:
        error: (...) differences of coordinates.
        w: where the loss turns straight.
        eps: how bent it is below.

    Returns:
        (...) at least 0.

    Raises:
        OptionError: if `w` or `eps` is not above 0.

    Reference: Feng et al. 2018, equation 5.

    Example:
        >>> wing_loss(torch.tensor([0.0, 10.0, 20.0])).round(decimals=2).tolist()
        [0.0, 17.92, 27.92]
    """
    if not (w > 0 and eps > 0):
        raise OptionError(f"the wing loss needs w and eps above 0, got w={w} and eps={eps}")
    size = as_float(error).abs()
    c = w - w * math.log1p(w / eps)
    return torch.where(size < w, w * torch.log1p(size / eps), size - c)


def point_loss(
    points: Tensor,
    true: Tensor,
    visible: Tensor,
    kind: str = "smooth_l1",
    *,
    beta: float = 1.0,
    w: float = 10.0,
    eps: float = 2.0,
) -> Tensor:
    """Return the loss of each point that is visible; 0, and no gradient, for the others.

    Args:
        points: (..., J, 2) predicted.
        true: (..., J, 2) in the same frame; where a point is not visible it may be anything.
        visible: (..., J) bool.
        kind: "l1", "smooth_l1", "mse" or "wing", summed over x and y.
        beta: where smooth L1 turns straight.
        w, eps: see `wing_loss`.

    Returns:
        (..., J).

    Raises:
        OptionError: if the kind is unknown.
        ValueError: if the shapes do not fit.
    """
    if kind not in POINT_LOSSES:
        raise OptionError(
            f"the loss of points must be one of {', '.join(POINT_LOSSES)}, got {kind!r}"
            f"{nearest(kind, POINT_LOSSES)}"
        )
    if points.shape != true.shape or points.shape[-1] != 2 or visible.shape != points.shape[:-1]:
        raise ValueError(
            "expected points (..., J, 2) twice and visible (..., J), "
            f"got {tuple(points.shape)}, {tuple(true.shape)} and {tuple(visible.shape)}"
        )
    # Before the difference: what is not visible may be nan, whose gradient no factor removes.
    error = torch.where(visible[..., None], as_float(points) - as_float(true), 0)
    if kind == "wing":
        each = wing_loss(error, w, eps)
    elif kind == "mse":
        each = error.square()
    else:
        zero = torch.zeros_like(error)
        bend = beta if kind == "smooth_l1" else 0.0
        each = F.smooth_l1_loss(error, zero, beta=bend, reduction="none")
    return each.sum(-1)


def box_location_losses(
    boxes: Tensor, true: Tensor, present: Tensor, *, beta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the smooth L1 loss and the GIoU loss of one box an image; 0 without an object.

    Args:
        boxes: (..., 4) xyxy predicted, relative to the sides of the image or in pixels.
        true: (..., 4) in the same frame; anything where there is no object.
        present: (...) bool, whether there is an object.
        beta: where smooth L1 turns straight.

    Returns:
        (...) twice: smooth L1 summed over the four coordinates, and 1 - GIoU, 0 to 2.

    Reference: Girshick 2015, equation 3; Rezatofighi et al. 2019, algorithm 2.
    """
    there = present[..., None]
    boxes = torch.where(there, as_float(boxes), 0)
    true = torch.where(there, as_float(true), 0)
    smooth = F.smooth_l1_loss(boxes, true, beta=beta, reduction="none").sum(-1)
    overlap = generalized_box_iou(boxes[..., None, :], true[..., None, :])[..., 0, 0]
    return smooth, torch.where(present, 1 - overlap, 0)


def mirrored_order(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Return which point each one is in a mirrored picture, from pairs of left and right.

    Args:
        count: number of points.
        pairs: numbers of the points that change places.

    Raises:
        ValueError: if there is no such point, or one stands in two pairs.

    Example:
        >>> mirrored_order(5, [(0, 1), (3, 4)])
        [1, 0, 2, 4, 3]
    """
    order = list(range(count))
    seen: set[int] = set()
    for left, right in pairs:
        for number in (left, right):
            if not 0 <= number < count:
                raise ValueError(f"flip pairs: there is no point {number} among {count}, from 0 on")
            if number in seen or left == right:
                raise ValueError(f"flip pairs: the point {number} stands there twice")
            seen.add(number)
        order[left], order[right] = right, left
    return order


def mirror_points(points: Tensor, width: Tensor | float, order: Sequence[int]) -> Tensor:
    """Return points as they lie in the picture mirrored left to right, left and right exchanged.

    Args:
        points: (..., J, 2) or more columns (visibility), x and y first.
        width: of the picture, in the unit of x: 1 for relative points; a tensor broadcasts against
            `points[..., 0]`.
        order: (J,) see `mirrored_order`, or `Skeleton.mirrored`.
    """
    x = width - points[..., 0]
    return torch.cat([x[..., None], points[..., 1:]], -1)[..., list(order), :]
