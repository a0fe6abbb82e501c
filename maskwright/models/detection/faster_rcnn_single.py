"""Faster R-CNN on one map: as published (Ren et al. 2015), on ResNet's C4, on a dilated C5.

`..._vgg16`: the last convolution of VGG-16, RoIPool, and the two layers of 4096 as head: the
network of the paper. `..._c4` (He et al. 2016, appendix A): C4 of a ResNet, whose last stage runs
on the regions. `..._c5`, `..._dc5`: the last map, at stride 32, or dilated at stride 16 (Dai et
al. 2017), with two layers of 1024. Mask R-CNN on C4 (He et al. 2017, fig. 4 left) shares the last
stage between its heads; on the dilated C5 its mask head is that of a pyramid.

Differences from the papers: approximate joint training is the default, boxes have no extra pixel,
and the last stage sees RoIAlign's samples, where He et al. (2016) used RoIPool: see `pooling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import OptionError
from ...nn.detection.box_head import BoxHead
from ...nn.detection.mask_head import ConvMaskHead
from ...nn.detection.poolers import AlignPooler, MapPooler, Pooler
from ...nn.detection.roi_heads import RoIHeads
from ..conventions import get_conventions
from ..options import check_dropout, check_ranges
from ..registry import register
from .base import TwoStageDetector
from .two_stage import (
    SingleMapOptions,
    assemble,
    box_rules,
    make_sampler,
    make_single_rpn,
)

STRIDES = {"c4": 16, "c5": 32, "dc5": 32}  # before dilation


@dataclass(frozen=True)
class FasterSingleOptions(SingleMapOptions):
    """Options of Faster R-CNN on one map.

    Attributes:
        level: "c4" (stride 16), "c5" (stride 32) or "dc5" (dilated, stride 16).
        head: "res5": the last stage of the backbone runs on the regions; "fc": fully connected
            layers.
        pooling: "align" (RoIAlign) or "pool" (RoIPool).
        box_fcs: fully connected layers of the box head "fc".
        box_width: their size.
        dropout: share of their units that are dropped in training.
    """

    level: str = "c4"
    head: str = "res5"
    pooling: str = "align"
    box_fcs: int = 2
    box_width: int = 1024
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"box_fcs": (1, 64), "box_width": (1, 65536)})
        check_dropout(self.dropout)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(
                    f"{name} is one of {', '.join(choices)}; got {getattr(self, name)!r}"
                )
        if self.head == "res5" and self.level != "c4":
            raise OptionError(f"head=res5 runs on regions of c4, not of {self.level}")


_CHOICES = {"level": tuple(STRIDES), "head": ("res5", "fc"), "pooling": ("align", "pool")}
TINY: dict[str, Any] = {
    "backbone": "resnet18",
    "rpn_width": 32,
    "box_width": 32,
    "anchor_sizes": (16, 32, 64),
    "proposals": 15,
    "train_proposals": 30,
    "rois": 8,
    "imgsz": 96,
}
LITE: dict[str, Any] = {"backbone": "tf_efficientnet_lite0", "rpn_width": 256, "imgsz": 640}
FC: dict[str, Any] = {"head": "fc"}
DC5: dict[str, Any] = {"level": "dc5", **FC}
# As published: nine anchors, those across the border left out, RoIPool, smooth L1 from 1 on,
# dropout.
VGG16: dict[str, Any] = {
    "backbone": "vgg16",
    **FC,
    "pooling": "pool",
    "box_width": 4096,
    "dropout": 0.5,
    "inside_anchors": True,
    "box_beta": 1.0,
}
FAMILY: dict[str, dict[str, Any]] = {
    "vgg16": VGG16,
    "resnet18_c4": {"backbone": "resnet18"},
    "resnet50_c4": {"backbone": "resnet50"},
    "resnet101_c4": {"backbone": "resnet101"},
    "lite0_c4": LITE,
    "resnet50_c5": {"backbone": "resnet50", "level": "c5", **FC},
    "resnet18_dc5": {"backbone": "resnet18", **DC5},
    "resnet50_dc5": {"backbone": "resnet50", **DC5},
    "resnet101_dc5": {"backbone": "resnet101", **DC5},
    "lite0_dc5": {**LITE, **DC5, "box_width": 512},
}


def single_map_rcnn(
    num_classes: int, options: FasterSingleOptions, *, masks: bool = False
) -> TwoStageDetector:
    """Assemble backbone, RPN and heads on one map.

    Args:
        num_classes: real classes.
        options: sizes and conventions.
        masks: whether there is a mask head.
    """
    rules = get_conventions(options.conventions)
    on_regions = options.head == "res5"
    backbone = rules.backbone(
        options.backbone,
        norm=options.norm,
        strides=(STRIDES[options.level],),
        output_stride=16 if options.level == "dc5" else 32,
        tail=on_regions,
    )
    channels, stride = backbone.channels[0], backbone.strides[0]
    region_channels = backbone.tail_channels if on_regions else channels
    box_head = BoxHead(
        region_channels,
        num_classes,
        fcs=0 if on_regions else options.box_fcs,
        width=options.box_width,
        dropout=options.dropout,
        average=on_regions,
        loss_weight=options.box_loss_weight,
        **box_rules(options),
    )
    mask_head = None
    if masks:
        mask_head = ConvMaskHead(
            region_channels,
            num_classes,
            pool=7 if on_regions else 14,
            convs=0 if on_regions else 4,
            **rules.mask_targets,
        )
    pooler: Pooler = MapPooler(stride)
    if options.pooling == "align":
        pooler = AlignPooler((stride,), **rules.pooling)
    return assemble(
        num_classes,
        options,
        backbone=backbone,
        fpn=None,
        rpn=make_single_rpn(options, channels, stride),
        roi_heads=RoIHeads(
            box_head,
            mask_head,
            pooler=pooler,
            trunk_stride=2 if on_regions else 1,
            sampler=make_sampler(options.rois, options.ohem),
        ),
    )


def faster_rcnn_single(num_classes: int, options: FasterSingleOptions) -> TwoStageDetector:
    """Build Faster R-CNN on one map."""
    return single_map_rcnn(num_classes, options)


def mask_rcnn_single(num_classes: int, options: FasterSingleOptions) -> TwoStageDetector:
    """Build Mask R-CNN on one map: masks of 14 x 14 behind the last stage, else of 28 x 28."""
    return single_map_rcnn(num_classes, options, masks=True)


_TINY = {"vgg16": {**TINY, "backbone": "test_efficientnet"}, "resnet50_c4": TINY}
for _suffix, _presets in FAMILY.items():
    register(
        f"faster_rcnn_{_suffix}",
        options=FasterSingleOptions,
        task="detect",
        paper="Ren et al. 2015",
        tiny=_TINY.get(_suffix),
        presets=_presets,
        family="faster_rcnn",
    )(faster_rcnn_single)
    if _suffix.endswith(("_c4", "_dc5")):
        register(
            f"mask_rcnn_{_suffix}",
            options=FasterSingleOptions,
            task="segment",
            paper="He et al. 2017",
            presets=_presets,
            family="mask_rcnn",
        )(mask_rcnn_single)
