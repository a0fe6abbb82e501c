"""RoIPool (Girshick 2015, Fast R-CNN, sec. 2.1): maxima over a grid of bins quantised to pixels.

Same numbers and gradients as `torchvision.ops.roi_pool`. Without gradients, and with more than a
handful of boxes, it is multi-threaded: maxima of square windows of 1, 2, 4, ... pixels are
tabulated over the map, and the maximum of a bin is that of the few windows which cover it, gathered
as whole rows of channels. With gradients, which need the place of each maximum, and on other
devices, the operator calls torchvision's kernels: tables of places cost more than those kernels do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import box_index, check_boxes, check_images, check_maps, check_size
from ..operators import kernels, operator
from .roi_gather import columns, is_rows, table_width

# Values of a chunk of bins: small enough to stay in the cache.
CHUNK_VALUES = 1 << 20
# What the tables cost, in pixels that torchvision's kernel visits: per call, bin and pixel; and
# what that kernel pays for copying a pixel of a channels-last map.
_FIXED, _PER_BIN, _PER_PIXEL, _COPY = 2500, 3, 3, 10
# Where a box with nan or inf is put, in input pixels; torchvision's kernel reads beyond the map.
_OUTSIDE = -1e6


def roi_pool(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    *,
    stride: int,
    output_size: int | tuple[int, int],
) -> Tensor:
    """Take the maximum of a map over each bin of each box.

    Args:
        features: (B, C, H, W).
        boxes: (R, 4) xyxy in input pixels; the last pixel counts as inside. One that is not finite
            lies outside the map. No gradient flows to them.
        batch_index: (R,) integers, image of each box.
        stride: input pixels per pixel of the map.
        output_size: bins (h, w), or one number for both.

    Returns:
        (R, C, h, w), contiguous, in the type of `features`; 0 for bins outside the map.

    Raises:
        ValueError: shapes, types or options that do not fit together, a map without pixels.

    Reference: Girshick 2015, sec. 2.1.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 40.0, 30.0]])
        >>> index = torch.zeros(1, dtype=torch.int64)
        >>> roi_pool(torch.rand(1, 8, 16, 16), boxes, index, stride=4, output_size=7).shape
        torch.Size([1, 8, 7, 7])
    """
    size = list(check_size(output_size))
    check_maps(features)
    boxes = check_boxes(boxes)
    batch_index = box_index("batch_index", batch_index, boxes)
    if stride <= 0:
        raise ValueError(f"stride: expected a positive number, got {stride}")
    argmax = torch.is_grad_enabled() and features.requires_grad
    out: Tensor = _roi_pool(features, boxes, batch_index, stride, size, argmax)[0]
    return out


@dataclass(frozen=True)
class _Bins:
    """Bins along one axis, clipped to the map: first pixel and length (R, bins).

    A bin outside the map has length 1 on its border, and is `empty`.
    """

    first: Tensor
    length: Tensor
    empty: Tensor

    def __getitem__(self, which: Tensor) -> _Bins:
        return _Bins(self.first[which], self.length[which], self.empty[which])

    def span(self) -> tuple[int, int]:
        """Return first and end pixel of all bins."""
        return int(self.first.min()), int((self.first + self.length).max())


def box_bins(start: Tensor, end: Tensor, bins: int, side: int) -> _Bins:
    """Quantise boxes on one axis, (R,) map pixels each, to bins."""
    low, high = _round(start), _round(end)
    # In floating point, as Caffe and torchvision do: the last bin may reach a pixel further.
    step = (high - low + 1).clamp(min=1) / bins
    edges = torch.arange(bins + 1, dtype=start.dtype) * step[:, None]
    first = (edges[:, :-1].floor() + low[:, None]).clamp(0, side).long()
    stop = (edges[:, 1:].ceil() + low[:, None]).clamp(0, side).long()
    length = stop - first
    return _Bins(first.clamp(max=side - 1), length.clamp(min=1), length < 1)


def _round(value: Tensor) -> Tensor:
    """Round halves away from zero, as C does."""
    whole = value.trunc()
    return whole + torch.where((value - whole).abs() >= 0.5, value.sign(), 0)


@dataclass(frozen=True)
class _Cover:
    """Square windows that cover bins: window (ky, kx) of a bin lies at a row of the table."""

    y: _Bins
    x: _Bins
    power: Tensor  # (n, h, w): windows of 2 ** power pixels a side

    def __getitem__(self, which: Tensor) -> _Cover:
        return _Cover(self.y[which], self.x[which], self.power[which])

    def count(self) -> tuple[Tensor, Tensor]:
        """Return how many windows each bin needs along y and x, (n, h, w)."""
        side = 1 << self.power
        rows = (self.y.length[:, :, None] + side - 1) >> self.power
        return rows, (self.x.length[:, None, :] + side - 1) >> self.power

    def rows(self, crop: tuple[int, int, int, int]) -> Iterator[Tensor]:
        """Yield the table rows (n * h * w,) of one window of each bin after the other."""
        y0, y1, x0, x1 = crop
        side = 1 << self.power
        first_y = self.y.first[:, :, None] - y0
        first_x = self.x.first[:, None, :] - x0
        last_y = first_y + self.y.length[:, :, None] - side
        last_x = first_x + self.x.length[:, None, :] - side
        table = self.power * (y1 - y0)
        rows, columns = self.count()
        for ky in range(int(rows.max())):
            line = (torch.minimum(first_y + ky * side, last_y) + table) * (x1 - x0)
            for kx in range(int(columns.max())):
                yield (torch.minimum(first_x + kx * side, last_x) + line).flatten()


def _cover(y: _Bins, x: _Bins, cells: int) -> _Cover:
    """Choose the windows; `cells` is what one more table costs."""
    shorter = torch.minimum(y.length[:, :, None], x.length[:, None, :])
    power = shorter.to(torch.float32).log2().long()
    best, least = _Cover(y, x, power), None
    for highest in range(int(power.max()) + 1):
        cover = _Cover(y, x, power.clamp(max=highest))
        rows, columns = cover.count()
        cost = int((rows * columns).sum()) + 2 * highest * cells
        if least is None or cost < least:
            best, least = cover, cost
    return best


def _tables(first: Tensor, highest: int) -> Tensor:
    """Return the maxima of windows of 1, 2, ... 2 ** highest pixels a side, as rows.

    Args:
        first: (h, w, c) values.
        highest: power of the largest window.

    Returns:
        ((highest + 1) * h * w, c); windows that reach out of the map hold anything.
    """
    if highest == 0:
        return first.flatten(0, 1)
    tables = first.new_empty(highest + 1, *first.shape)
    tables[0] = first
    for k in range(highest):
        half = 1 << k
        table = tables[k + 1].copy_(tables[k])
        torch.maximum(table[:-half], tables[k, half:], out=table[:-half])
        across = table[:, half:].clone()  # read and written parts would overlap
        torch.maximum(table[:, :-half], across, out=table[:, :-half])
    return tables.flatten(0, 2)


@operator("maskwright::roi_pool")
def _roi_pool(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    stride: int,
    output_size: Sequence[int],
    with_argmax: bool,
) -> tuple[Tensor, Tensor]:
    """Return the maxima and, if asked for, the pixel y * W + x of each or -1, int32."""
    h, w = output_size
    out = features.new_empty(boxes.shape[0], features.shape[1], h, w)
    argmax = torch.empty_like(out if with_argmax else out[:0], dtype=torch.int32)
    if out.numel() == 0:
        return out, argmax
    check_images(batch_index, features)
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    boxes, scale = boxes.to(dtype), 1 / stride
    boxes = torch.where(boxes.isfinite().all(1, True), boxes, _OUTSIDE)
    few = features.device.type == "cpu" and _is_little(boxes * scale, features, h * w)
    if with_argmax or few or features.device.type != "cpu":
        rois = torch.cat([batch_index[:, None].to(dtype), boxes], 1)
        out, argmax = kernels().roi_pool(features.to(dtype), rois, scale, h, w)
        return out.to(features.dtype), argmax if with_argmax else argmax[:0].clone()
    _pool(features, boxes * scale, batch_index, out)
    return out, argmax


def _is_little(boxes: Tensor, features: Tensor, bins: int) -> bool:
    """Whether boxes, (R, 4) in map pixels, are too few to repay the tables."""
    height, width = features.shape[2:]
    sides = (boxes[:, 2:] - boxes[:, :2]).abs() + 1
    visited = float((sides[:, 0].clamp(max=width) * sides[:, 1].clamp(max=height)).sum())
    kernel = 1.5 * visited + (_COPY * height * width if is_rows(features) else 0)
    return kernel < _FIXED + _PER_BIN * bins * len(boxes) + _PER_PIXEL * height * width


def _pool(features: Tensor, boxes: Tensor, batch_index: Tensor, out: Tensor) -> None:
    """Fill `out` (R, C, h, w) with the maxima over boxes in map pixels."""
    channels, height, width = features.shape[1:]
    all_y = box_bins(boxes[:, 1], boxes[:, 3], out.shape[2], height)
    all_x = box_bins(boxes[:, 0], boxes[:, 2], out.shape[3], width)
    for image in batch_index.unique().tolist():
        rois = torch.nonzero(batch_index == image)[:, 0]
        y, x = all_y[rois], all_x[rois]
        # Only what the boxes touch is read.
        (y0, y1), (x0, x1) = y.span(), x.span()
        pixels = features[image].permute(1, 2, 0)[y0:y1, x0:x1]
        cover = _cover(y, x, (y1 - y0) * (x1 - x0))
        highest = int(cover.power.max())
        # Boxes with equally many windows side by side: a chunk is padded to the most.
        rows, across = cover.count()
        order = (rows * across).amax((1, 2)).argsort()
        cells = (highest + 1) * (y1 - y0) * (x1 - x0)
        for cols in columns(channels, table_width(channels, cells)):
            table = _tables(pixels[..., cols], highest)
            for part in order.split(max(1, CHUNK_VALUES // out[0, cols].numel())):
                windows = cover[part].rows((y0, y1, x0, x1))
                best = table.index_select(0, next(windows))
                for window in windows:
                    torch.maximum(best, table.index_select(0, window), out=best)
                best = best.view(len(part), *out.shape[2:], -1)
                empty = y.empty[part][:, :, None] | x.empty[part][:, None, :]
                best = best.masked_fill_(empty[..., None], 0).permute(0, 3, 1, 2)
                out[:, cols].index_copy_(0, rois[part], best)


@operator("maskwright::roi_pool_backward")
def _roi_pool_backward(
    grad: Tensor,
    argmax: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    stride: int,
    shape: Sequence[int],
    channels_last: bool,
) -> Tensor:
    dtype = torch.float64 if grad.dtype == torch.float64 else torch.float32
    rois = torch.cat([batch_index[:, None].to(dtype), boxes.to(dtype)], 1)
    total: Tensor = kernels()._roi_pool_backward(
        grad.to(dtype), rois, argmax, 1 / stride, *grad.shape[2:], *shape
    )
    order = torch.channels_last if channels_last else torch.contiguous_format
    return total.to(grad.dtype).contiguous(memory_format=order)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, boxes, batch_index, ctx.stride, *_ = inputs
    ctx.save_for_backward(output[1], boxes, batch_index)
    ctx.mark_non_differentiable(output[1])
    ctx.shape = list(features.shape)
    ctx.channels_last = is_rows(features) and not features.is_contiguous()


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    grad = _roi_pool_backward(grad, *ctx.saved_tensors, ctx.stride, ctx.shape, ctx.channels_last)
    return (grad, *[None] * 5)


_roi_pool.register_autograd(_backward, setup_context=_setup_context)


@_roi_pool.register_fake
def _fake(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    stride: int,
    output_size: Sequence[int],
    with_argmax: bool,
) -> tuple[Tensor, Tensor]:
    out = features.new_empty(boxes.shape[0], features.shape[1], *output_size)
    return out, torch.empty_like(out if with_argmax else out[:0], dtype=torch.int32)


@_roi_pool_backward.register_fake
def _fake_backward(
    grad: Tensor,
    argmax: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    stride: int,
    shape: Sequence[int],
    channels_last: bool,
) -> Tensor:
    order = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=order)
