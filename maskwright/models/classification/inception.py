"""Inception v3 (Szegedy et al. 2016, "Rethinking") and v4 (2016, "Inception-v4").

Both: 299 x 299 pixels from -1 to 1, every convolution with batch norm (epsilon 1e-3) and ReLU,
blocks of branches whose maps stand one behind the other, mean, dropout, classes. In the tables `;`
parts the branches of a block: `48, 5x5 64` is 1x1 48, then 5x5 64; in brackets stand branches of
the stem, or two layers that see the same.

| v3 | size | branches |
| --- | --- | --- |
| stem | 35 | 3x3/2 32, 3x3 32, 3x3 p1 64, pool, 1x1 80, 3x3 192, pool |
| 5b 5c 5d | 35 | 64; 48, 5x5 64; 64, 3x3 96, 3x3 96; mean, 32 or 64 |
| 6a | 17 | 3x3/2 384; 64, 3x3 96, 3x3/2 96; pool |
| 6b to 6e | 17 | 192; c, 1x7 c, 7x1 192; c, 7x1, 1x7, 7x1 c, 1x7 192; mean, 192 |
| 7a | 8 | 192, 3x3/2 320; 192, 1x7, 7x1, 3x3/2 192; pool |
| 7b 7c | 8 | 320; 384, (1x3 384; 3x1 384); 448, 3x3 384, (the same two); mean, 192 |

with c 128, 160, 160, 192. v3 has a second head behind 6e for training: means of 5x5 every 3
pixels, 1x1 128, 5x5 768, classes. 23,834,568 parameters, 27,161,264 with it. Its means of 3x3 count
the padding, those of v4 do not.

| v4 | size | branches |
| --- | --- | --- |
| stem | 147 | 3x3/2 32, 3x3 32, 3x3 p1 64 |
| stem | 35 | (pool; 3x3/2 96), (64, 3x3 96; 64, 1x7, 7x1 64, 3x3 96), (3x3/2 192; pool) |
| A, 4 times | 35 | 96; 64, 3x3 96; 64, 3x3 96, 3x3 96; mean, 96 |
| reduction | 17 | 3x3/2 384; 192, 3x3 224, 3x3/2 256; pool |
| B, 7 times | 17 | 384; 192, 1x7 224, 7x1 256; (below); mean, 128 |
| reduction | 8 | 192, 3x3/2 192; 256, 1x7 256, 7x1 320, 3x3/2 320; pool |
| C, 3 times | 8 | 256; 384, (1x3 256; 3x1 256); 384, 3x1 448, 1x3 512, (the same two); mean, 256 |

with 192, 7x1 192, 1x7 224, 7x1 224, 1x7 256 as the third branch of B. 42,679,816 parameters. Names
are torchvision's (v3) and timm's (v4). Difference from the paper of v3: 5b to 5d keep the 5x5, as
all published weights do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.classification.inception import Block, Layer, Step, chain
from ...nn.dropout import Dropout
from ...nn.norm import ConvNorm, init_convs
from ...nn.random import RandomSource
from ..options import check_auxiliary, check_dropout
from ..registry import register
from .base import Classifier, ClassifierOptions, Network
from .published import torchvision_classifier

WIDE, HIGH = (1, 7), (7, 1)


def _v3_a(cin: int, pool: int) -> Block:
    """Return Mixed_5b, 5c or 5d."""
    return Block(
        cin,
        [
            [Layer("branch1x1", 64)],
            chain("branch5x5_", (48,), (64, 5)),
            chain("branch3x3dbl_", (64,), (96, 3), (96, 3)),
            ["mean", Layer("branch_pool", pool)],
        ],
        count_padding=True,
    )


def _v3_reduction_a() -> Block:
    """Return Mixed_6a."""
    return Block(
        288,
        [
            [Layer("branch3x3", 384, 3, 2)],
            chain("branch3x3dbl_", (64,), (96, 3), (96, 3, 2)),
            ["pool"],
        ],
        count_padding=True,
    )


def _v3_b(c: int) -> Block:
    """Return Mixed_6b to 6e."""
    return Block(
        768,
        [
            [Layer("branch1x1", 192)],
            chain("branch7x7_", (c,), (c, WIDE), (192, HIGH)),
            chain("branch7x7dbl_", (c,), (c, HIGH), (c, WIDE), (c, HIGH), (192, WIDE)),
            ["mean", Layer("branch_pool", 192)],
        ],
        count_padding=True,
    )


def _v3_reduction_b() -> Block:
    """Return Mixed_7a."""
    return Block(
        768,
        [
            chain("branch3x3_", (192,), (320, 3, 2)),
            chain("branch7x7x3_", (192,), (192, WIDE), (192, HIGH), (192, 3, 2)),
            ["pool"],
        ],
        count_padding=True,
    )


def _v3_c(cin: int) -> Block:
    """Return Mixed_7b or 7c."""
    return Block(
        cin,
        [
            [Layer("branch1x1", 320)],
            [*chain("branch3x3_", (384,)), _both("branch3x3_2", 384)],
            [*chain("branch3x3dbl_", (448,), (384, 3)), _both("branch3x3dbl_3", 384)],
            ["mean", Layer("branch_pool", 192)],
        ],
        count_padding=True,
    )


def _both(name: str, width: int) -> tuple[Layer, Layer]:
    """Return 1x3 and 3x1, which see the same."""
    return Layer(f"{name}a", width, (1, 3)), Layer(f"{name}b", width, (3, 1))


def _v4(cin: int, *branches: Sequence[Step]) -> Block:
    return Block(cin, branches, count_padding=False)


def _v4_stem() -> list[nn.Module]:
    """Return what leads to 384 maps of 35 x 35."""
    return [
        ConvNorm(3, 32, 3, 2, 0),
        ConvNorm(32, 32, 3, 1, 0),
        ConvNorm(32, 64, 3),
        _v4(64, ["pool"], [Layer("conv", 96, 3, 2)]),
        _v4(
            160,
            chain("branch0.", (64,), (96, 3), last_padded=False),
            chain("branch1.", (64,), (64, WIDE), (64, HIGH), (96, 3), last_padded=False),
        ),
        _v4(192, [Layer("conv", 192, 3, 2)], ["pool"]),
    ]


def _v4_a() -> Block:
    return _v4(
        384,
        [Layer("branch0", 96)],
        chain("branch1.", (64,), (96, 3)),
        chain("branch2.", (64,), (96, 3), (96, 3)),
        ["mean", Layer("branch3.1", 96)],
    )


def _v4_reduction_a() -> Block:
    return _v4(
        384,
        [Layer("branch0", 384, 3, 2)],
        chain("branch1.", (192,), (224, 3), (256, 3, 2)),
        ["pool"],
    )


def _v4_b() -> Block:
    return _v4(
        1024,
        [Layer("branch0", 384)],
        chain("branch1.", (192,), (224, WIDE), (256, HIGH)),
        chain("branch2.", (192,), (192, HIGH), (224, WIDE), (224, HIGH), (256, WIDE)),
        ["mean", Layer("branch3.1", 128)],
    )


def _v4_reduction_b() -> Block:
    return _v4(
        1024,
        chain("branch0.", (192,), (192, 3, 2)),
        chain("branch1.", (256,), (256, WIDE), (320, HIGH), (320, 3, 2)),
        ["pool"],
    )


def _v4_c() -> Block:
    return _v4(
        1536,
        [Layer("branch0", 256)],
        [Layer("branch1_0", 384), _both("branch1_1", 256)],
        [
            Layer("branch2_0", 384),
            Layer("branch2_1", 448, (3, 1)),
            Layer("branch2_2", 512, (1, 3)),
            _both("branch2_3", 256),
        ],
        ["mean", Layer("branch3.1", 256)],
    )


@dataclass(frozen=True)
class InceptionV3Options(ClassifierOptions):
    """Options of Inception v3.

    Attributes:
        auxiliary: weight of the second head in the loss; 0: there is none.
        dropout: share of the units before the classes that are dropped in training.
    """

    PUBLISHED: ClassVar[tuple[int, int]] = (299, 342)

    imgsz: int = 299
    statistics: str = "half"
    auxiliary: float = 0.4
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_auxiliary(self.auxiliary)
        check_dropout(self.dropout)


@dataclass(frozen=True)
class InceptionV4Options(ClassifierOptions):
    """Options of Inception v4.

    Attributes:
        dropout: share of the units before the classes that are dropped in training.
    """

    PUBLISHED: ClassVar[tuple[int, int]] = (299, 341)

    imgsz: int = 299
    interpolation: str = "bicubic"
    statistics: str = "half"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dropout(self.dropout)


class AuxiliaryHead(nn.Module):
    """Classes from the maps behind 6e, for training.

    At 299 pixels means of 5x5 every 3 pixels make 5 x 5 of 17 x 17; smaller maps are averaged to
    5 x 5.
    """

    def __init__(self, cin: int, num_classes: int) -> None:
        super().__init__()
        self.conv0 = ConvNorm(cin, 128, 1)
        self.conv1 = ConvNorm(128, 768, 5, padding=0)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C) of maps (B, cin, h, w)."""
        small = min(x.shape[-2:]) < 17
        x = F.adaptive_avg_pool2d(x, 5) if small else F.avg_pool2d(x, 5, stride=3)
        logits: Tensor = self.fc(self.conv1(self.conv0(x)).mean((2, 3)))
        return logits


