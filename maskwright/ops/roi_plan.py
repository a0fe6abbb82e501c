"""The sampling of RoIAlign as rows and weights: every output bin is a weighted sum of pixels.

Bilinear interpolation of a regular grid is separable (He et al. 2017, sec. 3): a bin's weights are
the outer product of one short list along y and one along x. Neighbouring samples share pixels, and
shared pixels are merged, so that `n` samples a side touch `n + 1` pixels a side while they are at
most a pixel apart, and never more than `2 n`. The forward pass sums rows per bin; the backward pass
turns the same list round and sums bins per pixel, so that both are gathers without write conflicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# Entries (pixel, weight) held at a time: bounds the memory of adaptive sampling on large boxes.
PASS_ENTRIES = 1 << 22
# A gathered chunk stays in the cache until it is copied to its place in the output.
CHUNK_ENTRIES = 1 << 16
# Samples along one axis held at a time.
AXIS_SAMPLES = 1 << 22
# Buffers below glibc's mmap threshold (32 MiB) are reused without page faults, which cost more
# than the arithmetic does.
BUFFER_BYTES = 1 << 24
# Cost of one crop, in pixels: below it, loading the whole map is cheaper.
CROP_PIXELS = 256


@dataclass(frozen=True)
class Sampling:
    """How bins are laid over a box: sides of the output, samples a bin, frame of the boxes."""

    size: tuple[int, int]
    ratio: int
    aligned: bool


@dataclass(frozen=True)
class MapInfo:
    """One map of the pyramid: (B, C, H, W), its stride, and whether it can be read as rows."""

    shape: tuple[int, int, int, int]
    stride: int
    is_rows: bool


@dataclass(frozen=True)
class Canvas:
    """The pixels that one run reads or writes, as a table of rows.

    A map in channels-last order is such a table already (`image` None: all images). Any other map
    is copied, one image at a time: all of it, or with few boxes only the `crops`
    (y0, y1, x0, x1).
    """

    level: int
    image: int | None
    rows: int
    crops: list[tuple[int, int, int, int]] | None

    def _views(self, fmap: Tensor, table: Tensor, cols: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield matching (h, w, c) views of the map and of the table."""
        image = fmap[self.image, cols].permute(1, 2, 0)
        if self.crops is None:
            yield image, table.view(image.shape)
            return
        start = 0
        for y0, y1, x0, x1 in self.crops:
            part = image[y0:y1, x0:x1]
            stop = start + (y1 - y0) * (x1 - x0)
            yield part, table[start:stop].view(part.shape)
            start = stop

    def load(self, fmap: Tensor, cols: slice, dtype: torch.dtype) -> Tensor:
        """Return (rows, c) pixels of the channels `cols`."""
        if self.image is None:
            return fmap.permute(0, 2, 3, 1).reshape(self.rows, -1)[:, cols]
        table = torch.empty(self.rows, cols.stop - cols.start, dtype=dtype)
        for part, rows in self._views(fmap, table, cols):
            rows.copy_(part)
        return table

    def add(self, grad: Tensor, table: Tensor, cols: slice) -> None:
        """Add (rows, c) to the channels `cols` of the map `grad`."""
        if self.image is None:
            grad.permute(0, 2, 3, 1).view(self.rows, -1)[:, cols].add_(table)
            return
        for part, rows in self._views(grad, table, cols):
            part.add_(rows)


@dataclass(frozen=True)
class Chunk:
    """Boxes `rois` (n,) whose bins (h * w each) sum `fan` weighted rows of the canvas each."""

    rois: Tensor
    index: Tensor  # (n * h * w * fan,) int32
    weight: Tensor  # the same
    fan: int


@dataclass(frozen=True)
class Run:
    """Chunks that share a canvas."""

    canvas: Canvas
    chunks: list[Chunk]

    def by_pixel(self, bins: int) -> tuple[Tensor, Tensor, Tensor]:
        """Turn the entries round: for every row of the canvas, the bins it counts in.

        Returns:
            Bins as rows of the output (E,) int32, offsets (rows + 1,) int32 and weights (E,).
        """
        index = torch.cat([chunk.index for chunk in self.chunks])
        # Integer sorting is a stable radix sort: the order of the sums never changes.
        order = torch.sort(index, stable=True).indices
        k = torch.arange(bins)
        rows = torch.cat(
            [
                (chunk.rois[:, None] * bins + k).int().flatten().repeat_interleave(chunk.fan)
                for chunk in self.chunks
            ]
        )
        weight = torch.cat([chunk.weight for chunk in self.chunks])
        offsets = torch.zeros(self.canvas.rows + 1, dtype=torch.int32)
        offsets[1:] = torch.bincount(index, minlength=self.canvas.rows).cumsum(0)
        return rows[order], offsets, weight[order]


