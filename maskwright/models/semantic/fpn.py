"""Semantic FPN: a feature pyramid whose levels are brought to one size and summed.

Kirillov et al. 2019 (panoptic feature pyramid networks, section 3.1), in the numbers of
segmentation_models_pytorch. The maps at strides 32 to 4 become 256 channels each and are added from
the top down, to the nearest. Each level goes through as many convolutions of 3x3 (128 channels,
group norm, ReLU) and doublings as it is coarser than stride 4, at least one convolution; their sum,
at stride 4, gives the scores, which are enlarged to the image. Differences from Lin et al. 2017: no
convolution behind the sums of the pyramid. All enlarging but the first is bilinear with the corner
cells on the corner pixels, as published.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...nn.backbones.backbone import PYRAMID, Backbone
from ...nn.convolution import Conv2d
from ...nn.norm import init_convs
from ..names import register_on_backbones
from ..options import check_dropout, check_ranges
from .base import PixelNetwork, Segmenter, SegmenterOptions

GROUPS = 32  # of group norm


@dataclass(frozen=True)
class SemanticFPNOptions(SegmenterOptions):
    """Options of semantic FPN.

    Attributes:
        backbone: one of our ResNets, VGGs or MobileNets, or a timm name.
        norm: of the backbone, which starts from ImageNet weights. "bn": batch norm trains, as
            published; "affine": weight and bias train, the statistics stay, for batches of few
            images; "frozen": neither.
        pyramid_width: channels of the pyramid.
        width: channels of what is summed, a multiple of 32 from 64 on.
        dropout: share of the channels before the scores that are 0 in training.
    """

    backbone: str = "resnet34"
    norm: str = "bn"
    pyramid_width: int = 256
    width: int = 128
    dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dropout(self.dropout)
        check_ranges(self, {"pyramid_width": (1, 4096), "width": (2 * GROUPS, 4096)})
        if self.width % GROUPS:
            raise OptionError(f"width must be a multiple of {GROUPS}, got {self.width}")


class SemanticFPN(PixelNetwork):
    """A pyramid and what sums it up."""

    divisor = 32
    final = "head"
    align_corners = True

    def __init__(self, num_classes: int, options: SemanticFPNOptions) -> None:
        super().__init__()
        self.backbone = Backbone(options.backbone, norm=options.norm)
        self.laterals = nn.ModuleList(
            Conv2d(channels, options.pyramid_width, 1) for channels in self.backbone.channels
        )
        self.levels = nn.ModuleList(
            nn.ModuleList(
                _conv(options.width if step else options.pyramid_width, options.width)
                for step in range(max(level, 1))
            )
            for level in range(len(PYRAMID))
        )
        self.dropout = nn.Dropout2d(options.dropout)
        self.head = Conv2d(options.width, num_classes, 1)
        init_convs(self.laterals)
        init_convs(self.levels)
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, H / 4, W / 4) of (B, 3, H, W)."""
        maps = self.backbone(x)
        sizes = [single.shape[-2:] for single in maps]
        merged: list[Tensor] = []
        for lateral, single in reversed(list(zip(self.laterals, maps, strict=True))):
            here = lateral(single)
            if merged:
                here = here + F.interpolate(merged[0], here.shape[-2:], mode="nearest")
            merged.insert(0, here)
        levels: Any = self.levels
        parts = [
            _brought_up(convs, single, sizes[:number])
            for number, (convs, single) in enumerate(zip(levels, merged, strict=True))
        ]
        logits: Tensor = self.head(self.dropout(torch.stack(parts).sum(0)))
        return logits


def _conv(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        Conv2d(cin, cout, 3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, cout),
        nn.ReLU(inplace=True),
    )


def _brought_up(convs: Iterable[nn.Module], x: Tensor, sizes: list[torch.Size]) -> Tensor:
    """Return a level of the pyramid at the size of the finest, convolved before each doubling.

    Args:
        convs: of the level.
        x: the level.
        sizes: of all finer ones, the finest first.
    """
    for conv in convs:
        x = conv(x)
        if sizes:
            x = F.interpolate(x, sizes.pop(), mode="bilinear", align_corners=True)
    return x


def semantic_fpn(num_classes: int, options: SemanticFPNOptions) -> Segmenter:
    """Build a semantic FPN."""
    return Segmenter(num_classes, SemanticFPN(num_classes, options), options)


register_on_backbones(
    "semantic_fpn_",
    semantic_fpn,
    options=SemanticFPNOptions,
    task="semantic",
    paper="Kirillov et al. 2019",
    tiny={"pyramid_width": 32, "width": 64, "imgsz": 64},
    listed={
        **{name: name for name in ("resnet18", "resnet34", "resnet50", "mobilenetv2_100")},
        "lite0": "tf_efficientnet_lite0",
    },
)
