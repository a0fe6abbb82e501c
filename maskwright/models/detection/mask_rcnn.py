"""Mask R-CNN (He et al. 2017) with a feature pyramid: Faster R-CNN and a mask head beside it."""

from __future__ import annotations

from ...nn.detection.mask_head import ConvMaskHead
from ..conventions import get_conventions
from .base import TwoStageDetector
from .faster_rcnn import (
    FPNOptions,
    MaskOptions,
    register_fpn_family,
    torchvision_weights,
    two_stage_fpn,
)


def make_mask_head(num_classes: int, options: FPNOptions) -> ConvMaskHead:
    """Build the mask head: masks of 28 x 28 per class from four convolutions."""
    rules = get_conventions(options.conventions)
    return ConvMaskHead(
        options.width,
        num_classes,
        width=options.width,
        norm=options.head_norm,
        **rules.mask_targets,
    )


def mask_rcnn(num_classes: int, options: MaskOptions) -> TwoStageDetector:
    """Build Mask R-CNN with a pyramid."""
    head = make_mask_head(num_classes, options)
    return two_stage_fpn(num_classes, options, head, mask_reach=options.mask_reach)


register_fpn_family(
    "mask_rcnn",
    mask_rcnn,
    options=MaskOptions,
    task="segment",
    paper="He et al. 2017",
    coco={
        "resnet50_fpn": torchvision_weights(
            "maskrcnn_resnet50_fpn", "bf2d0c1e", box=37.9, mask=34.6
        ),
        "resnet50_fpn_v2": torchvision_weights(
            "maskrcnn_resnet50_fpn_v2", "73cbd019", box=47.4, mask=41.8
        ),
    },
)
