"""DenseNet (Huang et al. 2017): each layer takes the maps of all layers before it.

| part | size | 121 | 169 | 201 | 161 |
| --- | --- | --- | --- | --- | --- |
| stem | 56 | 7x7/2 64, BN ReLU, max-pool 3x3/2 | the same | the same | 7x7/2 96 |
| block 1 | 56 | 6 layers: BN ReLU 1x1 4k, BN ReLU 3x3 k; k = 32 | 6 | 6 | 6, k = 48 |
| transition | 28 | BN ReLU 1x1 half, mean 2x2; behind each block but the last | | | |
| block 2 | 28 | 12 | 12 | 12 | 12 |
| block 3 | 14 | 24 | 32 | 48 | 36 |
| block 4 | 7 | 16 | 32 | 32 | 24 |

then BN ReLU, the mean and a layer of classes. For CIFAR: a 3x3 of 16 (BC: 2k), three blocks at 32,
16, 8 pixels with (depth - 4) / 3 layers BN ReLU 3x3 k each and transitions that keep the width; in
the form BC half as many layers with a 1x1 of 4k before the 3x3, and transitions that halve.

Names are torchvision's (`features.denseblock1.denselayer1.norm1`). With `recompute` the inputs of
the layers, whose sizes grow quadratically with depth, are made anew on the way back (Pleiss et al.
2017): concatenation, BN, ReLU, and nothing else; results, gradients and statistics stay the same.
What a step on two images keeps for the gradient falls from 38 to 8 MB for `densenet40_12_cifar`,
from 70 to 25 for `densenet_bc_100_12_cifar`, and from 22 to 10 for `densenet121` at 64 x 64.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import OptionError
from ...nn.convolution import Conv2d
from ...nn.norm import SameStatistics, init_convs
from ..registry import register
from .base import Classifier, ClassifierOptions, Network
from .published import torchvision_classifier


@dataclass(frozen=True)
class DenseOptions(ClassifierOptions):
    """Options of all DenseNets.

    Attributes:
        growth: k, maps that each layer adds.
        dropout: share of the values behind each convolution but the first that training sets to 0;
            the paper: 0.2 where images are not augmented.
        recompute: training keeps the inputs of the layers no longer than it needs them and makes
            them anew for the gradient: less memory, more time.
    """

    growth: int = 32
    dropout: float = 0.0
    recompute: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.growth, int) or not 1 <= self.growth <= 1024:
            raise OptionError(f"growth must lie in 1..1024, got {self.growth!r}")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"dropout must lie in [0, 1), got {self.dropout!r}")


@dataclass(frozen=True)
class DenseNetOptions(DenseOptions):
    """Options of the DenseNets for photos.

    Attributes:
        layers: in each block.
    """

    layers: tuple[int, ...] = (6, 12, 24, 16)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or not all(isinstance(n, int) and n > 0 for n in self.layers):
            raise OptionError(f"layers are one count above 0 for each block, got {self.layers!r}")


@dataclass(frozen=True)
class CifarDenseNetOptions(DenseOptions):
    """Options of the DenseNets for CIFAR.

    Attributes:
        depth: layers with weights: 3n + 4, with bottlenecks 6n + 4.
        bottleneck: a 1x1 of 4k before each 3x3, and transitions that halve the width (BC).
    """

    PUBLISHED: ClassVar[tuple[int, int]] = (32, 32)

    imgsz: int = 32
    statistics: str = "cifar"
    growth: int = 12
    depth: int = 40
    bottleneck: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        step = 6 if self.bottleneck else 3
        if not isinstance(self.depth, int) or self.depth < step + 4 or (self.depth - 4) % step:
            raise OptionError(f"depth must be {step} n + 4, such as {step * 8 + 4}: {self.depth}")


class DenseLayer(nn.Module):
    """BN ReLU 3x3 k, or BN ReLU 1x1 4k, BN ReLU 3x3 k, on all maps before it.

    Args:
        channels: of these maps together.
        options: growth, dropout and whether to recompute.
        bottleneck: with the 1x1.
    """

    def __init__(self, channels: int, options: DenseOptions, *, bottleneck: bool) -> None:
        super().__init__()
        growth = options.growth
        self.bottleneck = bottleneck
        self.drop = nn.Dropout(options.dropout)
        self.recompute = options.recompute
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        if bottleneck:
            self.conv1 = Conv2d(channels, 4 * growth, 1, bias=False)
            self.norm2, self.relu2 = nn.BatchNorm2d(4 * growth), nn.ReLU(inplace=True)
            self.conv2 = Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        else:
            self.conv1 = Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, k, H, W) for the maps (B, c, H, W) of all layers before."""
        if self.recompute and torch.is_grad_enabled():
            # Recomputation ends with the last tensor that is missing, the input of the convolution,
            # which does not run again.
            out = checkpoint(
                self._first,
                *maps,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=self._contexts,
            )
        else:
            out = self._first(*maps)
        out = self.drop(out)
        if self.bottleneck:
            out = self.drop(self.conv2(self.relu2(self.norm2(out))))
        result: Tensor = out
        return result

    def _first(self, *maps: Tensor) -> Tensor:
        out: Tensor = self.conv1(self.relu1(self.norm1(torch.cat(maps, 1))))
        return out

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), SameStatistics(self.norm1)