class InceptionV3(Network):
    """Inception v3."""

    final = "fc"
    smallest = 75

    def __init__(self, num_classes: int, options: InceptionV3Options) -> None:
        super().__init__()
        self.weight = options.auxiliary
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, 2, 0)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3, 1, 0)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3, 1, 0)
        self.Mixed_5b = _v3_a(192, 32)
        self.Mixed_5c = _v3_a(256, 64)
        self.Mixed_5d = _v3_a(288, 64)
        self.Mixed_6a = _v3_reduction_a()
        self.Mixed_6b = _v3_b(128)
        self.Mixed_6c = _v3_b(160)
        self.Mixed_6d = _v3_b(160)
        self.Mixed_6e = _v3_b(192)
        if self.weight:
            self.auxiliary = ("AuxLogits.fc",)
            self.AuxLogits = AuxiliaryHead(self.Mixed_6e.channels, num_classes)
        self.Mixed_7a = _v3_reduction_b()
        self.Mixed_7b = _v3_c(1280)
        self.Mixed_7c = _v3_c(2048)
        self.dropout = Dropout(options.dropout)
        self.fc = nn.Linear(self.Mixed_7c.channels, num_classes)
        _initialise(self)

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem in two parts, then the blocks 5, 6 and 7."""
        return [
            [self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3],
            [self.pool, self.Conv2d_3b_1x1, self.Conv2d_4a_3x3, self.pool],
            [self.Mixed_5b, self.Mixed_5c, self.Mixed_5d],
            [self.Mixed_6a, self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e],
            [self.Mixed_7a, self.Mixed_7b, self.Mixed_7c],
        ]

    def maps(self, x: Tensor) -> Tensor:
        """Return the maps (B, 2048, h, w) of block 7c."""
        return self._run(x)[0]

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last maps, and those of block 6e."""
        *parts, last = self.stages()
        for module in (module for part in parts for module in part):
            x = module(x)
        middle = x
        for module in last:
            x = module(x)
        return x, middle

    def head(self, maps: Tensor, generator: RandomSource = None) -> Tensor:
        """Return the logits (B, C) of the last maps."""
        logits: Tensor = self.fc(self.dropout(maps.mean((2, 3)), generator))
        return logits

    def all_logits(self, x: Tensor, generator: RandomSource = None) -> list[tuple[Tensor, float]]:
        """Return the logits, then those of the second head; see `Network`."""
        maps, middle = self._run(x)
        found = [(self.head(maps, generator), 1.0)]
        if self.weight:
            found.append((self.AuxLogits(middle), self.weight))
        return found


