"""Winograd's minimal filtering for 3x3 convolutions on the CPU (Lavin and Gray 2016).

F(4x4, 3x3): a tile of 4 x 4 outputs comes from 36 products per pair of channels instead of 144;
F(7x7, 3x3), for the maps of masks, of which 14 x 14 is a multiple, from 81 instead of 441.
The transforms are products with constant matrices and the products over channels a batched matrix
product, so it is pure PyTorch, multi-threaded, and 1.2 to 2 times as fast as the direct
convolution in channels-last order; so are its gradients, which are the transposed transforms and
products. Sums are rounded differently: by 3e-6 of the largest output, with tiles of 7 by 1e-4
(2e-4 at worst), gradients alike. An infinite input makes its whole tile nan.

The layers that take it are in `convolution`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Where the polynomials of each rule meet, besides infinity: small fractions of either sign, by
# which rounding grows least (Barabasz et al. 2020, "Error Analysis and Improving the Accuracy of
# Winograd Convolution").
_POINTS: dict[int, tuple[Fraction, ...]] = {
    tile: tuple(map(Fraction, points.split()))
    for tile, points in {
        4: "0 1 -1 2 -1/2",
        7: "0 1 -1 2 -2 1/2 -1/2 -3/4",
    }.items()
}
# Sides of tiles that a layer may have. Those of 7 round to 1e-4 of the largest output in place of
# 3e-6: not for what decides between boxes, but for masks of 14 x 14, in which no output is wasted.
EXACT, REGIONS = (4,), (4, 7)
# Work of a value in the transforms beside one in the products over channels.
TRANSFORM = 2
# Fewer channels do not repay the transforms; fewer outputs, those beside the map counted, do not
# repay reading the larger filters.
MIN_CHANNELS = 128
MIN_PIXELS = 768
# Outputs computed beside the map, as 16 x 16 of 14 x 14, that narrow layers do not repay.
MAX_WASTE = 1.2
WIDE = 256
MIN_BLOCK = 128  # tiles


class _Rule(NamedTuple):
    """F(m x m, 3 x 3): transforms of both axes at once, as products with Kronecker products.

    Attributes:
        tile: m, outputs of a tile along an axis.
        to_filter: (patch ** 2, 9): G g G^T.
        to_patch: (patch ** 2, patch ** 2): B^T d B.
        to_tile: (tile ** 2, patch ** 2): A^T m A.
    """

    tile: int
    to_filter: Tensor
    to_patch: Tensor
    to_tile: Tensor

    @property
    def patch(self) -> int:
        """Inputs that a tile needs along an axis."""
        return self.tile + 2


@cache
def _rule(tile: int) -> _Rule:
    """Return the rule for tiles of tile x tile outputs, made by the method of Toom and Cook."""
    points = _POINTS[tile]
    size = tile + 2

    def product(*roots: Fraction) -> list[Fraction]:
        """Return the coefficients of the polynomial with these roots, the lowest first."""
        poly = [Fraction(1)]
        for root in roots:
            poly = [
                low - root * high
                for low, high in zip([Fraction(0), *poly], [*poly, Fraction(0)], strict=True)
            ]
        return poly

    rows: list[tuple[list[Fraction], list[Fraction], list[Fraction]]] = []
    for i, point in enumerate(points):
        others = [*points[:i], *points[i + 1 :]]
        divisor = math.prod((point - other for other in others), start=Fraction(1))
        filters = [point**k / divisor for k in range(3)]
        rows.append((filters, [*product(*others), Fraction(0)], [point**k for k in range(tile)]))
    last = [Fraction(0)] * (tile - 1) + [Fraction(1)]
    rows.append(([Fraction(0), Fraction(0), Fraction(1)], product(*points), last))

    def both_axes(part: int) -> Tensor:
        values = [[float(x) for x in row[part]] for row in rows]
        matrix = torch.tensor(values, dtype=torch.float64)
        return torch.kron(matrix, matrix)

    assert len(rows) == size
    return _Rule(tile, both_axes(0), both_axes(1), both_axes(2).T.contiguous())


def repays(
    shape: tuple[int, ...], out_channels: int, *more: tuple[int, ...], tile: int = EXACT[0]
) -> bool:
    """Whether maps of these shapes (B, C, H, W) are together large enough to gain from Winograd.

    Args:
        shape: of the first map.
        out_channels: of the convolution.
        *more: shapes of the others.
        tile: see `best_tile`; what tiles of 4 repay, better ones do too.
    """
    wide = min(shape[1], out_channels) >= WIDE
    for side in (EXACT[0], tile):
        covered, pixels = 0, 0
        for images, _, height, width in (shape, *more):
            covered += images * -(-height // side) * -(-width // side) * side**2
            pixels += images * height * width
        if covered >= MIN_PIXELS and (wide or covered <= MAX_WASTE * pixels):
            return True
    return False


def best_tile(shape: tuple[int, ...], out_channels: int, tiles: Sequence[int] = EXACT) -> int:
    """Return the side of the tiles that need the least work for maps of this shape.

    Args:
        shape: (B, C, H, W), without B if it is the same for all.
        out_channels: of the convolution.
        tiles: the sides to choose from.
    """
    channels, height, width = shape[-3:]

    def work(tile: int) -> int:
        count = -(-height // tile) * -(-width // tile)
        values = (tile + 2) ** 2
        transforms = values * channels + tile**2 * out_channels
        return count * values * (channels * out_channels + TRANSFORM * transforms)

    return min(tiles, key=work)


def transform_filters(weight: Tensor, tile: int = 4) -> Tensor:
    """Return the filters (patch ** 2, C, K) of weights (K, C, 3, 3)."""
    taps = weight.permute(2, 3, 1, 0).reshape(9, -1)
    filters = _rule(tile).to_filter.to(weight.dtype) @ taps
    return filters.view(-1, weight.shape[1], weight.shape[0])


def convolve(
    x: Tensor,
    filters: Tensor,
    bias: Tensor | None,
    activation: nn.Module | None = None,
    wanted: Tensor | None = None,
) -> Tensor:
    """Return the convolution (B, K, H, W), channels-last, of (B, C, H, W) with padding 1.

    Args:
        x: maps; read fastest in channels-last order.
        filters: (patch ** 2, C, K), see `transform_filters`; their number tells the tiles.
        bias: (K,) or None.
        activation: what the outputs go through, in place; None: nothing.
        wanted: (B, H / tile, W / tile) bool, the tiles to compute, others are zeros; None: all.
    """
    return convolve_maps([x], filters, bias, activation, wanted)[0]


def convolve_maps(
    maps: Sequence[Tensor],
    filters: Tensor,
    bias: Tensor | None,
    activation: nn.Module | None = None,
    wanted: Tensor | None = None,
) -> list[Tensor]:
    """Return the convolution of each of several maps; small ones are computed together.

    Args:
        maps: (B, C, H, W) each.
        filters: see `convolve`.
        bias: see `convolve`.
        activation: see `convolve`.
        wanted: see `convolve`, of a single map.
    """
    kind, outputs = maps[0].dtype, filters.shape[2]
    rule = _rule(math.isqrt(len(filters)) - 2)
    tile = rule.tile
    made = [
        torch.empty((len(x), outputs, *x.shape[2:]), dtype=kind, memory_format=torch.channels_last)
        for x in maps
    ]
    if wanted is not None:
        made[0].zero_()
    to_patch, to_tile = rule.to_patch.to(kind), rule.to_tile.to(kind)
    pixels, goals = (_channels_last(part) for part in (maps, made))
    for group in _groups(maps, max(filters.shape[1:]), tile, wanted):
        patches = _joined(_patches(pixels[i], block, to_patch) for i, block in group)
        products = torch.bmm(patches.transpose(0, 1), filters)  # (values, tiles, K)
        found = _each_tile(to_tile, products.transpose(0, 1))
        if bias is not None:
            found += bias
        if activation is not None:  # here, where the tiles are still in the caches
            found = activation(found)
        parts = found.split([block.total for _, block in group])
        for (i, block), part in zip(group, parts, strict=True):
            _put(part, block, goals[i])
    return made


def _each_tile(transform: Tensor, tiles: Tensor) -> Tensor:
    """Return the transform (V', V) of each of the tiles (tiles, V, C).

    A small product for each tile, of which a thread does whole ones, is twice as fast as one wide
    product for all.
    """
    return torch.bmm(transform.expand(len(tiles), *transform.shape), tiles)


def _channels_last(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return views (B, H, W, C)."""
    return [x.permute(0, 2, 3, 1) for x in maps]


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """Return the tiles of all blocks of a group, (tiles, values, C)."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _put(tiles: Tensor, block: _Block, goal: Tensor) -> None:
    """Write the tiles (tiles, tile ** 2, K) of a block into a map (B, H, W, K)."""
    tile, outputs = block.tile, tiles.shape[2]
    goal = goal[block.images, block.row : block.row + tile * block.high]
    if block.chosen is not None:
        pixels = block.pixels(goal.shape[2], tile)
        goal.view(-1, outputs).index_copy_(0, pixels, tiles.reshape(-1, outputs))
        return
    tiles = tiles.view(*block.tiles, tile, tile, outputs)
    if goal.shape[1:3] == (tile * block.high, tile * block.wide):
        ordered = tiles.transpose(2, 3)
        goal.view(-1, block.high, tile, block.wide, tile, goal.shape[3]).copy_(ordered)
        return
    for i in range(tile):  # tiles reach beyond the map: pixel by pixel of a tile, what lies inside
        for j in range(tile):
            place = goal[:, i::tile, j::tile]
            place.copy_(tiles[:, : place.shape[1], : place.shape[2], i, j])


def weight_gradient(maps: Sequence[Tensor], grads: Sequence[Tensor], tile: int = 4) -> Tensor:
    """Return the gradient (K, C, 3, 3) of the weights of a convolution with padding 1.

    Args:
        maps: (B, C, H, W) each: what it has seen.
        grads: (B, K, H, W) each: the gradient of what it has made of them.
        tile: see `best_tile`.
    """
    kind, channels, outputs = maps[0].dtype, maps[0].shape[1], grads[0].shape[1]
    rule = _rule(tile)
    to_patch, from_tile = rule.to_patch.to(kind), rule.to_tile.T.to(kind).contiguous()
    pixels, behind = _channels_last(maps), _channels_last(grads)
    total = None
    for group in _groups(maps, max(channels, outputs), tile):
        patches = _joined(_patches(pixels[i], block, to_patch) for i, block in group)
        tiles = _joined(_tiles(behind[i], block, from_tile) for i, block in group)
        seen, behind_it = patches.permute(1, 2, 0), tiles.transpose(0, 1)
        if total is None:
            total = torch.bmm(seen, behind_it)  # (values, C, K)
        else:
            total.baddbmm_(seen, behind_it)
    assert total is not None, "maps without pixels do not repay"
    taps = rule.to_filter.T.to(kind) @ total.view(len(total), -1)
    return taps.view(3, 3, channels, outputs).permute(3, 2, 0, 1)


class _Block(NamedTuple):
    """Tiles that are computed at once: lines of tiles of some images.

    Attributes:
        images: which images.
        many: how many.
        row: first row of pixels.
        high: lines of tiles.
        wide: tiles in a line.
        tile: side of a tile in pixels.
        chosen: which of the tiles, line by line; None: all.
    """

    images: slice
    many: int
    row: int
    high: int
    wide: int
    tile: int
    chosen: Tensor | None = None

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Images, lines, tiles in a line."""
        return self.many, self.high, self.wide

    @property
    def total(self) -> int:
        """How many tiles are computed."""
        return math.prod(self.tiles) if self.chosen is None else len(self.chosen)

    def pixels(self, width: int, side: int) -> Tensor:
        """Return where the pixels of chosen tiles lie in the block's own map, as one list.

        Args:
            width: of that map; its height is that of the tiles and what `side` has beyond `tile`.
            side: of the pixels of a tile, from its first one on.
        """
        assert self.chosen is not None
        image = self.chosen // (self.high * self.wide)
        line, place = self.chosen // self.wide % self.high, self.chosen % self.wide
        height = self.tile * self.high + side - self.tile
        first = (image * height + self.tile * line) * width + self.tile * place
        steps = torch.arange(side)
        return (first[:, None, None] + width * steps[:, None] + steps).flatten()


def _blocks(images: int, height: int, width: int, channels: int, tile: int) -> Iterator[_Block]:
    # A block of tiles is small enough for the caches, and large enough that the filters are not
    # read for too few.
    high, wide = -(-height // tile), -(-width // tile)
    block = max(MIN_BLOCK, channels)
    some = max(1, min(images, block // (high * wide)))
    if channels >= WIDE:  # lines of one map read little that lies far apart: more of them at once
        block *= 2
    lines = high if some > 1 else max(1, min(high, block // wide))
    for n in range(0, images, some):
        for line in range(0, high, lines):
            count = min(some, images - n)
            part = min(lines, high - line)
            yield _Block(slice(n, n + count), count, tile * line, part, wide, tile)


def _groups(
    maps: Sequence[Tensor], channels: int, tile: int, wanted: Tensor | None = None
) -> Iterator[list[tuple[int, _Block]]]:
    """Yield the blocks of several maps with the numbers of these; small ones come together."""
    most = max(MIN_BLOCK, channels)
    group: list[tuple[int, _Block]] = []
    tiles = 0
    for i, (images, _, height, width) in enumerate(x.shape for x in maps):
        for block in _blocks(images, height, width, channels, tile):
            if wanted is not None:
                line = block.row // tile
                asked = wanted[block.images, line : line + block.high].flatten()
                if not bool(asked.all()):
                    block = block._replace(chosen=asked.nonzero()[:, 0])
            count = block.total
            if not count:
                continue
            if group and tiles + count > most:
                yield group
                group, tiles = [], 0
            group.append((i, block))
            tiles += count
    if group:
        yield group


def _patches(pixels: Tensor, block: _Block, to_patch: Tensor) -> Tensor:
    """Return the transformed patches (tiles, values, C) of a block of maps (B, H, W, C)."""
    pixels = pixels[block.images]
    images, height, width, channels = pixels.shape
    row, tile, (_, high, wide) = block.row, block.tile, block.tiles
    side = tile + 2
    # The lines that the block reads, with their border of zeros: small, so that the memory is warm
    # and used again for the next block.
    source = pixels.new_empty(images, tile * high + 2, tile * wide + 2, channels)
    first, last = max(row - 1, 0), min(row + tile * high + 1, height)
    above, below = first - (row - 1), last - (row - 1)
    source[:, :above].zero_()
    source[:, below:].zero_()
    source[:, above:below, 0].zero_()
    source[:, above:below, width + 1 :].zero_()
    source[:, above:below, 1 : width + 1].copy_(pixels[:, first:last])
    if block.chosen is not None:
        places = block.pixels(source.shape[2], side)
        patches = source.view(-1, channels).index_select(0, places)
        return _each_tile(to_patch, patches.view(-1, side * side, channels))
    image, line, pixel, _ = source.stride()
    # Overlapping patches as a view (b, h, w, side, side, C), copied by the reshape.
    patches = source.as_strided(
        (images, high, wide, side, side, channels),
        (image, tile * line, tile * pixel, line, pixel, 1),
    )
    return _each_tile(to_patch, patches.reshape(-1, side * side, channels))


def _tiles(pixels: Tensor, block: _Block, from_tile: Tensor) -> Tensor:
    """Return the tiles of a block of maps (B, H, W, K), transformed back to (tiles, values, K)."""
    tile, (_, high, wide) = block.tile, block.tiles
    pixels = pixels[block.images, block.row : block.row + tile * high]
    images, height, width, channels = pixels.shape
    if (height, width) != (tile * high, tile * wide):  # beyond the map there is no gradient
        pixels = F.pad(pixels, (0, 0, 0, tile * wide - width, 0, tile * high - height))
    tiles = pixels.reshape(images, high, tile, wide, tile, channels).transpose(2, 3)
    return _each_tile(from_tile, tiles.reshape(-1, tile * tile, channels))


def convolve_learning(
    maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None, tile: int = EXACT[0]
) -> list[Tensor]:
    """Return what `convolve_maps` does, with gradients that are computed in the same way.

    Args:
        maps: (B, C, H, W) each.
        weight: (K, C, 3, 3).
        bias: (K,) or None.
        tile: see `best_tile`.
    """
    return list(_Winograd.apply(weight, bias, tile, *maps))


class _Winograd(torch.autograd.Function):
    """A 3x3 convolution with stride 1 and padding 1 of one or several maps; no double backward."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor | None, tile: int, *maps: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *maps)
        ctx.tile = tile
        return tuple(convolve_maps(maps, transform_filters(weight, tile), bias))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, *maps = ctx.saved_tensors
        needs_weight, needs_bias, _, *needs_maps = ctx.needs_input_grad
        grads = tuple(grad.contiguous(memory_format=torch.channels_last) for grad in grads)
        before: list[Tensor | None] = [None] * len(maps)
        grad_weight = grad_bias = None
        if wanted := [i for i, needs in enumerate(needs_maps) if needs]:
            # The transposed convolution is the one with mirrored filters.
            filters = transform_filters(weight.flip(2, 3).transpose(0, 1), ctx.tile)
            found = convolve_maps([grads[i] for i in wanted], filters, None)
            for i, grad in zip(wanted, found, strict=True):
                before[i] = grad
        if needs_weight:
            grad_weight = weight_gradient(maps, grads, ctx.tile)
        if needs_bias:
            grad_bias = torch.stack([grad.sum((0, 2, 3)) for grad in grads]).sum(0)
        return grad_weight, grad_bias, None, *before
