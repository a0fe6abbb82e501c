"""Carry out a plan of RoIAlign: sums of pixels per bin, and of bins per pixel for the gradient.

Both are `embedding_bag` with a weight per row, which is vectorised and multi-threaded on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .roi_plan import Canvas, MapInfo, Plan, Run, Sampling, dense_axes

# Blocks below glibc's mmap threshold (32 MiB) are reused; above it, each one costs page faults,
# which take longer than the arithmetic.
BUFFER_BYTES = 1 << 24


def gather(features: Sequence[Tensor], plan: Plan, out: Tensor) -> None:
    """Fill `out` (R, h, w, C): zeros for boxes that the plan leaves out."""
    channels, bins = out.shape[3], out.shape[1] * out.shape[2]
    out = out.view(-1, bins, channels)
    if len(plan.left_out):
        out[plan.left_out] = 0
    for run in (run for runs in plan.passes() for run in runs):
        width = channels if run.canvas.image is None else table_width(channels, run.canvas.rows)
        for cols in columns(channels, width):
            table = run.canvas.load(features[run.canvas.level], cols, plan.dtype)
            for chunk in run.chunks:
                offsets = torch.arange(0, len(chunk.index) + 1, chunk.fan, dtype=torch.int32)
                part = _sum_rows(table, chunk.index, offsets, chunk.weight).to(out.dtype)
                out[:, :, cols].index_copy_(0, chunk.rois, part.view(-1, bins, part.shape[1]))


def product(
    fmap: Tensor, boxes: Tensor, batch_index: Tensor, info: MapInfo, how: Sampling
) -> Tensor:
    """Pool (R, C, h, w) from a planar map, box by box, as products with both axes' weights.

    For few boxes, which do not repay copying the map into rows.
    """
    axes = zip(dense_axes(boxes, info, how, fmap.dtype), batch_index.tolist(), strict=True)
    return torch.stack(
        [wy @ (fmap[image, :, y0:y1, x0:x1] @ wx.T) for ((y0, y1), wy, (x0, x1), wx), image in axes]
    )


def scatter(grad: Tensor, plan: Plan) -> list[Tensor | None]:
    """Return the gradients of the maps, None where no box lies, from `grad` (R, h, w, C)."""
    grads: list[Tensor | None] = [None] * len(plan.maps)
    known: set[Canvas] = set()
    for runs in plan.passes():
        _scatter_pass(grad, runs, plan, grads, known)
        known |= {run.canvas for run in runs}
    return grads


def _scatter_pass(
    grad: Tensor, runs: list[Run], plan: Plan, grads: list[Tensor | None], known: set[Canvas]
) -> None:
    """Write the gradients of canvases for the first time, or add to the `known` ones."""
    channels, bins = grad.shape[3], grad.shape[1] * grad.shape[2]
    by_pixel = [(run.canvas, *run.by_pixel(bins)) for run in runs]
    in_place = grad.is_contiguous() and grad.dtype == plan.dtype
    if in_place and all(run.canvas.image is None for run in runs):
        width = channels
    else:
        width = table_width(channels, max(len(grad) * bins, *(run.canvas.rows for run in runs)))
    for cols in columns(channels, width):
        source = grad[..., cols].to(plan.dtype).reshape(-1, cols.stop - cols.start).contiguous()
        for canvas, rows, offsets, weight in by_pixel:
            table = _sum_rows(source, rows, offsets, weight)
            info, full = plan.maps[canvas.level], grads[canvas.level]
            if full is None and canvas.image is None and width == channels:
                images, _, height, wide = info.shape
                rows_of_map = table.view(images, height, wide, channels)
                grads[canvas.level] = rows_of_map.permute(0, 3, 1, 2)
                continue
            if full is None:
                full = grads[canvas.level] = empty_map(info, table)
                covered = {c.image for c in plan.canvases if c.level == canvas.level}
                for image in set(range(len(full))) - covered if canvas.image is not None else ():
                    full[image] = 0
            canvas.store(full, table, cols, add=canvas in known)


def empty_map(info: MapInfo, like: Tensor) -> Tensor:
    """Return a map (B, C, H, W) in the memory order of `info`, type and device of `like`."""
    images, channels, height, width = info.shape
    if info.is_rows:
        return like.new_empty(images, height, width, channels).permute(0, 3, 1, 2)
    return like.new_empty(images, channels, height, width)


def _sum_rows(table: Tensor, index: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted sums of the rows index[offsets[i] : offsets[i + 1]] of a table."""
    # Detached: with a gradient in view, embedding_bag keeps records that nobody reads.
    return torch.embedding_bag(
        table.detach(), index, offsets, mode=0, per_sample_weights=weight, include_last_offset=True
    )[0]


def only_finite(boxes: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Return boxes (R, 4) and levels (R,) with zeros and -1, no map, for boxes with a nan or inf.

    torchvision's kernels read beyond the map for them.
    """
    finite = boxes.isfinite().all(1)
    return boxes.masked_fill(~finite[:, None], 0), levels.masked_fill(~finite, -1)


def is_rows(fmap: Tensor) -> bool:
    """Whether the pixels of a map (B, C, H, W) lie as contiguous rows of channels."""
    return fmap.is_contiguous(memory_format=torch.channels_last)


def columns(channels: int, width: int) -> Iterator[slice]:
    """Yield the channels in groups of `width`."""
    for start in range(0, channels, width):
        yield slice(start, min(start + width, channels))


def table_width(channels: int, rows: int) -> int:
    """Return how many channels of `rows` float32 rows a buffer holds, in whole cache lines."""
    return min(channels, max(16, BUFFER_BYTES // (4 * rows) // 16 * 16))
