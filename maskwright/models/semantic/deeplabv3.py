"""DeepLabv3 (Chen et al. 2017, "Rethinking atrous convolution"): a pyramid of rates on one map.

The last map of a dilated backbone, at stride 8 or 16, is seen by a 1x1 convolution, by 3x3
convolutions at three rates and as a whole (`nn.semantic.aspp`); a 3x3 convolution and the classes
follow. The rates 6, 12, 18 belong to stride 16, twice as much to stride 8.

| | resnet50 | resnet101 | mobilenet_v3_large |
| --- | --- | --- | --- |
| output stride | 8 | 8 | 16 |
| rates | 12, 24, 36 | 12, 24, 36 | 12, 24, 36 (torchvision) |
| parameters, 21 classes | 42,004,074 | 60,996,202 | 11,029,328 |

Differences from the paper are torchvision's: the 3x3 convolution before the classes, dropout of
half of the maps, an auxiliary head, and all rates of the last stage equal (`multi_grid=[1,2,4]` is
the paper's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ...nn.semantic.aspp import ASPP, conv3x3
from ..names import register_on_backbones
from ..options import check_ranges
from .base import Segmenter
from .dilated import (
    AuxiliaryOptions,
    DilatedNetwork,
    check_rates,
    init_head,
    torchvision_segmenter,
)

RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}  # by output stride


@dataclass(frozen=True)
class DeepLabV3Options(AuxiliaryOptions):
    """Options of DeepLabv3 and v3+.

    Attributes:
        rates: dilations of the parallel convolutions; empty: 6, 12, 18 at output stride 16, more in
            proportion where it is less.
        image_pooling: whether the map as a whole is one of the branches.
        separable: the dilated convolutions are separable, and in v3+ those of the decoder.
        width: channels of each branch and of what follows.
    """

    rates: tuple[int, ...] = ()
    image_pooling: bool = True
    separable: bool = False
    width: int = 256
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        own = tuple(self.rates) or RATES[self.output_stride]  # plain data has lists
        object.__setattr__(self, "rates", own)
        check_rates(self.rates, range(1, 9))
        check_ranges(self, {"width": (1, 4096)})


class DeepLabV3(DilatedNetwork):
    """A dilated backbone with `ASPP` on its last map; see `DilatedNetwork`."""

    final = "classifier.4"

    def __init__(self, num_classes: int, options: DeepLabV3Options) -> None:
        super().__init__(num_classes, options)
        width = options.width
        pyramid = ASPP(
            self.channels[0],
            options.rates,
            width,
            dropout=options.dropout,
            image_pooling=options.image_pooling,
            separable=options.separable,
        )
        self.classifier = nn.Sequential(
            pyramid,
            *conv3x3(width, width),
            nn.Conv2d(width, num_classes, 1),
        )
        init_head(self.classifier, "4")

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits at the stride of the last map."""
        logits: Tensor = self.classifier(maps[0])
        return logits


def deeplabv3(num_classes: int, options: DeepLabV3Options) -> Segmenter:
    """Build DeepLabv3."""
    return Segmenter(num_classes, DeepLabV3(num_classes, options), options)


register_on_backbones(
    "deeplabv3_",
    deeplabv3,
    options=DeepLabV3Options,
    task="semantic",
    paper="Chen et al. 2017",
    tiny={"backbone": "resnet18", "width": 16, "imgsz": 64},
    listed={
        "resnet50": "resnet50",
        "resnet101": "resnet101",
        "mobilenet_v3_large": {
            "backbone": "mobilenet_v3_large",
            "output_stride": 16,
            "rates": (12, 24, 36),
        },
        "lite0": {"backbone": "tf_efficientnet_lite0", "output_stride": 16, "separable": True},
    },
    weights={
        name: torchvision_segmenter(f"deeplabv3_{name}{file}", miou, pixels)
        for name, file, miou, pixels in (
            ("resnet50", "_coco-cd0a2569", 66.4, 92.4),
            ("resnet101", "_coco-586e9e4e", 67.4, 92.4),
            ("mobilenet_v3_large", "-fc3c493d", 60.3, 91.2),
        )
    },
)
