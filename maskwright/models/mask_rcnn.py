"""Mask R-CNN (He et al. 2017) with a feature pyramid: Faster R-CNN and a mask head beside it."""

from __future__ import annotations

from ..nn.mask_head import ConvMaskHead
from .base import TwoStageDetector
from .conventions import get_conventions
from .faster_rcnn import FPNOptions, register_fpn_family, torchvision_weights, two_stage_fpn


def mask_rcnn(num_classes: int, options: FPNOptions) -> TwoStageDetector:
    """Build Mask R-CNN with a pyramid: masks of 28 x 28 per class from four convolutions."""
    rules = get_conventions(options.conventions)
    head = ConvMaskHead(
        options.width,
        num_classes,
        width=options.width,
        norm=options.head_norm,
        binary_targets=rules.binary_mask_targets,
        aligned=rules.aligned,
    )
    return two_stage_fpn(num_classes, options, head)


register_fpn_family(
    "mask_rcnn",
    mask_rcnn,
    options=FPNOptions,
    task="segment",
    paper="He et al. 2017",
    coco={
        "resnet50_fpn": torchvision_weights("maskrcnn_resnet50_fpn", "bf2d0c1e", 37.9, 34.6),
        "resnet50_fpn_v2": torchvision_weights("maskrcnn_resnet50_fpn_v2", "73cbd019", 47.4, 41.8),
    },
)
