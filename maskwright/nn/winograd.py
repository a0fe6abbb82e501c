"""Winograd's minimal filtering for 3x3 convolutions on the CPU (Lavin and Gray 2016).

F(4x4, 3x3): a tile of 4 x 4 outputs comes from 36 products per pair of channels instead of 144.
The transforms are products with constant matrices and the products over channels a batched matrix
product, so it is pure PyTorch, multi-threaded, and 1.2 to 1.9 times as fast as the direct
convolution in channels-last order; so are its gradients, which are the transposed transforms and
products. Sums are rounded differently: about 1e-5 of the largest output.

`Conv2d` takes it in training, `WinogradConv2d`, with filters transformed once, at inference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Lavin and Gray 2016, section 4.2: interpolation at 0, 1, -1, 2, -2 and infinity.
_INPUT: list[list[float]] = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_FILTER: list[list[float]] = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_OUTPUT: list[list[float]] = [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
]

TILE = 4  # outputs of a tile along an axis
PATCH = 6  # inputs that they need
# Fewer channels do not repay the transforms; fewer tiles do not repay reading the larger filters.
MIN_CHANNELS = 64
MIN_TILES = 48
# Outputs computed beside the map, as 16 x 16 of 14 x 14, that narrow layers do not repay.
MAX_WASTE = 1.2
WIDE = 256
MIN_BLOCK = 128  # tiles


def _both_axes(rows: Sequence[Sequence[float]]) -> Tensor:
    # One product with a Kronecker product transforms both axes: G g G^T, B^T d B, A^T m A.
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix)


_TO_FILTER = _both_axes(_FILTER)  # (36, 9)
_TO_PATCH = _both_axes(_INPUT)  # (36, 36)
_TO_TILE = _both_axes(_OUTPUT)  # (16, 36)


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
    high, wide = -(-height // TILE), -(-width // TILE)
    if images * high * wide < MIN_TILES:
        return False
    waste = TILE * TILE * high * wide / (height * width)
    return waste <= MAX_WASTE or min(channels, out_channels) >= WIDE


def transform_filters(weight: Tensor) -> Tensor:
    """Return the filters (36, C, K) of weights (K, C, 3, 3)."""
    taps = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (_TO_FILTER.to(weight.dtype) @ taps).view(-1, weight.shape[1], weight.shape[0])


def convolve(x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution (B, K, H, W), channels-last, of (B, C, H, W) with padding 1.

    Args:
        x: maps; read fastest in channels-last order.
        filters: (36, C, K), see `transform_filters`.
        bias: (K,) or None.
    """
    images, _, height, width = x.shape
    shape = (images, filters.shape[2], height, width)
    out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    to_patch, to_tile = _TO_PATCH.to(x.dtype), _TO_TILE.to(x.dtype)
    pixels, goals = x.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1)
    for block in _blocks(images, height, width, max(filters.shape[1:])):
        patches = torch.bmm(_patches(pixels, block, to_patch), filters)  # (36, tiles, K)
        tiles = to_tile @ patches.view(PATCH * PATCH, -1)
        tiles = tiles.view(TILE, TILE, *block.tiles, -1)
        if bias is not None:
            tiles += bias
        goal = goals[block.images, block.row : block.row + TILE * block.high]
        if goal.shape[1:3] == (TILE * block.high, TILE * block.wide):
            ordered = tiles.permute(2, 3, 0, 4, 1, 5)
            goal.view(-1, block.high, TILE, block.wide, TILE, goal.shape[3]).copy_(ordered)
        else:  # tiles reach beyond the map: pixel by pixel of a tile, what lies inside
            for i in range(TILE):
                for j in range(TILE):
                    place = goal[:, i::TILE, j::TILE]
                    place.copy_(tiles[i, j, :, : place.shape[1], : place.shape[2]])
    return out


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient (K, C, 3, 3) of the weights of a convolution with padding 1.

    Args:
        x: (B, C, H, W), its maps.
        grad: (B, K, H, W), the gradient of its result.
    """
    images, channels, height, width = x.shape
    outputs = grad.shape[1]
    to_patch, from_tile = _TO_PATCH.to(x.dtype), _TO_TILE.T.to(x.dtype).contiguous()
    pixels, grads = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    total = None
    for block in _blocks(images, height, width, max(channels, outputs)):
        patches = _patches(pixels, block, to_patch)  # (36, tiles, C)
        tiles = _tiles(grads, block, from_tile)  # (36, tiles, K)
        if total is None:
            total = torch.bmm(patches.transpose(1, 2), tiles)
        else:
            total.baddbmm_(patches.transpose(1, 2), tiles)
    assert total is not None, "maps without pixels do not repay"
    taps = _TO_FILTER.T.to(x.dtype) @ total.view(PATCH * PATCH, -1)
    return taps.view(3, 3, channels, outputs).permute(3, 2, 0, 1)


class _Block(NamedTuple):
    """Tiles that are computed at once: lines of tiles of some images.

    Attributes:
        images: which images.
        many: how many.
        row: first row of pixels.
        high: lines of tiles.
        wide: tiles in a line.
    """

    images: slice
    many: int
    row: int
    high: int
    wide: int

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Images, lines, tiles in a line."""
        return self.many, self.high, self.wide


