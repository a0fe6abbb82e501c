"""ResNet and ResNeXt (He et al. 2016; Xie et al. 2017) as maps C2 to C5.

Detectors and classifiers stand on it. Our own, because the weights of four libraries must fit:
stride in the first or the middle convolution of a bottleneck, frozen or live batch norm with the
source's epsilon. Names are those of torchvision (`layer1.0.conv1`), the common ground of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ..convolution import Conv2d
from ..norm import FrozenBatchNorm2d, conv_norm, init_convs
from ..stochastic_depth import Share, Stage, idle, left_out, scaled

Norm = Callable[[int], nn.Module]

# name: (bottleneck, blocks per stage, groups, width per group)
RESNETS: dict[str, tuple[bool, tuple[int, int, int, int], int, int]] = {
    "resnet18": (False, (2, 2, 2, 2), 1, 64),
    "resnet34": (False, (3, 4, 6, 3), 1, 64),
    "resnet50": (True, (3, 4, 6, 3), 1, 64),
    "resnet101": (True, (3, 4, 23, 3), 1, 64),
    "resnet152": (True, (3, 8, 36, 3), 1, 64),
    "resnext50_32x4d": (True, (3, 4, 6, 3), 32, 4),
    "resnext101_32x4d": (True, (3, 4, 23, 3), 32, 4),
    "resnext101_32x8d": (True, (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": (True, (3, 4, 23, 3), 64, 4),
}


def _conv(
    cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1
) -> Conv2d:
    return Conv2d(
        cin,
        cout,
        kernel,
        stride=stride,
        padding=kernel // 2 * dilation,
        dilation=dilation,
        groups=groups,
        bias=False,
    )


class PadShortcut(nn.Module):
    """A shortcut without parameters (He et al. 2016, option A): every second pixel, zeros behind.

    Args:
        more: channels of zeros behind those of the input.
        stride: 2 takes every second pixel of every second line, from the first on.
    """

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more = more
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C + more, H / stride, W / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))


def _shortcut(cin: int, cout: int, stride: int, norm: Norm) -> nn.Sequential | None:
    if stride == 1 and cin == cout:
        return None
    return nn.Sequential(_conv(cin, cout, 1, stride), norm(cout))


def _skip(shortcut: nn.Module | None, x: Tensor) -> Tensor:
    if shortcut is None:
        return x
    if isinstance(shortcut, nn.Sequential):
        conv, norm = shortcut
        return conv_norm(conv, norm, x)
    result: Tensor = shortcut(x)
    return result


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, fig. 5 left).

    Args:
        cin: channels of the input.
        width: of the output.
        stride: of the first convolution.
        norm: makes a norm.
        dilation: of both convolutions.
        shortcut: where the shape changes: "projection", a 1x1 convolution, or "pad", see
            `PadShortcut`; "none": there is no shortcut, anywhere: a plain network.
    """

    def __init__(
        self,
        cin: int,
        width: int,
        stride: int,
        norm: Norm,
        *,
        dilation: tuple[int, int] = (1, 1),
        shortcut: str = "projection",
    ) -> None:
        super().__init__()
        self.conv1 = _conv(cin, width, 3, stride, dilation=dilation[0])
        self.bn1 = norm(width)
        self.conv2 = _conv(width, width, 3, dilation=dilation[1])
        self.bn2 = norm(width)
        # One for each place, so that inference can make it part of the convolution before it.
        self.relu1, self.relu = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        self.plain = shortcut == "none"
        changes = stride != 1 or cin != width
        self.downsample: nn.Module | None = None
        if shortcut == "projection":
            self.downsample = _shortcut(cin, width, stride, norm)
        elif shortcut == "pad" and changes:
            self.downsample = PadShortcut(width - cin, stride)

    def forward(self, x: Tensor, share: Share = 1.0) -> Tensor:
        """Return (B, width, H / stride, W / stride); see `Share`."""
        if left_out(share):
            return _alone(self, _skip(self.downsample, x))
        out = self.relu1(conv_norm(self.conv1, self.bn1, x))
        out = scaled(conv_norm(self.conv2, self.bn2, out), share)
        result: Tensor = self.relu(out if self.plain else out.add_(_skip(self.downsample, x)))
        return result


