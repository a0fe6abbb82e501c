"""Pre-activation ResNets (He et al. 2016, "Identity mappings"), and all five orders of their unit.

| order | branch of a unit | behind the sum | what its name is there |
| --- | --- | --- | --- |
| a | conv BN ReLU conv BN | ReLU | original |
| b | conv BN ReLU conv | BN ReLU | BN after addition |
| c | conv BN ReLU conv BN ReLU | | ReLU before addition |
| d | ReLU conv BN ReLU conv BN | | ReLU-only pre-activation |
| e | BN ReLU conv BN ReLU conv | | full pre-activation |

The table has the basic unit; a bottleneck goes on alike for three convolutions, 1x1, 3x3 (with the
stride), 1x1. Stages, widths and units are those of `resnet`: 18 to 152 on photos, 6n + 2 layers for
CIFAR, and there with bottlenecks 9n + 2 (64, 128, 256 channels behind them): 164.

Behind the first convolution stand BN and ReLU, in order e only a pooling: there the BN and ReLU of
the first unit stand before its split, those of all units whose shape changes too (their shortcut
takes the activated input), and one BN and ReLU end the network. Where the shape changes, shortcuts
are projections (in a to d with BN), of basic units for CIFAR zeros behind (option A).
Bottlenecks in order e are timm's `resnetv2_50`, `_101` and `_152`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...nn.backbones.resnet import RESNETS, PadShortcut
from ...nn.convolution import Conv2d
from ...nn.norm import init_convs
from ...nn.stochastic_depth import Share, Stage, StochasticDepth, idle, left_out, scaled
from ..registry import register
from .base import Classifier
from .residual import ResidualNetwork, ResidualOptions
from .resnet import CIFAR_DEPTHS, check_cifar_depth

ORDERS = ("a", "b", "c", "d", "e")


@dataclass(frozen=True)
class PreActOptions(ResidualOptions):
    """Options of the pre-activation ResNets.

    Attributes:
        backbone: the ResNet whose stages they have: "resnet18" to "resnet152".
        order: of the layers in a unit, "a" (the original ResNet) to "e" (full pre-activation).
    """

    backbone: str = "resnet50"
    order: str = "e"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [name for name in RESNETS if name.startswith("resnet")]
        if self.backbone not in known:
            raise OptionError(f"backbone is one of {', '.join(known)}; got {self.backbone!r}")
        _check_order(self.order)


@dataclass(frozen=True)
class CifarPreActOptions(ResidualOptions):
    """Options of the pre-activation ResNets for CIFAR.

    Attributes:
        depth: layers with weights: 6n + 2, with bottlenecks 9n + 2.
        bottleneck: three convolutions in a unit, not two.
        order: of the layers in a unit, "a" (the original ResNet) to "e" (full pre-activation).
    """

    PUBLISHED: ClassVar[tuple[int, int]] = (32, 32)

    imgsz: int = 32
    statistics: str = "cifar"
    depth: int = 110
    bottleneck: bool = False
    order: str = "e"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_cifar_depth(self.depth, 9 if self.bottleneck else 6)
        _check_order(self.order)


def _check_order(order: str) -> None:
    if order not in ORDERS:
        raise OptionError(f"order is one of {', '.join(ORDERS)}; got {order!r}")


class Projection(nn.Module):
    """A 1x1 convolution as shortcut, with a norm or none."""

    def __init__(self, cin: int, cout: int, stride: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = Conv2d(cin, cout, 1, stride=stride, bias=False)
        self.norm = nn.BatchNorm2d(cout) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, cout, H / stride, W / stride)."""
        result: Tensor = self.norm(self.conv(x))
        return result


