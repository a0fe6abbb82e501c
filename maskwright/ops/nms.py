"""Non-maximum suppression with torchvision's keep lists: ragged, per label, and padded for graphs.

Neubeck and Van Gool 2006. The suppression itself is torchvision's kernel, so kept sets and their
order are its own to the bit. `batched_nms` differs from torchvision's default: it never shifts
boxes apart by label, which rounds coordinates, but runs each label that occurs on its own. Weights
of libraries that do need `moved_apart`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import box_iou
from .checks import as_float
from .operators import kernels, operator

_TOGETHER = 2**18  # pairs of boxes of one label that are compared at once
# On a card each step of `_of_each` costs some launches, and each call of the kernel as many as
# several steps, and a wait.
_STEPS = 4


def nms(boxes: Tensor, scores: Tensor, iou_thresh: float) -> Tensor:
    """Return the boxes that no better box overlaps by more than `iou_thresh`.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        iou_thresh: in [0, 1]; a box at exactly this overlap stays.

    Returns:
        (K,) int64 positions by falling score, equal scores by rising position.
    """
    boxes, kernel = as_float(boxes), kernels().nms
    if scores.dtype != boxes.dtype:
        # The kernel takes one type. Ranks keep the order of the scores, which a cast may not.
        order = scores.argsort(stable=True, descending=True)
        return order[kernel(boxes[order], _ranks(boxes), iou_thresh)]
    kept: Tensor = kernel(boxes, scores, iou_thresh)
    return kept


def _ranks(boxes: Tensor) -> Tensor:
    """Return (N,) falling scores for boxes (N, 4) in the order of their merit."""
    return torch.arange(len(boxes), 0, -1, device=boxes.device, dtype=boxes.dtype)


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_thresh: float) -> Tensor:
    """Return what `nms` keeps when boxes suppress only boxes of their own label.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        labels: (N,) integers.
        iou_thresh: in [0, 1].

    Returns:
        (K,) int64 positions by falling score, equal scores by rising position.
    """
    boxes = as_float(boxes)
    order = scores.argsort(stable=True, descending=True)
    return order[_greedy(boxes[order], labels[order], iou_thresh, len(order))]


class Apart(NamedTuple):
    """How a library keeps labels apart in NMS: it moves their boxes, which rounds coordinates.

    Of small boxes that overlap by nearly the threshold another one may stay for it.

    Attributes:
        most: boxes of an image up to which it does so; 0: never.
        first: its number of the first label.
    """

    most: int = 0
    first: int = 0


ALONE = Apart()  # each label on its own, to the bit


def moved_apart(boxes: Tensor, labels: Tensor, valid: Tensor, apart: Apart) -> Tensor:
    """Return boxes such that `nms_padded` of each label keeps what the library keeps.

    Args:
        boxes: (B, N, 4) xyxy.
        labels: (B, N) integers, from 0 on.
        valid: (B, N) bool; the other slots do not count.
        apart: the rule of the library.

    Returns:
        (B, N, 4), moved by the label times one more than the largest coordinate.
    """
    if not apart.most:
        return boxes
    boxes = as_float(boxes)
    largest = torch.where(valid[..., None], boxes, -torch.inf).flatten(1).amax(1)
    count = valid.sum(1)
    step = torch.where((count > 0) & (count <= apart.most), largest + 1, 0)
    return boxes + ((labels + apart.first).to(boxes.dtype) * step[:, None])[..., None]


def nms_padded(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    iou_thresh: float,
    max_out: int,
    *,
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the best `max_out` boxes of each image that NMS keeps, in a fixed number of slots.

    Args:
        boxes: (B, N, 4) xyxy.
        scores: (B, N).
        valid: (B, N) bool; the other slots neither survive nor suppress.
        iou_thresh: in [0, 1].
        max_out: number of slots of the result.
        labels: (B, N) integers; where given, boxes suppress only boxes of their own label.

    Returns:
        index (B, max_out) int64 into the N slots, by falling score, 0 where empty;
        valid (B, max_out) bool.
    """
    boxes = as_float(boxes)
    result: tuple[Tensor, Tensor] = _nms_padded(boxes, scores, valid, iou_thresh, max_out, labels)
    return result


