"""GoogLeNet (Szegedy et al. 2015, "Going deeper with convolutions", table 1), in two forms.

| layer | size | channels |
| --- | --- | --- |
| conv1 | 112 | 7x7/2 64; pool 3x3/2, normalised |
| conv2, conv3 | 56 | 1x1 64, 3x3 192, normalised; pool 3x3/2 |
| 3a, 3b | 28 | 256, 480; pool 3x3/2 |
| 4a to 4e | 14 | 512, 512, 512, 528, 832; pool 3x3/2 |
| 5a, 5b | 7 | 832, 1024 |
| mean, classes | 1 | dropout 0.4 |

Each module has four branches: 1x1; 1x1 and 3x3; 1x1 and 5x5; maxima 3x3 and 1x1 (`MODULES`).
Two heads behind 4a and 4d train beside the last one: means of 5x5 every 3 pixels, 1x1 128, a layer
of 1024, dropout 0.7, classes. Pools round up.

`googlenet` is the published form: biases, no batch norm, responses normalised, heads of weight
0.3; 6,998,552 parameters without heads. What the paper does not tell is as in Caffe: the
normalisation (n 5, alpha 1e-4 / 5, k 1) and the initial weights.

`googlenet_bn` is TensorFlow's, as torchvision has it: batch norm in place of biases and
normalisation, 3x3 where the paper has 5x5, the last pool 2x2/2, dropout 0.2, heads on 4 x 4 means;
6,624,904 parameters without heads. The heads of torchvision's file are untrained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.convolution import Conv2d
from ...nn.dropout import Dropout
from ...nn.norm import ConvNorm, ResponseNorm, init_convs
from ...nn.random import RandomSource, streams
from ..options import check_auxiliary, check_dropout
from ..registry import register
from .base import Classifier, ClassifierOptions, Network
from .published import torchvision_classifier


class Widths(NamedTuple):
    """Channels of a module: of the reduction before a convolution, and of the convolution."""

    one: int
    reduce3: int
    three: int
    reduce5: int
    five: int
    pool: int

    @property
    def total(self) -> int:
        """Channels of its output."""
        return self.one + self.three + self.five + self.pool


MODULES: dict[str, Widths] = {
    "3a": Widths(64, 96, 128, 16, 32, 32),
    "3b": Widths(128, 128, 192, 32, 96, 64),
    "4a": Widths(192, 96, 208, 16, 48, 64),
    "4b": Widths(160, 112, 224, 24, 64, 64),
    "4c": Widths(128, 128, 256, 24, 64, 64),
    "4d": Widths(112, 144, 288, 32, 64, 64),
    "4e": Widths(256, 160, 320, 32, 128, 128),
    "5a": Widths(256, 160, 320, 32, 128, 128),
    "5b": Widths(384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class GoogLeNetOptions(ClassifierOptions):
    """Options of GoogLeNet.

    Attributes:
        auxiliary: weight of each of the two other heads in the loss; 0: there are none.
        dropout: share of the units before the classes that are dropped in training.
        auxiliary_dropout: the same in the other heads.
    """

    auxiliary: float = 0.3
    dropout: float = 0.4
    auxiliary_dropout: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_auxiliary(self.auxiliary)
        check_dropout(self.dropout)
        check_dropout(self.auxiliary_dropout, "auxiliary_dropout")


@dataclass(frozen=True)
class GoogLeNetBNOptions(GoogLeNetOptions):
    """Options of GoogLeNet with batch norm."""

    statistics: str = "half"
    dropout: float = 0.2


class BiasConv(nn.Module):
    """A convolution with bias, and ReLU; the size is kept, with a stride halved."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = Conv2d(cin, cout, kernel, stride, kernel // 2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, cout, H / stride, W / stride)."""
        out: Tensor = self.relu(self.conv(x))
        return out


# (channels in, channels out, kernel) or with a stride at the end
Conv = Callable[..., nn.Module]


class Inception(nn.Module):
    """A module of four branches (figure 2b).

    Args:
        cin: channels of the input.
        widths: of the branches.
        conv: makes a convolution.
        large: side of the kernel of the third branch.
    """

    def __init__(self, cin: int, widths: Widths, conv: Conv, large: int) -> None:
        super().__init__()
        self.branch1 = conv(cin, widths.one, 1)
        self.branch2 = nn.Sequential(
            conv(cin, widths.reduce3, 1), conv(widths.reduce3, widths.three, 3)
        )
        self.branch3 = nn.Sequential(
            conv(cin, widths.reduce5, 1), conv(widths.reduce5, widths.five, large)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), conv(cin, widths.pool, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, the sum of the widths, H, W)."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class AuxiliaryHead(nn.Module):
    """Classes from the middle of the network, for its training.

    Args:
        cin: channels of the maps.
        num_classes: classes.
        conv: makes a convolution.
        dropout: share of the hidden units.
        fields: average the maps in 4 x 4 fields, whatever their size; else by 5x5 every 3 pixels
            where that gives 4 x 4, as it does at 224 pixels.
    """

    def __init__(
        self, cin: int, num_classes: int, conv: Conv, *, dropout: float, fields: bool
    ) -> None:
        super().__init__()
        self.fields = fields
        self.conv = conv(cin, 128, 1)
        self.fc1 = nn.Linear(128 * 16, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = Dropout(dropout)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor, source: RandomSource = None) -> Tensor:
        """Return the logits (B, C) of maps (B, cin, h, w)."""
        if not self.fields and all(14 <= side <= 16 for side in x.shape[-2:]):
            x = F.avg_pool2d(x, 5, stride=3)
        else:
            x = F.adaptive_avg_pool2d(x, 4)
        hidden = self.relu(self.fc1(self.conv(x).flatten(1)))
        logits: Tensor = self.fc2(self.dropout(hidden, source))
        return logits


