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
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[Any]

# Entries (pixel and weight) held at a time: bounds the memory of adaptive sampling on large boxes.
PASS_ENTRIES = 1 << 22
# Entries and results of a chunk. Few large chunks: each one costs several meetings of the threads,
# which are slow on a machine that has other work too. Results stay below 32 MiB (see `roi_gather`).
CHUNK_ENTRIES = 1 << 19
CHUNK_VALUES = 1 << 22
# Up to this many bins, finding shared pixels takes longer than summing them twice.
FEW_BINS = 1 << 9
# Samples along the axes held at a time.
AXIS_SAMPLES = 1 << 21


@dataclass(frozen=True)
class Sampling:
    """How bins are laid over a box: bins (h, w), samples a bin, frame of the boxes.

    `whole`: instead of samples, the mean of the whole pixels of a bin (Dai et al. 2016). `margin`:
    last lines and columns of the map that no whole pixel is taken from. `parts`: the bin number b
    reads the channels c * parts + b of the map only (position-sensitive maps).
    """

    size: tuple[int, int]
    ratio: int
    aligned: bool
    whole: bool = False
    margin: int = 0
    parts: int = 1


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
    map, one image at a time is copied; of position-sensitive maps (see `Sampling`), one part after
    another.
    """

    level: int
    image: int | None
    rows: int
    parts: int = 1

    def load(self, fmap: Tensor, cols: slice, dtype: torch.dtype) -> Tensor:
        """Return (rows, c) pixels of the channels `cols`."""
        if self.image is None:
            return fmap.permute(0, 2, 3, 1).reshape(self.rows, -1)[:, cols]
        pixels = fmap[self.image].unflatten(0, (-1, self.parts))[cols].permute(1, 2, 3, 0)
        return torch.empty(pixels.shape, dtype=dtype).copy_(pixels).view(self.rows, -1)

    def store(self, grad: Tensor, table: Tensor, cols: slice, *, add: bool) -> None:
        """Write (rows, c) to the channels `cols` of the map `grad`, or add them."""
        if self.image is None:
            pixels = grad[:, cols].permute(0, 2, 3, 1)
        else:
            pixels = grad[self.image].unflatten(0, (-1, self.parts))[cols].permute(1, 2, 3, 0)
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

    start: Array
    step: Array
    count: Array
    side: Array
    bins: int  # the larger of h and w: both axes are treated at once
    merge: bool  # whether samples of a bin may share a slot

    def __getitem__(self, which: Array | slice) -> _Grid:
        """Return the grid of some of the boxes."""
        start, step = self.start[which], self.step[which]
        return _Grid(start, step, self.count[which], self.side[which], self.bins, self.merge)

    @cached_property
    def origin(self) -> Array:
        """Where each bin starts, (R, 2, bins)."""
        # The order of operations is torchvision's: positions agree to the bit.
        k = np.arange(self.bins, dtype=self.start.dtype)
        origin: Array = self.start[..., None] + k * self.step[..., None]
        return origin

    def _at(self, sample: Array) -> Array:
        """Return the positions (R, 2, bins, S) of the samples (R, 2, S) of every bin."""
        offset = (sample + 0.5) * self.step[..., None] / np.maximum(self.count, 1)[..., None]
        at: Array = self.origin[..., None] + offset[:, :, None]
        return at

    def _clamp(self, at: Array) -> Array:
        inside: Array = np.minimum(np.maximum(at, 0), (self.side - 1)[..., None, None])
        return inside

    @cached_property
    def _ends(self) -> tuple[Array, Array]:
        """First and last pixel (R, 2, bins) that the samples of a bin round down to."""
        last = np.maximum(self.count - 1, 0)
        ends = np.floor(self._clamp(self._at(np.stack([np.zeros_like(last), last], 2))))
        # Reversed boxes are sampled backwards.
        return np.minimum(ends[..., 0], ends[..., 1]), np.maximum(ends[..., 0], ends[..., 1])

    @cached_property
    def fan(self) -> Array:
        """Slots (R, 2) that the longest bin needs: merged pixels or two a sample, the fewer."""
        fan: Array = 2 * np.maximum(self.count, 1)
        if self.merge:
            low, high = self._ends
            fan = np.minimum((high - low).max(2) + 2, fan)
        return fan

    def _samples(self) -> tuple[Array, Array, Array, Array]:
        """Return every sample's number (R, 2, S), lower pixel and weights of it and the next."""
        count = self.count[..., None]
        j = np.arange(max(int(self.count.max()), 1), dtype=self.start.dtype)
        # Boxes with fewer samples than others repeat their last one without weight.
        sample = np.minimum(j, np.maximum(count - 1, 0))
        at = self._at(sample)
        # Samples more than a pixel outside count as zero, nearer ones as the border.
        inside = (at >= -1) & (at <= self.side[..., None, None]) & (j < count)[:, :, None]
        share = inside / np.maximum(count, 1)[:, :, None]
        at = self._clamp(at)
        pixel = np.floor(at)
        upper = (at - pixel) * share
        return sample, pixel, share - upper, upper

    def plain(self) -> tuple[Array, Array]:
        """Return pixels and weights, (R, 2, bins, 2 S), with two entries for each sample."""
        _, pixel, lower, upper = self._samples()
        index = self._clamp(np.concatenate([pixel, pixel + 1], 3)).astype(np.int32)
        return index, np.concatenate([lower, upper], 3)

    def merged(self) -> tuple[Tensor, Tensor]:
        """Return pixels and weights, (R, 2, bins, K); unused slots weigh nothing."""
        sample, pixel, lower, upper = self._samples()
        low = self._ends[0][..., None]
        shared = self.fan[..., None] < 2 * self.count[..., None]
        slot = np.where(shared[:, :, None], pixel - low, 2 * sample[:, :, None]).astype(np.int64)
        index = np.repeat(low, int(self.fan.max()), 3)
        pixels, weight = torch.from_numpy(index), torch.zeros(index.shape, dtype=_torch(index))
        for shift, value in ((0, lower), (1, upper)):
            at_slot = torch.from_numpy(slot + shift)
            pixels.scatter_(3, at_slot, torch.from_numpy(pixel + shift))
            weight.scatter_add_(3, at_slot, torch.from_numpy(value))
        return torch.from_numpy(self._clamp(index).astype(np.int32)), weight


