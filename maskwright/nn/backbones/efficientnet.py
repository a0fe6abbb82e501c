"""EfficientNet-Lite 0 to 4 as maps (Tan and Le 2019; the Lite form is TensorFlow's of 2020).

The layers carry timm's names, so that its weights fit. They stand here, and not behind timm as
other backbones do, since the light models use them: `import timm` takes as long as `import torch`.

| stage | block | kernel | stride | channels | blocks | map |
| --- | --- | --- | --- | --- | --- | --- |
| stem | convolution | 3 | 2 | 32 | 1 | |
| 0 | depthwise separable | 3 | 1 | 16 | 1 | 2 |
| 1 | inverted residual, 6 times as wide | 3 | 2 | 24 | 2 | 4 |
| 2 | the same | 5 | 2 | 40 | 2 | 8 |
| 3 | the same | 3 | 2 | 80 | 3 | |
| 4 | the same | 5 | 1 | 112 | 3 | 16 |
| 5 | the same | 5 | 2 | 192 | 4 | |
| 6 | the same | 3 | 1 | 320 | 1 | 32 |

That is Lite0. The others have more channels and blocks, but for the stem and the blocks of the
first and the last stage. All activations are ReLU6, nothing squeezes and excites.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

# Factors of the channels and of the blocks.
LITES = {
    "tf_efficientnet_lite0": (1.0, 1.0),
    "tf_efficientnet_lite1": (1.0, 1.1),
    "tf_efficientnet_lite2": (1.1, 1.2),
    "tf_efficientnet_lite3": (1.2, 1.4),
    "tf_efficientnet_lite4": (1.4, 1.8),
}
# Kernel, stride, channels and blocks of the stages.
_STAGES = [(3, 1, 16, 1), (3, 2, 24, 2), (5, 2, 40, 2), (3, 2, 80, 3)]
_STAGES += [(5, 1, 112, 3), (5, 2, 192, 4), (3, 1, 320, 1)]
_ENDS = {2: 0, 4: 1, 8: 2, 16: 4, 32: 6}  # the last stage of each stride
_STEM, _EXPANSION, _EPS = 32, 6, 1e-3


class Conv2dSame(nn.Conv2d):
    """A convolution whose padding follows from the size of the map, as TensorFlow has it.

    An odd number of rows or columns has one more below or to the right. See `same_padding` for
    graphs of it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', ceil(H / stride), ceil(W / stride)) of (B, C, H, W)."""
        top, bottom = self._around(x.shape[-2], 0)
        left, right = self._around(x.shape[-1], 1)
        x = F.pad(x, (left, right, top, bottom))
        y: Tensor = self._conv_forward(x, self.weight, self.bias)
        return y

    def _around(self, size: int, axis: int) -> tuple[int, int]:
        """Return the padding before and behind along an axis."""
        stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1)
        steps = (size + stride - 1) // stride
        total = max((steps - 1) * stride + reach + 1 - size, 0)
        return total // 2, total - total // 2