@operator("maskwright::nms_padded")
def _nms_padded(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    iou_thresh: float,
    max_out: int,
    labels: Tensor | None,
) -> tuple[Tensor, Tensor]:
    count = boxes.shape[0]
    index = torch.zeros((count, max_out), dtype=torch.int64, device=boxes.device)
    filled = torch.zeros((count, max_out), dtype=torch.bool, device=boxes.device)
    for b in range(count):
        slots = valid[b].nonzero().flatten()
        slots = slots[scores[b, slots].argsort(stable=True, descending=True)]
        kept = slots[
            _greedy(
                boxes[b, slots], None if labels is None else labels[b, slots], iou_thresh, max_out
            )
        ]
        index[b, : len(kept)] = kept
        filled[b, : len(kept)] = True
    return index, filled


@_nms_padded.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    iou_thresh: float,
    max_out: int,
    labels: Tensor | None,
) -> tuple[Tensor, Tensor]:
    shape = (boxes.shape[0], max_out)
    return boxes.new_empty(shape, dtype=torch.int64), boxes.new_empty(shape, dtype=torch.bool)


def _greedy(boxes: Tensor, labels: Tensor | None, iou_thresh: float, limit: int) -> Tensor:
    """Return the first `limit` survivors (rising positions) of boxes in falling score order.

    Greedy NMS decides a box by the better ones alone, so survivors of a prefix are final: it
    grows until it has `limit` of them, and the rest of the boxes is never looked at.
    """
    kept = boxes.new_empty(0, dtype=torch.int64)
    begin, step = 0, max(4 * limit, 1024)
    while begin < len(boxes) and len(kept) < limit:
        end = min(begin + step, len(boxes))
        pool = torch.cat([kept, torch.arange(begin, end, device=boxes.device)])
        kept = pool[_survivors(boxes[pool], None if labels is None else labels[pool], iou_thresh)]
        begin, step = end, 2 * step
    return kept[:limit]


def _of_each(boxes: Tensor, counts: Tensor, most: int, iou_thresh: float) -> Tensor:
    """Return which boxes NMS keeps, label by label, of all labels at once.

    The same comparisons as the kernel's, which takes longer to call than to run on a few boxes.

    Args:
        boxes: (N, 4), those of a label together, in falling score order.
        counts: (L,) how many each label has.
        most: the largest of them.
        iou_thresh: see `nms`.

    Returns:
        (N,) bool.
    """
    numbers = torch.arange(len(counts), device=boxes.device)
    row = numbers.repeat_interleave(counts, output_size=len(boxes))
    column = torch.arange(len(boxes), device=boxes.device) - (counts.cumsum(0) - counts)[row]
    table = boxes.new_zeros((len(counts), most, 4))
    table[row, column] = boxes
    # In double precision, as there: 0.3 of single precision is above 0.3.
    over = box_iou(table, table).double() > iou_thresh  # (L, most, most)
    kept = torch.ones((len(counts), most), dtype=torch.bool, device=boxes.device)
    for place in range(most - 1):
        kept[:, place + 1 :] &= ~(kept[:, place : place + 1] & over[:, place, place + 1 :])
    return kept[row, column]


def _survivors(boxes: Tensor, labels: Tensor | None, iou_thresh: float) -> Tensor:
    """Return the positions, rising, that NMS keeps of boxes in falling score order."""
    rank = _ranks(boxes)
    if labels is None:
        return nms(boxes, rank, iou_thresh)
    labels, order = labels.sort(stable=True)
    counts = labels.unique_consecutive(return_counts=True)[1]
    sizes = counts.tolist()
    boxes = boxes[order]
    few = boxes.device.type == "cpu" or max(sizes, default=0) <= _STEPS * len(sizes)
    if few and len(sizes) > 1 and len(sizes) * max(sizes) ** 2 <= _TOGETHER:
        return order[_of_each(boxes, counts, max(sizes), iou_thresh)].sort()[0]
    kept = [
        part[nms(boxes_of_label, rank[: len(part)], iou_thresh)]
        for part, boxes_of_label in zip(order.split(sizes), boxes.split(sizes), strict=True)
    ]
    return torch.cat(kept).sort()[0] if kept else order