@dataclass(frozen=True)
class _Cells:
    """Bins of whole pixels along both axes: `low` inclusive, `high` exclusive, (R, 2, bins)."""

    low: Array
    high: Array
    side: Array
    merge = True

    def __getitem__(self, which: Array | slice) -> _Cells:
        """Return the cells of some of the boxes."""
        return _Cells(self.low[which], self.high[which], self.side[which])

    @property
    def bins(self) -> int:
        """Number of bins along an axis, the larger one."""
        return int(self.low.shape[2])

    @cached_property
    def count(self) -> Array:
        """Pixels (R, 2) of the longest bin, at least one."""
        count: Array = np.maximum((self.high - self.low).max(2), 1)
        return count

    @property
    def fan(self) -> Array:
        """Slots (R, 2) that the longest bin needs."""
        return self.count

    def merged(self) -> tuple[Tensor, Tensor]:
        """Return pixels and weights, (R, 2, bins, K); unused slots weigh nothing."""
        k = np.arange(int(self.count.max()))
        length = self.high - self.low
        index = np.minimum(self.low[..., None] + k, (self.side - 1)[..., None, None])
        weight = (k < length[..., None]) / np.maximum(length, 1)[..., None]
        pixels = torch.from_numpy(index.astype(np.int32))
        return pixels, torch.from_numpy(weight.astype(self.side.dtype))


def _cells(
    boxes: Tensor, level: Array, maps: list[MapInfo], how: Sampling, dtype: torch.dtype
) -> _Cells:
    """Lay bins of whole pixels over the boxes, rounded as torchvision rounds them."""
    corners = boxes.detach().to(dtype).numpy()
    scale = np.array([[1 / m.stride] for m in maps], corners.dtype)
    side = np.array([m.shape[2:] for m in maps], corners.dtype)[level]
    corners = corners * scale[level]
    corners = np.trunc(corners + np.copysign(corners.dtype.type(0.5), corners))
    start, end = corners[:, 1::-1, None], corners[:, :1:-1, None]  # (R, (y, x), 1)
    bins = np.array(how.size, corners.dtype)[:, None]
    step = np.maximum(end - start, 1) / bins
    k = np.arange(max(how.size), dtype=corners.dtype)
    end = (side - how.margin)[..., None]
    low = np.clip(np.floor(k * step) + start, 0, end)
    high = np.clip(np.ceil((k + 1) * step) + start, 0, end)
    return _Cells(low.astype(np.int64), high.astype(np.int64), side)