class EfficientNetLite(nn.Module):
    """The convolutions; returns maps at strides 4, 8, 16 and 32, or the first, or with 2 before.

    Args:
        name: one of `LITES`.
        deepest: stride of the last map; what comes behind it is not built.
        finest: stride of the first map, 4 or 2.
        output_stride: 16 or 8: stages that would stride further are dilated instead.
        full_dilation: the first block of such a stage is dilated as the others are; as timm has it,
            it is dilated as the stage before.
        tail: what leads to stride 32 is there for regions, see `tail`, not part of `forward`.
    """

    mean = std = (127.5,) * 3  # of the input, 0 to 255

    def __init__(
        self,
        name: str,
        deepest: int = 32,
        *,
        finest: int = 4,
        output_stride: int = 32,
        full_dilation: bool = False,
        tail: bool = False,
    ) -> None:
        super().__init__()
        wide, deep = LITES[name]
        self.strides = tuple(stride for stride in _ENDS if finest <= stride <= deepest)
        last = _ENDS[32 if tail else deepest]
        channels = [_widened(channels, wide) for _, _, channels, _ in _STAGES]
        self.body = _Layers()
        reached, dilation = 2, 1
        for index, (kernel, stride, _, blocks) in enumerate(_STAGES[: last + 1]):
            before = dilation
            if reached * stride > output_stride:
                dilation *= stride
                stride = 1
            reached *= stride
            entry = channels[index - 1] if index else _STEM
            if index not in (0, len(_STAGES) - 1):
                blocks = math.ceil(blocks * deep)
            stage = nn.Sequential()
            for block in range(blocks):
                reach = before if block == 0 and not full_dilation else dilation
                stage.append(
                    _Block(
                        channels[index] if block else entry,
                        channels[index],
                        kernel,
                        1 if block else stride,
                        dilation=reach,
                        expansion=_EXPANSION if index else 1,
                    )
                )
            self.body.blocks.append(stage)
        self.channels = tuple(channels[_ENDS[stride]] for stride in self.strides)
        self.tail_channels = channels[last]
        self.has_tail = tail
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                area = layer.kernel_size[0] * layer.kernel_size[1]
                fan = area * layer.out_channels // layer.groups
                nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan))

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules by stage: the stem with stage 0, then what leads to each map."""
        body = self.body
        stem: list[nn.Module] = [body.conv_stem, body.bn1, body.blocks[0]]
        ends = [end for end in _ENDS.values() if end < len(body.blocks)]
        return [stem, *([*body.blocks[a + 1 : b + 1]] for a, b in pairwise(ends))]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of (B, 3, H, W), fine to coarse."""
        stages = self.stages()
        maps = []
        for modules in stages[:-1] if self.has_tail else stages:
            for module in modules:
                x = module(x)
            maps.append(x)
        return tuple(maps[-len(self.strides) :])

    def tail(self, x: Tensor) -> Tensor:
        """Run what leads to stride 32 on parts (R, C, h, w) of the map at stride 16."""
        for module in self.stages()[-1]:
            x = module(x)
        return x


class _Layers(nn.Module):
    """The stem, and the blocks by stage, which `EfficientNetLite` appends."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = Conv2dSame(3, _STEM, 3, 2, bias=False)
        self.bn1 = _Norm(_STEM)
        self.blocks = nn.Sequential()


class _Norm(nn.BatchNorm2d):
    """Batch norm, and ReLU6 behind it where asked for, as a child: it may be folded away."""

    def __init__(self, channels: int, act: bool = True) -> None:
        super().__init__(channels, eps=_EPS)
        self.act = nn.ReLU6(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(super().forward(x))
        return y


class _Block(nn.Module):
    """An inverted residual (Sandler et al. 2018), or a separable convolution if nothing expands.

    The shortcut is there where both ends are alike.
    """

    def __init__(
        self,
        entry: int,
        channels: int,
        kernel: int,
        stride: int,
        *,
        dilation: int,
        expansion: int,
    ) -> None:
        super().__init__()
        middle = entry * expansion
        self.shortcut = stride == 1 and entry == channels
        self.expands = expansion > 1
        if self.expands:
            self.conv_pw = nn.Conv2d(entry, middle, 1, bias=False)
            self.bn1 = _Norm(middle)
        # With a stride of 1 the padding is the same number for maps of all sizes.
        make = Conv2dSame if stride > 1 else nn.Conv2d
        self.conv_dw = make(
            middle,
            middle,
            kernel,
            stride,
            padding=0 if stride > 1 else dilation * (kernel // 2),
            dilation=dilation,
            groups=middle,
            bias=False,
        )
        if self.expands:
            self.bn2 = _Norm(middle)
            self.conv_pwl = nn.Conv2d(middle, channels, 1, bias=False)
            self.bn3 = _Norm(channels, act=False)
        else:
            self.bn1 = _Norm(middle)
            self.conv_pw = nn.Conv2d(middle, channels, 1, bias=False)
            self.bn2 = _Norm(channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H / stride, W / stride) of (B, C, H, W)."""
        y: Tensor
        if self.expands:
            y = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
            y = self.bn3(self.conv_pwl(y))
        else:
            y = self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))
        return x + y if self.shortcut else y


def _widened(channels: int, factor: float) -> int:
    """Return channels times a factor, to the nearest 8, and not below nine tenths of it."""
    if factor == 1:
        return channels
    wanted = channels * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8
