"""Multi-level RoIAlign (He et al. 2017, Mask R-CNN, sec. 3) as weighted gathers in plain PyTorch.

Same numbers as `torchvision.ops.roi_align`, multi-threaded on the CPU in both directions;
`roi_plan` says how. The result has the channels innermost in memory, so that a head whose first
layer takes its columns in the order (h, w, C) reads it as a view:
`out.permute(0, 2, 3, 1).flatten(1)`. On other devices the operator calls torchvision's kernels,
which are exact and fast there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .roi_plan import BUFFER_BYTES, MapInfo, Plan, Run, Sampling


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
        boxes: (R, 4) xyxy in input pixels. No gradient flows to them.
        batch_index: (R,) int64, image of each box.
        strides: input pixels per pixel of each map.
        output_size: bins (h, w), or one number for both.
        sampling_ratio: samples a bin along each axis; 0: adaptive, the box side over the number of
            bins, rounded up.
        aligned: boxes shifted by half a pixel, so that pixel centres are at half-integers. False:
            the older rule without shift, sides of at least one pixel.
        levels: (R,) int64 index into `features`; an index outside of them gives zeros. None: the
            rule of FPN, clamped to the maps given (as torchvision, without P6, when P2 to P5 are).

    Returns:
        (R, C, h, w) in the type of `features`, channels innermost in memory. Half types are
        computed in float32.

    Raises:
        ValueError: shapes or options that do not fit together.

    Reference: He et al. 2017, sec. 3 (RoIAlign); Lin et al. 2017, eq. 1 (levels).

    Example:
        >>> maps = [torch.rand(1, 8, 64 // s, 64 // s) for s in (4, 8, 16, 32)]
        >>> boxes = torch.tensor([[4.0, 4.0, 40.0, 30.0]])
        >>> index = torch.zeros(1, dtype=torch.int64)
        >>> roi_align(maps, boxes, index, strides=(4, 8, 16, 32), output_size=7).shape
        torch.Size([1, 8, 7, 7])
    """
    maps = [features] if isinstance(features, Tensor) else list(features)
    size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    strides = list(strides)
    _check(maps, boxes, batch_index, strides, size, sampling_ratio, levels)
    if levels is None:
        levels = _fpn_levels(boxes, strides)
    out: Tensor = _roi_align(
        maps, boxes, batch_index, levels, strides, list(size), sampling_ratio, aligned
    )
    return out


