"""Pure tensor functions: boxes, NMS, RoI pooling, masks, keypoints, CRF. No modules, no options."""

from ..crf import dense_crf, refine_mask
from .boxes import (
    box_area,
    box_ioa,
    box_iou,
    clip_boxes,
    complete_box_iou,
    decode_deltas,
    distance_box_iou,
    encode_deltas,
    generalized_box_iou,
)
from .keypoints import locate_keypoints
from .mask_crops import crop_masks, unite_masks
from .masks import paste_masks, paste_rle
from .nms import batched_nms, nms, nms_padded
from .permutohedral import permutohedral_filter
from .pooling.ps_roi import ps_roi_align, ps_roi_pool
from .pooling.roi_align import roi_align
from .pooling.roi_pool import roi_pool
from .soft_nms import SoftNMS, soft_nms_padded

__all__ = [
    "SoftNMS",
    "batched_nms",
    "box_area",
    "box_ioa",
    "box_iou",
    "clip_boxes",
    "complete_box_iou",
    "crop_masks",
    "decode_deltas",
    "dense_crf",
    "distance_box_iou",
    "encode_deltas",
    "generalized_box_iou",
    "locate_keypoints",
    "nms",
    "nms_padded",
    "paste_masks",
    "paste_rle",
    "permutohedral_filter",
    "ps_roi_align",
    "ps_roi_pool",
    "refine_mask",
    "roi_align",
    "roi_pool",
    "soft_nms_padded",
    "unite_masks",
]
