"""VGG with 16 and 19 layers (Simonyan and Zisserman 2014), with batch norm or without.

| block | size | D, `vgg16` | E, `vgg19` |
| --- | --- | --- | --- |
| 1 | 224 | 3x3 64 x 2 | the same |
| 2 | 112 | 3x3 128 x 2 | the same |
| 3 | 56 | 3x3 256 x 3 | 3x3 256 x 4 |
| 4 | 28 | 3x3 512 x 3 | 3x3 512 x 4 |
| 5 | 14 | 3x3 512 x 3 | 3x3 512 x 4 |
| fully connected | 7 | 4096, 4096, classes | the same |
| parameters | | 138,357,544 | 143,667,240 |

A pooling of 2 x 2 ends each block. The convolutions are those of the detectors,
`nn.backbones.vgg`, so that what a classifier learned starts a detector. Differences from the paper:
batch norm behind each convolution of `..._bn` (torchvision), samples divided by their deviation,
weights by He et al. 2015
in place of those of a shallower network.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import OptionError
from ...nn.backbones.vgg import VGG, VGGS, WIDTHS
from ..registry import register
from .base import Classifier
from .hidden import HiddenNetwork, HiddenOptions
from .published import torchvision_classifier


@dataclass(frozen=True)
class VGGOptions(HiddenOptions):
    """Options of VGG.

    Attributes:
        backbone: one of `nn.backbones.vgg.VGGS`.
    """

    backbone: str = "vgg16"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone not in VGGS:
            raise OptionError(f"backbone is one of {', '.join(VGGS)}; got {self.backbone!r}")


class VGGClassifier(HiddenNetwork):
    """The VGG of the detectors with two hidden layers and classes behind it."""

    smallest = 32

    def __init__(self, num_classes: int, options: VGGOptions) -> None:
        super().__init__(
            VGG(options.backbone).features,
            num_classes,
            channels=WIDTHS[-1],
            bins=7,
            options=options,
            drop_first=False,
        )


def vgg(num_classes: int, options: VGGOptions) -> Classifier:
    """Build a VGG."""
    return Classifier(num_classes, VGGClassifier(num_classes, options), options)


# name: start of the SHA-256 of torchvision's file, top-1 and top-5 of it
_PUBLISHED = {
    "vgg16": ("397923af", 71.592, 90.382),
    "vgg16_bn": ("6c64b313", 73.360, 91.516),
    "vgg19": ("dcbb9e9d", 72.376, 90.876),
    "vgg19_bn": ("c79401a0", 74.218, 91.842),
}
for _name, (_digest, _top1, _top5) in _PUBLISHED.items():
    register(
        _name,
        options=VGGOptions,
        task="classify",
        paper="Simonyan & Zisserman 2014",
        tiny={"imgsz": 32, "width": 32} if _name in ("vgg16", "vgg16_bn") else None,
        weights={"imagenet": torchvision_classifier(_name, _digest, _top1, _top5)},
        presets={"backbone": _name},
    )(vgg)
