"""For every box, what it overlaps most among the ground truth of its image.

The ground truth goes by in blocks, which bounds the memory in dense scenes (375 objects and
100,000 anchors). One operator for compiled graphs: they do not depend on the number of objects.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import box_ioa, box_iou
from .checks import as_float
from .operators import operator

# Elements of one block of overlaps, which stays in the caches.
_BLOCK = 2**20


class Overlaps(NamedTuple):
    """Result of `best_overlaps`.

    Attributes:
        iou: (B, N) the highest IoU of each box, -1 where there is nothing to overlap.
        slot: (B, N) int64, the ground truth with it; the first of equals.
        foremost: (B, N) bool, the boxes that overlap some ground truth more than any other does.
        crowd: (B, N) the largest share of each box inside one crowd region.
    """

    iou: Tensor
    slot: Tensor
    foremost: Tensor
    crowd: Tensor


@torch.no_grad()
def best_overlaps(
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    gt_crowd: Tensor | None = None,
    usable_boxes: Tensor | None = None,
    least: float = 0.0,
) -> Overlaps:
    """Return the best overlaps of boxes with the ground truth of their image; without gradient.

    Args:
        boxes: (N, 4) xyxy shared by all images, or (B, N, 4).
        gt_boxes: (B, K, 4) xyxy.
        gt_valid: (B, K) bool.
        gt_crowd: (B, K) bool, which ground truth is a crowd region; None: none.
        usable_boxes: (B, N) bool: the others overlap nothing; None: all are usable.
        least: IoU without which a box is not `foremost`; more than 0 it always has.
    """
    boxes, gt_boxes = as_float(boxes), as_float(gt_boxes)
    both = torch.promote_types(boxes.dtype, gt_boxes.dtype)
    boxes, gt_boxes = boxes.to(both), gt_boxes.to(both)
    return Overlaps(*_best_overlaps(boxes, gt_boxes, gt_valid, gt_crowd, usable_boxes, least))


@operator("maskwright::best_overlaps")
def _best_overlaps(
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    gt_crowd: Tensor | None,
    usable_boxes: Tensor | None,
    least: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images, slots = gt_valid.shape
    boxes = boxes.expand(images, -1, 4)
    count = boxes.shape[1]
    single = gt_valid if gt_crowd is None else gt_valid & ~gt_crowd
    best, slot, foremost, in_crowd = _outputs(boxes, images)
    best.fill_(-1)
    for tensor in (slot, foremost, in_crowd):
        tensor.zero_()
    step = max(1, _BLOCK // max(images * count, 1))
    for start in range(0, slots if count else 0, step):
        gt = gt_boxes[:, start : start + step]
        here = single[:, start : start + step, None]
        iou = torch.where(here, box_iou(gt, boxes), -1)  # (B, step, N)
        if usable_boxes is not None:
            iou = torch.where(usable_boxes[:, None], iou, -1)
        block_best, block_slot = iou.max(1)
        better = block_best > best
        best = torch.where(better, block_best, best)
        slot = torch.where(better, block_slot + start, slot)
        top = iou.amax(2, keepdim=True)
        foremost |= ((iou == top) & (top > 0) & (top >= least)).any(1)
        if gt_crowd is not None:
            crowd = (gt_valid & gt_crowd)[:, start : start + step]
            ioa = torch.where(crowd[:, :, None], box_ioa(boxes, gt).mT, 0)
            in_crowd = torch.maximum(in_crowd, ioa.amax(1))
    return best, slot, foremost, in_crowd


@_best_overlaps.register_fake
def _(
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    gt_crowd: Tensor | None,
    usable_boxes: Tensor | None,
    least: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(boxes, gt_valid.shape[0])


def _outputs(boxes: Tensor, images: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four tensors (images, N) of the types of `Overlaps`, not filled."""
    shape = (images, boxes.shape[-2])
    kinds = (boxes.dtype, torch.int64, torch.bool, boxes.dtype)
    a, b, c, d = (boxes.new_empty(shape, dtype=kind) for kind in kinds)
    return a, b, c, d


@torch.no_grad()
def owned_boxes(
    boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor, *, shared: bool = False
) -> Tensor:
    """Return which ground truth owns which box; without gradient.

    The pair of the largest IoU of all comes together, then the next one among the ground truth and
    the boxes that are left, until no ground truth overlaps a box that is left.

    Args:
        boxes: (N, 4) xyxy.
        gt_boxes: (B, K, 4) xyxy.
        gt_valid: (B, K) bool.
        shared: each takes the box that it overlaps most; the last of several has it.

    Returns:
        (B, N) int64, the slot of the ground truth, -1 for a box that none owns.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 8, 8]])
        >>> gt = torch.tensor([[[0.0, 0, 4, 3], [0, 0, 4, 4]]])
        >>> owned_boxes(boxes, gt, torch.ones(1, 2, dtype=torch.bool))
        tensor([[1, 0]])
        >>> owned_boxes(boxes, gt, torch.ones(1, 2, dtype=torch.bool), shared=True)
        tensor([[ 1, -1]])
    """
    boxes, gt_boxes = as_float(boxes), as_float(gt_boxes)
    both = torch.promote_types(boxes.dtype, gt_boxes.dtype)
    owner: Tensor = _owned_boxes(boxes.to(both), gt_boxes.to(both), gt_valid, shared)
    return owner


@operator("maskwright::owned_boxes")
def _owned_boxes(boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor, shared: bool) -> Tensor:
    owner = gt_valid.new_full((len(gt_valid), len(boxes)), -1, dtype=torch.int64)
    for row, gt, valid in zip(owner, gt_boxes, gt_valid, strict=True):
        slots = valid.nonzero()[:, 0] if len(boxes) else valid.new_empty(0, dtype=torch.int64)
        step = max(1, _BLOCK // max(len(boxes), 1))
        tops = [box_iou(gt[part], boxes).max(1) for part in slots.split(step)]
        if not len(slots):
            continue
        best, at = (torch.cat([top[i] for top in tops]) for i in range(2))
        if shared:
            meets = best > 0
            row.scatter_reduce_(0, at[meets], slots[meets], "amax")
            continue
        queue = [
            (-value, slot, box)
            for value, slot, box in zip(best.tolist(), slots.tolist(), at.tolist(), strict=True)
            if value > 0
        ]
        heapq.heapify(queue)
        taken: set[int] = set()  # known without a look at the card
        while queue:
            _, slot, box = heapq.heappop(queue)
            if box not in taken:
                taken.add(box)
                row[box].fill_(slot)
                continue
            left = torch.where(row < 0, box_iou(gt[slot : slot + 1], boxes)[0], -1)
            # One transfer, in a type that holds both exactly.
            value, next_best = torch.stack([one.double() for one in left.max(0)]).tolist()
            if value > 0:
                heapq.heappush(queue, (-value, slot, int(next_best)))
    return owner


@_owned_boxes.register_fake
def _(boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor, shared: bool) -> Tensor:
    return gt_valid.new_empty((gt_valid.shape[0], boxes.shape[0]), dtype=torch.int64)