class InceptionV4(Network):
    """Inception v4."""

    final = "last_linear"
    smallest = 75

    def __init__(self, num_classes: int, options: InceptionV4Options) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_v4_stem(),
            *(_v4_a() for _ in range(4)),
            _v4_reduction_a(),
            *(_v4_b() for _ in range(7)),
            _v4_reduction_b(),
            *(_v4_c() for _ in range(3)),
        )
        self.dropout = Dropout(options.dropout)
        self.last_linear = nn.Linear(1536, num_classes)
        _initialise(self)

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem in two parts, then the blocks A, B and C with what leads to them."""
        parts = list(self.features)
        return [parts[:3], parts[3:6], parts[6:10], parts[10:18], parts[18:]]

    def maps(self, x: Tensor) -> Tensor:
        """Return the maps (B, 1536, h, w) of the last block."""
        maps: Tensor = self.features(x)
        return maps

    def head(self, maps: Tensor, generator: RandomSource = None) -> Tensor:
        """Return the logits (B, C) of the last maps."""
        logits: Tensor = self.last_linear(self.dropout(maps.mean((2, 3)), generator))
        return logits

    def all_logits(self, x: Tensor, generator: RandomSource = None) -> list[tuple[Tensor, float]]:
        """Return the logits; see `Network`."""
        return [(self.head(self.maps(x), generator), 1.0)]


def _initialise(network: nn.Module) -> None:
    init_convs(network)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)


@register(
    "inception_v3",
    options=InceptionV3Options,
    task="classify",
    paper="Szegedy et al. 2016 (Rethinking)",
    tiny={"imgsz": 75},
    weights={"imagenet": torchvision_classifier("inception_v3_google", "0cc3c7bd", 77.294, 93.450)},
)
def inception_v3(num_classes: int, options: InceptionV3Options) -> Classifier:
    """Build Inception v3."""
    return Classifier(num_classes, InceptionV3(num_classes, options), options)


@register(
    "inception_v4",
    options=InceptionV4Options,
    task="classify",
    paper="Szegedy et al. 2016 (Inception-v4)",
    tiny={"imgsz": 75},
)
def inception_v4(num_classes: int, options: InceptionV4Options) -> Classifier:
    """Build Inception v4."""
    return Classifier(num_classes, InceptionV4(num_classes, options), options)
