"""Boxes: areas, the IoU family, clipping, format changes and the delta codec of the R-CNN line.

All boxes are xyxy in continuous pixels, without "+1"; integers and half types are computed, and
come back, in float32 (see `checks`). Ren et al. 2015 (Faster R-CNN) for the codec; Rezatofighi et
al. 2019 (GIoU), Zheng et al. 2020 (DIoU, CIoU).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checks import as_float

# Boxes may grow at most from 16 to 1000 pixels in one step; beyond it exp() overflows.
DELTA_CLAMP = math.log(1000.0 / 16)


def box_area(boxes: Tensor) -> Tensor:
    """Return the areas of boxes, zero for reversed ones.

    Args:
        boxes: (..., 4) xyxy.

    Returns:
        (...) in square pixels.
    """
    boxes = as_float(boxes)
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    """Return the pairwise intersection areas (..., N, M), by planes of a coordinate, for speed."""
    ax1, ay1, ax2, ay2 = as_float(a).movedim(-1, 0).contiguous()[..., None]
    bx1, by1, bx2, by2 = as_float(b).movedim(-1, 0).contiguous()[..., None, :]
    wide = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    return wide * (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)


def _iou_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    inter = _intersection(a, b)
    union = box_area(a)[..., :, None] + box_area(b)[..., None, :] - inter
    # Two empty boxes have no overlap: 0, not 0 / 0.
    return torch.where(union > 0, inter / union.clamp(min=torch.finfo(union.dtype).tiny), 0), union


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the pairwise intersection over union.

    Args:
        a: (..., N, 4) xyxy.
        b: (..., M, 4) xyxy.

    Returns:
        (..., N, M) in [0, 1]; 0 where both boxes are empty.
    """
    return _iou_and_union(a, b)[0]


def box_ioa(a: Tensor, b: Tensor) -> Tensor:
    """Return the pairwise intersection over the area of `a`: the overlap used with crowd regions.

    Args:
        a: (..., N, 4) xyxy.
        b: (..., M, 4) xyxy.

    Returns:
        (..., N, M) in [0, 1]; 0 where the box of `a` is empty.
    """
    area = box_area(a)[..., :, None]
    inter = _intersection(a, b)
    return torch.where(area > 0, inter / area.clamp(min=torch.finfo(area.dtype).tiny), 0)


def _hull(a: Tensor, b: Tensor) -> Tensor:
    """Return (..., N, M, 2) width and height of the smallest box around each pair."""
    a, b = as_float(a), as_float(b)
    low = torch.minimum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.maximum(a[..., :, None, 2:], b[..., None, :, 2:])
    return (high - low).clamp(min=0)


def generalized_box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the pairwise generalized IoU, in [-1, 1].

    Args:
        a: (..., N, 4) xyxy.
        b: (..., M, 4) xyxy.

    Returns:
        (..., N, M).

    Reference: Rezatofighi et al. 2019, algorithm 1.
    """
    iou, union = _iou_and_union(a, b)
    hull = _hull(a, b).prod(-1)
    return iou - torch.where(hull > 0, (hull - union) / hull.clamp(min=1e-12), 0)


def distance_box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the pairwise distance IoU: IoU minus the normalised distance of the centres.

    Args:
        a: (..., N, 4) xyxy.
        b: (..., M, 4) xyxy.

    Returns:
        (..., N, M).

    Reference: Zheng et al. 2020, eq. 7.
    """
    a, b = as_float(a), as_float(b)
    diagonal = _hull(a, b).square().sum(-1)
    centre_a = (a[..., :2] + a[..., 2:]) / 2
    centre_b = (b[..., :2] + b[..., 2:]) / 2
    distance = (centre_a[..., :, None, :] - centre_b[..., None, :, :]).square().sum(-1)
    return box_iou(a, b) - torch.where(diagonal > 0, distance / diagonal.clamp(min=1e-12), 0)


