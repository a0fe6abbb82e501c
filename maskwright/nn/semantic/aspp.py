"""Atrous spatial pyramid pooling (Chen et al. 2017): one map seen at several rates and as a whole.

Names are torchvision's (`convs.0.0`, `project.0`), the common ground of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..convolution import Conv2d
from ..norm import BatchNorm2d


class SeparableConv(nn.Module):
    """A 3x3 convolution of each channel by itself and a 1x1 of all; size kept, no bias.

    Args:
        cin: channels of the input.
        cout: of the output.
        dilation: of the 3x3.
        norm_between: batch norm and ReLU between both (Chollet 2017 has none; DeepLab has them).
    """

    def __init__(
        self, cin: int, cout: int, *, dilation: int = 1, norm_between: bool = False
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            cin, cin, 3, padding=dilation, dilation=dilation, groups=cin, bias=False
        )
        self.between = nn.Sequential(BatchNorm2d(cin), nn.ReLU()) if norm_between else None
        self.pointwise = nn.Conv2d(cin, cout, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, cout, H, W) of (B, cin, H, W)."""
        x = self.depthwise(x)
        if self.between is not None:
            x = self.between(x)
        out: Tensor = self.pointwise(x)
        return out


def conv3x3(
    cin: int, cout: int, *, dilation: int = 1, separable: bool = False, norm_between: bool = False
) -> list[nn.Module]:
    """Return a 3x3 convolution without bias, plain or separable, batch norm and ReLU."""
    conv: nn.Module
    if separable:
        conv = SeparableConv(cin, cout, dilation=dilation, norm_between=norm_between)
    else:
        conv = Conv2d(cin, cout, 3, padding=dilation, dilation=dilation, bias=False)
    return [conv, BatchNorm2d(cout), nn.ReLU()]


def conv1x1(cin: int, cout: int) -> list[nn.Module]:
    """Return a 1x1 convolution without bias, batch norm and ReLU."""
    return [nn.Conv2d(cin, cout, 1, bias=False), BatchNorm2d(cout), nn.ReLU()]


class MixConv(nn.Conv2d):
    """A 1x1 convolution of concatenated maps, the last of which may be one value a channel.

    That one is multiplied once and added everywhere, not drawn out to the size of the others.
    """

    def forward(  # type: ignore[override]
        self, maps: Sequence[Tensor], whole: Tensor | None = None
    ) -> Tensor:
        """Return (B, K, H, W).

        Args:
            maps: (B, C_i, H, W) each.
            whole: (B, C, 1, 1), behind them, or None.
        """
        x = torch.cat(list(maps), 1)
        out = F.conv2d(x, self.weight[:, : x.shape[1]], self.bias)
        if whole is None:
            return out
        return out + F.conv2d(whole, self.weight[:, x.shape[1] :])


class ASPP(nn.Module):
    """A 1x1 and dilated 3x3 convolutions, the mean of the map, and a 1x1 that joins them.

    Args:
        cin: channels of the map.
        rates: dilations of the 3x3 convolutions.
        width: channels of each branch and of the output.
        dropout: share of the output that training sets to 0.
        image_pooling: whether the mean of the map, the fifth branch, is there.
        separable: whether the 3x3 convolutions are.
        norm_between: see `SeparableConv`.
    """

    def __init__(
        self,
        cin: int,
        rates: Sequence[int],
        width: int = 256,
        *,
        dropout: float = 0.5,
        image_pooling: bool = True,
        separable: bool = False,
        norm_between: bool = False,
    ) -> None:
        super().__init__()
        kind = {"separable": separable, "norm_between": norm_between}
        branches = [conv1x1(cin, width)]
        branches += [conv3x3(cin, width, dilation=rate, **kind) for rate in rates]
        if image_pooling:
            branches.append([nn.AdaptiveAvgPool2d(1), *conv1x1(cin, width)])
        self.convs = nn.ModuleList(nn.Sequential(*layers) for layers in branches)
        self.image_pooling = image_pooling
        self.project = nn.Sequential(
            MixConv(len(branches) * width, width, 1, bias=False),
            BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, H, W) of (B, cin, H, W)."""
        maps = [branch(x) for branch in self.convs]
        whole = maps.pop() if self.image_pooling else None
        mix, *others = self.project
        out: Tensor = mix(maps, whole)
        for layer in others:
            out = layer(out)
        return out
