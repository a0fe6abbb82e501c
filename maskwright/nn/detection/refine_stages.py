"""Boundary regions, merging, losses and targets of RefineMask (Zhang et al. 2021), as functions.

Masks of one object at 14, 28, 56 and 112 a side: from 56 on a stage learns and speaks only where
the coarser ones place a boundary. As in the published code the band is wider in the loss than in
the merge, both are found at the coarser size, and masks are upsampled with corners aligned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.boxes import clip_boxes
from ...ops.operators import kernels
from ...ops.rle import rasterise_polygons
from ..parallel import mean_count

Polygons = Sequence[Sequence[float]]  # of one object, each x0, y0, x1, y1, ...

# A pixel is at a boundary if more than this part of its window has the other value.
_OTHERS = 0.1
# Furthest point of a polygon from its box, in pixels of the target.
_FAR = 10_000_000


def double(x: Tensor) -> Tensor:
    """Return maps (R, C, S, S) upsampled to (R, C, 2 S, 2 S), bilinear with corners aligned."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def boundary_region(mask: Tensor, width: int) -> Tensor:
    """Return which pixels lie near a boundary, on either side of it.

    Those in whose window of 2 * width + 1 a side more than a tenth of the pixels have the other
    value; beyond the map lies background.

    Args:
        mask: (R, S, S) bool.
        width: pixels.

    Returns:
        (R, S, S) bool.

    Reference: Zhang et al. 2021, section 3.2; windows as in the published code.
    """
    if width < 0:
        raise ValueError(f"width must be at least 0, got {width}")
    side = 2 * width + 1
    # Not `divisor_override=1`, which graphs in ONNX do not know.
    ones = F.avg_pool2d(mask[:, None].float(), side, 1, width)[:, 0] * (side * side)
    others = torch.where(mask, side * side - ones, ones)
    return others > _OTHERS * side * side


def _upsampled(region: Tensor) -> Tensor:
    """Return a region (R, S, S) at twice the size: kept where the interpolated one is 0.5."""
    return double(region[:, None].float())[:, 0] >= 0.5


def _foreground(logits: Tensor) -> Tensor:
    """Return logits (R, 1, S, S) as a mask (R, S, S)."""
    return logits[:, 0].sigmoid() >= 0.5


def merge_stages(logits: Sequence[Tensor], width: int | None = 1) -> Tensor:
    """Return one map of logits: each stage decides near the boundary of those before it.

    The first stage takes part only if it is the only one.

    Args:
        logits: (R, 1, S, S) of each stage, each twice the size of the one before.
        width: of the boundary region, in pixels of the coarser stage; None: the last stage
            decides everywhere.

    Returns:
        (R, 1, S, S) at the size of the last stage.

    Reference: Zhang et al. 2021, section 3.2 (inference).
    """
    if width is None:
        return logits[-1]
    merged = logits[min(1, len(logits) - 1)]
    for finer in logits[2:]:
        inner = ~boundary_region(_foreground(merged), width)
        merged = torch.where(_upsampled(inner)[:, None], double(merged), finer)
    return merged


def mask_loss(
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    weights: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    width: int | None = 2,
    merge_width: int | None = 1,
    valid: Tensor | None = None,
) -> Tensor:
    """Return the weighted sum of the binary cross-entropies of the stages.

    The first two stages average over all pixels; later ones over the pixels near the boundary of
    the previous prediction (merged as at inference) or of the previous target, over all regions.

    Args:
        logits: (R, 1, S, S) of each stage, coarse to fine.
        targets: (R, S, S) of each stage, 0 or 1.
        weights: of the stages, at least as many.
        width: of the boundary regions, in pixels of the previous stage; None: all stages average
            over all pixels.
        merge_width: see `merge_stages`.
        valid: (R,) bool, which regions count; None: all.

    Returns:
        A scalar; zero, with a gradient, if no region counts.

    Raises:
        ValueError: if the numbers of logits, targets and weights do not fit.

    Reference: Zhang et al. 2021, equations 1 and 2; where each stage looks as in the published
    code.
    """
    if len(targets) != len(logits) or len(weights) < len(logits):
        raise ValueError(
            f"{len(logits)} stages need as many targets and weights, got {len(targets)} and "
            f"{len(weights)}"
        )
    if valid is None:
        valid = torch.ones(len(logits[0]), dtype=torch.bool, device=logits[0].device)
    total = logits[0].new_zeros((), dtype=_precise(logits[0]))
    for stage, (logit, target) in enumerate(zip(logits, targets, strict=True)):
        loss = _cross_entropy(logit[:, 0], target)
        if stage < 2 or width is None:
            term = torch.where(valid, loss.mean((1, 2)), 0).sum() / mean_count(valid)
        else:
            with torch.no_grad():
                before = _foreground(merge_stages(logits[:stage], merge_width))
                goal = targets[stage - 1] >= 0.5
                near = boundary_region(before, width) | boundary_region(goal, width)
                region = _upsampled(near) & valid[:, None, None]
            term = torch.where(region, loss, 0).sum() / mean_count(region)
        total = total + weights[stage] * term
    return total


