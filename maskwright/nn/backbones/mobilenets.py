"""MobileNetV2 and MobileNetV3-Large as maps: torchvision's networks, dilated where asked for.

Sandler et al. 2018 ("MobileNetV2", table 2) and Howard et al. 2019. Published segmenters stand on
these; timm's `mobilenetv2_100` has other names and no last convolution of 1280 channels, and its
`mobilenetv3_large_100` another epsilon in its norms.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

# By stride: the first block of its stage, and the one whose map is taken. Of MobileNetV2 that is
# the last at its stride (segmentation_models_pytorch), of MobileNetV3 the first (torchvision's
# segmenters); at the deepest stride it is the last convolution of both.
MOBILENETS = {
    "mobilenet_v2": {4: (2, 3), 8: (4, 6), 16: (7, 13), 32: (14, 18)},
    "mobilenet_v3_large": {4: (2, 2), 8: (4, 4), 16: (7, 7), 32: (13, 16)},
}
_STEM = 1  # its last block


class MobileNet(nn.Module):
    """The convolutions; returns maps at strides 4, 8, 16 and 32, or the first, or with 2 before.

    Args:
        name: one of `MOBILENETS`.
        deepest: stride of the last map; what comes behind it is not built.
        finest: stride of the first map, 4 or 2.
        output_stride: 16 or 8: blocks that would stride further are dilated instead.
        full_dilation: the first of these blocks is dilated too, as in torchvision.
        expansion: the map at stride 16 is that of the first convolution of the block which strides
            to 32: it has six times the channels (Howard et al. 2019, section 6.3).
        reduced_tail: MobileNetV3 with half of the channels behind stride 16 (section 6.3); ImageNet
            weights are of the whole one.
    """

    def __init__(
        self,
        name: str,
        deepest: int = 32,
        *,
        finest: int = 4,
        output_stride: int = 32,
        full_dilation: bool = True,
        expansion: bool = False,
        reduced_tail: bool = False,
    ) -> None:
        super().__init__()
        from torchvision.models import get_model

        options = {"reduced_tail": True} if reduced_tail else {}

        table = {stride: ends for stride, ends in MOBILENETS[name].items() if stride <= deepest}
        self.levels = list(table)
        self.strides = (*([2] if finest == 2 else []), *table)
        self.features = get_model(name, weights=None, **options).features[: table[deepest][1] + 1]
        self._firsts = [0, *(first for first, _ in table.values()), len(self.features)]
        self._ends = [table[stride][1] if stride > 2 else _STEM for stride in self.strides]
        dilation = 1
        for stride, stage in zip(self.levels, self.stages()[1:], strict=True):
            if stride > output_stride:
                before, dilation = dilation, 2 * dilation
                for block in stage:
                    late = block is not stage[0] or full_dilation
                    _dilate(block, dilation if late else before)
        self._expanding = table[32][0] if expansion else None
        self.channels = tuple(_width(self.features[end]) for end in self._ends)
        if self._expanding is not None:
            wide = _width(_layers(self.features[self._expanding])[0])
            at_16 = self.strides.index(16)
            self.channels = (*self.channels[:at_16], wide, *self.channels[at_16 + 1 :])
        self.tail_channels = 0  # no stage is left for regions

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules by stage: the stem, then the blocks of each stride."""
        return [[self.features[i] for i in range(*ends)] for ends in pairwise(self._firsts)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of (B, 3, H, W), fine to coarse."""
        maps: list[Tensor] = []
        for index, block in enumerate(self.features):
            if index == self._expanding:
                first, *others = _layers(block)
                maps[-1] = x = first(x)
                for layer in others:
                    x = layer(x)
            else:
                x = block(x)
            if index in self._ends:
                maps.append(x)
        return tuple(maps)

    def tail(self, x: Tensor) -> Tensor:
        """There is none: `Backbone` refuses to ask for it."""
        raise NotImplementedError


def _dilate(block: nn.Module, dilation: int) -> None:
    """Let the depthwise convolution of a block step by one pixel and reach further."""
    for conv in block.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size[0] > 1:
            reach = conv.kernel_size[0] // 2 * dilation
            conv.stride, conv.dilation, conv.padding = (1, 1), (dilation,) * 2, (reach, reach)


def _layers(block: nn.Module) -> list[nn.Module]:
    """Return the layers of an inverted residual, the expansion first."""
    inner = block.get_submodule("block" if hasattr(block, "block") else "conv")
    return list(inner.children())


def _width(block: nn.Module) -> int:
    """Return how many channels the last convolution of a block has."""
    convs = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    return convs[-1].out_channels