def _torch(array: Array) -> torch.dtype:
    return torch.float64 if array.dtype == np.float64 else torch.float32


def _grid(
    boxes: Tensor, level: Array, maps: list[MapInfo], how: Sampling, dtype: torch.dtype
) -> _Grid:
    """Lay the bins over the boxes, in pixels of each box's map."""
    corners = boxes.detach().to(dtype).numpy()
    scale = np.array([[1 / m.stride] for m in maps], corners.dtype)
    side = np.array([m.shape[2:] for m in maps], corners.dtype)
    corners = corners * scale[level] - corners.dtype.type(0.5 if how.aligned else 0)
    start, end = corners[:, 1::-1], corners[:, :1:-1]  # (R, (y, x))
    extent = end - start if how.aligned else np.maximum(end - start, 1)
    step = extent / np.array(how.size, corners.dtype)
    if how.ratio > 0:
        count = np.full(step.shape, how.ratio, step.dtype)
    else:  # a reversed box has no samples
        count = np.maximum(np.nan_to_num(np.ceil(step), nan=0, posinf=0, neginf=0), 0)
    merge = how.ratio == 0 or len(corners) * how.size[0] * how.size[1] > FEW_BINS
    return _Grid(start, step, count, side[level], max(how.size), merge)


def dense_axes(
    boxes: Tensor, info: MapInfo, how: Sampling, dtype: torch.dtype
) -> Iterator[tuple[tuple[int, int], Tensor, tuple[int, int], Tensor]]:
    """Yield for each box the lines and columns of the map that it touches, and their weights.

    Bins are then the product `weight_y @ map[y0:y1, x0:x1] @ weight_x.T`.

    Yields:
        (y0, y1), weight_y (h, y1 - y0), (x0, x1), weight_x (w, x1 - x0).
    """
    grid = _grid(boxes, np.zeros(len(boxes), np.int64), [info], how, dtype)
    index, weight = grid.plain()
    index = index.astype(np.int64)
    low, high = index.min((2, 3)), index.max((2, 3)) + 1
    for r in range(len(boxes)):
        found: list[Any] = []
        for axis, bins in enumerate(how.size):
            start, stop = int(low[r, axis]), int(high[r, axis])
            at = torch.from_numpy(index[r, axis, :bins] - start)
            value = torch.from_numpy(weight[r, axis, :bins])
            found += [(start, stop), value.new_zeros(bins, stop - start).scatter_add_(1, at, value)]
        yield found[0], found[1], found[2], found[3]