def complete_box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the pairwise complete IoU: distance IoU minus the difference of aspect ratios.

    Args:
        a: (..., N, 4) xyxy.
        b: (..., M, 4) xyxy.

    Returns:
        (..., N, M).

    Reference: Zheng et al. 2020, eq. 8 to 11; the weight of the aspect term has no gradient.
    """
    a, b = as_float(a), as_float(b)
    iou = box_iou(a, b)
    size_a = (a[..., 2:] - a[..., :2]).clamp(min=1e-12)
    size_b = (b[..., 2:] - b[..., :2]).clamp(min=1e-12)
    angle_a = torch.atan(size_a[..., 0] / size_a[..., 1])
    angle_b = torch.atan(size_b[..., 0] / size_b[..., 1])
    v = (4 / math.pi**2) * (angle_a[..., :, None] - angle_b[..., None, :]).square()
    with torch.no_grad():
        alpha = v / (1 - iou + v).clamp(min=1e-12)
    return distance_box_iou(a, b) - alpha * v


def clip_boxes(boxes: Tensor, size: tuple[int, int] | Tensor, border: float = 0.0) -> Tensor:
    """Return the boxes moved inside the image.

    Args:
        boxes: (..., 4) xyxy.
        size: (height, width) in pixels, or a tensor (..., 2) that broadcasts against
            `boxes[..., :2]`, for one size per image.
        border: pixels at the border of the image that remain of a box beyond it (mmdetection 1).

    Returns:
        (..., 4) xyxy.
    """
    boxes = as_float(boxes)
    if border:
        limit = size if isinstance(size, Tensor) else torch.tensor(size, device=boxes.device)
        last = limit.flip(-1).to(boxes.dtype)
        low = torch.minimum(boxes[..., :2].clamp(min=0), last - border)
        high = torch.minimum(boxes[..., 2:].clamp(min=border), last)
        return torch.cat([low, high], -1)
    if isinstance(size, Tensor):
        limit = size.flip(-1).to(boxes.dtype)
        limit = torch.cat([limit, limit], -1)
        return torch.minimum(boxes.clamp(min=0), limit)
    height, width = size
    x = boxes[..., 0::2].clamp(0, width)
    y = boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], -1).flatten(-2)


def boxes_xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Return (..., 4) boxes as centre x, centre y, width, height."""
    boxes = as_float(boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def boxes_cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Return (..., 4) centre x, centre y, width, height as xyxy."""
    boxes_cxcywh = as_float(boxes_cxcywh)
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def boxes_xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Return (..., 4) boxes as left, top, width, height (COCO)."""
    boxes = as_float(boxes)
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], -1)


def boxes_xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    """Return (..., 4) left, top, width, height (COCO) as xyxy."""
    boxes_xywh = as_float(boxes_xywh)
    return torch.cat([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], -1)


def encode_deltas(
    boxes: Tensor, anchors: Tensor, weights: tuple[float, float, float, float] = (1, 1, 1, 1)
) -> Tensor:
    """Return the regression targets that lead from `anchors` to `boxes`.

    Args:
        boxes: (..., 4) xyxy, what the deltas should reach.
        anchors: (..., 4) xyxy, where they start.
        weights: factors of dx, dy, dw, dh.

    Returns:
        (..., 4) dx, dy, dw, dh. Sides below 1e-6 pixels count as 1e-6, so empty boxes (and the
        padding of targets) give finite values.

    Reference: Girshick et al. 2014 (R-CNN), eq. 6 to 9; Ren et al. 2015, eq. 2.
    """
    boxes, anchors = as_float(boxes), as_float(anchors)
    # max(side, tiny) leaves every real side untouched to the bit.
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-6)
    centre = boxes[..., :2] + 0.5 * (boxes[..., 2:] - boxes[..., :2])
    anchor_size = (anchors[..., 2:] - anchors[..., :2]).clamp(min=1e-6)
    anchor_centre = anchors[..., :2] + 0.5 * (anchors[..., 2:] - anchors[..., :2])
    shift = (centre - anchor_centre) / anchor_size * _factor(weights[:2], boxes)
    return torch.cat([shift, torch.log(size / anchor_size) * _factor(weights[2:], boxes)], -1)


def decode_deltas(
    deltas: Tensor,
    anchors: Tensor,
    weights: tuple[float, float, float, float] = (1, 1, 1, 1),
    clamp: float | tuple[float, float] = DELTA_CLAMP,
) -> Tensor:
    """Return the boxes that `deltas` make of `anchors`: the inverse of `encode_deltas`.

    Args:
        deltas: (..., 4) dx, dy, dw, dh.
        anchors: (..., 4) xyxy, broadcast against `deltas`.
        weights: factors of dx, dy, dw, dh.
        clamp: largest dw and dh, or the smallest and the largest.

    Returns:
        (..., 4) xyxy.

    Reference: Girshick et al. 2014 (R-CNN), eq. 1 to 4.
    """
    deltas, anchors = as_float(deltas), as_float(anchors)
    low, high = clamp if isinstance(clamp, tuple) else (None, clamp)
    anchor_size = anchors[..., 2:] - anchors[..., :2]
    anchor_centre = anchors[..., :2] + 0.5 * anchor_size
    shift = deltas[..., :2] / _factor(weights[:2], deltas)
    log_size = (deltas[..., 2:] / _factor(weights[2:], deltas)).clamp(min=low, max=high)
    centre = shift * anchor_size + anchor_centre
    half = 0.5 * (torch.exp(log_size) * anchor_size)
    return torch.cat([centre - half, centre + half], -1)


def _factor(weights: tuple[float, ...], like: Tensor) -> float | Tensor:
    """Return the factors of both axes: where they are one number, no card is waited for."""
    return weights[0] if weights[0] == weights[1] else like.new_tensor(weights)
