"""ResNet (He et al. 2016) and ResNeXt (Xie et al. 2017), and the small ResNets for CIFAR.

The network is that of the detectors, `nn.backbones.resnet.ResNet`, with mean and one layer behind
it: what a classifier learned starts a detector (`weights=imagenet:FILE`).

| part | size | 18, 34 (two 3x3) | 50, 101, 152 (1x1, 3x3, 1x1) | ResNeXt-50 32x4d |
| --- | --- | --- | --- | --- |
| conv1 | 112 | 7x7/2 64 | the same | the same |
| layer1 | 56 | pool 3x3/2; 64; x 2, 3 | pool; 64, 256; x 3, 3, 3 | 128 in 32 groups, 256; x 3 |
| layer2 | 28 | 128; x 2, 4 | 128, 512; x 4, 4, 8 | 256, 512; x 4 |
| layer3 | 14 | 256; x 2, 6 | 256, 1024; x 6, 23, 36 | 512, 1024; x 6 |
| layer4 | 7 | 512; x 2, 3 | 512, 2048; x 3, 3, 3 | 1024, 2048; x 3 |

then the mean and a layer of classes. ResNeXt-101 has the blocks of 101; its 3x3 in layer1 has 256
channels, 32 groups of 8 or 64 of 4. Difference from the paper: a bottleneck strides in its 3x3, as
in torchvision and all published files, unless `stride_in_1x1` is set.

For CIFAR (section 4.2): a 3x3 of 16, three stages of n blocks of 16, 32, 64 channels at 32, 16, 8
pixels, mean, classes: 6n + 2 layers. Shortcuts have no parameters (option A). Without shortcuts
they are the plain networks that the paper compares them with: equal in depth and parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from ...errors import OptionError
from ...nn.backbones.resnet import RESNETS, BasicBlock, ResNet
from ...nn.convolution import Conv2d
from ...nn.norm import conv_norm, init_convs
from ...nn.stochastic_depth import Share, Stage, StochasticDepth
from ..registry import register
from .base import Classifier
from .published import torchvision_classifier
from .residual import ResidualNetwork, ResidualOptions


@dataclass(frozen=True)
class ResNetOptions(ResidualOptions):
    """Options of ResNet and ResNeXt.

    Attributes:
        backbone: resnet18, 34, 50, 101 or 152, resnext50_32x4d, resnext101_32x8d or
            resnext101_64x4d.
        stride_in_1x1: a bottleneck strides in its first convolution (the paper, Caffe), not in the
            3x3 (torchvision).
    """

    backbone: str = "resnet50"
    stride_in_1x1: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone not in RESNETS:
            raise OptionError(f"backbone is one of {', '.join(RESNETS)}; got {self.backbone!r}")


class ResNetClassifier(ResidualNetwork):
    """The ResNet of detectors with mean and classes behind it.

    Args:
        num_classes: rows of the last layer.
        options: which one.
    """

    final = "fc"

    def __init__(self, num_classes: int, options: ResNetOptions) -> None:
        super().__init__()
        self.body = ResNet(options.backbone, norm="bn", stride_in_1x1=options.stride_in_1x1)
        self.fc = nn.Linear(self.body.channels[-1], num_classes)
        blocks = sum(self.body.blocks)
        self.depth = StochasticDepth(blocks, options.drop_path, options.drop_path_mode)

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem, then layer1 to layer4."""
        return self.body.stages()

    def last_layers(self) -> list[str]:
        """Return the last norm of each block."""
        last = "bn3" if self.body.bottleneck else "bn2"
        return [
            f"body.layer{stage}.{block}.{last}"
            for stage, count in enumerate(self.body.blocks, 1)
            for block in range(count)
        ]

    def run(self, x: Tensor, shares: Sequence[Share]) -> Tensor:
        """Return C5; see `ResidualNetwork`."""
        maps: tuple[Tensor, ...] = self.body(x, shares)
        return maps[-1]

    def head(self, maps: Tensor) -> Tensor:
        """Return the logits (B, C) of the last maps."""
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


# name: digest of torchvision's file, top-1, top-5; of its second version
_PUBLISHED: Mapping[str, tuple[tuple[str, float, float], tuple[str, float, float] | None]] = {
    "resnet18": (("f37072fd", 69.758, 89.078), None),
    "resnet34": (("b627a593", 73.314, 91.42), None),
    "resnet50": (("0676ba61", 76.13, 92.862), ("11ad3fa6", 80.858, 95.434)),
    "resnet101": (("63fe2227", 77.374, 93.546), ("cd907fc2", 81.886, 95.78)),
    "resnet152": (("394f9c45", 78.312, 94.046), ("f82ba261", 82.284, 96.002)),
    "resnext50_32x4d": (("7cdf4587", 77.618, 93.698), ("1a0047aa", 81.198, 95.34)),
    "resnext101_32x8d": (("8ba56ff5", 79.312, 94.526), ("110c445d", 82.834, 96.228)),
    # There is one file, whose training and test are those of the second version.
    "resnext101_64x4d": (("173b62eb", 83.246, 96.454), None),
}