@dataclass
class _Axis:
    """One axis of all boxes: `start`, bin `step`, samples a bin `grid`, map side `side`: (R,)."""

    start: Tensor
    step: Tensor
    grid: Tensor
    side: Tensor
    bins: int

    def __getitem__(self, which: Tensor | slice) -> _Axis:
        """Return the axis of some of the boxes."""
        return _Axis(
            self.start[which], self.step[which], self.grid[which], self.side[which], self.bins
        )

    def _clamp(self, at: Tensor) -> Tensor:
        return torch.minimum(at.clamp(min=0), (self.side - 1)[:, None, None])

    def _positions(self, sample: Tensor) -> Tensor:
        """Return the (R, bins, S) positions of the samples (R, S) of every bin."""
        k = torch.arange(self.bins, dtype=self.start.dtype)
        # The order of operations is torchvision's: positions agree to the bit.
        origin = self.start[:, None] + k * self.step[:, None]
        offset = (sample + 0.5) * self.step[:, None] / self.grid[:, None].clamp(min=1)
        return origin[:, :, None] + offset[:, None, :]

    @cached_property
    def window(self) -> tuple[Tensor, Tensor]:
        """First and last pixel (R, bins) that the samples of a bin round down to."""
        ends = torch.stack([torch.zeros_like(self.grid), (self.grid - 1).clamp(min=0)], 1)
        low, high = self._clamp(self._positions(ends)).floor().aminmax(dim=2)
        return low, high

    @cached_property
    def fan(self) -> Tensor:
        """Slots (R,) that the longest bin needs: merged pixels or two a sample, the fewer."""
        low, high = self.window
        return torch.minimum((high - low).amax(1) + 2, 2 * self.grid.clamp(min=1))

    def extent(self) -> tuple[Tensor, Tensor]:
        """Return first and end pixel (R,) of all that a box touches."""
        low, high = self.window
        return low.amin(1), torch.minimum(high.amax(1) + 2, self.side)

    def entries(self) -> tuple[Tensor, Tensor]:
        """Return pixels and weights, (R, bins, K) int32 and float; unused slots weigh nothing."""
        low, grid = self.window[0][:, :, None], self.grid[:, None]
        j = torch.arange(max(int(self.grid.amax()), 1), dtype=self.start.dtype)
        # Boxes with fewer samples than others repeat their last one without weight.
        sample = torch.minimum(j, (grid - 1).clamp(min=0))
        at = self._positions(sample)
        # Samples more than a pixel outside count as zero, nearer ones as the border.
        inside = (at >= -1) & (at <= self.side[:, None, None]) & (j < grid)[:, None]
        share = inside / grid.clamp(min=1)[:, None]
        at = self._clamp(at)
        pixel = at.floor()
        upper = (at - pixel) * share
        merged = self.fan[:, None] < 2 * grid
        slot = torch.where(merged[:, None], pixel - low, 2 * sample[:, None]).long()
        width = int(self.fan.amax())
        index = low.repeat(1, 1, width)
        index.scatter_(2, slot, pixel).scatter_(2, slot + 1, pixel + 1)
        weight = torch.zeros_like(index)
        weight.scatter_add_(2, slot, share - upper).scatter_add_(2, slot + 1, upper)
        return self._clamp(index).int(), weight


def _axes(
    boxes: Tensor, level: Tensor, maps: list[MapInfo], how: Sampling, dtype: torch.dtype
) -> tuple[_Axis, _Axis]:
    """Lay the grid of bins over the boxes: the axes y and x in pixels of each box's map."""
    scale = torch.tensor([1 / m.stride for m in maps], dtype=dtype)[level]
    sides = torch.tensor([m.shape[2:] for m in maps], dtype=dtype)[level]
    corners = boxes.to(dtype) * scale[:, None] - (0.5 if how.aligned else 0.0)
    axes = []
    for k, bins in ((1, how.size[0]), (0, how.size[1])):
        extent = corners[:, k + 2] - corners[:, k]
        if not how.aligned:
            extent = extent.clamp(min=1)
        step = extent / bins
        if how.ratio > 0:
            grid = torch.full_like(step, how.ratio)
        else:  # reversed boxes have no samples
            grid = step.ceil().nan_to_num(0, 0, 0).clamp(min=0)
        axes.append(_Axis(corners[:, k], step, grid, sides[:, 1 - k], bins))
    return axes[0], axes[1]