class DenseBlock(nn.Module):
    """Layers `denselayer1`, `denselayer2`, ... that each add their maps to all before.

    Args:
        layers: how many.
        channels: of the input.
        options: see `DenseLayer`.
        bottleneck: see `DenseLayer`.
    """

    def __init__(
        self, layers: int, channels: int, options: DenseOptions, *, bottleneck: bool
    ) -> None:
        super().__init__()
        for index in range(layers):
            layer = DenseLayer(channels + index * options.growth, options, bottleneck=bottleneck)
            self.add_module(f"denselayer{index + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return all maps (B, C + layers k, H, W), the input first."""
        maps = [x]
        for layer in self.children():
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class Transition(nn.Module):
    """BN ReLU 1x1 and the mean of 2x2."""

    def __init__(self, channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = Conv2d(channels, out_channels, 1, bias=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, H / 2, W / 2)."""
        x = self.conv(F.relu(self.norm(x), inplace=True))
        return F.avg_pool2d(self.drop(x), 2)


class DenseNet(Network):
    """Stem, dense blocks with transitions between them, a last norm.

    Args:
        num_classes: rows of the last layer.
        layers: of each block.
        stem: channels of the first convolution: 7x7 with a pooling, or for CIFAR 3x3.
        options: see `DenseLayer`.
        bottleneck: see `DenseLayer`; the transitions halve the width then.
        cifar: the stem is that for CIFAR.
    """

    final = "classifier"

    def __init__(
        self,
        num_classes: int,
        layers: Sequence[int],
        stem: int,
        options: DenseOptions,
        *,
        bottleneck: bool,
        cifar: bool = False,
    ) -> None:
        super().__init__()
        self.smallest = 2 ** (len(layers) - 1)
        parts = self.features = nn.Sequential()
        if cifar:
            parts.add_module("conv0", Conv2d(3, stem, 3, padding=1, bias=False))
        else:
            self.smallest = 4 * self.smallest - 3  # a stem of 2 x 2 rounds up
            parts.add_module("conv0", Conv2d(3, stem, 7, stride=2, padding=3, bias=False))
            parts.add_module("norm0", nn.BatchNorm2d(stem))
            parts.add_module("relu0", nn.ReLU(inplace=True))
            parts.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))
        channels = stem
        for number, count in enumerate(layers, 1):
            block = DenseBlock(count, channels, options, bottleneck=bottleneck)
            parts.add_module(f"denseblock{number}", block)
            channels += count * options.growth
            if number < len(layers):
                width = channels // 2 if bottleneck else channels
                transition = Transition(channels, width, options.dropout)
                parts.add_module(f"transition{number}", transition)
                channels = width
        parts.add_module(f"norm{len(layers) + 1}", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, num_classes)
        init_convs(self)

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem, then each block with the transition before it."""
        found: list[list[nn.Module]] = [[]]
        for name, module in self.features.named_children():
            if name == "denseblock1" or name.startswith("transition"):
                found.append([])
            found[-1].append(module)
        return found

    def maps(self, x: Tensor) -> Tensor:
        """Return the maps behind the last BN and ReLU: (B, K, H / 32, W / 32), CIFAR H / 4."""
        return F.relu(self.features(x), inplace=True)

    def head(self, maps: Tensor) -> Tensor:
        """Return the logits (B, C) of the last maps."""
        logits: Tensor = self.classifier(maps.mean((2, 3)))
        return logits


def densenet(num_classes: int, options: DenseNetOptions) -> Classifier:
    """Build a DenseNet for photos, in the form BC."""
    network = DenseNet(num_classes, options.layers, 2 * options.growth, options, bottleneck=True)
    return Classifier(num_classes, network, options)


def densenet_cifar(num_classes: int, options: CifarDenseNetOptions) -> Classifier:
    """Build a DenseNet for CIFAR."""
    wide = options.bottleneck
    layers = [(options.depth - 4) // (6 if wide else 3)] * 3
    stem = 2 * options.growth if wide else 16
    network = DenseNet(num_classes, layers, stem, options, bottleneck=wide, cifar=True)
    return Classifier(num_classes, network, options)


for _name, _layers, _growth, _published in (
    ("densenet121", (6, 12, 24, 16), 32, ("a639ec97", 74.434, 91.972)),
    ("densenet169", (6, 12, 32, 32), 32, ("b2777c0a", 75.6, 92.806)),
    ("densenet201", (6, 12, 48, 32), 32, ("c1103571", 76.896, 93.37)),
    ("densenet161", (6, 12, 36, 24), 48, ("8d451a50", 77.138, 93.56)),
):
    register(
        _name,
        options=DenseNetOptions,
        task="classify",
        paper="Huang et al. 2017",
        tiny={"layers": (2, 2, 2), "growth": 8, "imgsz": 64} if _name == "densenet121" else None,
        weights={"imagenet": torchvision_classifier(_name, *_published)},
        presets={"layers": _layers, "growth": _growth},
    )(densenet)
for _name, _depth, _growth, _wide in (
    ("densenet40_12", 40, 12, False),
    ("densenet100_12", 100, 12, False),
    ("densenet_bc_100_12", 100, 12, True),
    ("densenet_bc_190_40", 190, 40, True),
):
    register(
        f"{_name}_cifar",
        options=CifarDenseNetOptions,
        task="classify",
        paper="Huang et al. 2017",
        tiny={"depth": 10} if _depth == 40 else None,
        presets={"depth": _depth, "growth": _growth, "bottleneck": _wide},
    )(densenet_cifar)