class Unit(nn.Module):
    """A residual unit in one of five orders (He et al. 2016, "Identity mappings", fig. 4).

    Args:
        cin: channels of the input.
        cout: of the output.
        stride: of the (first) 3x3 convolution.
        order: one of `ORDERS`.
        bottleneck: 1x1, 3x3, 1x1 in place of 3x3, 3x3.
        pad: where the shape changes zeros behind, not a projection.
        first: it is the first of the network.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        stride: int,
        *,
        order: str,
        bottleneck: bool,
        pad: bool = False,
        first: bool = False,
    ) -> None:
        super().__init__()
        self.order = order
        width = cout // 4 if bottleneck else cout
        plan = [(cin, width, 3, stride), (width, cout, 3, 1)]
        if bottleneck:
            plan = [(cin, width, 1, 1), (width, width, 3, stride), (width, cout, 1, 1)]
        for number, (before, behind, kernel, step) in enumerate(plan, 1):
            norm = nn.BatchNorm2d(before if order == "e" else behind)
            conv = Conv2d(before, behind, kernel, stride=step, padding=kernel // 2, bias=False)
            setattr(self, f"norm{number}", norm)
            setattr(self, f"conv{number}", conv)
        self.count = len(plan)
        self.downsample: nn.Module | None = None
        if stride != 1 or cin != cout:
            padded = PadShortcut(cout - cin, stride)
            projected = Projection(cin, cout, stride, norm=order != "e")
            self.downsample = padded if pad else projected
        # What the shortcut takes: in order e the activated input where it is more than a sum.
        self.activated = order == "e" and (first or self.downsample is not None)

    def forward(self, x: Tensor, share: Share = 1.0) -> Tensor:
        """Return (B, cout, H / stride, W / stride); see `Share`."""
        absent = left_out(share)
        active = x
        if self.order == "e" and (self.activated or not absent):
            active = F.relu(self._norm(1, x), inplace=True)
        shortcut = active if self.activated else x
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        if absent:
            return self._finish(idle(shortcut, self._branch_parameters()))
        return self._finish(shortcut + scaled(self._branch(active), share))

    def _branch(self, x: Tensor) -> Tensor:
        """Return the branch: of `x` itself, or in order e of the input behind BN and ReLU."""
        for number in range(1, self.count + 1):
            last = number == self.count
            if self.order == "d":
                x = F.relu(x, inplace=number > 1)  # the shortcut takes the first one as it is
            elif self.order == "e" and number > 1:
                x = F.relu(self._norm(number, x), inplace=True)
            x = self.get_submodule(f"conv{number}")(x)
            if self.order in "acd" or (self.order == "b" and not last):
                x = self._norm(number, x)
            if (self.order in "ab" and not last) or self.order == "c":
                x = F.relu(x, inplace=True)
        return x

    def _finish(self, x: Tensor) -> Tensor:
        """Return what comes behind the sum."""
        if self.order == "b":
            x = self._norm(self.count, x)
        return F.relu(x) if self.order in "ab" else x

    def _norm(self, number: int, x: Tensor) -> Tensor:
        result: Tensor = self.get_submodule(f"norm{number}")(x)
        return result

    def _branch_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that have no part where the branch is left out."""
        needed = ["downsample."]
        needed += [f"norm{self.count}."] if self.order == "b" else []
        needed += ["norm1."] if self.activated else []
        return [p for name, p in self.named_parameters() if not name.startswith(tuple(needed))]

    def last_layer(self) -> str:
        """Return the name of the last layer with weights of the branch."""
        return f"{'conv' if self.order in 'be' else 'norm'}{self.count}"


