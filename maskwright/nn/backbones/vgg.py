"""VGG (Simonyan and Zisserman 2014, "Very deep convolutional networks", table 1) as maps.

Blocks of 3x3 convolutions of equal width, each behind its ReLU; between the blocks maxima of 2 x 2
pixels halve the size. Names are torchvision's (`features.0`). Backbones take the maps before the
halving, at strides 4, 8, 16 and 32, classifiers the whole sequence: one network, two uses.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..convolution import Conv2d
from ..norm import init_convs

# name: convolutions of each block (columns A, B, D and E of the table); "_bn" adds batch norm
VGGS: dict[str, tuple[int, ...]] = {
    name + norm: blocks
    for name, blocks in {
        "vgg11": (1, 1, 2, 2, 2),
        "vgg13": (2, 2, 2, 2, 2),
        "vgg16": (2, 2, 3, 3, 3),
        "vgg19": (2, 2, 4, 4, 4),
    }.items()
    for norm in ("", "_bn")
}
WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """The convolutions; returns maps at strides 4, 8, 16 and 32, or the first, or with 2 before.

    The last map is the fifth block after its halving; the others come from before.

    Args:
        name: one of `VGGS`.
        deepest: stride of the last map; what comes behind it is not built.
        finest: stride of the first map, 4 or 2.
        output_stride: 8 or 16: the network of DeepLab (Chen et al. 2015): maxima of 3 x 3 pixels,
            of which those behind this stride have none, and the fifth block dilated by 2 where it
            lies behind such a one. They round up: 321 pixels become 41. The weights fit as before.
    """

    def __init__(
        self, name: str, deepest: int = 32, *, finest: int = 4, output_stride: int = 32
    ) -> None:
        super().__init__()
        channels = dict(zip((2, 4, 8, 16, 32), (*WIDTHS[1:], WIDTHS[-1]), strict=True))
        self.strides = tuple(stride for stride in channels if finest <= stride <= deepest)
        self.channels = tuple(channels[stride] for stride in self.strides)
        self.tail_channels = 0  # no stage is left for regions
        layers: list[nn.Module] = []
        stride = dilation = 1

        def pool() -> nn.MaxPool2d:
            nonlocal stride, dilation
            if output_stride == 32:
                return nn.MaxPool2d(2, stride=2)
            if stride == output_stride:
                dilation *= 2
                return nn.MaxPool2d(3, stride=1, padding=1)
            stride *= 2
            return nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)

        cin = 3
        blocks = 1 + sum(stride <= deepest for stride in channels)
        for count, width in list(zip(VGGS[name], WIDTHS, strict=True))[:blocks]:
            if layers:
                layers.append(pool())
            for _ in range(count):
                layers.append(Conv2d(cin, width, 3, padding=dilation, dilation=dilation))
                if name.endswith("_bn"):
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU(inplace=True))
                cin = width
        if deepest == 32:
            layers.append(pool())
        self.features = nn.Sequential(*layers)
        init_convs(self)

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules by stage: the first two blocks, then what leads to each map."""
        first, second, *others = parts_at_pools(self.features)
        return [[*first, *second], *others]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of (B, 3, H, W), fine to coarse."""
        maps = []
        for stage in self.stages():
            for module in stage:
                x = module(x)
            maps.append(x)
        return tuple(maps[-len(self.strides) :])

    def tail(self, x: Tensor) -> Tensor:
        """There is none: `Backbone` refuses to ask for it."""
        raise NotImplementedError


def parts_at_pools(layers: nn.Sequential) -> list[list[nn.Module]]:
    """Return the modules of a sequence in parts, of which all but the first begin with a pool."""
    parts: list[list[nn.Module]] = [[]]
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            parts.append([])
        parts[-1].append(layer)
    return parts


def load_thinned(convs: Sequence[nn.Conv2d], layers: Sequence[tuple[Tensor, Tensor]]) -> int:
    """Start convolutions from fully connected layers with more channels and larger kernels.

    Of 4096 channels every fourth stays for 1024, of 7 x 7 weights every third for 3 x 3 (Chen et
    al. 2015, section 3.1; Liu et al. 2016, section 3.1). A dilation of 6 at stride 16, or of 12 at
    stride 8, puts them where the classifier had them.

    Args:
        convs: the convolutions, each fed by the one before.
        layers: weight (out, C, h, w) or (out, in) and bias of each.

    Returns:
        How many were taken: the first ones, as long as their sizes are multiples.
    """
    inputs = None  # channels that the layer before has kept
    for number, (conv, (weight, bias)) in enumerate(zip(convs, layers, strict=False)):
        if weight.dim() == 2:
            weight = weight[:, :, None, None]
        if inputs is not None and weight.shape[1] > inputs[-1]:
            weight = weight[:, inputs]
        height, width = conv.kernel_size
        rows, step = len(weight) // conv.out_channels, -(-weight.shape[-1] // width)
        thinned = weight[::rows, :, ::step, ::step] if rows else weight
        if thinned.shape != conv.weight.shape or height != width or conv.bias is None:
            return number
        inputs = torch.arange(0, len(weight), rows)
        with torch.no_grad():
            conv.weight.copy_(thinned)
            conv.bias.copy_(bias[inputs])
    return min(len(convs), len(layers))
