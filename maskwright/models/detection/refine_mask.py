"""RefineMask (Zhang et al. 2021, arXiv 2104.08569): Mask R-CNN with masks refined to 112 a side.

Two families: `refine_mask_...`, and `refine_mask_fast_...`, the authors' later variant. Network and
losses of masks follow the published code, with which the published weights were made; box losses
weigh double, as there. `conventions="mmdetection"` takes its rules of boxes and sampling as well.
In training masks come from whole bitmaps, as for Cityscapes there. Only the logits start otherwise:
as for COCO's 80 classes, however few there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...nn.detection.refine_head import FUSION_PARTS, RefineMaskHead
from ...nn.detection.refine_stages import (
    boundary_region,
    mask_loss,
    mask_targets,
    merge_stages,
    semantic_loss,
    semantic_target,
)
from ..options import check_ranges
from .base import TwoStageDetector
from .faster_rcnn import MaskOptions, register_fpn_family, two_stage_fpn

__all__ = [
    "FastRefineMaskOptions",
    "RefineMaskHead",
    "RefineMaskOptions",
    "boundary_region",
    "mask_loss",
    "mask_targets",
    "merge_stages",
    "refine_mask",
    "semantic_loss",
    "semantic_target",
]


@dataclass(frozen=True)
class RefineMaskOptions(MaskOptions):
    """Options of RefineMask.

    Attributes:
        fast: the faster variant of the authors.
        mask_stages: 1 to 4: masks of 14, 28, 56 or 112 a side.
        mask_width: channels of the mask head at 14 a side, halved at every stage.
        class_agnostic_last: the last stage has one mask for all classes.
        masks_first: masks join the features before these are upsampled, as in the paper.
        fusion_parts: what the fusions have; leave out some to see what they are worth: semantic,
            instance_mask, semantic_mask, dilation.
        boundary: later stages learn and decide near boundaries only; else everywhere.
        boundary_loss_width: width of the boundary regions in training, in pixels of the coarser
            of two stages.
        boundary_width: the same where stages are merged to one mask.
        sigmoid_masks: the fusions see probabilities; False: logits.
        avg_branch: the fusions add the mean over the region (always so in the faster variant).
        upsample_features: of the faster variant: the last stage upsamples its features instead of
            its logits.
    """

    box_loss_weight: float = 2.0
    fast: bool = False
    mask_stages: int = 4
    mask_width: int = 256
    class_agnostic_last: bool = False
    masks_first: bool = False
    fusion_parts: tuple[str, ...] = FUSION_PARTS
    boundary: bool = True
    boundary_loss_width: int = 2
    boundary_width: int = 1
    sigmoid_masks: bool = True
    avg_branch: bool = False
    upsample_features: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, _RANGES)


@dataclass(frozen=True)
class FastRefineMaskOptions(RefineMaskOptions):
    """Options of the faster variant, whose last stage has one mask for all classes."""

    fast: bool = True
    class_agnostic_last: bool = True


_RANGES = {
    "mask_stages": (1, 4),
    "mask_width": (1, 8192),
    "boundary_loss_width": (1, 14),
    "boundary_width": (1, 14),
}
TINY: dict[str, Any] = {"mask_width": 32}
SMALL: dict[str, Any] = {"mask_width": 128}


def refine_mask(num_classes: int, options: RefineMaskOptions) -> TwoStageDetector:
    """Build RefineMask with a pyramid."""
    head = RefineMaskHead(
        options.width,
        num_classes,
        stages=options.mask_stages,
        class_agnostic_last=options.class_agnostic_last,
        fast=options.fast,
        masks_first=options.masks_first,
        parts=options.fusion_parts,
        boundary=options.boundary,
        loss_width=options.boundary_loss_width,
        merge_width=options.boundary_width,
        sigmoid_masks=options.sigmoid_masks,
        avg_branch=options.avg_branch,
        upsample_features=options.upsample_features,
        width=options.mask_width,
        norm=options.head_norm,
    )
    return two_stage_fpn(num_classes, options, head, mask_reach=options.mask_reach)


for _name, _options in (
    ("refine_mask", RefineMaskOptions),
    ("refine_mask_fast", FastRefineMaskOptions),
):
    register_fpn_family(
        _name,
        refine_mask,
        options=_options,
        task="segment",
        paper="Zhang et al. 2021",
        coco={},
        tiny=TINY,
        small=SMALL,
    )
