"""Winograd's minimal filtering for 3x3 convolutions at inference (Lavin and Gray 2016).

F(4x4, 3x3): a tile of 4 x 4 outputs comes from 36 products per pair of channels instead of 144.
The transforms are products with constant matrices and the products over channels a batched matrix
product, so it is pure PyTorch, multi-threaded, and on CPUs 1.2 to 1.9 times as fast as the direct
convolution in channels-last order. Sums are rounded differently: about 1e-5 of the largest output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Lavin and Gray 2016, section 4.2: interpolation at 0, 1, -1, 2, -2 and infinity.
_INPUT = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_FILTER = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]

TILE = 4  # outputs of a tile along an axis
PATCH = 6  # inputs that they need
# Fewer channels do not repay the transforms; fewer tiles do not repay reading the larger filters.
MIN_CHANNELS = 64
MIN_TILES = 48
# Outputs computed beside the map, as 16 x 16 of 14 x 14, that narrow layers do not repay.
MAX_WASTE = 1.2
WIDE = 256
MIN_BLOCK = 128  # tiles


def suits_winograd(conv: nn.Module) -> bool:
    """Whether a layer is a convolution that `WinogradConv2d` can replace with profit."""
    return (
        type(conv) is nn.Conv2d
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


class WinogradConv2d(nn.Module):
    """A 3x3 convolution with stride 1 and padding 1, for inference on the CPU in float32.

    Maps too small to gain from it go through the direct convolution.

    Args:
        conv: the layer to replace, see `suits_winograd`; its tensors are shared.

    Shape: (B, C, H, W) to (B, K, H, W), channels-last in memory.
    """

    filters: Tensor
    to_patch: Tensor
    to_tile: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if not suits_winograd(conv):
            raise ValueError(f"Winograd needs 3x3, stride 1, padding 1, float32, CPU; got {conv}")
        self.weight = conv.weight
        self.bias = conv.bias
        with torch.no_grad():
            # One product with a Kronecker product transforms both axes: G g G^T, B^T d B, A^T m A.
            left = torch.tensor(_FILTER, dtype=torch.float32)
            weight = conv.weight.permute(2, 3, 1, 0)  # (3, 3, C, K)
            filters = torch.kron(left, left) @ weight.reshape(9, -1)
            filters = filters.view(PATCH * PATCH, *weight.shape[2:])
            columns = torch.tensor(_INPUT, dtype=torch.float32)
            rows = torch.tensor(_OUTPUT, dtype=torch.float32)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("to_patch", torch.kron(columns, columns), persistent=False)
        self.register_buffer("to_tile", torch.kron(rows, rows), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of (B, C, H, W)."""
        images, channels, height, width = x.shape
        high, wide = -(-height // TILE), -(-width // TILE)
        out_channels = self.weight.shape[0]
        few = images * high * wide < MIN_TILES
        waste = TILE * TILE * high * wide / (height * width) if height * width else 1.0
        if few or (waste > MAX_WASTE and min(channels, out_channels) < WIDE):
            return F.conv2d(x, self.weight, self.bias, padding=1)
        pixels = x.permute(0, 2, 3, 1)
        out = x.new_empty(images, TILE * high, TILE * wide, out_channels)
        # A block of tiles is small enough for the caches, and large enough that the filters are
        # not read for too few.
        block = max(MIN_BLOCK, channels, out_channels)
        some = max(1, min(images, block // (high * wide)))
        lines = high if some > 1 else max(1, min(high, block // wide))
        for n in range(0, images, some):
            for r in range(0, TILE * high, TILE * lines):
                self._block(pixels[n : n + some], r, out[n : n + some, r : r + TILE * lines])
        if self.bias is not None:
            out += self.bias
        return out.permute(0, 3, 1, 2)[:, :, :height, :width]

    def _block(self, pixels: Tensor, row: int, goal: Tensor) -> None:
        """Fill `goal` (b, 4 h, 4 w, K), the outputs from `row` on, from `pixels` (b, H, W, C)."""
        images, height, width, channels = pixels.shape
        high, wide = goal.shape[1] // TILE, goal.shape[2] // TILE
        # The lines that the block reads, with their border of zeros: small, so that the memory
        # is warm and used again for the next block.
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
        x = self.to_patch @ patches.reshape(PATCH * PATCH, -1)
        x = torch.bmm(x.view(PATCH * PATCH, -1, channels), self.filters)  # (36, tiles, K)
        x = self.to_tile @ x.view(PATCH * PATCH, -1)
        x = x.view(TILE, TILE, images, high, wide, -1).permute(2, 3, 0, 4, 1, 5)
        goal.view(images, high, TILE, wide, TILE, -1).copy_(x)

    def extra_repr(self) -> str:
        """Describe the layer in `print(model)`."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"
