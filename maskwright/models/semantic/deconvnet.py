"""DeconvNet: VGG-16 down to one pixel, and its mirror image of transposed convolutions up again.

Noh et al. 2015. Every convolution has batch norm and a ReLU. The last maps, 7 x 7 of an image of
224 x 224, become 1 x 1 by a convolution of 7 x 7 (fc6) and 7 x 7 again by a transposed one; then,
stage by stage, values go back to where they were the maxima, and transposed convolutions of 3 x 3
fill the zeros between (section 3.2). Here it is a network for whole images: the proposals of
objects of the paper, whose scores are put together, are left out. Larger images run through all
layers as convolutions; sides are multiples of 32, and what is smaller than 224 is padded to that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.backbones.backbone import Backbone
from ...nn.backbones.vgg import WIDTHS
from ...nn.convolution import Conv2d
from ..options import check_ranges
from ..registry import register
from .base import Segmenter, SegmenterOptions
from .segnet import Remembering, check_backbone, mirror, start, with_last_pool

SMALLEST = 224  # side of an image that leaves fc6 one pixel
BINS = 7  # side of its kernel


@dataclass(frozen=True)
class DeconvNetOptions(SegmenterOptions):
    """Options of DeconvNet.

    Attributes:
        backbone: one of `nn.backbones.vgg.VGGS` with batch norm.
        width: channels of fc6 and fc7.
    """

    imgsz: int | tuple[int, int] | str = (SMALLEST, 4 * SMALLEST)
    backbone: str = "vgg16_bn"
    width: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"width": (1, 65536)})
        check_backbone(self.backbone)


def _conv(cin: int, cout: int, kernel: int) -> list[nn.Module]:
    """Return a convolution with norm and ReLU; of 7 x 7 without padding."""
    conv = Conv2d(cin, cout, kernel, padding=0 if kernel == BINS else kernel // 2)
    return [conv, nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


def _deconv(cin: int, cout: int, kernel: int) -> list[nn.Module]:
    """Return a transposed convolution with norm and ReLU; of 7 x 7 without padding."""
    conv = nn.ConvTranspose2d(cin, cout, kernel, padding=0 if kernel == BINS else kernel // 2)
    return [conv, nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


class DeconvNet(Remembering):
    """VGG, two hidden layers, and the mirror image of both."""

    divisor = 32
    final = "score"

    def __init__(self, num_classes: int, options: DeconvNetOptions) -> None:
        super().__init__()
        self.backbone = Backbone(options.backbone, norm="bn", strides=(16,))
        width, last = options.width, WIDTHS[-1]
        self.fc6 = nn.Sequential(*_conv(last, width, BINS))
        self.fc7 = nn.Sequential(*_conv(width, width, 1))
        self.fc6_deconv = nn.Sequential(*_deconv(width, last, BINS))
        self.decoder = nn.ModuleList(
            nn.Sequential(*(layer for pair in pairs for layer in _deconv(*pair, 3)))
            for pairs in mirror(options.backbone)
        )
        self.score = Conv2d(WIDTHS[0], num_classes, 1)
        start(self)

    def layers(self) -> Iterable[nn.Module]:
        """Return the layers of the VGG; see `Remembering`."""
        return with_last_pool(self.backbone)

    def between(self, x: Tensor) -> Tensor:
        """Return what the hidden layers make of the last maps (B, 512, h, w), h and w from 7 on."""
        out: Tensor = self.fc6_deconv(self.fc7(self.fc6(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of (B, 3, H, W)."""
        height, width = x.shape[-2:]
        # Not `max`: in a graph the sides are symbols.
        more: Any = [torch.sym_max(SMALLEST - side, 0) for side in (width, height)]
        scores: Tensor = self.score(super().forward(F.pad(x, (0, more[0], 0, more[1]))))
        return scores[..., :height, :width]


def deconvnet(num_classes: int, options: DeconvNetOptions) -> Segmenter:
    """Build a DeconvNet."""
    return Segmenter(num_classes, DeconvNet(num_classes, options), options)


register(
    "deconvnet",
    options=DeconvNetOptions,
    task="semantic",
    paper="Noh et al. 2015",
    tiny={"backbone": "vgg11_bn", "width": 16},
)(deconvnet)