class Plan:
    """Order, canvases and entries of one call.

    The geometry of the boxes is small work in many steps, for which NumPy's calls are the cheaper
    ones; the entries are tensors.

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
        image, place = batch_index.numpy(), level.numpy()
        known = (place >= 0) & (place < len(maps))
        place = np.where(known, place, 0)
        lay = _cells if how.whole else _grid
        grid: _Grid | _Cells = lay(boxes, place, maps, how, dtype)
        apart = np.array([not m.is_rows for m in maps])[place]
        part = np.where(known, place * images + image * apart, -1)
        # Boxes of one canvas together, those with equally many entries side by side.
        key = part * (1 << 32) + grid.fan.max(1).astype(np.int64) if grid.merge else part
        order = np.argsort(key, kind="stable")
        counts = np.bincount(part + 1, minlength=len(maps) * images + 1).tolist()
        self.left_out = torch.from_numpy(order[: counts[0]])
        order = order[counts[0] :]
        self.order = torch.from_numpy(order)
        self.maps, self.size, self.dtype, self.parts = maps, how.size, dtype, how.parts
        self.grid = grid[order]
        # First pixel of the image in the canvas, and pixels from line to line.
        pixels = np.array([m.shape[2] * m.shape[3] for m in maps])[place]
        pixels, base = pixels[order, None, None], (pixels * image * ~apart)[order, None, None]
        h, w = how.size
        # The parts of a position-sensitive map follow each other in the order of the bins.
        step = pixels * (how.parts > 1)
        self.base = (base + np.arange(h)[:, None] * (w * step)).astype(np.int32)
        self.across = (np.arange(w)[:, None] * step).astype(np.int32)
        self.pitch = self.grid.side[:, 1].astype(np.int32)[:, None, None]
        self.canvases: list[Canvas] = []
        self.ends: list[int] = []
        for at, count in enumerate(counts[1:]):
            if count:
                info = maps[at // images]
                rows = info.shape[2] * info.shape[3] * (images if info.is_rows else how.parts)
                image_of = None if info.is_rows else at % images
                self.canvases.append(Canvas(at // images, image_of, rows, how.parts))
                self.ends.append(count + (self.ends[-1] if self.ends else 0))

    def passes(self) -> Iterator[list[Run]]:
        """Yield groups of runs, each group of bounded memory."""
        if not self.grid.merge:
            yield list(self._few())
            return
        runs: list[Run] = []
        held, total = 0, len(self.order)
        most = int(self.grid.count.max()) if total else 0
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

    def _few(self) -> Iterator[Run]:
        """Yield runs of one chunk: a few boxes, for which NumPy's calls are the cheaper ones."""
        (h, w), grid = self.size, self.grid
        assert isinstance(grid, _Grid)
        index, weight = grid.plain()
        y, x = index[:, 0, :h] * self.pitch + self.base, index[:, 1, :w] + self.across
        index = y[:, :, None, :, None] + x[:, None, :, None]
        y, x = weight[:, 0, :h], weight[:, 1, :w]
        weight = y[:, :, None, :, None] * x[:, None, :, None]
        fan = y.shape[2] * x.shape[2]
        for canvas, start, stop in zip(self.canvases, [0, *self.ends], self.ends, strict=False):
            at, part = torch.from_numpy(index[start:stop]), torch.from_numpy(weight[start:stop])
            yield Run(canvas, [Chunk(self.order[start:stop], at.view(-1), part.view(-1), fan)])

    def _chunks(self, first: int, last: int) -> Iterator[tuple[int, Chunk]]:
        """Yield position and chunk of the boxes `first` to `last` in order."""
        (h, w), grid = self.size, self.grid[first:last]
        index, weight = grid.merged()
        base, pitch, across = (
            torch.from_numpy(part[first:last]) for part in (self.base, self.pitch, self.across)
        )
        yi, xi = index[:, 0, :h] * pitch + base, index[:, 1, :w] + across
        yw, xw = weight[:, 0, :h], weight[:, 1, :w]
        fans = grid.fan.astype(int)
        largest = fans.max(1).tolist()
        start = first
        while start < last:
            stop = min(last, self.ends[bisect_right(self.ends, start)])
            # Fans rise along the order: the first one bounds the chunk, the last one makes it fit.
            stop = min(stop, start + self._fit(largest[start - first]))
            stop = min(stop, start + self._fit(largest[stop - first - 1]))
            rows = slice(start - first, stop - first)
            high, wide = fans[rows].max(0).tolist()
            y, x = _outer(yi[rows, :, :high], xi[rows, :, :wide])
            v, u = _outer(yw[rows, :, :high], xw[rows, :, :wide])
            rois = self.order[start:stop]
            yield start, Chunk(rois, (y + x).flatten(), (v * u).flatten(), high * wide)
            start = stop

    def _fit(self, fan: int) -> int:
        """Return how many boxes make one chunk."""
        bins = self.size[0] * self.size[1]
        values = CHUNK_VALUES // (bins * max(self.maps[0].shape[1] // self.parts, 1))
        return max(1, min(values, CHUNK_ENTRIES // (bins * fan * fan)))


def _outer(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Spread (n, h, Ky) and (n, w, Kx) to (n, h, 1, Ky * Kx) and (n, 1, w, Ky * Kx)."""
    # One long inner axis: broadcasting over four elements at a time is several times slower.
    high, wide = y.shape[2], x.shape[2]
    x = x[:, :, None].expand(-1, -1, high, -1).flatten(2)
    return y.repeat_interleave(wide, 2).unsqueeze(2), x.unsqueeze(1)
