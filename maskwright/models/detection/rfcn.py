"""R-FCN (Dai et al. 2016): a fully convolutional detector whose regions vote on score maps.

The RPN runs on C4, the score maps on C5, dilated to stride 16 (section 2.2). Trained jointly, with
the hardest 128 of 300 proposals (OHEM, section 2.3), 300 proposals at test. Differences from the
authors' code: group norm before the score maps (without a norm Adam diverges), a dilated stage
keeps what each of its convolutions sees (`nn.backbones.resnet`), no two of the hardest
proposals overlap by more than 0.7, boxes have no extra pixel.

A vote is linear in as many features as the head is wide, so that a step of Adam moves it by a small
part of what it moves two fully connected layers on a region: a short training wants a higher
learning rate than that of Faster R-CNN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import OptionError
from ...nn.detection.poolers import PartPooler
from ...nn.detection.rfcn_head import RFCNHead
from ...nn.detection.roi_heads import RoIHeads
from ..conventions import get_conventions
from ..options import check_ranges
from ..registry import register
from .base import TwoStageDetector
from .two_stage import (
    SingleMapOptions,
    assemble,
    box_rules,
    make_sampler,
    make_single_rpn,
)


@dataclass(frozen=True)
class RFCNOptions(SingleMapOptions):
    """Options of R-FCN.

    Attributes:
        bins: k: a region has k x k bins, each with score maps of its own.
        width: channels from which the score maps are made.
        head_norm: norm of these channels: None (as published, for SGD), "bn" or "gn".
        pooling: "pool" (position-sensitive RoI pooling, as published) or "align" (the same with
            bilinear samples).
    """

    train_proposals: int = 300
    ohem: bool = True
    box_beta: float | None = 1.0
    bins: int = 7
    width: int = 1024
    head_norm: str | None = "gn"
    pooling: str = "pool"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"bins": (1, 32), "width": (1, 8192)})
        if self.pooling not in ("align", "pool"):
            raise OptionError(f"pooling is one of align, pool; got {self.pooling!r}")


TINY: dict[str, Any] = {
    "backbone": "resnet18",
    "rpn_width": 32,
    "bins": 3,
    "width": 32,
    "anchor_sizes": (16, 32, 64),
    "proposals": 50,
    "train_proposals": 100,
    "rois": 32,
    "imgsz": 96,
}
# The small presets are for small images, whose objects are few pixels of the map wide: bins of
# whole pixels, seven on a side, learn slowly there.
SMALL: dict[str, Any] = {"rpn_width": 256, "bins": 3, "pooling": "align"}
FAMILY: dict[str, dict[str, Any]] = {
    "resnet18": {"backbone": "resnet18", **SMALL},
    "resnet50": {"backbone": "resnet50"},
    "resnet101": {"backbone": "resnet101"},
    "lite0": {"backbone": "tf_efficientnet_lite0", **SMALL, "imgsz": 640},
}


def rfcn(num_classes: int, options: RFCNOptions) -> TwoStageDetector:
    """Build R-FCN."""
    rules = get_conventions(options.conventions)
    backbone = rules.backbone(
        options.backbone, norm=options.norm, strides=(16, 32), output_stride=16
    )
    head = RFCNHead(
        backbone.channels[1],
        num_classes,
        pool=options.bins,
        width=options.width,
        norm=options.head_norm,
        **box_rules(options),
        loss_weight=options.box_loss_weight,
    )
    return assemble(
        num_classes,
        options,
        backbone=backbone,
        fpn=None,
        rpn=make_single_rpn(options, backbone.channels[0], backbone.strides[0], before_nms=20),
        roi_heads=RoIHeads(
            head,
            pooler=PartPooler(
                backbone.strides[1], kind=options.pooling, sampling_ratio=rules.sampling_ratio
            ),
            sampler=make_sampler(options.rois, options.ohem),
        ),
    )


for _suffix, _presets in FAMILY.items():
    register(
        f"rfcn_{_suffix}",
        options=RFCNOptions,
        task="detect",
        paper="Dai et al. 2016",
        tiny=TINY if _suffix == "resnet50" else None,
        presets=_presets,
    )(rfcn)