def resnet(num_classes: int, options: ResNetOptions) -> Classifier:
    """Build a ResNet or ResNeXt."""
    return Classifier(num_classes, ResNetClassifier(num_classes, options), options)


for _name, (_first, _second) in _PUBLISHED.items():
    _short = 232 if _name == "resnext101_64x4d" else None
    _weights = {"imagenet": torchvision_classifier(_name, *_first, short=_short)}
    if _second is not None:
        _weights["imagenet_v2"] = torchvision_classifier(_name, *_second, short=232)
    register(
        _name,
        options=ResNetOptions,
        task="classify",
        paper="Xie et al. 2017" if _name.startswith("resnext") else "He et al. 2016",
        tiny={"imgsz": 64} if _name == "resnet18" else None,
        weights=_weights,
        presets={"backbone": _name},
    )(resnet)


@dataclass(frozen=True)
class CifarResNetOptions(ResidualOptions):
    """Options of the ResNets for CIFAR.

    Attributes:
        depth: layers with weights, 6n + 2.
        shortcuts: whether there are any; without them the network is a plain one.
    """

    PUBLISHED: ClassVar[tuple[int, int]] = (32, 32)

    imgsz: int = 32
    statistics: str = "cifar"
    depth: int = 20
    shortcuts: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_cifar_depth(self.depth, 6)
        if self.drop_path and not self.shortcuts:
            raise OptionError(
                f"drop_path={self.drop_path} needs shortcuts: a plain network without a block is "
                "none; set shortcuts=true or drop_path=0"
            )


def check_cifar_depth(depth: int, per_block: int) -> None:
    """Make sure that a depth is `per_block` n + 2.

    Raises:
        OptionError: if not.
    """
    if not isinstance(depth, int) or depth < per_block + 2 or (depth - 2) % per_block:
        near = max(1, round((int(depth) - 2) / per_block)) * per_block + 2
        raise OptionError(f"depth must be {per_block} n + 2, such as {near}; got {depth}")


class CifarResNet(ResidualNetwork):
    """Three stages of basic blocks on 32 x 32 pixels (He et al. 2016, section 4.2).

    Args:
        num_classes: rows of the last layer.
        options: depth and shortcuts.
    """

    final = "fc"

    def __init__(self, num_classes: int, options: CifarResNetOptions) -> None:
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=1e-5)
        self.blocks = (options.depth - 2) // 6
        self.conv1 = Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = norm(16)
        self.relu = nn.ReLU(inplace=True)
        cin = 16
        for stage, width in enumerate((16, 32, 64)):
            parts = []
            for block in range(self.blocks):
                stride = 2 if stage and block == 0 else 1
                kind = "pad" if options.shortcuts else "none"
                parts.append(BasicBlock(cin, width, stride, norm, shortcut=kind))
                cin = width
            setattr(self, f"layer{stage + 1}", Stage(*parts))
        self.fc = nn.Linear(64, num_classes)
        self.depth = StochasticDepth(3 * self.blocks, options.drop_path, options.drop_path_mode)
        init_convs(self)

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem, then layer1 to layer3."""
        layers: list[list[nn.Module]] = [[self.conv1, self.bn1]]
        return layers + [[self.get_submodule(f"layer{stage}")] for stage in (1, 2, 3)]

    def last_layers(self) -> list[str]:
        """Return the last norm of each block."""
        return [f"layer{stage}.{block}.bn2" for stage in (1, 2, 3) for block in range(self.blocks)]

    def run(self, x: Tensor, shares: Sequence[Share]) -> Tensor:
        """Return the maps (B, 64, H / 4, W / 4) of layer3; see `ResidualNetwork`."""
        x = self.relu(conv_norm(self.conv1, self.bn1, x))
        for stage in range(3):
            first = stage * self.blocks
            layer = getattr(self, f"layer{stage + 1}")
            x = layer(x, shares[first : first + self.blocks])
        return x

    def head(self, maps: Tensor) -> Tensor:
        """Return the logits (B, C) of the last maps."""
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


def resnet_cifar(num_classes: int, options: CifarResNetOptions) -> Classifier:
    """Build a ResNet, or a plain network, for CIFAR."""
    return Classifier(num_classes, CifarResNet(num_classes, options), options)


CIFAR_DEPTHS = (20, 32, 44, 56, 110)
for _depth in CIFAR_DEPTHS:
    for _name, _shortcuts in (("resnet", True), ("plain", False)):
        register(
            f"{_name}{_depth}_cifar",
            options=CifarResNetOptions,
            task="classify",
            paper="He et al. 2016",
            tiny={"depth": 8} if _depth == 20 else None,
            presets={"depth": _depth, "shortcuts": _shortcuts},
        )(resnet_cifar)