class Plan:
    """Order, canvases and entries of one call.

    Args:
        boxes: (R, 4) xyxy, input pixels.
        batch_index: (R,) int64.
        level: (R,) int64 index into `maps`; boxes outside them are left out.
        maps: the pyramid.
        how: bins and samples.
        dtype: of positions and weights.
    """

    def __init__(
        self,
        boxes: Tensor,
        batch_index: Tensor,
        level: Tensor,
        maps: list[MapInfo],
        how: Sampling,
        dtype: torch.dtype,
    ) -> None:
        images = maps[0].shape[0]
        known = (level >= 0) & (level < len(maps))
        level = level.where(known, 0)
        y, x = _axes(boxes, level, maps, how, dtype)
        by_image = torch.tensor([not m.is_rows for m in maps])[level]
        part = (level * images + batch_index * by_image).where(known, -1)
        # Boxes of one canvas together, those with equally many entries side by side.
        fan = torch.maximum(y.fan, x.fan).long()
        order = torch.argsort(part * (1 << 32) + fan, stable=True)
        counts = torch.bincount(part + 1, minlength=len(maps) * images + 1).tolist()
        self.left_out, self.order = order[: counts[0]], order[counts[0] :]
        self.maps, self.how = maps, how
        self.y, self.x = y[self.order], x[self.order]
        self.base = torch.zeros_like(self.order, dtype=torch.int32)
        self.pitch = self.x.side.int()
        self.canvases: list[tuple[Canvas, int, int]] = []
        start = 0
        for at, count in enumerate(counts[1:]):
            if count:
                chosen = slice(start, start + count)
                canvas = self._canvas(at // images, at % images, chosen)
                self.canvases.append((canvas, start, start + count))
                if canvas.image is None:
                    height, width = maps[canvas.level].shape[2:]
                    self.base[chosen] = batch_index[self.order[chosen]].int() * (height * width)
                start += count

    def _canvas(self, level: int, image: int, chosen: slice) -> Canvas:
        """Choose what the boxes `chosen` read: rows in place, a copied map or copied crops."""
        info = self.maps[level]
        images, _, height, width = info.shape
        if info.is_rows:
            return Canvas(level, None, images * height * width, None)
        spans = [edge for axis in (self.y, self.x) for edge in axis[chosen].extent()]
        y0, y1, x0, x1 = (edge.long() for edge in spans)
        area = (y1 - y0) * (x1 - x0)
        ends = area.cumsum(0)
        if int(ends[-1]) + CROP_PIXELS * len(area) >= height * width:
            return Canvas(level, image, height * width, None)
        self.pitch[chosen] = (x1 - x0).int()
        self.base[chosen] = (ends - area - y0 * (x1 - x0) - x0).int()
        crops = list(zip(y0.tolist(), y1.tolist(), x0.tolist(), x1.tolist(), strict=True))
        return Canvas(level, image, int(ends[-1]), crops)

    def passes(self) -> Iterator[list[Run]]:
        """Yield groups of runs, each group of bounded memory."""
        runs: list[Run] = []
        held = 0
        samples = max(1, int(max(axis.grid.amax() * axis.bins for axis in (self.y, self.x))))
        block = max(1, AXIS_SAMPLES // samples)
        for canvas, first, last in self.canvases:
            runs.append(Run(canvas, []))
            for start in range(first, last, block):
                for chunk in self._chunks(start, min(start + block, last)):
                    runs[-1].chunks.append(chunk)
                    held += len(chunk.index)
                    if held >= PASS_ENTRIES:
                        yield runs
                        runs, held = [Run(canvas, [])], 0
            if not runs[-1].chunks:
                runs.pop()
        if runs:
            yield runs

    def _chunks(self, first: int, last: int) -> Iterator[Chunk]:
        """Yield the chunks of the boxes `first` to `last` in order."""
        bins = self.how.size[0] * self.how.size[1]
        y, x = self.y[first:last], self.x[first:last]
        fans = torch.stack([y.fan, x.fan], 1).int().tolist()
        (yi, yw), (xi, xw) = y.entries(), x.entries()
        yi = yi * self.pitch[first:last, None, None] + self.base[first:last, None, None]
        start = 0
        while start < last - first:
            stop = last - first
            while True:
                high = max(f[0] for f in fans[start:stop])
                wide = max(f[1] for f in fans[start:stop])
                if (fit := CHUNK_ENTRIES // (bins * high * wide)) >= stop - start:
                    break
                if stop - start == 1:
                    break
                stop = start + max(1, min(fit, (stop - start) // 2))
            rows = slice(start, stop)
            index = _outer(yi[rows, :, :high], xi[rows, :, :wide], torch.add)
            weight = _outer(yw[rows, :, :high], xw[rows, :, :wide], torch.mul)
            yield Chunk(self.order[first + start : first + stop], index, weight, high * wide)
            start = stop


def _outer(y: Tensor, x: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine (n, h, Ky) and (n, w, Kx) into (n * h * w * Ky * Kx,), bin by bin."""
    n, _, high = y.shape
    wide = x.shape[2]
    # One long inner axis: a broadcast over four elements at a time is several times slower.
    y = y[:, :, :, None].expand(-1, -1, -1, wide).reshape(n, -1, 1, high * wide)
    x = x[:, :, None, :].expand(-1, -1, high, -1).reshape(n, 1, -1, high * wide)
    return combine(y, x).flatten()
