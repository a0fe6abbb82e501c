"""3x3 convolutions that choose their way on the CPU: direct, by Winograd's filtering, dilated.

`Conv2d` is the layer of networks, which chooses in training; `WinogradConv2d` takes its place at
inference. Both are `nn.Conv2d` wherever that is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dilation import apart, dilated_convolution, inside, together
from .packed import PackedConv2d, is_hooked
from .winograd import (
    EXACT,
    MIN_CHANNELS,
    MIN_PIXELS,
    WIDE,
    best_tile,
    convolve,
    convolve_learning,
    convolve_maps,
    repays,
    transform_filters,
)

# Outputs computed beside the map by the parts of a dilated convolution, which eat up the gain.
MAX_DILATED_WASTE = 1.6
# Of the products of a dilated convolution, those inside the map, below which the others are left
# out of its gradients.
MAX_INSIDE = 0.5
# Inputs times output channels: fewer do not repay nine products in place of one operator.
MIN_WORK = 1 << 24


def suits_winograd(conv: nn.Module) -> bool:
    """Whether a layer is a convolution that `WinogradConv2d` can replace with profit."""
    return (
        isinstance(conv, nn.Conv2d)
        and type(conv) in (nn.Conv2d, Conv2d)
        and conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.dilation[0] == conv.dilation[1]
        and conv.padding == conv.dilation
        and conv.padding_mode == "zeros"
        and conv.groups == 1
        and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS
        and conv.weight.dtype == torch.float32
        and conv.weight.device.type == "cpu"
    )


def repays_apart(shape: tuple[int, ...], out_channels: int, rate: int) -> bool:
    """Whether the parts of maps (B, C, H, W), `dilation.apart`, are worth Winograd's filtering."""
    images, channels, height, width = shape
    high, wide = (-(-side // rate) for side in (height, width))
    tile = EXACT[0]
    covered = images * (rate * tile) ** 2 * -(-high // tile) * -(-wide // tile)
    enough = covered >= MIN_PIXELS and min(channels, out_channels) >= WIDE
    return enough and covered <= MAX_DILATED_WASTE * images * height * width


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, in training on the CPU by Winograd's filtering where that is faster.

    A dilated one computes its parts so (`dilation.apart`), or leaves products beyond the border out
    of its gradients. Without a gradient in view it is `nn.Conv2d` to the bit; `WinogradConv2d`
    serves inference. Its gradient has no gradient of its own (no double backward, no `torch.func`).

    Attributes:
        tiles: sides of tiles that it may be computed with; see `best_tile`.
    """

    tiles: Sequence[int] = EXACT

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._learns([input], weight):
            shape, rate = input.shape, self.dilation[0]
            tile = best_tile(shape, len(weight), self.tiles)
            if rate == 1 and repays(shape, len(weight), tile=tile):
                return convolve_learning([input], weight, bias, tile)[0]
            size = (shape[2], shape[3])
            sparse = rate > 1 and inside(size, rate) <= MAX_INSIDE
            if sparse and input.numel() * len(weight) >= MIN_WORK:
                return dilated_convolution(input, weight, bias, rate)
            if rate > 1 and repays_apart(shape, len(weight), rate):
                parts = convolve_learning([apart(input, rate)], weight, bias)[0]
                return together(parts, rate, size)
        made: Tensor = super()._conv_forward(input, weight, bias)
        return made

    def _learns(self, maps: Sequence[Tensor], weight: Tensor) -> bool:
        """Whether there is a gradient in view, and a way of its own could serve."""
        return (
            torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and (weight.requires_grad or any(x.requires_grad for x in maps))
            and suits_winograd(self)
            and all(x.dtype == torch.float32 and x.dim() == 4 and x.numel() for x in maps)
            and not torch.is_autocast_enabled("cpu")
        )

    def of_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return what it makes of each of several maps; see `of_maps`."""
        shapes = [x.shape for x in maps]
        several = len(maps) > 1 and self.dilation[0] == 1 and self._learns(maps, self.weight)
        if several and repays(shapes[0], self.out_channels, *shapes[1:]):
            return convolve_learning(maps, self.weight, self.bias)
        return [self(x) for x in maps]

    def scaled(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return the convolution times `scale` plus `shift`, both (K,), for a layer without bias.

        The scale goes into the weights, which are fewer than the outputs.
        """
        weight = self.weight * scale[:, None, None, None].to(self.weight.dtype)
        return self._conv_forward(x, weight, shift.to(weight.dtype))


class WinogradConv2d(PackedConv2d):
    """A 3x3 convolution with stride 1, padded by its dilation, for inference on the CPU in float32.

    Maps too small to gain from it go through the direct convolution.

    Args:
        conv: the layer to replace, see `suits_winograd`; its tensors are shared, and its weights
            are not looked at again once a map was seen.

    Shape: (B, C, H, W) to (B, K, H, W), channels-last in memory.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        if not suits_winograd(conv):
            raise ValueError(
                "Winograd needs 3x3, stride 1, padded by the dilation, 128 channels and more, "
                f"float32, CPU; got {conv}"
            )
        super().__init__(conv)
        self.tiles = conv.tiles if isinstance(conv, Conv2d) else EXACT
        self._filters: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated convolution of (B, C, H, W)."""
        outputs, rate = len(self.weight), self.dilation[0]
        tile = best_tile(x.shape, outputs, self.tiles)
        if rate == 1 and repays(x.shape, outputs, tile=tile):
            return convolve(x, self._transformed(tile), self.bias, self._activation())
        if rate > 1 and repays_apart(x.shape, outputs, rate):
            filters = self._transformed(EXACT[0])
            made = convolve(apart(x, rate), filters, self.bias, self._activation())
            return together(made, rate, (x.shape[2], x.shape[3]))
        return super().forward(x)

    def of_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return what it makes of each of several maps; see `of_maps`."""
        shapes = [x.shape for x in maps]
        several = len(maps) > 1 and self.dilation[0] == 1
        if several and repays(shapes[0], len(self.weight), *shapes[1:]):
            filters = self._transformed(EXACT[0])
            return convolve_maps(maps, filters, self.bias, self._activation())
        return [self(x) for x in maps]

    def where(self, x: Tensor, wanted: Tensor) -> Tensor:
        """Return what it makes of a map, tile by tile where it is wanted; see `where_wanted`."""
        tile, outputs = EXACT[0], len(self.weight)
        whole = x.shape[2] % tile == 0 and x.shape[3] % tile == 0
        if not whole or self.dilation[0] > 1 or not repays(x.shape, outputs):
            made: Tensor = self(x)
            return made
        tiles = F.max_pool2d(wanted[:, None].float(), tile)[:, 0] > 0
        filters = self._transformed(tile)
        return convolve(x, filters, self.bias, self._activation(), tiles)

    def _transformed(self, tile: int) -> Tensor:
        if tile not in self._filters:
            with torch.inference_mode(False), torch.no_grad():
                exact = transform_filters(self.weight.double(), tile)
                self._filters[tile] = exact.to(self.weight.dtype)
        return self._filters[tile]

    def _activation(self) -> nn.Module | None:
        return None if self.activation is None else self.activation(inplace=True)


def of_maps(layer: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    """Return what a layer makes of each of several maps, such as those of a pyramid.

    A convolution by Winograd's filtering transforms its filters once for all of them, and computes
    the small ones together; other layers take one map after the other.

    Args:
        layer: the layer, or a sequence of layers.
        maps: (B, C, H, W) each.
    """
    if isinstance(layer, nn.Sequential):
        found = list(maps)
        for part in layer:
            found = of_maps(part, found)
        return found
    if isinstance(layer, Conv2d | WinogradConv2d):
        return layer.of_maps(maps)
    return [layer(x) for x in maps]


def where_wanted(layers: nn.Sequential, x: Tensor, wanted: Callable[[], Tensor]) -> Tensor:
    """Return what a sequence of 3x3 convolutions makes of maps, for pixels that are wanted.

    Others are zeros where they could be left out, which is where all layers work pixel by pixel
    but for convolutions by Winograd's filtering at inference; else everything is computed.

    Args:
        layers: the sequence.
        x: (B, C, H, W).
        wanted: returns which pixels, (B, H, W) bool; not asked where everything is computed.

    Returns:
        (B, K, H, W), the same for wanted pixels.
    """
    leaves = [layer for layer in layers.modules() if not list(layer.children())]
    kinds = (WinogradConv2d, nn.Identity, nn.ReLU)
    seen = any(map(is_hooked, layers.modules()))
    learns = torch.is_grad_enabled() or torch.compiler.is_compiling()
    if learns or seen or not all(isinstance(layer, kinds) for layer in leaves):
        made: Tensor = layers(x)
        return made
    needed = wanted()[:, None].float()
    parts = []
    for layer in reversed(leaves):
        parts.append((layer, needed[:, 0] > 0))
        if isinstance(layer, WinogradConv2d):
            rate = layer.dilation[0]
            needed = F.max_pool2d(needed, 2 * rate + 1, 1, rate)  # what it reads
    for layer, pixels in reversed(parts):
        x = layer.where(x, pixels) if isinstance(layer, WinogradConv2d) else layer(x)
    return x
