"""Multi-level RoIAlign (He et al. 2017, Mask R-CNN, sec. 3) as weighted gathers in plain PyTorch.

Same numbers as `torchvision.ops.roi_align`, multi-threaded on the CPU in both directions;
`roi_plan` says how. The result has the channels innermost in memory, so that a head whose first
layer takes its columns in the order (h, w, C) reads it as a view:
`out.permute(0, 2, 3, 1).flatten(1)`. On other devices the operator calls torchvision's kernels,
which are exact and fast there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..checks import box_index, check_boxes, check_images, check_maps, check_size, compute_dtype
from ..operators import kernels, operator
from .roi_gather import empty_map, gather, is_rows, only_finite, product, scatter
from .roi_plan import MapInfo, Plan, Sampling

# A map that is not channels-last must be copied first, which few boxes do not repay: those go to
# torchvision's kernel, whose work a bin costs as much as copying this many pixels on one thread.
_KERNEL_FORWARD = 20.0
_KERNEL_BACKWARD = 25.0
# From so many bins and boxes on, products with dense weights are faster than the kernel.
_PRODUCT_BINS, _PRODUCT_BOXES = 100, 4
# Fixed cost of a plan, in pixels copied.
_KERNEL_MARGIN = 8000


def roi_align(
    features: Tensor | Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    *,
    strides: Sequence[int],
    output_size: int | tuple[int, int],
    sampling_ratio: int = 2,
    aligned: bool = True,
    levels: Tensor | None = None,
) -> Tensor:
    """Sample features inside boxes at a fixed size, each box from one map of the pyramid.

    Args:
        features: one map (B, C, H, W) or several, fine to coarse. Read fastest in channels-last
            memory order; gradients arrive in the order of the map.
        boxes: (R, 4) xyxy in input pixels; zeros for one that is not finite. No gradient flows to
            them.
        batch_index: (R,) integers, image of each box.
        strides: input pixels per pixel of each map.
        output_size: bins (h, w), or one number for both.
        sampling_ratio: samples a bin along each axis; 0: adaptive, the box side over the number of
            bins, rounded up.
        aligned: boxes shifted by half a pixel, so that pixel centres are at half-integers. False:
            the older rule without shift, sides of at least one pixel.
        levels: (R,) integers, index into `features`; one outside of them gives zeros. None: the
            rule of FPN, clamped to the maps given (as torchvision, without P6, when P2 to P5 are).

    Returns:
        (R, C, h, w) in the type of `features`, channels innermost in memory. Half types are
        computed in float32.

    Raises:
        ValueError: shapes, types or options that do not fit together, a map without pixels.

    Reference: He et al. 2017, sec. 3 (RoIAlign); Lin et al. 2017, eq. 1 (levels).

    Example:
        >>> maps = [torch.rand(1, 8, 64 // s, 64 // s) for s in (4, 8, 16, 32)]
        >>> boxes = torch.tensor([[4.0, 4.0, 40.0, 30.0]])
        >>> index = torch.zeros(1, dtype=torch.int64)
        >>> roi_align(maps, boxes, index, strides=(4, 8, 16, 32), output_size=7).shape
        torch.Size([1, 8, 7, 7])
    """
    maps = [features] if isinstance(features, Tensor) else list(features)
    size, strides = check_size(output_size), list(strides)
    _check(maps, strides, sampling_ratio, by_size=levels is None)
    boxes = check_boxes(boxes)
    batch_index = box_index("batch_index", batch_index, boxes)
    levels = fpn_levels(boxes, strides) if levels is None else box_index("levels", levels, boxes)
    out: Tensor = _roi_align(
        maps, boxes, batch_index, levels, strides, list(size), sampling_ratio, aligned
    )
    return out


def _check(maps: list[Tensor], strides: list[int], ratio: int, *, by_size: bool) -> None:
    """Check maps and options; `by_size`: the boxes choose their maps by the FPN rule."""
    if not maps:
        raise ValueError("features: expected at least one map, got none")
    check_maps(*maps)
    if len(strides) != len(maps) or min(strides) <= 0:
        raise ValueError(f"strides: expected {len(maps)} positive, one per map, got {strides}")
    if ratio < 0:
        raise ValueError(f"sampling_ratio: expected 0 (adaptive) or more, got {ratio}")
    if by_size and any(b != 2 * a for a, b in pairwise(strides)):
        raise ValueError(
            f"strides: the FPN rule needs maps that halve from one to the next, got {strides}; "
            "pass levels"
        )


LEVEL_RULES = ("torchvision", "detectron2", "detectron", "mmdetection")


def fpn_levels(boxes: Tensor, strides: Sequence[int], rule: str = "torchvision") -> Tensor:
    """Return (R,) the map of each box (Lin et al. 2017, eq. 1).

    The libraries add their small number, against rounding, at different places, and so differ where
    a box is as large as the border between two levels.

    Args:
        boxes: (R, 4) xyxy in input pixels. One with a reversed side has no size and no map: -1.
        strides: of the maps, fine to coarse.
        rule: one of `LEVEL_RULES`.
    """
    if len(strides) == 1:
        return torch.zeros(boxes.shape[0], dtype=torch.int64, device=boxes.device)
    low, high = round(math.log2(strides[0])), round(math.log2(strides[-1]))
    side = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    if rule in ("detectron2", "detectron"):
        k = torch.floor(4 + torch.log2(side / 224 + (1e-8 if rule == "detectron2" else 1e-6)))
    elif rule == "mmdetection":
        k = torch.floor(torch.log2(side / 56 + 1e-6)) + 2
    else:
        k = torch.floor(4 + torch.log2(side / 224) + 1e-6)
    return (k.clamp(low, high) - low).nan_to_num(-1).long()


@operator("maskwright::roi_align")
def _roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    first = features[0]
    dtype = compute_dtype(first)
    rows = first.new_empty(boxes.shape[0], *output_size, first.shape[1])
    result = rows.permute(0, 3, 1, 2)
    if rows.numel() == 0:
        return result
    check_images(batch_index, first)
    maps = [
        MapInfo(_four(m.shape), stride, is_rows(m) and m.dtype == dtype)
        for m, stride in zip(features, strides, strict=True)
    ]
    how = Sampling((output_size[0], output_size[1]), sampling_ratio, aligned)
    boxes, levels = only_finite(boxes, levels)
    by_kernel, rest = _split(levels, maps, how, _kernel_cost(first, _KERNEL_FORWARD))
    if rest is None:
        rows.zero_()
    else:
        gather(features, Plan(boxes, batch_index, rest, maps, how, dtype), rows)
    for level, at in by_kernel:
        if _is_product(features[level], boxes[at], how, dtype):
            part = product(features[level], boxes[at], batch_index[at], maps[level], how)
        else:
            rois = _rois(boxes[at], batch_index[at], how, dtype)
            part = kernels().roi_align(
                features[level].to(dtype), rois, 1 / strides[level], *how.size, how.ratio, aligned
            )
        result[at] = part.to(result.dtype)
    return result


@operator("maskwright::roi_align_backward")
def _roi_align_backward(
    grad: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    levels: Tensor,
    shapes: Sequence[int],
    channels_last: Sequence[bool],
    strides: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    maps = _maps(shapes, strides, channels_last)
    dtype = compute_dtype(grad)
    grads: list[Tensor | None] = [None] * len(maps)
    if grad.numel() > 0:
        how = Sampling((grad.shape[2], grad.shape[3]), sampling_ratio, aligned)
        boxes, levels = only_finite(boxes, levels)
        by_kernel, rest = _split(levels, maps, how, _kernel_cost(grad, _KERNEL_BACKWARD))
        if rest is not None:
            plan = Plan(boxes, batch_index, rest, maps, how, dtype)
            grads = scatter(grad.permute(0, 2, 3, 1), plan)
        for level, at in by_kernel:
            rois = _rois(boxes[at], batch_index[at], how, dtype)
            part = kernels()._roi_align_backward(
                grad[at].to(dtype),
                rois,
                1 / strides[level],
                *how.size,
                *maps[level].shape,
                how.ratio,
                aligned,
            )
            grads[level] = (
                empty_map(maps[level], part).copy_(part) if channels_last[level] else part
            )
    return [
        empty_map(info, grad).zero_() if g is None else g.to(grad.dtype)
        for info, g in zip(maps, grads, strict=True)
    ]


def _split(
    levels: Tensor, maps: list[MapInfo], how: Sampling, cost: float
) -> tuple[list[tuple[int, Tensor | slice]], Tensor | None]:
    """Choose the maps whose boxes torchvision's kernel takes.

    Returns:
        Pairs (level, its boxes) for the kernel, and the levels without them (None: none is left).
    """
    by_kernel: list[tuple[int, Tensor | slice]] = []
    if levels.device.type != "cpu":  # all by the kernel, for one wait instead of one for each map
        levels = levels.masked_fill(levels >= len(maps), -1)
        counts = (levels[:, None] == torch.arange(len(maps), device=levels.device)).sum(0).tolist()
        order = levels.argsort(stable=True)[len(levels) - sum(counts) :]  # behind those of no map
        pairs = zip(counts, order.split(counts), strict=True)
        return [
            (level, slice(None) if count == len(levels) else at)
            for level, (count, at) in enumerate(pairs)
            if count
        ], None
    bins = how.size[0] * how.size[1]
    known = levels.clamp(-1, len(maps)) + 1
    counts = torch.bincount(known, minlength=len(maps) + 2).tolist()[1:-1]
    rest = levels
    for level, (info, count) in enumerate(zip(maps, counts, strict=True)):
        images, _, height, width = info.shape
        few = count * bins * cost < images * height * width + _KERNEL_MARGIN
        if count and few and not (info.is_rows and cost):
            whole = count == len(levels)
            by_kernel.append(
                (level, slice(None) if whole else torch.nonzero(levels == level)[:, 0])
            )
            rest = rest.masked_fill(levels == level, -1)
            counts[level] = 0
    return by_kernel, rest if any(counts) else None


def _kernel_cost(tensor: Tensor, cost: float) -> float:
    """Return the kernel's cost of a bin: nothing on an accelerator, which is its place."""
    if tensor.device.type == "cpu" and tensor.dtype != compute_dtype(tensor):
        return math.inf
    if tensor.device.type == "cpu":
        return cost
    return 0.0


def _is_product(fmap: Tensor, boxes: Tensor, how: Sampling, dtype: torch.dtype) -> bool:
    """Whether products take less time than torchvision's kernel: several boxes of many bins."""
    many = how.size[0] * how.size[1] >= _PRODUCT_BINS and len(boxes) >= _PRODUCT_BOXES
    return many and fmap.device.type == "cpu" and fmap.dtype == dtype and how.ratio > 0


def _rois(boxes: Tensor, batch_index: Tensor, how: Sampling, dtype: torch.dtype) -> Tensor:
    """Return boxes as torchvision's kernels take them, (R, 5) with the image first."""
    boxes = boxes.to(dtype)
    if how.ratio == 0 and how.aligned:
        # A reversed box has no samples, as an empty one; the CPU kernel fails on a negative number.
        boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, :2], boxes[:, 2:])], 1)
    return torch.cat([batch_index[:, None].to(dtype), boxes], 1)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, boxes, batch_index, levels, strides, _, ratio, aligned = inputs
    ctx.save_for_backward(boxes, batch_index, levels)
    ctx.shapes = [side for m in features for side in m.shape]
    ctx.channels_last = [is_rows(m) for m in features]
    ctx.strides, ctx.ratio, ctx.aligned = strides, ratio, aligned


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grads = _roi_align_backward(
        grad, *ctx.saved_tensors, ctx.shapes, ctx.channels_last, ctx.strides, ctx.ratio, ctx.aligned
    )
    return (grads, *[None] * 7)


_roi_align.register_autograd(_backward, setup_context=_setup_context)


@_roi_align.register_fake
def _fake(
    features: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    h, w = output_size
    return features[0].new_empty(boxes.shape[0], h, w, features[0].shape[1]).permute(0, 3, 1, 2)


@_roi_align_backward.register_fake
def _fake_backward(
    grad: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    levels: Tensor,
    shapes: Sequence[int],
    channels_last: Sequence[bool],
    strides: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    return [empty_map(info, grad) for info in _maps(shapes, strides, channels_last)]


def _maps(
    shapes: Sequence[int], strides: Sequence[int], channels_last: Sequence[bool]
) -> list[MapInfo]:
    return [
        MapInfo(_four(shapes[4 * i : 4 * i + 4]), stride, rows)
        for i, (stride, rows) in enumerate(zip(strides, channels_last, strict=True))
    ]


def _four(sides: Sequence[int]) -> tuple[int, int, int, int]:
    return (sides[0], sides[1], sides[2], sides[3])
