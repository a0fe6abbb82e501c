"""Winograd's minimal filtering for 3x3 convolutions on the CPU (Lavin and Gray 2016).

F(4x4, 3x3): a tile of 4 x 4 outputs comes from 36 products per pair of channels instead of 144;
F(7x7, 3x3), for the maps of masks, of which 14 x 14 is a multiple, from 81 instead of 441.
The transforms are products with constant matrices and the products over channels a batched matrix
product, so it is pure PyTorch, multi-threaded, and 1.2 to 1.9 times as fast as the direct
convolution in channels-last order; so are its gradients, which are the transposed transforms and
products. Sums are rounded differently: by 3e-6 of the largest output, with tiles of 7 by 1e-4
(2e-4 at worst), gradients alike. An infinite input makes its whole tile nan.

`Conv2d` takes it in training, `WinogradConv2d`, with filters transformed once, at inference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .packed import PackedConv2d

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
# Fewer channels do not repay the transforms; fewer tiles do not repay reading the larger filters.
MIN_CHANNELS = 128
MIN_TILES = 48
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


def suits_winograd(conv: nn.Module) -> bool:
    """Whether a layer is a convolution that `WinogradConv2d` can replace with profit."""
    return (
        isinstance(conv, nn.Conv2d)
        and type(conv) in (nn.Conv2d, Conv2d)
        and conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.dilation == (1, 1)
        and conv.padding == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.groups == 1
        and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS
        and conv.weight.dtype == torch.float32
        and conv.weight.device.type == "cpu"
    )


def repays(shape: tuple[int, ...], out_channels: int) -> bool:
    """Whether maps of this shape (B, C, H, W) are large enough to gain from Winograd."""
    images, channels, height, width = shape
    tile = EXACT[0]
    high, wide = -(-height // tile), -(-width // tile)
    if images * high * wide < MIN_TILES:
        return False
    waste = tile * tile * high * wide / (height * width)
    return waste <= MAX_WASTE or min(channels, out_channels) >= WIDE


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


def convolve(x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution (B, K, H, W), channels-last, of (B, C, H, W) with padding 1.

    Args:
        x: maps; read fastest in channels-last order.
        filters: (patch ** 2, C, K), see `transform_filters`; their number tells the tiles.
        bias: (K,) or None.
    """
    images, _, height, width = x.shape
    rule = _rule(math.isqrt(len(filters)) - 2)
    tile = rule.tile
    shape = (images, filters.shape[2], height, width)
    out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    to_patch, to_tile = rule.to_patch.to(x.dtype), rule.to_tile.to(x.dtype)
    pixels, goals = x.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1)
    for block in _blocks(images, height, width, max(filters.shape[1:]), tile):
        patches = torch.bmm(_patches(pixels, block, to_patch), filters)  # (values, tiles, K)
        tiles = to_tile @ patches.view(len(patches), -1)
        tiles = tiles.view(tile, tile, *block.tiles, -1)
        if bias is not None:
            tiles += bias
        goal = goals[block.images, block.row : block.row + tile * block.high]
        if goal.shape[1:3] == (tile * block.high, tile * block.wide):
            ordered = tiles.permute(2, 3, 0, 4, 1, 5)
            goal.view(-1, block.high, tile, block.wide, tile, goal.shape[3]).copy_(ordered)
        else:  # tiles reach beyond the map: pixel by pixel of a tile, what lies inside
            for i in range(tile):
                for j in range(tile):
                    place = goal[:, i::tile, j::tile]
                    place.copy_(tiles[i, j, :, : place.shape[1], : place.shape[2]])
    return out


def weight_gradient(x: Tensor, grad: Tensor, tile: int = 4) -> Tensor:
    """Return the gradient (K, C, 3, 3) of the weights of a convolution with padding 1.

    Args:
        x: (B, C, H, W), its maps.
        grad: (B, K, H, W), the gradient of its result.
        tile: see `best_tile`.
    """
    images, channels, height, width = x.shape
    outputs = grad.shape[1]
    rule = _rule(tile)
    to_patch, from_tile = rule.to_patch.to(x.dtype), rule.to_tile.T.to(x.dtype).contiguous()
    pixels, grads = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    total = None
    for block in _blocks(images, height, width, max(channels, outputs), tile):
        patches = _patches(pixels, block, to_patch)  # (values, tiles, C)
        tiles = _tiles(grads, block, from_tile)  # (values, tiles, K)
        if total is None:
            total = torch.bmm(patches.transpose(1, 2), tiles)
        else:
            total.baddbmm_(patches.transpose(1, 2), tiles)
    assert total is not None, "maps without pixels do not repay"
    taps = rule.to_filter.T.to(x.dtype) @ total.view(len(total), -1)
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
    """

    images: slice
    many: int
    row: int
    high: int
    wide: int
    tile: int

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Images, lines, tiles in a line."""
        return self.many, self.high, self.wide


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


