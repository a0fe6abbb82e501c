"""RoIPool (Girshick 2015, Fast R-CNN, sec. 2.1): maxima over a grid of bins quantised to pixels.

Same numbers and gradients as `torchvision.ops.roi_pool`, multi-threaded: the maximum of a rectangle
is one over columns, then one over rows, each step a gather of whole rows of channels. Columns come
first, so that of equal maxima the topmost and then the leftmost gets the gradient, as there. The
result has the channels innermost in memory, as that of `roi_align`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .roi_gather import columns, is_rows, table_width

# Values held by one step of the maximum: small enough to stay in the cache.
CHUNK_VALUES = 1 << 20


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
        features: (B, C, H, W). Read fastest in channels-last memory order; the gradient arrives in
            the order of the map.
        boxes: (R, 4) xyxy in input pixels; the last pixel counts as inside. No gradient flows to
            them.
        batch_index: (R,) int64, image of each box.
        stride: input pixels per pixel of the map.
        output_size: bins (h, w), or one number for both.

    Returns:
        (R, C, h, w) in the type of `features`, channels innermost in memory; 0 for bins outside
        the map.

    Raises:
        ValueError: shapes or options that do not fit together.

    Reference: Girshick 2015, sec. 2.1.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 40.0, 30.0]])
        >>> index = torch.zeros(1, dtype=torch.int64)
        >>> roi_pool(torch.rand(1, 8, 16, 16), boxes, index, stride=4, output_size=7).shape
        torch.Size([1, 8, 7, 7])
    """
    pair = (output_size, output_size) if isinstance(output_size, int) else output_size
    size = list(pair)
    if features.dim() != 4 or not features.is_floating_point():
        got = f"{tuple(features.shape)} {features.dtype}"
        raise ValueError(f"features: expected (B, C, H, W) of a floating-point type, got {got}")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes: expected (R, 4) xyxy, got {tuple(boxes.shape)}")
    if batch_index.dim() != 1 or batch_index.shape[0] != boxes.shape[0]:
        expected = f"({boxes.shape[0]},) as boxes"
        raise ValueError(f"batch_index: expected {expected}, got {tuple(batch_index.shape)}")
    if stride <= 0:
        raise ValueError(f"stride: expected a positive number, got {stride}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"output_size: expected one or two positive integers, got {size}")
    need = torch.is_grad_enabled() and features.requires_grad
    out: Tensor = _roi_pool(features, boxes, batch_index, stride, size, need)[0]
    return out


@dataclass(frozen=True)
class _Bins:
    """Bins along one axis: first and end pixel (R, bins), clipped to the map."""

    first: Tensor
    end: Tensor

    def __getitem__(self, which: Tensor) -> _Bins:
        return _Bins(self.first[which], self.end[which])

    def pixels(self, k: int) -> Tensor:
        """Return the k-th pixel of each bin (R, bins), the last one again where there is none."""
        return torch.minimum(self.first + k, self.end - 1).clamp_(min=0)

    @property
    def longest(self) -> int:
        return max(1, int((self.end - self.first).amax()))

    def span(self) -> tuple[Tensor, Tensor]:
        """Return first pixel and length (R,) of all bins together, at least one pixel."""
        start = torch.minimum(self.first[:, 0], (self.end[:, -1] - 1)).clamp(min=0)
        return start, (self.end[:, -1] - start).clamp(min=1)


def _bins(start: Tensor, end: Tensor, bins: int, side: int, dtype: torch.dtype) -> _Bins:
    """Quantise boxes on one axis, (R,) map pixels each, to bins."""
    low, high = _round(start), _round(end)
    # In floating point, as Caffe and torchvision do: the last bin may reach a pixel further.
    step = (high - low + 1).clamp(min=1).to(dtype) / bins
    k = torch.arange(bins + 1, dtype=dtype)
    edges = k * step[:, None]
    first = (edges[:, :-1].floor() + low[:, None]).clamp(0, side)
    stop = (edges[:, 1:].ceil() + low[:, None]).clamp(0, side)
    return _Bins(first.long(), stop.long())


def _round(value: Tensor) -> Tensor:
    """Round halves away from zero, as C does."""
    whole = value.trunc()
    return whole + torch.where((value - whole).abs() >= 0.5, value.sign(), 0)


@torch.library.custom_op("maskwright::roi_pool", mutates_args=())
def _roi_pool(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    stride: int,
    output_size: Sequence[int],
    with_argmax: bool,
) -> tuple[Tensor, Tensor]:
    """Return the maxima and, if asked for, the pixel (y * W + x) of each one or -1."""
    out = features.new_empty(boxes.shape[0], *output_size, features.shape[1])
    argmax = torch.empty_like(out if with_argmax else out[:0], dtype=torch.int32)
    values, places = out, argmax
    out, argmax = out.permute(0, 3, 1, 2), argmax.permute(0, 3, 1, 2)
    if out.numel() == 0:
        return out, argmax
    (h, w), (height, width) = output_size, features.shape[2:]
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    scaled = boxes.to(dtype) * (1 / stride)
    y = _bins(scaled[:, 1], scaled[:, 3], h, height, dtype)
    x = _bins(scaled[:, 0], scaled[:, 2], w, width, dtype)
    empty = (y.end <= y.first)[:, :, None] | (x.end <= x.first)[:, None, :]
    # Similar boxes side by side: a chunk is padded to its largest box.
    order = torch.argsort(y.span()[1] * (width + 1) + x.span()[1])
    for image in batch_index.unique().tolist():
        rois = order[batch_index[order] == image]
        for cols, table, origin, pitch in _tables(features[image], y[rois], x[rois]):
            for part in _chunks(rois, y, w * (cols.stop - cols.start)):
                best, at = _maximum(table, y[part], x[part], origin, pitch, width, with_argmax)
                hidden = empty[part][..., None]
                values[..., cols].index_copy_(0, part, best.masked_fill_(hidden, 0))
                if at is not None:
                    places[..., cols].index_copy_(0, part, at.masked_fill_(hidden, -1))
    return out, argmax


def _tables(fmap: Tensor, y: _Bins, x: _Bins) -> Iterator[tuple[slice, Tensor, int, int]]:
    """Yield channels, pixels as rows, the first row's pixel and the rows from line to line."""
    channels, _, width = fmap.shape
    pixels = fmap.permute(1, 2, 0)
    if pixels.is_contiguous():
        yield slice(0, channels), pixels.flatten(0, 1), 0, width
        return
    # Only the part that the boxes touch is copied.
    (top, high), (left, wide) = y.span(), x.span()
    y0, y1, x0, x1 = (
        int(v) for v in (top.min(), (top + high).max(), left.min(), (left + wide).max())
    )
    for cols in columns(channels, table_width(channels, (y1 - y0) * (x1 - x0))):
        part = pixels[y0:y1, x0:x1, cols].contiguous()
        yield cols, part.flatten(0, 1), y0 * (x1 - x0) + x0, x1 - x0


def _chunks(rois: Tensor, y: _Bins, values: int) -> Iterator[Tensor]:
    """Split boxes, in rising order of height, by what the first step of the maximum holds."""
    lines = y.span()[1][rois].tolist()
    start = 0
    while start < len(lines):
        stop = start + max(1, CHUNK_VALUES // (values * lines[start]))
        longest = lines[min(stop, len(lines)) - 1]
        stop = min(stop, start + max(1, CHUNK_VALUES // (values * longest)))
        yield rois[start:stop]
        start = stop


def _maximum(
    table: Tensor, y: _Bins, x: _Bins, origin: int, pitch: int, width: int, with_argmax: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the maxima (n, h, w, c) of rows of `table`, and their pixels y * width + x, int32."""
    top, lines = y.span()
    line = torch.minimum(torch.arange(int(lines.amax())), lines[:, None] - 1) + top[:, None]
    start = (line * pitch - origin)[:, :, None]  # (n, Y, 1)
    best, at = None, None
    for k in range(x.longest):
        column = x.pixels(k)[:, None, :]  # (n, 1, w)
        value = table.index_select(0, (start + column).flatten())
        pixel = (line[:, :, None] * width + column).int().view(-1, 1) if with_argmax else None
        best, at = _better(best, at, value, pixel)
    assert best is not None
    per_line, per_line_at = best, at  # (n * Y * w, c)
    first = torch.arange(len(line))[:, None] * line.shape[1] - top[:, None]
    best, at = None, None
    bins = x.first.shape[1]
    for k in range(y.longest):
        row = (first + y.pixels(k))[:, :, None] * bins + torch.arange(bins)  # (n, h, w)
        value = per_line.index_select(0, row.flatten())
        pixel = None if per_line_at is None else per_line_at.index_select(0, row.flatten())
        best, at = _better(best, at, value, pixel)
    assert best is not None
    shape = (len(line), y.first.shape[1], bins, -1)
    return best.view(shape), None if at is None else at.view(shape)


def _better(
    best: Tensor | None, at: Tensor | None, value: Tensor, pixel: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Take the larger value, the earlier one of equals, and its pixel."""
    if best is None:
        return value, None if pixel is None else pixel.expand(value.shape)
    if at is not None and pixel is not None:
        at = torch.where(value > best, pixel, at)
    return torch.maximum(best, value, out=best), at


@torch.library.custom_op("maskwright::roi_pool_backward", mutates_args=())
def _roi_pool_backward(
    grad: Tensor, argmax: Tensor, batch_index: Tensor, shape: Sequence[int], channels_last: bool
) -> Tensor:
    images, channels, height, width = shape
    dtype = torch.float64 if grad.dtype == torch.float64 else torch.float32
    total = grad.new_zeros(images, height, width, channels, dtype=dtype)
    flat, channel = total.view(-1), torch.arange(channels)
    step = max(1, CHUNK_VALUES // max(1, grad[:1].numel()))
    for start in range(0, len(grad), step):
        rois = slice(start, start + step)
        pixel = argmax[rois].permute(0, 2, 3, 1).long()
        value = grad[rois].permute(0, 2, 3, 1).to(dtype).masked_fill(pixel < 0, 0)
        base = (batch_index[rois] * (height * width))[:, None, None, None]
        index = (pixel.clamp_(min=0) + base) * channels + channel
        flat.scatter_add_(0, index.flatten(), value.flatten())
    out = total.to(grad.dtype).permute(0, 3, 1, 2)
    return out if channels_last else out.contiguous()


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, _, batch_index, *_ = inputs
    ctx.save_for_backward(output[1], batch_index)
    ctx.mark_non_differentiable(output[1])
    ctx.shape = list(features.shape)
    ctx.channels_last = is_rows(features)


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    grad = _roi_pool_backward(grad, *ctx.saved_tensors, ctx.shape, ctx.channels_last)
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
    out = features.new_empty(boxes.shape[0], *output_size, features.shape[1])
    argmax = torch.empty_like(out if with_argmax else out[:0], dtype=torch.int32)
    return out.permute(0, 3, 1, 2), argmax.permute(0, 3, 1, 2)


@_roi_pool_backward.register_fake
def _fake_backward(
    grad: Tensor, argmax: Tensor, batch_index: Tensor, shape: Sequence[int], channels_last: bool
) -> Tensor:
    images, channels, height, width = shape
    if channels_last:
        return grad.new_empty(images, height, width, channels).permute(0, 3, 1, 2)
    return grad.new_empty(images, channels, height, width)
