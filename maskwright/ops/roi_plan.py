"""The sampling of RoIAlign as rows and weights: every output bin is a weighted sum of pixels.

Bilinear interpolation of a regular grid is separable (He et al. 2017, sec. 3): a bin's weights are
the outer product of one short list along y and one along x. Neighbouring samples share pixels, and
shared pixels are merged, so that `n` samples a side touch `n + 1` pixels a side while they are at
most a pixel apart, and never more than `2 n`. The forward pass sums rows per bin; the backward pass
turns the same list round and sums bins per pixel, so that both are gathers without write conflicts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# Entries (pixel and weight) held at a time: bounds the memory of adaptive sampling on large boxes.
PASS_ENTRIES = 1 << 22
# Entries and results of a chunk. Few large chunks: each one costs several meetings of the threads,
# which are slow on a machine that has other work too. Results stay below 32 MiB (see `roi_gather`).
CHUNK_ENTRIES = 1 << 19
CHUNK_VALUES = 1 << 22
# Samples along the axes held at a time.
AXIS_SAMPLES = 1 << 21


@dataclass(frozen=True)
class Sampling:
    """How bins are laid over a box: bins (h, w), samples a bin, frame of the boxes."""

    size: tuple[int, int]
    ratio: int
    aligned: bool


@dataclass(frozen=True)
class MapInfo:
    """One map of the pyramid: (B, C, H, W), its stride, and whether its pixels lie as rows."""

    shape: tuple[int, int, int, int]
    stride: int
    is_rows: bool


@dataclass(frozen=True)
class Canvas:
    """The pixels that one run reads or writes, as a table of `rows` rows.

    A map in channels-last order is such a table already (`image` None: all images). Of any other
    map, one image at a time is copied.
    """

    level: int
    image: int | None
    rows: int

    def load(self, fmap: Tensor, cols: slice, dtype: torch.dtype) -> Tensor:
        """Return (rows, c) pixels of the channels `cols`."""
        if self.image is None:
            return fmap.permute(0, 2, 3, 1).reshape(self.rows, -1)[:, cols]
        pixels = fmap[self.image, cols].permute(1, 2, 0)
        return torch.empty(pixels.shape, dtype=dtype).copy_(pixels).view(self.rows, -1)

    def store(self, grad: Tensor, table: Tensor, cols: slice, *, add: bool) -> None:
        """Write (rows, c) to the channels `cols` of the map `grad`, or add them."""
        part = grad[:, cols] if self.image is None else grad[self.image : self.image + 1, cols]
        pixels = part.permute(0, 2, 3, 1)
        rows = table.view(pixels.shape)
        if add:
            pixels.add_(rows)
        else:
            pixels.copy_(rows)


@dataclass(frozen=True)
class Chunk:
    """Boxes `rois` (n,), each bin of which sums `fan` weighted rows of the canvas."""

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
        # Stable: the order of the sums, and so the last bit of the gradient, never changes.
        order = torch.sort(index, stable=True).indices
        k = torch.arange(bins)
        rows = torch.cat(
            [
                (c.rois[:, None] * bins + k).int()[:, :, None].expand(-1, -1, c.fan).flatten()
                for c in self.chunks
            ]
        )
        weight = torch.cat([chunk.weight for chunk in self.chunks])
        offsets = torch.zeros(self.canvas.rows + 1, dtype=torch.int32)
        offsets[1:] = torch.bincount(index, minlength=self.canvas.rows).cumsum(0)
        return rows[order], offsets, weight[order]


@dataclass(frozen=True)
class _Grid:
    """The sampling grid of all boxes along both axes, y first.

    `start` of the box, `step` from bin to bin, samples a bin `count` and map `side`: (R, 2).
    """

    start: Tensor
    step: Tensor
    count: Tensor
    side: Tensor
    bins: int  # the larger of h and w: both axes are treated at once

    def __getitem__(self, which: Tensor | slice) -> _Grid:
        """Return the grid of some of the boxes."""
        start, step = self.start[which], self.step[which]
        return _Grid(start, step, self.count[which], self.side[which], self.bins)

    @cached_property
    def origin(self) -> Tensor:
        """Where each bin starts, (R, 2, bins)."""
        # The order of operations is torchvision's: positions agree to the bit.
        k = torch.arange(self.bins, dtype=self.start.dtype)
        return self.start[..., None] + k * self.step[..., None]

    def _at(self, sample: Tensor) -> Tensor:
        """Return the positions (R, 2, bins, S) of the samples (R, 2, S) of every bin."""
        count = self.count.clamp(min=1)
        offset = (sample + 0.5) * self.step[..., None] / count[..., None]
        return self.origin[..., None] + offset[:, :, None]

    def _clamp(self, at: Tensor) -> Tensor:
        return torch.minimum(at.clamp_(min=0), (self.side - 1)[..., None, None])

    @cached_property
    def low(self) -> Tensor:
        """The first pixel (R, 2, bins) of every bin."""
        return self._ends[0]

    @cached_property
    def fan(self) -> Tensor:
        """Slots (R, 2) that the longest bin needs: merged pixels or two a sample, the fewer."""
        low, high = self._ends
        return torch.minimum((high - low).amax(2) + 2, 2 * self.count.clamp(min=1))

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        """First and last pixel (R, 2, bins) that the samples of a bin round down to."""
        last = (self.count - 1).clamp(min=0)
        ends = self._clamp(self._at(torch.stack([torch.zeros_like(last), last], 2))).floor()
        # Reversed boxes are sampled backwards.
        return ends.amin(3), ends.amax(3)

    def entries(self) -> tuple[Tensor, Tensor]:
        """Return pixels and weights, (R, 2, bins, K); unused slots weigh nothing."""
        count = self.count[..., None]
        j = torch.arange(max(int(self.count.amax()), 1), dtype=self.start.dtype)
        # Boxes with fewer samples than others repeat their last one without weight.
        sample = torch.minimum(j, (count - 1).clamp(min=0))
        at = self._at(sample)
        # Samples more than a pixel outside count as zero, nearer ones as the border.
        inside = (at >= -1) & (at <= self.side[..., None, None]) & (j < count)[:, :, None]
        share = inside / count.clamp(min=1)[:, :, None]
        at = self._clamp(at)
        pixel = at.floor()
        upper = (at - pixel) * share
        low = self.low[..., None]
        merged = self.fan[..., None] < 2 * count
        slot = torch.where(merged[:, :, None], pixel - low, 2 * sample[:, :, None]).long()
        index = low.repeat(1, 1, 1, int(self.fan.amax()))
        index.scatter_(3, slot, pixel).scatter_(3, slot + 1, pixel + 1)
        weight = torch.zeros_like(index)
        weight.scatter_add_(3, slot, share - upper).scatter_add_(3, slot + 1, upper)
        return self._clamp(index).int(), weight


def _grid(
    boxes: Tensor, level: Tensor, maps: list[MapInfo], how: Sampling, dtype: torch.dtype
) -> _Grid:
    """Lay the bins over the boxes, in pixels of each box's map."""
    scale = torch.tensor([[1 / m.stride] for m in maps], dtype=dtype)
    side = torch.tensor([m.shape[2:] for m in maps], dtype=dtype)
    corners = boxes.to(dtype) * scale[level] - (0.5 if how.aligned else 0.0)
    corners = corners.view(-1, 2, 2).flip(2)  # (R, corner, (y, x))
    extent = corners[:, 1] - corners[:, 0]
    if not how.aligned:
        extent = extent.clamp(min=1)
    step = extent / torch.tensor(how.size, dtype=dtype)
    if how.ratio > 0:
        count = torch.full_like(step, how.ratio)
    else:  # a reversed box has no samples
        count = step.ceil().nan_to_num(0, 0, 0).clamp(min=0)
    return _Grid(corners[:, 0], step, count, side[level], max(how.size))


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
        grid = _grid(boxes, level, maps, how, dtype)
        apart = torch.tensor([not m.is_rows for m in maps])[level]
        part = (level * images + batch_index * apart).where(known, -1)
        # Boxes of one canvas together, those with equally many entries side by side.
        order = torch.argsort(part * (1 << 32) + grid.fan.amax(1).long(), stable=True)
        counts = torch.bincount(part + 1, minlength=len(maps) * images + 1).tolist()
        self.left_out, self.order = order[: counts[0]], order[counts[0] :]
        self.maps, self.size, self.dtype = maps, how.size, dtype
        self.grid = grid[self.order]
        # First pixel of the image in the canvas.
        pixels = self.grid.side.long().prod(1) * (batch_index * ~apart)[self.order]
        self.base = pixels.int()[:, None, None]
        self.canvases: list[Canvas] = []
        self.ends: list[int] = []
        for at, count in enumerate(counts[1:]):
            if count:
                info = maps[at // images]
                rows = info.shape[2] * info.shape[3] * (images if info.is_rows else 1)
                image = None if info.is_rows else at % images
                self.canvases.append(Canvas(at // images, image, rows))
                self.ends.append(count + (self.ends[-1] if self.ends else 0))

    def passes(self) -> Iterator[list[Run]]:
        """Yield groups of runs, each group of bounded memory."""
        runs: list[Run] = []
        held, total = 0, len(self.order)
        most = int(self.grid.count.amax()) if total else 0
        block = max(1, AXIS_SAMPLES // max(1, 2 * self.grid.bins * most))
        for start in range(0, total, block):
            for position, chunk in self._chunks(start, min(start + block, total)):
                canvas = self.canvases[bisect_right(self.ends, position)]
                if not runs or runs[-1].canvas is not canvas:
                    runs.append(Run(canvas, []))
                runs[-1].chunks.append(chunk)
                held += len(chunk.index)
                if held >= PASS_ENTRIES:
                    yield runs
                    runs, held = [], 0
        if runs:
            yield runs

    def _chunks(self, first: int, last: int) -> Iterator[tuple[int, Chunk]]:
        """Yield position and chunk of the boxes `first` to `last` in order."""
        (h, w), grid = self.size, self.grid[first:last]
        index, weight = grid.entries()
        pitch = grid.side[:, 1].int()[:, None, None]
        yi, xi = index[:, 0, :h] * pitch + self.base[first:last], index[:, 1, :w]
        yw, xw = weight[:, 0, :h], weight[:, 1, :w]
        fans = grid.fan.int().tolist()
        start = first
        while start < last:
            stop = min(last, self.ends[bisect_right(self.ends, start)])
            # Fans rise along the order: the first one bounds the chunk, the last one makes it fit.
            stop = min(stop, start + self._fit(max(fans[start - first])))
            stop = min(stop, start + self._fit(max(fans[stop - first - 1])))
            high, wide = map(max, zip(*fans[start - first : stop - first], strict=True))
            rows = slice(start - first, stop - first)
            y, x = _outer(yi[rows, :, :high], xi[rows, :, :wide])
            v, u = _outer(yw[rows, :, :high], xw[rows, :, :wide])
            rois = self.order[start:stop]
            yield start, Chunk(rois, (y + x).flatten(), (v * u).flatten(), high * wide)
            start = stop

    def _fit(self, fan: int) -> int:
        """Return how many boxes make one chunk."""
        bins = self.size[0] * self.size[1]
        values = CHUNK_VALUES // (bins * self.maps[0].shape[1])
        return max(1, min(values, CHUNK_ENTRIES // (bins * fan * fan)))


def _outer(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Spread (n, h, Ky) and (n, w, Kx) to (n, h, 1, Ky * Kx) and (n, 1, w, Ky * Kx)."""
    # One long inner axis: broadcasting over four elements at a time is several times slower.
    high, wide = y.shape[2], x.shape[2]
    y = y[:, :, :, None].expand(-1, -1, -1, wide).flatten(2)
    x = x[:, :, None, :].expand(-1, -1, high, -1).flatten(2)
    return y[:, :, None], x[:, None]
