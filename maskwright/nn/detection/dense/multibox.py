"""The layers of SSD (Liu et al. 2016): smaller and smaller maps, and a pair of layers for each.

SSDLite (Sandler et al. 2018, section 6.2) makes each 3x3 convolution of them a depthwise one and a
1x1 one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....ops.checks import as_float
from ...backbones.vgg import load_thinned
from ...convolution import Conv2d
from ...norm import BatchNorm2d
from ..anchors import DefaultBoxes
from .head import BoxRule, DenseHead, Matcher
from .mining import Mining
from .scores import Scores

_norm = partial(BatchNorm2d, eps=1e-3, momentum=0.03)  # as torchvision's SSDLite has it
SCALE = 20.0  # of the finest map before training (Liu et al. 2016, section 3.1)


class Extra(NamedTuple):
    """How one map becomes the next, smaller one.

    Attributes:
        channels: of the new map; a 1x1 convolution before has half of them.
        kernel, stride, padding: of the convolution that makes it.
    """

    channels: int
    kernel: int = 3
    stride: int = 2
    padding: int = 1


def _light(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, _norm(cout), nn.ReLU6(inplace=True))


class ExtraLevels(nn.Module):
    """The maps of a backbone, and smaller ones, each made of the last (Liu et al. 2016, fig. 2).

    Args:
        channels: of the backbone's maps, fine to coarse.
        extras: the maps behind.
        fc_width: channels of fc6 and fc7, the dilated convolutions that the last map of a VGG goes
            through; its first map has the length 1 at each pixel, times a learned scale for each
            channel. 0: there are none of these.
        lite: depthwise convolutions, with batch norm.

    Attributes:
        channels: of all maps.
    """

    def __init__(
        self, channels: Sequence[int], extras: Sequence[Extra], *, fc_width: int, lite: bool
    ) -> None:
        super().__init__()
        maps = list(channels)
        self.scale: nn.Parameter | None = None
        self.fc6 = self.fc7 = None
        if fc_width:
            self.scale = nn.Parameter(torch.full((maps[0],), SCALE))
            self.fc6 = nn.Conv2d(maps[-1], fc_width, 3, padding=6, dilation=6)
            self.fc7 = nn.Conv2d(fc_width, fc_width, 1)
            maps[-1] = fc_width
        self.kernels = [extra.kernel - 2 * extra.padding for extra in extras]
        self.extras = nn.ModuleList()
        for extra in extras:
            cin, half, cout = maps[-1], extra.channels // 2, extra.channels
            if lite:
                layers = [
                    _light(cin, half, 1),
                    _light(half, half, extra.kernel, extra.stride, half),
                    _light(half, cout, 1),
                ]
                self.extras.append(nn.Sequential(*layers))
            else:
                small = nn.Conv2d(cin, half, 1)
                conv = nn.Conv2d(half, cout, extra.kernel, extra.stride, extra.padding)
                relus = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
                self.extras.append(nn.Sequential(small, relus[0], conv, relus[1]))
            maps.append(cout)
        self.channels = tuple(maps)
        _initialise(self, lite=lite)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return all maps of those of the backbone, fine to coarse."""
        levels = list(maps)
        if self.scale is not None and self.fc6 is not None and self.fc7 is not None:
            finest = F.normalize(as_float(levels[0]), dim=1) * as_float(self.scale)[:, None, None]
            levels[0] = finest.to(levels[0].dtype)
            x = F.max_pool2d(levels[-1], 3, stride=1, padding=1)
            x = F.relu(self.fc6(x), inplace=True)
            levels[-1] = F.relu(self.fc7(x), inplace=True)
        for extra, least in zip(self.extras, self.kernels, strict=True):
            x = levels[-1]
            if not torch.compiler.is_compiling() and min(x.shape[-2:]) < least:
                # Of an image smaller than the network is for: zeros beside what there is.
                x = F.pad(x, [0, max(least - x.shape[-1], 0), 0, max(least - x.shape[-2], 0)])
            levels.append(extra(x))
        return tuple(levels)

    def load_classifier(self, layers: Sequence[tuple[Tensor, Tensor]]) -> int:
        """Start fc6 and fc7 from the fully connected layers of a VGG; see `load_thinned`."""
        if self.fc6 is None or self.fc7 is None:
            return 0
        return load_thinned((self.fc6, self.fc7), layers)


class MultiBoxHead(DenseHead):
    """A layer for the logits and one for the deltas of each level.

    Args:
        channels: of the levels.
        num_classes: real classes.
        anchors: their default boxes.
        lite: a depthwise 3x3 convolution and a 1x1 one each, in place of a 3x3 one.
        scores, matcher, mining, box: see `DenseHead`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        anchors: DefaultBoxes,
        *,
        lite: bool,
        scores: Scores,
        matcher: Matcher,
        mining: Mining,
        box: BoxRule,
    ) -> None:
        super().__init__(
            num_classes, anchors, scores=scores, matcher=matcher, mining=mining, box=box
        )

        def layer(cin: int, cout: int) -> nn.Module:
            if lite:
                return nn.Sequential(_light(cin, cin, 3, groups=cin), nn.Conv2d(cin, cout, 1))
            return Conv2d(cin, cout, 3, padding=1)

        columns = num_classes + scores.background
        counts = anchors.per_level
        pairs = list(zip(channels, counts, strict=True))
        self.logits = nn.ModuleList(layer(cin, count * columns) for cin, count in pairs)
        self.deltas = nn.ModuleList(layer(cin, count * 4) for cin, count in pairs)
        last = ".1" if lite else ""
        self.class_rows = {
            f"logits.{level}{last}": (count, bool(scores.background))
            for level, count in enumerate(counts)
        }
        _initialise(self, lite=lite)

    @property
    def last_layers(self) -> tuple[list[nn.Conv2d], list[nn.Conv2d]]:
        """The layers that make logits and deltas; see `DenseHead`."""

        def convs(layers: nn.ModuleList) -> list[Any]:
            return [one[1] if isinstance(one, nn.Sequential) else one for one in layers]

        return convs(self.logits), convs(self.deltas)

    def predict(self, pyramid: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the maps of logits and deltas; see `DenseHead`."""
        return [
            (logits(level), deltas(level))
            for logits, deltas, level in zip(self.logits, self.deltas, pyramid, strict=True)
        ]


def _initialise(module: nn.Module, *, lite: bool) -> None:
    """Give convolutions the weights that they have before training, and biases of 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            if lite:
                nn.init.normal_(layer.weight, std=0.03)
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