def semantic_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over all pixels, padding included.

    Args:
        logits: (B, 1, h, w).
        target: (B, h, w), 0 or 1; -1: neither, the pixel does not count.
    """
    known = target >= 0
    loss = torch.where(known, _cross_entropy(logits[:, 0], target.clamp(min=0)), 0)
    return loss.sum() / mean_count(known)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    dtype = _precise(logits)
    return F.binary_cross_entropy_with_logits(logits.to(dtype), target.to(dtype), reduction="none")


def _precise(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def mask_targets(
    masks: Tensor | Sequence[Polygons],
    boxes: Tensor,
    gt_index: Tensor,
    size: int,
    image_size: tuple[int, int],
) -> Tensor:
    """Return ground-truth masks inside boxes at one stage's size, from whole masks or polygons.

    Whole masks are sampled by RoIAlign (adaptive, aligned) and kept where 0.5 or more; polygons are
    moved and scaled to the box and rasterised as COCO does.

    Args:
        masks: (G, H, W) 0 or 1, or for each of G objects its polygons in padded-image pixels.
        boxes: (N, 4) xyxy, padded-image pixels.
        gt_index: (N,) int64, the object of each box.
        size: side of the result.
        image_size: (height, width) that the boxes are clipped to.

    Returns:
        (N, size, size) float32, 0 or 1.

    Raises:
        ValueError: if a polygon is none.
    """
    boxes = clip_boxes(boxes.detach().float(), image_size)
    if isinstance(masks, Tensor):
        # The kernel adds samples before it divides, so that exact ties stay exactly 0.5.
        rois = torch.cat([gt_index[:, None].to(boxes), boxes], 1)
        kernel = kernels().roi_align
        cut: Tensor = kernel(masks[:, None].float(), rois, 1.0, size, size, 0, True)[:, 0]
        return (cut >= 0.5).float()
    out = np.zeros((len(boxes), size, size), np.float32)
    corner = boxes[:, :2].cpu().double().numpy()
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).cpu().double().numpy()
    for row, index in enumerate(gt_index.tolist()):
        moved = [
            ((np.asarray(p, np.float64).reshape(-1, 2) - corner[row]) * (size / side[row])).ravel()
            for p in masks[index]
        ]
        crop, (x1, y1, x2, y2) = rasterise_polygons(moved, (size, size), far=_FAR)
        out[row, y1:y2, x1:x2] = crop
    return torch.from_numpy(out).to(boxes.device)


def semantic_target(
    masks: Sequence[Tensor], padded_size: tuple[int, int], out_size: tuple[int, int]
) -> Tensor:
    """Return where any object is, at the size of the semantic logits.

    Args:
        masks: (G, H, W) 0 or 1 per image, top left in the padded image.
        padded_size: (height, width) of the padded images.
        out_size: (height, width) of the result.

    Returns:
        (B, h, w) float32, 0 or 1.

    Raises:
        ValueError: for masks that are larger than the padded images.
    """
    height, width = padded_size
    for m in masks:
        if m.shape[1] > height or m.shape[2] > width:
            raise ValueError(f"masks of {tuple(m.shape[1:])} in padded images of {padded_size}")
    union = [F.pad((m != 0).any(0), (0, width - m.shape[2], 0, height - m.shape[1])) for m in masks]
    return resize_union(torch.stack(union), out_size)


def resize_union(union: Tensor, out_size: tuple[int, int]) -> Tensor:
    """Return masks (B, H, W), 0 or 1, resized bilinearly to (B, h, w) and kept at 0.5 or more.

    Corners are not aligned here; exact halves are common and count as foreground.
    """
    small = F.interpolate(union[:, None].float(), out_size, mode="bilinear", align_corners=False)
    return (small[:, 0] >= 0.5).float()