class GoogLeNet(Network):
    """The network in both forms.

    Args:
        num_classes: classes.
        options: weight of the heads and dropout.
        norm: batch norm in place of biases and normalised responses; with it, 3x3 in place of 5x5
            and a last pool of 2x2.
    """

    final = "fc"

    def __init__(self, num_classes: int, options: GoogLeNetOptions, *, norm: bool) -> None:
        super().__init__()
        conv: Conv = ConvNorm if norm else BiasConv
        self.smallest = 15 if norm else 31
        self.weight = options.auxiliary
        self.conv1 = conv(3, 64, 7, 2)
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.last_pool = nn.MaxPool2d(2 if norm else 3, stride=2, ceil_mode=True)
        self.normalise = nn.Identity() if norm else ResponseNorm(alpha=1e-4 / 5, k=1.0)
        cin = 192
        for name, widths in MODULES.items():
            setattr(self, f"inception{name}", Inception(cin, widths, conv, 3 if norm else 5))
            cin = widths.total
        if self.weight:
            self.auxiliary = ("aux1.fc2", "aux2.fc2")
            share = options.auxiliary_dropout
            for head, name in (("aux1", "4a"), ("aux2", "4d")):
                maps = MODULES[name].total
                made = AuxiliaryHead(maps, num_classes, conv, dropout=share, fields=norm)
                setattr(self, head, made)
        self.dropout = Dropout(options.dropout)
        self.fc = nn.Linear(cin, num_classes)
        _initialise(self, norm=norm)

    def stages(self) -> list[list[nn.Module]]:
        """Return conv1, conv2 and 3, then the modules 3, 4 and 5."""
        inner = [
            [self.get_submodule(f"inception{name}") for name in MODULES if name[0] == number]
            for number in "345"
        ]
        return [[self.conv1], [self.conv2, self.conv3], *inner]

    def maps(self, x: Tensor) -> Tensor:
        """Return the maps (B, 1024, H / 32, W / 32) of module 5b."""
        return self._run(x)[0]

    def _run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last maps, and those that the auxiliary heads see."""
        x = self.normalise(self.pool(self.conv1(x)))
        x = self.pool(self.normalise(self.conv3(self.conv2(x))))
        seen = []
        for name in MODULES:
            if name in ("4a", "5a"):
                x = self.pool(x) if name == "4a" else self.last_pool(x)
            x = self.get_submodule(f"inception{name}")(x)
            if name in ("4a", "4d"):
                seen.append(x)
        return x, seen

    def head(self, maps: Tensor, generator: RandomSource = None) -> Tensor:
        """Return the logits (B, C) of the last maps."""
        logits: Tensor = self.fc(self.dropout(maps.mean((2, 3)), generator))
        return logits

    def all_logits(self, x: Tensor, generator: RandomSource = None) -> list[tuple[Tensor, float]]:
        """Return the logits, then those of the heads behind 4a and 4d; see `Network`."""
        maps, seen = self._run(x)
        own, *others = streams(generator, 3)
        found = [(self.head(maps, own), 1.0)]
        if self.weight:
            for name, middle, source in zip(("aux1", "aux2"), seen, others, strict=True):
                head = self.get_submodule(name)
                found.append((head(middle, source), self.weight))
        return found


def _initialise(network: nn.Module, *, norm: bool) -> None:
    """He et al. 2015 with batch norm; else as Caffe: Glorot and Bengio 2010, biases of 0.2."""
    init_convs(network)
    for layer in network.modules():
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and not norm):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 0.0 if isinstance(layer, nn.Linear) else 0.2)


@register(
    "googlenet",
    options=GoogLeNetOptions,
    task="classify",
    paper="Szegedy et al. 2015",
    tiny={"imgsz": 32},
)
def googlenet(num_classes: int, options: GoogLeNetOptions) -> Classifier:
    """Build GoogLeNet as published."""
    return Classifier(num_classes, GoogLeNet(num_classes, options, norm=False), options)


@register(
    "googlenet_bn",
    options=GoogLeNetBNOptions,
    task="classify",
    paper="Szegedy et al. 2015; Ioffe & Szegedy 2015",
    tiny={"imgsz": 32},
    weights={"imagenet": torchvision_classifier("googlenet", "1378be20", 69.778, 89.530)},
)
def googlenet_bn(num_classes: int, options: GoogLeNetBNOptions) -> Classifier:
    """Build GoogLeNet with batch norm."""
    return Classifier(num_classes, GoogLeNet(num_classes, options, norm=True), options)