def _check(
    maps: list[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    strides: list[int],
    size: tuple[int, ...],
    ratio: int,
    levels: Tensor | None,
) -> None:
    if not maps:
        raise ValueError("features: expected at least one map, got none")
    first = maps[0]
    for fmap in maps:
        if fmap.dim() != 4 or fmap.shape[:2] != first.shape[:2]:
            shapes = [tuple(m.shape) for m in maps]
            raise ValueError(f"features: expected (B, C, H, W) with equal B and C, got {shapes}")
        if fmap.dtype != first.dtype or not fmap.is_floating_point():
            types = [str(m.dtype) for m in maps]
            raise ValueError(f"features: expected one floating-point type, got {types}")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes: expected (R, 4) xyxy, got {tuple(boxes.shape)}")
    for name, index in (("batch_index", batch_index), ("levels", levels)):
        if index is not None and (index.dim() != 1 or index.shape[0] != boxes.shape[0]):
            expected = f"({boxes.shape[0]},) as boxes"
            raise ValueError(f"{name}: expected {expected}, got {tuple(index.shape)}")
        if index is not None and (index.is_floating_point() or index.dtype == torch.bool):
            raise ValueError(f"{name}: expected integers, got {index.dtype}")
    if len(strides) != len(maps) or min(strides) <= 0:
        raise ValueError(f"strides: expected {len(maps)} positive, one per map, got {strides}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"output_size: expected one or two positive integers, got {size}")
    if ratio < 0:
        raise ValueError(f"sampling_ratio: expected 0 (adaptive) or more, got {ratio}")
    if levels is None and any(b != 2 * a for a, b in pairwise(strides)):
        raise ValueError(
            f"strides: the FPN rule needs maps that halve from one to the next, got {strides}; "
            "pass levels"
        )


def _fpn_levels(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Return (R,) the map of each box, as torchvision's LevelMapper (Lin et al. 2017, eq. 1).

    A box with one side reversed has no size and hence no map: -1.
    """
    if len(strides) == 1:
        return torch.zeros(boxes.shape[0], dtype=torch.int64, device=boxes.device)
    low, high = round(math.log2(strides[0])), round(math.log2(strides[-1]))
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    k = torch.floor(4 + torch.log2(side / 224) + 1e-6).clamp(low, high)
    return (k - low).nan_to_num(-1).long()


@torch.library.custom_op("maskwright::roi_align", mutates_args=())
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
    channels, how = first.shape[1], _sampling(output_size, sampling_ratio, aligned)
    rows = first.new_empty(boxes.shape[0], *output_size, channels)
    result = rows.permute(0, 3, 1, 2)
    if result.numel() == 0:
        return result
    if first.device.type != "cpu":
        return _kernel_forward(features, boxes, batch_index, levels, strides, how, result)
    bins = how.size[0] * how.size[1]
    out = rows.view(-1, bins, channels)
    dtype = _compute_dtype(first)
    maps = [
        MapInfo(_shape(m.shape), stride, _is_rows(m) and m.dtype == dtype)
        for m, stride in zip(features, strides, strict=True)
    ]
    plan = Plan(boxes, batch_index, levels, maps, how, dtype)
    out[plan.left_out] = 0
    for run in (run for runs in plan.passes() for run in runs):
        width = channels if run.canvas.image is None else _width(channels, run.canvas.rows)
        for cols in _columns(channels, width):
            table = run.canvas.load(features[run.canvas.level], cols, dtype)
            for chunk in run.chunks:
                offsets = torch.arange(0, len(chunk.index) + 1, chunk.fan, dtype=torch.int32)
                part = _sum_rows(table, chunk.index, offsets, chunk.weight).to(out.dtype)
                out[:, :, cols].index_copy_(0, chunk.rois, part.view(-1, bins, part.shape[1]))
    return result


@torch.library.custom_op("maskwright::roi_align_backward", mutates_args=())
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
    how = _sampling(grad.shape[2:], sampling_ratio, aligned)
    maps = [
        MapInfo(_shape(shapes[4 * i : 4 * i + 4]), stride, rows)
        for i, (stride, rows) in enumerate(zip(strides, channels_last, strict=True))
    ]
    if grad.device.type != "cpu":
        return _kernel_backward(grad, boxes, batch_index, levels, maps, how)
    dtype = _compute_dtype(grad)
    grads: list[Tensor | None] = [None] * len(maps)
    if grad.numel() > 0:
        for runs in Plan(boxes, batch_index, levels, maps, how, dtype).passes():
            _add_pass(grads, grad.permute(0, 2, 3, 1), runs, maps, dtype)
    return [
        (_empty_map(info, grad).zero_() if g is None else g.to(grad.dtype))
        for info, g in zip(maps, grads, strict=True)
    ]


def _add_pass(
    grads: list[Tensor | None],
    grad: Tensor,
    runs: list[Run],
    maps: list[MapInfo],
    dtype: torch.dtype,
) -> None:
    """Add the contribution of some boxes to the gradients of the maps; `grad` (R, h, w, C)."""
    bins, channels = grad.shape[1] * grad.shape[2], grad.shape[3]
    in_place = grad.is_contiguous() and grad.dtype == dtype
    if in_place and all(run.canvas.image is None for run in runs):
        width = channels
    else:
        width = _width(channels, max(grad.shape[0] * bins, *(run.canvas.rows for run in runs)))
    by_pixel = [(run.canvas, *run.by_pixel(bins)) for run in runs]
    for cols in _columns(channels, width):
        source = grad[..., cols].to(dtype).reshape(-1, cols.stop - cols.start).contiguous()
        for canvas, rows, offsets, weight in by_pixel:
            table = _sum_rows(source, rows, offsets, weight)
            info, known = maps[canvas.level], grads[canvas.level]
            if known is None and canvas.image is None and width == channels:
                b, _, h, w = info.shape
                grads[canvas.level] = table.view(b, h, w, channels).permute(0, 3, 1, 2)
                continue
            if known is None:
                known = grads[canvas.level] = _empty_map(info, source).zero_()
            canvas.add(known, table, cols)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, boxes, batch_index, levels, strides, _, ratio, aligned = inputs
    ctx.save_for_backward(boxes, batch_index, levels)
    ctx.shapes = [side for m in features for side in m.shape]
    ctx.channels_last = [_is_rows(m) for m in features]
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
def _empty_grads(
    grad: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    levels: Tensor,
    shapes: Sequence[int],
    channels_last: Sequence[bool],
    *options: Any,
) -> list[Tensor]:
    return [
        _empty_map(MapInfo(_shape(shapes[4 * i : 4 * i + 4]), 1, rows), grad)
        for i, rows in enumerate(channels_last)
    ]


def _kernel_forward(
    features: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    how: Sampling,
    result: Tensor,
) -> Tensor:
    """Fill `result` by torchvision's kernel of the device."""
    from torchvision.ops import roi_align as kernel

    result.zero_()
    rois = torch.cat([batch_index[:, None].to(boxes.dtype), boxes], 1)
    for level, (fmap, stride) in enumerate(zip(features, strides, strict=True)):
        at = torch.nonzero(levels == level)[:, 0]
        fmap = fmap.to(_compute_dtype(fmap))
        part = kernel(fmap, rois[at].to(fmap), how.size, 1 / stride, how.ratio, how.aligned)
        result[at] = part.to(result.dtype)
    return result


def _kernel_backward(
    grad: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    levels: Tensor,
    maps: list[MapInfo],
    how: Sampling,
) -> list[Tensor]:
    """Return the gradients of the maps by torchvision's kernel of the device."""
    import torchvision  # noqa: F401  (registers the operator)

    rois = torch.cat([batch_index[:, None].to(boxes.dtype), boxes], 1)
    grads = []
    for level, info in enumerate(maps):
        at = torch.nonzero(levels == level)[:, 0]
        part = grad[at].to(_compute_dtype(grad))
        full = torch.ops.torchvision._roi_align_backward(
            part, rois[at].to(part), 1 / info.stride, *how.size, *info.shape, how.ratio, how.aligned
        )
        grads.append(_empty_map(info, grad).copy_(full))
    return grads


def _sum_rows(table: Tensor, index: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted sums of the rows index[offsets[i] : offsets[i + 1]] of a table."""
    return torch.embedding_bag(
        table, index, offsets, mode=0, per_sample_weights=weight, include_last_offset=True
    )[0]


def _columns(channels: int, width: int) -> Iterator[slice]:
    for start in range(0, channels, width):
        yield slice(start, min(start + width, channels))


def _width(channels: int, rows: int) -> int:
    """Return how many channels of `rows` float32 rows a buffer holds: whole cache lines."""
    return min(channels, max(16, BUFFER_BYTES // (4 * max(rows, 1)) // 16 * 16))


def _sampling(size: Sequence[int], ratio: int, aligned: bool) -> Sampling:
    return Sampling((size[0], size[1]), ratio, aligned)


def _shape(sides: Sequence[int]) -> tuple[int, int, int, int]:
    return (sides[0], sides[1], sides[2], sides[3])


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _is_rows(fmap: Tensor) -> bool:
    """Whether the pixels of a map lie as contiguous rows of channels."""
    return fmap.permute(0, 2, 3, 1).is_contiguous()


def _empty_map(info: MapInfo, like: Tensor) -> Tensor:
    b, c, h, w = info.shape
    if info.is_rows:
        return like.new_empty(b, h, w, c).permute(0, 3, 1, 2)
    return like.new_empty(b, c, h, w)