def _blocks(images: int, height: int, width: int, channels: int) -> Iterator[_Block]:
    # A block of tiles is small enough for the caches, and large enough that the filters are not
    # read for too few.
    high, wide = -(-height // TILE), -(-width // TILE)
    block = max(MIN_BLOCK, channels)
    some = max(1, min(images, block // (high * wide)))
    lines = high if some > 1 else max(1, min(high, block // wide))
    for n in range(0, images, some):
        for line in range(0, high, lines):
            count = min(some, images - n)
            yield _Block(slice(n, n + count), count, TILE * line, min(lines, high - line), wide)


def _patches(pixels: Tensor, block: _Block, to_patch: Tensor) -> Tensor:
    """Return the transformed patches (36, tiles, C) of a block of maps (B, H, W, C)."""
    pixels = pixels[block.images]
    images, height, width, channels = pixels.shape
    row, (_, high, wide) = block.row, block.tiles
    # The lines that the block reads, with their border of zeros: small, so that the memory is warm
    # and used again for the next block.
    source = pixels.new_empty(images, TILE * high + 2, TILE * wide + 2, channels)
    first, last = max(row - 1, 0), min(row + TILE * high + 1, height)
    above, below = first - (row - 1), last - (row - 1)
    source[:, :above].zero_()
    source[:, below:].zero_()
    source[:, above:below, 0].zero_()
    source[:, above:below, width + 1 :].zero_()
    source[:, above:below, 1 : width + 1].copy_(pixels[:, first:last])
    image, line, pixel, _ = source.stride()
    # Overlapping patches as a view (6, 6, b, h, w, C), copied by the reshape.
    patches = source.as_strided(
        (PATCH, PATCH, images, high, wide, channels),
        (line, pixel, image, TILE * line, TILE * pixel, 1),
    )
    x = to_patch @ patches.reshape(PATCH * PATCH, -1)
    return x.view(PATCH * PATCH, -1, channels)


def _tiles(pixels: Tensor, block: _Block, from_tile: Tensor) -> Tensor:
    """Return the tiles of a block of maps (B, H, W, K), transformed back to (36, tiles, K)."""
    pixels = pixels[block.images, block.row : block.row + TILE * block.high]
    images, height, width, channels = pixels.shape
    _, high, wide = block.tiles
    if (height, width) != (TILE * high, TILE * wide):  # beyond the map there is no gradient
        pixels = F.pad(pixels, (0, 0, 0, TILE * wide - width, 0, TILE * high - height))
    tiles = pixels.reshape(images, high, TILE, wide, TILE, channels).permute(2, 4, 0, 1, 3, 5)
    return (from_tile @ tiles.reshape(TILE * TILE, -1)).view(PATCH * PATCH, -1, channels)


class _Convolution(torch.autograd.Function):
    """A 3x3 convolution with stride 1 and padding 1; see `Conv2d`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return convolve(x, transform_filters(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = None
        if needs_x:
            # The transposed convolution is the one with mirrored filters.
            mirrored = weight.flip(2, 3).transpose(0, 1)
            grad_x = convolve(grad, transform_filters(mirrored), None)
        if needs_weight:
            grad_weight = weight_gradient(x, grad)
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if needs_bias else None


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, in training on the CPU by Winograd's filtering where that is faster.

    Without a gradient in view it is `nn.Conv2d` to the bit; `WinogradConv2d` serves inference.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if (
            torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and (input.requires_grad or weight.requires_grad)
            and suits_winograd(self)
            and input.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and repays(input.shape, self.out_channels)
        ):
            result: Tensor = _Convolution.apply(input, weight, bias)
            return result
        plain: Tensor = super()._conv_forward(input, weight, bias)
        return plain

    def scaled(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return the convolution times `scale` plus `shift`, both (K,), for a layer without bias.

        The scale goes into the weights, which are fewer than the outputs.
        """
        weight = self.weight * scale[:, None, None, None].to(self.weight.dtype)
        return self._conv_forward(x, weight, shift.to(weight.dtype))


class WinogradConv2d(nn.Module):
    """A 3x3 convolution with stride 1 and padding 1, for inference on the CPU in float32.

    Maps too small to gain from it go through the direct convolution.

    Args:
        conv: the layer to replace, see `suits_winograd`; its tensors are shared.

    Shape: (B, C, H, W) to (B, K, H, W), channels-last in memory.
    """

    filters: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if not suits_winograd(conv):
            raise ValueError(f"Winograd needs 3x3, stride 1, padding 1, float32, CPU; got {conv}")
        self.weight = conv.weight
        self.bias = conv.bias
        with torch.no_grad():
            self.register_buffer("filters", transform_filters(conv.weight), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of (B, C, H, W)."""
        if repays(x.shape, self.weight.shape[0]):
            return convolve(x, self.filters, self.bias)
        return F.conv2d(x, self.weight, self.bias, padding=1)

    def extra_repr(self) -> str:
        """Describe the layer in `print(model)`."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"