def _patches(pixels: Tensor, block: _Block, to_patch: Tensor) -> Tensor:
    """Return the transformed patches (values, tiles, C) of a block of maps (B, H, W, C)."""
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
    image, line, pixel, _ = source.stride()
    # Overlapping patches as a view (side, side, b, h, w, C), copied by the reshape.
    patches = source.as_strided(
        (side, side, images, high, wide, channels),
        (line, pixel, image, tile * line, tile * pixel, 1),
    )
    x = to_patch @ patches.reshape(side * side, -1)
    return x.view(side * side, -1, channels)


def _tiles(pixels: Tensor, block: _Block, from_tile: Tensor) -> Tensor:
    """Return the tiles of a block of maps (B, H, W, K), transformed back to (values, tiles, K)."""
    tile, (_, high, wide) = block.tile, block.tiles
    pixels = pixels[block.images, block.row : block.row + tile * high]
    images, height, width, channels = pixels.shape
    if (height, width) != (tile * high, tile * wide):  # beyond the map there is no gradient
        pixels = F.pad(pixels, (0, 0, 0, tile * wide - width, 0, tile * high - height))
    tiles = pixels.reshape(images, high, tile, wide, tile, channels).permute(2, 4, 0, 1, 3, 5)
    return (from_tile @ tiles.reshape(tile * tile, -1)).view(len(from_tile), -1, channels)


class _Convolution(torch.autograd.Function):
    """A 3x3 convolution with stride 1 and padding 1; see `Conv2d`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tiles: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.tile = best_tile(x.shape, len(weight), tiles)
        return convolve(x, transform_filters(weight, ctx.tile), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = None
        if needs_x:
            # The transposed convolution is the one with mirrored filters.
            mirrored = weight.flip(2, 3).transpose(0, 1)
            grad_x = convolve(grad, transform_filters(mirrored, ctx.tile), None)
        if needs_weight:
            grad_weight = weight_gradient(x, grad, ctx.tile)
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if needs_bias else None, None


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, in training on the CPU by Winograd's filtering where that is faster.

    Without a gradient in view it is `nn.Conv2d` to the bit; `WinogradConv2d` serves inference. Its
    gradient has no gradient of its own (no double backward, no `torch.func`).

    Attributes:
        tiles: sides of tiles that it may be computed with; see `best_tile`.
    """

    tiles: Sequence[int] = EXACT

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if (
            torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and (input.requires_grad or weight.requires_grad)
            and suits_winograd(self)
            and input.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and input.dim() == 4
            and repays(input.shape, self.out_channels)
        ):
            result: Tensor = _Convolution.apply(input, weight, bias, self.tiles)
            return result
        plain: Tensor = super()._conv_forward(input, weight, bias)
        return plain

    def scaled(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return the convolution times `scale` plus `shift`, both (K,), for a layer without bias.

        The scale goes into the weights, which are fewer than the outputs.
        """
        weight = self.weight * scale[:, None, None, None].to(self.weight.dtype)
        return self._conv_forward(x, weight, shift.to(weight.dtype))


class WinogradConv2d(PackedConv2d):
    """A 3x3 convolution with stride 1 and padding 1, for inference on the CPU in float32.

    Maps too small to gain from it go through the direct convolution.

    Args:
        conv: the layer to replace, see `suits_winograd`; its tensors are shared, and its weights
            are not looked at again once a map was seen.

    Shape: (B, C, H, W) to (B, K, H, W), channels-last in memory.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        if not suits_winograd(conv):
            raise ValueError(f"Winograd needs 3x3, stride 1, padding 1, float32, CPU; got {conv}")
        super().__init__(conv)
        self.tiles = conv.tiles if isinstance(conv, Conv2d) else EXACT
        self._filters: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated convolution of (B, C, H, W)."""
        if not repays(x.shape, self.weight.shape[0]):
            return super().forward(x)
        tile = best_tile(x.shape, self.weight.shape[0], self.tiles)
        if tile not in self._filters:
            with torch.inference_mode(False), torch.no_grad():
                exact = transform_filters(self.weight.double(), tile)
                self._filters[tile] = exact.to(self.weight.dtype)
        made = convolve(x, self._filters[tile], self.bias)
        return made if self.activation is None else self.activation(inplace=True)(made)
