"""LR-ASPP (Howard et al. 2019, "Searching for MobileNetV3", section 6.4): a head of two branches.

A 1x1 convolution of the last map, weighed channel by channel by the sigmoid of the mean of the
whole map, gives logits that are added to those of a finer map, at stride 8. As in torchvision, the
mean is that of the whole map, where the paper has means of 49 x 49 pixels: 3,221,538 parameters
with 21 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.semantic.aspp import conv1x1
from ..options import check_ranges
from ..registry import register
from .base import Segmenter
from .dilated import DilatedNetwork, DilatedOptions, init_head, torchvision_segmenter


@dataclass(frozen=True)
class LRASPPOptions(DilatedOptions):
    """Options of LR-ASPP.

    Attributes:
        width: channels of the branch of the last map.
    """

    backbone: str = "mobilenet_v3_large"
    output_stride: int = 16
    width: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"width": (1, 4096)})


class LRASPPHead(nn.Module):
    """The two branches.

    Args:
        low: channels of the finer map.
        high: channels of the last map.
        num_classes: rows of the last layers.
        width: channels of the branch of the last map.
    """

    def __init__(self, low: int, high: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.cbr = nn.Sequential(*conv1x1(high, width))
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(high, width, 1, bias=False), nn.Sigmoid()
        )
        self.low_classifier = nn.Conv2d(low, num_classes, 1)
        self.high_classifier = nn.Conv2d(width, num_classes, 1)
        init_head(self, "low_classifier", "high_classifier")

    def forward(self, low: Tensor, high: Tensor, align_corners: bool) -> Tensor:
        """Return logits (B, C, h, w) at the size of the finer map."""
        # A 1x1 convolution and bilinear enlargement change places: there are fewer logits.
        logits = self.high_classifier(self.cbr(high) * self.scale(high))
        logits = F.interpolate(logits, low.shape[-2:], mode="bilinear", align_corners=align_corners)
        result: Tensor = self.low_classifier(low) + logits
        return result


class LRASPP(DilatedNetwork):
    """A dilated backbone with `LRASPPHead` on two of its maps; see `DilatedNetwork`."""

    final = "classifier.high_classifier"

    def __init__(self, num_classes: int, options: LRASPPOptions) -> None:
        super().__init__(num_classes, options, (8, 32))
        low, high = self.channels
        self.classifier = LRASPPHead(low, high, num_classes, options.width)

    @property
    def class_rows(self) -> dict[str, tuple[int, bool]]:
        """Both layers of classes; see `PixelNetwork`."""
        return {**super().class_rows, "classifier.low_classifier": (1, False)}

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits at stride 8."""
        logits: Tensor = self.classifier(*maps, self.align_corners)
        return logits


@register(
    "lraspp_mobilenet_v3_large",
    options=LRASPPOptions,
    task="semantic",
    paper="Howard et al. 2019",
    tiny={"width": 16, "imgsz": 64},
    weights=torchvision_segmenter("lraspp_mobilenet_v3_large-d234d4ea", 57.9, 91.2),
)
def lraspp(num_classes: int, options: LRASPPOptions) -> Segmenter:
    """Build LR-ASPP."""
    return Segmenter(num_classes, LRASPP(num_classes, options), options)
