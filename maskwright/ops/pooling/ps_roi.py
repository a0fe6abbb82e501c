"""Position-sensitive RoI pooling (Dai et al. 2016, R-FCN): every bin has score maps of its own.

Same numbers and gradients as `torchvision.ops.ps_roi_pool` and `ps_roi_align`; this includes that
its pooling leaves out the last line and column of the map, while the gradient reaches them, as the
authors' does. On the CPU both are weighted gathers on a plan of `roi_plan`, as `roi_align` is: the
maps of one bin lie together in the table, so a bin sums rows that hold all classes. On other
devices torchvision's kernels run, by its own functions: the gradient is made in its Python part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import box_index, check_boxes, check_images, check_maps, check_size, compute_dtype
from ..operators import operator
from .roi_gather import gather, only_finite, scatter
from .roi_plan import MapInfo, Plan, Sampling


def ps_roi_pool(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    *,
    stride: int,
    output_size: int | tuple[int, int],
) -> Tensor:
    """Average the whole pixels of each bin, each bin in score maps of its own.

    Args:
        features: (B, C * h * w, H, W): bin (i, j) of class c reads channel (c * h + i) * w + j.
        boxes: (R, 4) xyxy in input pixels; corners are rounded to whole map pixels; zeros for
            one that is not finite. No gradient flows to them.
        batch_index: (R,) integers, image of each box.
        stride: input pixels per pixel of the map.
        output_size: bins (h, w), or one number for both.

    Returns:
        (R, C, h, w) in the type of `features`; 0 for bins outside the map.

    Raises:
        ValueError: shapes, types or options that do not fit together, a map without pixels.

    Reference: Dai et al. 2016, eq. 1.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 40.0, 30.0]])
        >>> index = torch.zeros(1, dtype=torch.int64)
        >>> ps_roi_pool(torch.rand(1, 18, 16, 16), boxes, index, stride=4, output_size=3).shape
        torch.Size([1, 2, 3, 3])
    """
    size = check_size(output_size)
    boxes, batch_index = _check(features, boxes, batch_index, stride, size)
    if features.device.type != "cpu":
        from torchvision.ops import ps_roi_pool as torchvision_ps_roi_pool

        dtype = compute_dtype(features)
        rois = torch.cat([batch_index[:, None].to(dtype), boxes.to(dtype)], 1)
        kernel: Tensor = torchvision_ps_roi_pool(features.to(dtype), rois, size, 1 / stride)
        return kernel.to(features.dtype)
    out: Tensor = _ps_roi(features, boxes, batch_index, stride, list(size), 1, True)
    return out


def ps_roi_align(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    *,
    stride: int,
    output_size: int | tuple[int, int],
    sampling_ratio: int = 2,
) -> Tensor:
    """Average bilinear samples of each bin, each bin in score maps of its own.

    Args:
        features: see `ps_roi_pool`.
        boxes: (R, 4) xyxy in input pixels, sampled with the half-pixel shift of `roi_align`.
        batch_index: (R,) integers, image of each box.
        stride: input pixels per pixel of the map.
        output_size: bins (h, w), or one number for both.
        sampling_ratio: samples a bin along each axis; 0: adaptive, see `roi_align`.

    Returns:
        (R, C, h, w) in the type of `features`.

    Raises:
        ValueError: shapes, types or options that do not fit together, a map without pixels.

    Reference: Dai et al. 2016, eq. 1, with the sampling of He et al. 2017.
    """
    size = check_size(output_size)
    boxes, batch_index = _check(features, boxes, batch_index, stride, size)
    if sampling_ratio < 0:
        raise ValueError(f"sampling_ratio: expected 0 (adaptive) or more, got {sampling_ratio}")
    if features.device.type != "cpu":
        from torchvision.ops import ps_roi_align as torchvision_ps_roi_align

        dtype = compute_dtype(features)
        rois = torch.cat([batch_index[:, None].to(dtype), boxes.to(dtype)], 1)
        ratio = sampling_ratio or -1
        kernel: Tensor = torchvision_ps_roi_align(features.to(dtype), rois, size, 1 / stride, ratio)
        return kernel.to(features.dtype)
    out: Tensor = _ps_roi(features, boxes, batch_index, stride, list(size), sampling_ratio, False)
    return out


def _check(
    features: Tensor, boxes: Tensor, batch_index: Tensor, stride: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return the boxes as floats and the index as int64."""
    check_maps(features)
    if stride <= 0:
        raise ValueError(f"stride: expected a positive number, got {stride}")
    bins = size[0] * size[1]
    if features.shape[1] % bins:
        raise ValueError(
            f"features: expected maps (B, C * {bins}, H, W), got {tuple(features.shape)}"
        )
    boxes = check_boxes(boxes)
    return boxes, box_index("batch_index", batch_index, boxes)


def _plan(
    shape: Sequence[int],
    boxes: Tensor,
    batch_index: Tensor,
    stride: int,
    how: Sampling,
    like: Tensor,
) -> Plan:
    info = MapInfo((shape[0], shape[1], shape[2], shape[3]), stride, False)
    boxes, level = only_finite(boxes, torch.zeros_like(batch_index))
    return Plan(boxes, batch_index, level, [info], how, compute_dtype(like))


@operator("maskwright::ps_roi")
def _ps_roi(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    stride: int,
    output_size: Sequence[int],
    sampling_ratio: int,
    whole: bool,
) -> Tensor:
    h, w = output_size
    classes = features.shape[1] // (h * w)
    rows = features.new_empty(boxes.shape[0], h, w, classes)
    if rows.numel():
        check_images(batch_index, features)
        how = Sampling((h, w), sampling_ratio, True, whole, margin=1, parts=h * w)
        plan = _plan(features.shape, boxes, batch_index, stride, how, features)
        gather([features], plan, rows)
    return rows.permute(0, 3, 1, 2)


@operator("maskwright::ps_roi_backward")
def _ps_roi_backward(
    grad: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    shape: Sequence[int],
    stride: int,
    sampling_ratio: int,
    whole: bool,
) -> Tensor:
    found: Tensor | None = None
    if grad.numel():
        h, w = grad.shape[2:]
        how = Sampling((h, w), sampling_ratio, True, whole, margin=0, parts=h * w)
        plan = _plan(shape, boxes, batch_index, stride, how, grad)
        (found,) = scatter(grad.permute(0, 2, 3, 1), plan)
    return grad.new_zeros(shape) if found is None else found.to(grad.dtype)


@_ps_roi.register_fake
def _fake(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    stride: int,
    output_size: list[int],
    sampling_ratio: int,
    whole: bool,
) -> Tensor:
    h, w = output_size
    rows = features.new_empty(boxes.shape[0], h, w, features.shape[1] // (h * w))
    return rows.permute(0, 3, 1, 2)


@_ps_roi_backward.register_fake
def _fake_backward(
    grad: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    shape: list[int],
    stride: int,
    sampling_ratio: int,
    whole: bool,
) -> Tensor:
    return grad.new_empty(shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, boxes, batch_index, stride, _, ratio, whole = inputs
    ctx.save_for_backward(boxes, batch_index)
    ctx.options = list(features.shape), stride, ratio, whole


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (_ps_roi_backward(grad, *ctx.saved_tensors, *ctx.options), *[None] * 6)


_ps_roi.register_autograd(_backward, setup_context=_setup_context)
