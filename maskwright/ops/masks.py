"""Masks between box and image: paste mask probabilities into photos, cut training targets.

A mask head predicts a small square of probabilities in the frame of its box (He et al. 2017,
Mask R-CNN, section 3).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import PackedMasks


def paste_masks(
    probs: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    thresh: float = 0.5,
    mode: str = "grid",
) -> Tensor:
    """Return the masks of one image at full size."""
    height, width = size
    if mode == "torchvision":
        from torchvision.models.detection.roi_heads import paste_masks_in_image

        full = paste_masks_in_image(probs[:, None], boxes, size)[:, 0]
        return full > thresh
    x = torch.arange(width, device=boxes.device) + 0.5
    y = torch.arange(height, device=boxes.device) + 0.5
    out = torch.zeros((len(probs), height, width), dtype=torch.bool, device=probs.device)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        gx = (x - x1) / (x2 - x1) * 2 - 1
        gy = (y - y1) / (y2 - y1) * 2 - 1
        grid = torch.stack(torch.meshgrid(gx, gy, indexing="xy"), -1)
        out[i] = (
            F.grid_sample(probs[i][None, None], grid[None], align_corners=False)[0, 0] >= thresh
        )
    return out


def paste_rle(
    probs: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    thresh: float = 0.5,
    mode: str = "grid",
) -> list[dict[str, Any]]:
    """Return the masks of one image as compressed COCO run-length codes."""
    import numpy as np
    from pycocotools import mask

    full = paste_masks(probs, boxes, size, thresh=thresh, mode=mode).cpu().numpy()
    return [mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in full]


def crop_masks(
    masks: PackedMasks,
    boxes: Tensor,
    gt_index: Tensor,
    valid: Tensor,
    size: int,
    *,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Tensor:
    """Return the ground-truth masks inside boxes, resampled to squares (the mask targets)."""
    result: Tensor = _crop_masks(
        masks.data,
        masks.offsets,
        masks.frames,
        boxes,
        gt_index,
        valid,
        size,
        sampling_ratio,
        aligned,
    )
    return result


@torch.library.custom_op("maskwright::crop_masks", mutates_args=())
def _crop_masks(
    data: Tensor,
    offsets: Tensor,
    frames: Tensor,
    boxes: Tensor,
    gt_index: Tensor,
    valid: Tensor,
    size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    count, slots = valid.shape
    out = torch.zeros((count, slots, size, size), dtype=torch.float32, device=boxes.device)
    for b in range(count):
        for s in range(slots):
            if not valid[b, s]:
                continue
            g = int(gt_index[b, s])
            fx1, fy1, fx2, fy2 = frames[b, g].tolist()
            if fx2 <= fx1 or fy2 <= fy1:
                continue
            begin = int(offsets[b, g])
            h, w = fy2 - fy1, fx2 - fx1
            crop = data[begin : begin + h * w].view(h, w).float()
            x1, y1, x2, y2 = boxes[b, s].float().tolist()
            rows = _axis_weights(y1, y2, fy1, h, size, sampling_ratio, aligned).to(crop)
            cols = _axis_weights(x1, x2, fx1, w, size, sampling_ratio, aligned).to(crop)
            out[b, s] = rows @ crop @ cols.T
    return out


def _axis_weights(
    low: float, high: float, origin: int, length: int, size: int, ratio: int, aligned: bool
) -> Tensor:
    """Return (size, length): what each pixel of the crop gives each bin along one axis."""
    shift = 0.5 if aligned else 0.0
    start, extent = low - shift, high - low
    if not aligned:
        extent = max(extent, 1.0)
    per_bin = ratio if ratio > 0 else math.ceil(extent / size)
    if per_bin <= 0:
        return torch.zeros(size, length)
    at = start + (torch.arange(size * per_bin) + 0.5) * (extent / size / per_bin) - origin
    weights = (1 - (at[:, None] - torch.arange(length)).abs()).clamp(min=0)
    return weights.view(size, per_bin, length).mean(1)


@_crop_masks.register_fake
def _(
    data: Tensor,
    offsets: Tensor,
    frames: Tensor,
    boxes: Tensor,
    gt_index: Tensor,
    valid: Tensor,
    size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return boxes.new_empty((*valid.shape, size, size), dtype=torch.float32)
