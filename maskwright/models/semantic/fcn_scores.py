"""FCN-32s, 16s and 8s on any backbone: scores of its last maps, enlarged and summed.

What Long et al. 2015 (section 4.2) found on VGG-16, whose published networks are in `fcn.py`, with
nothing of VGG: a 1x1 convolution makes scores of the map at stride 32, bilinear interpolation
doubles them, and those of the maps at strides 16 and 8 are added on the way. The least that a
segmenter can be, so that what the others gain is seen beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...nn.backbones.backbone import PYRAMID, Backbone
from ..names import register_on_backbones
from ..options import check_dropout
from .base import PixelNetwork, Segmenter, SegmenterOptions


@dataclass(frozen=True)
class ScoresOptions(SegmenterOptions):
    """Options of FCN on any backbone.

    Attributes:
        backbone: one of our ResNets, VGGs or MobileNets, or a timm name.
        norm: of the backbone, which starts from ImageNet weights. "bn": batch norm trains;
            "affine": weight and bias train, the statistics stay, for batches of few images;
            "frozen": neither.
        stride: of the finest scores that count, 32, 16 or 8.
        dropout: share of the channels before the scores of stride 32 that are 0 in training.
    """

    backbone: str = "resnet18"
    norm: str = "bn"
    stride: int = 8
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dropout(self.dropout)
        if self.stride not in (32, 16, 8):
            raise OptionError(f"stride is 32, 16 or 8; got {self.stride!r}")


class Scores(PixelNetwork):
    """A backbone and the scores of its last maps.

    Args:
        num_classes: channels of the scores.
        options: see `ScoresOptions`.
    """

    divisor = 32
    final = "scores.0"

    def __init__(self, num_classes: int, options: ScoresOptions) -> None:
        super().__init__()
        strides = [stride for stride in PYRAMID if stride >= options.stride]
        self.backbone = Backbone(options.backbone, norm=options.norm, strides=strides)
        coarse_first = reversed(self.backbone.channels)
        scores = [nn.Conv2d(width, num_classes, 1) for width in coarse_first]
        for layer in scores:
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self.scores = nn.ModuleList(scores)
        self.dropout = nn.Dropout2d(options.dropout)

    @property
    def class_rows(self) -> dict[str, tuple[int, bool]]:
        """The layers with a row for each class; see `PixelNetwork`."""
        return {f"scores.{number}": (1, False) for number in range(len(self.scores))}

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, C, H / stride, W / stride) of (B, 3, H, W)."""
        last, *finer = reversed(self.backbone(x))
        first, *skips = self.scores
        total: Tensor = first(self.dropout(last))
        for score, single in zip(skips, finer, strict=True):
            here = score(single)
            total = here + F.interpolate(
                total, here.shape[-2:], mode="bilinear", align_corners=False
            )
        return total


def fcn_scores(num_classes: int, options: ScoresOptions) -> Segmenter:
    """Build an FCN on any backbone."""
    return Segmenter(num_classes, Scores(num_classes, options), options)


for _stride in (32, 16, 8):
    register_on_backbones(
        f"fcn{_stride}s_",
        fcn_scores,
        options=ScoresOptions,
        task="semantic",
        paper="Long et al. 2015",
        tiny={"imgsz": 64} if _stride == 8 else None,
        listed={"resnet18": "resnet18", "lite0": "tf_efficientnet_lite0"},
        presets={"stride": _stride},
        family="fcn_scores",
    )
