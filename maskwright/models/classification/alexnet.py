"""AlexNet: as published (Krizhevsky et al. 2012), on two towers, and as one tower (2014).

| layer | `alexnet_two_towers` | `alexnet` |
| --- | --- | --- |
| input | 227 x 227 | 224 x 224 |
| conv1 | 11x11/4 96, normalised, pool 3x3/2 | 11x11/4 p2 64, pool 3x3/2 |
| conv2 | 5x5 p2 256 in 2 groups, normalised, pool 3x3/2 | 5x5 p2 192, pool 3x3/2 |
| conv3 | 3x3 p1 384 | 3x3 p1 384 |
| conv4 | 3x3 p1 384 in 2 groups | 3x3 p1 256 |
| conv5 | 3x3 p1 256 in 2 groups, pool 3x3/2 | 3x3 p1 256, pool 3x3/2 |
| fully connected | 4096, 4096, classes | the same |
| parameters | 60,965,224 | 61,100,840 |

The two towers are the two GPUs of the paper: a group of a convolution sees the maps of its own
tower. The paper gives 224 pixels, of which its sizes do not follow; 227 are meant. One tower is the
form of "One weird trick" (Krizhevsky 2014) that torchvision has, without groups and normalisation;
its convolutions are those of the detectors, `nn.backbones.alexnet`. Difference from the paper: the
responses are normalised over the maps of both towers, as in Caffe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ...nn.backbones.alexnet import AlexNet
from ...nn.convolution import Conv2d
from ...nn.norm import ResponseNorm
from ..registry import register
from .base import Classifier
from .hidden import HiddenNetwork, HiddenOptions
from .published import torchvision_classifier


@dataclass(frozen=True)
class AlexNetOptions(HiddenOptions):
    """Options of AlexNet."""


@dataclass(frozen=True)
class TwoTowersOptions(HiddenOptions):
    """Options of AlexNet on two towers."""

    PUBLISHED: ClassVar[tuple[int, int]] = (227, 256)

    imgsz: int = 227


class OneTower(HiddenNetwork):
    """The AlexNet of torchvision."""

    smallest = 63

    def __init__(self, num_classes: int, options: HiddenOptions) -> None:
        features = AlexNet().features
        features.append(nn.MaxPool2d(3, stride=2))
        super().__init__(
            features, num_classes, channels=256, bins=6, options=options, drop_first=True
        )


class TwoTowers(HiddenNetwork):
    """The AlexNet of the paper, with its initial weights."""

    smallest = 67

    def __init__(self, num_classes: int, options: HiddenOptions) -> None:
        features = nn.Sequential(
            Conv2d(3, 96, 11, stride=4),
            nn.ReLU(inplace=True),
            ResponseNorm(alpha=1e-4, k=2.0),
            nn.MaxPool2d(3, stride=2),
            Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(inplace=True),
            ResponseNorm(alpha=1e-4, k=2.0),
            nn.MaxPool2d(3, stride=2),
            Conv2d(256, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        super().__init__(
            features, num_classes, channels=256, bins=6, options=options, drop_first=True
        )
        self._initialise()

    def _initialise(self) -> None:
        """Section 5: N(0, 0.01); bias 1 in conv2, 4, 5 and the hidden layers, 0 elsewhere."""
        convs = [layer for layer in self.features if isinstance(layer, nn.Conv2d)]
        full = [layer for layer in self.classifier if isinstance(layer, nn.Linear)]
        ones = (convs[1], convs[3], convs[4], *full[:-1])
        layers: list[nn.Conv2d | nn.Linear] = [*convs, *full]
        for layer in layers:
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, float(layer in ones))


@register(
    "alexnet",
    options=AlexNetOptions,
    task="classify",
    paper="Krizhevsky 2014",
    tiny={"imgsz": 64, "width": 32},
    weights={"imagenet": torchvision_classifier("alexnet-owt", "7be5be79", 56.522, 79.066)},
)
def alexnet(num_classes: int, options: AlexNetOptions) -> Classifier:
    """Build AlexNet as one tower."""
    return Classifier(num_classes, OneTower(num_classes, options), options)


@register(
    "alexnet_two_towers",
    options=TwoTowersOptions,
    task="classify",
    paper="Krizhevsky et al. 2012",
    tiny={"imgsz": 67, "width": 32},
)
def alexnet_two_towers(num_classes: int, options: TwoTowersOptions) -> Classifier:
    """Build AlexNet as published."""
    return Classifier(num_classes, TwoTowers(num_classes, options), options)