def _alone(block: BasicBlock | Bottleneck, shortcut: Tensor) -> Tensor:
    """Return what a block gives without its branch."""
    own = [p for name, p in block.named_parameters() if not name.startswith("downsample.")]
    return F.relu(idle(shortcut, own))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (He et al. 2016, fig. 5 right)."""

    def __init__(
        self,
        cin: int,
        width: int,
        cout: int,
        stride: int,
        norm: Norm,
        *,
        groups: int = 1,
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        # The paper and the MSRA weights put the stride into the 1x1 convolution; torchvision and
        # mmdetection into the 3x3 ("ResNet 1.5").
        first, middle = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(cin, width, 1, first)
        self.bn1 = norm(width)
        self.conv2 = _conv(width, width, 3, middle, groups, dilation)
        self.bn2 = norm(width)
        self.conv3 = _conv(width, cout, 1)
        self.bn3 = norm(cout)
        self.relu1, self.relu2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)  # see `BasicBlock`
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(cin, cout, stride, norm)

    def forward(self, x: Tensor, share: Share = 1.0) -> Tensor:
        """Return (B, cout, H / stride, W / stride); see `Share`."""
        if left_out(share):
            return _alone(self, _skip(self.downsample, x))
        out = self.relu1(conv_norm(self.conv1, self.bn1, x))
        out = self.relu2(conv_norm(self.conv2, self.bn2, out))
        out = scaled(conv_norm(self.conv3, self.bn3, out), share)
        shortcut = _skip(self.downsample, x)
        result: Tensor = self.relu(out.add_(shortcut))
        return result


class ResNet(nn.Module):
    """Stem and four stages; returns C2 to C5 at strides 4, 8, 16, 32, or the first of these.

    With `finest=2` the map behind the stem, before its pooling, comes first: C1.

    Args:
        name: one of `RESNETS`.
        norm: "frozen" (statistics and affine constant) or anything else (`nn.BatchNorm2d`, whose
            training `Backbone` governs).
        eps: epsilon of the norm.
        stride_in_1x1: where a bottleneck strides.
        deepest: stride of the last map; the stages behind it are not built.
        finest: stride of the first map, 4 or 2.
        output_stride: 16: C5's stage does not stride, and its convolutions reach as far as before
            (Chen et al. 2015, "a trous"); 8: C4's neither. Every second (or fourth) pixel of every
            second line of the last map is what it is without dilation.
        full_dilation: the first block of a dilated stage has the dilation of the stage, as in
            segmentation_models_pytorch and the ports of DeepLab from Caffe; otherwise what strode
            keeps the dilation of the stage before, as in torchvision, and the above is exact.
        multi_grid: factors of the dilations of the blocks of C5 (Chen et al. 2017, section 3.3).
        tail: C5's stage is there for regions, see `tail`, and not part of `forward`.

    Raises:
        OptionError: if `multi_grid` has not a factor for each block.
    """

    def __init__(
        self,
        name: str,
        *,
        norm: str = "frozen",
        eps: float = 1e-5,
        stride_in_1x1: bool = False,
        deepest: int = 32,
        finest: int = 4,
        output_stride: int = 32,
        full_dilation: bool = False,
        multi_grid: Sequence[int] = (),
        tail: bool = False,
    ) -> None:
        super().__init__()
        bottleneck, blocks, groups, width_per_group = RESNETS[name]
        if multi_grid and (len(multi_grid) != blocks[3] or min(multi_grid) < 1):
            raise OptionError(
                f"multi_grid has a factor from 1 up for each block of the last stage, of which "
                f"{name} has {blocks[3]}; got {tuple(multi_grid)}"
            )
        self.strides = tuple(s for s in (2, 4, 8, 16, 32) if finest <= s <= deepest)
        self.levels = sum(stride > 2 for stride in self.strides)
        layer: Norm = partial(FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d, eps=eps)
        self.conv1 = Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = layer(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = [64] if finest == 2 else []
        cin = 64
        stride, dilation = 4, 1
        for stage, count in enumerate(blocks[: 4 if tail else self.levels]):
            base = 64 * 2**stage
            cout = base * 4 if bottleneck else base
            parts: list[nn.Module] = []
            before = dilation
            step = 2 if stage > 0 else 1
            if stride * step > output_stride:
                # Without the stride, what comes behind it sees a grid twice as fine.
                step, dilation = 1, dilation * step
            stride *= step
            for block in range(count):
                factor = multi_grid[block] if multi_grid and stage == 3 else 1
                # What strode itself still sees its neighbours of before.
                late = dilation * factor
                early = before * factor if block == 0 and not full_dilation else late
                if bottleneck:
                    width = base * width_per_group // 64 * groups
                    parts.append(
                        Bottleneck(
                            cin,
                            width,
                            cout,
                            step if block == 0 else 1,
                            layer,
                            groups=groups,
                            stride_in_1x1=stride_in_1x1,
                            dilation=late if stride_in_1x1 else early,
                        )
                    )
                else:
                    own = step if block == 0 else 1
                    parts.append(BasicBlock(cin, cout, own, layer, dilation=(early, late)))
                cin = cout
            setattr(self, f"layer{stage + 1}", Stage(*parts))
            channels.append(cout)
        self.blocks, self.bottleneck = blocks, bottleneck
        self.channels = tuple(channels[: len(self.strides)])
        self.tail_channels = channels[-1]
        init_convs(self)

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules by stage, for freezing: stem, then layer1 to layer4."""
        layers: list[list[nn.Module]] = [[self.conv1, self.bn1]]
        layers += [[layer] for name, layer in self.named_children() if name.startswith("layer")]
        return layers

    def forward(self, x: Tensor, shares: Sequence[Share] = ()) -> tuple[Tensor, ...]:
        """Return C2 to C5, or the first of them, with C1 before where it is asked for.

        Args:
            x: (B, 3, H, W).
            shares: of the residual of each block, see `stochastic_depth`; none: all are 1.
        """
        x = self.relu(conv_norm(self.conv1, self.bn1, x))
        maps = [x] if self.strides[0] == 2 else []
        x = self.maxpool(x)
        for i in range(self.levels):
            first = sum(self.blocks[:i])
            x = getattr(self, f"layer{i + 1}")(x, shares[first : first + self.blocks[i]])
            maps.append(x)
        return tuple(maps)

    def tail(self, x: Tensor) -> Tensor:
        """Run C5's stage on parts (R, C, h, w) of C4; half the size comes out."""
        out: Tensor = self.get_submodule("layer4")(x)
        return out