class PreActResNet(ResidualNetwork):
    """Stages of `Unit`s.

    Args:
        num_classes: rows of the last layer.
        blocks: units of each stage.
        widths: channels behind each stage.
        stem: (channels, kernel) of the first convolution; one of 7 strides, and is pooled.
        options: order and stochastic depth.
        bottleneck: see `Unit`.
        pad: see `Unit`.
    """

    final = "fc"

    def __init__(
        self,
        num_classes: int,
        blocks: Sequence[int],
        widths: Sequence[int],
        stem: tuple[int, int],
        options: PreActOptions | CifarPreActOptions,
        *,
        bottleneck: bool,
        pad: bool,
    ) -> None:
        super().__init__()
        order = options.order
        cin, kernel = stem
        photos = kernel == 7
        self.stem = nn.Sequential()
        conv = Conv2d(3, cin, kernel, stride=2 if photos else 1, padding=kernel // 2, bias=False)
        self.stem.add_module("conv", conv)
        if order != "e":
            self.stem.add_module("norm", nn.BatchNorm2d(cin))
            self.stem.add_module("relu", nn.ReLU(inplace=True))
        if photos:
            self.stem.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
        self.blocks = tuple(blocks)
        for stage, (count, cout) in enumerate(zip(blocks, widths, strict=True)):
            parts = []
            for block in range(count):
                stride = 2 if stage and block == 0 else 1
                first = stage == 0 and block == 0
                parts.append(
                    Unit(
                        cin,
                        cout,
                        stride,
                        order=order,
                        bottleneck=bottleneck,
                        pad=pad,
                        first=first,
                    )
                )
                cin = cout
            setattr(self, f"layer{stage + 1}", Stage(*parts))
        self.norm = nn.BatchNorm2d(cin) if order == "e" else nn.Identity()
        self.ends_with_relu = order == "e"
        self.fc = nn.Linear(cin, num_classes)
        self.depth = StochasticDepth(sum(blocks), options.drop_path, options.drop_path_mode)
        init_convs(self)

    def layers(self) -> list[Stage]:
        """Return the stages of units."""
        found = [self.get_submodule(f"layer{stage + 1}") for stage in range(len(self.blocks))]
        return [stage for stage in found if isinstance(stage, Stage)]

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem, then the stages of units, the last with the norm behind it."""
        modules: list[list[nn.Module]] = [[self.stem]]
        modules += [[stage] for stage in self.layers()]
        modules[-1].append(self.norm)
        return modules

    def last_layers(self) -> list[str]:
        """Return the layer that ends the branch of each unit."""
        return [
            f"layer{number}.{index}.{unit.last_layer()}"
            for number, stage in enumerate(self.layers(), 1)
            for index, unit in enumerate(stage)
            if isinstance(unit, Unit)
        ]

    def run(self, x: Tensor, shares: Sequence[Share]) -> Tensor:
        """Return the maps behind the last BN and ReLU; see `ResidualNetwork`."""
        x = self.stem(x)
        first = 0
        for stage, count in zip(self.layers(), self.blocks, strict=True):
            x = stage(x, shares[first : first + count])
            first += count
        x = self.norm(x)
        return F.relu(x, inplace=True) if self.ends_with_relu else x

    def head(self, maps: Tensor) -> Tensor:
        """Return the logits (B, C) of the last maps."""
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


def preact_resnet(num_classes: int, options: PreActOptions) -> Classifier:
    """Build a pre-activation ResNet for photos."""
    bottleneck, blocks, _, _ = RESNETS[options.backbone]
    widths = [64 * 2**stage * (4 if bottleneck else 1) for stage in range(4)]
    network = PreActResNet(
        num_classes, blocks, widths, (64, 7), options, bottleneck=bottleneck, pad=False
    )
    return Classifier(num_classes, network, options)


def preact_resnet_cifar(num_classes: int, options: CifarPreActOptions) -> Classifier:
    """Build a pre-activation ResNet for CIFAR."""
    wide = options.bottleneck
    blocks = [(options.depth - 2) // (9 if wide else 6)] * 3
    widths = [width * (4 if wide else 1) for width in (16, 32, 64)]
    network = PreActResNet(
        num_classes, blocks, widths, (16, 3), options, bottleneck=wide, pad=not wide
    )
    return Classifier(num_classes, network, options)


_PAPER = "He et al. 2016 (identity mappings)"
for _depth in (18, 34, 50, 101, 152):
    register(
        f"preact_resnet{_depth}",
        options=PreActOptions,
        task="classify",
        paper=_PAPER,
        tiny={"imgsz": 64} if _depth == 18 else None,
        presets={"backbone": f"resnet{_depth}"},
    )(preact_resnet)
for _depth in (*CIFAR_DEPTHS, 164):
    register(
        f"preact_resnet{_depth}_cifar",
        options=CifarPreActOptions,
        task="classify",
        paper=_PAPER,
        tiny={"depth": 8} if _depth == 20 else None,
        presets={"depth": _depth, "bottleneck": _depth == 164},
    )(preact_resnet_cifar)
