"""Soft-NMS (Bodla et al. 2017): boxes that overlap a better one lose score instead of their place.

The best box is taken, the scores of the others fall by its overlap with them, and again. Differs
from the authors' code in that boxes are continuous (no "+ 1"), that all classes go through one
loop, and that it ends when the result is full: taken in falling score, later boxes cannot enter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import OptionError
from .checks import as_float
from .nms import nms_padded
from .operators import operator

METHODS = ("linear", "gaussian")


@dataclass(frozen=True)
class SoftNMS:
    """How scores fall.

    Attributes:
        method: "linear" (eq. 2: times 1 - IoU above the threshold of the NMS) or "gaussian" (eq. 3:
            times exp(-IoU^2 / sigma), whatever the threshold).
        sigma: width of the gaussian.
        floor: a box whose score falls below is dropped.
    """

    method: str = "gaussian"
    sigma: float = 0.5
    floor: float = 0.001

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(
                f"soft-NMS is linear, gaussian or gaussian:SIGMA, got {self.method!r}"
            )
        if not 0 < self.sigma < float("inf"):
            raise OptionError(f"sigma of soft-NMS must be above 0 and finite, got {self.sigma}")
        if not 0 <= self.floor <= 1:
            raise OptionError(f"the score floor of soft-NMS lies in [0, 1], got {self.floor}")


def soft_nms_padded(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    rule: SoftNMS,
    iou_thresh: float,
    max_out: int,
    *,
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best `max_out` boxes of each image after soft-NMS, in a fixed number of slots.

    Args:
        boxes: (B, N, 4) xyxy.
        scores: (B, N) in [0, 1].
        valid: (B, N) bool; the other slots neither survive nor lower a score.
        rule: how scores fall.
        iou_thresh: overlap above which they fall, for "linear".
        max_out: number of slots of the result.
        labels: (B, N) integers; where given, boxes lower the scores of their own label only.

    Returns:
        index (B, max_out) int64 into the N slots, by falling new score, equal ones by rising
        position, 0 where empty; scores (B, max_out), lowered, 0 where empty, half types as float32;
        valid (B, max_out) bool.
    """
    result: tuple[Tensor, Tensor, Tensor] = _soft_nms_padded(
        as_float(boxes),
        as_float(scores),
        valid,
        rule.sigma if rule.method == "gaussian" else 0.0,
        rule.floor,
        iou_thresh,
        max_out,
        labels,
    )
    return result


def suppress_padded(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    iou_thresh: float,
    max_out: int,
    *,
    labels: Tensor | None = None,
    soft: SoftNMS | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return `soft_nms_padded`, or without a rule `nms_padded` with the scores that it leaves.

    Args and values are those of `soft_nms_padded`; `iou_thresh` is that of either.
    """
    if soft is not None:
        return soft_nms_padded(boxes, scores, valid, soft, iou_thresh, max_out, labels=labels)
    index, kept = nms_padded(boxes, scores, valid, iou_thresh, max_out, labels=labels)
    return index, scores.gather(1, index) * kept if scores.shape[1] else kept.to(scores.dtype), kept


@operator("maskwright::soft_nms_padded")
def _soft_nms_padded(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    sigma: float,
    floor: float,
    iou_thresh: float,
    max_out: int,
    labels: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Carry out `soft_nms_padded`; a sigma of 0 stands for the linear rule."""
    count, slots = valid.shape
    index = torch.zeros((count, max_out), dtype=torch.int64, device=boxes.device)
    new = scores.new_zeros((count, max_out))
    filled = torch.zeros((count, max_out), dtype=torch.bool, device=boxes.device)
    current = torch.where(valid & (scores >= floor), scores, -1.0)
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    areas = sides[..., 0] * sides[..., 1]
    for k in range(min(max_out, slots)):
        score, best = current.max(1, keepdim=True)  # of equal ones the first
        found = score[:, 0] >= 0
        if not bool(found.any()):
            break
        index[:, k] = torch.where(found, best[:, 0], 0)
        new[:, k] = torch.where(found, score[:, 0], 0)
        filled[:, k] = found
        box = boxes.gather(1, best[..., None].expand(-1, -1, 4))  # (B, 1, 4)
        low = torch.maximum(boxes[..., :2], box[..., :2])
        overlap = (torch.minimum(boxes[..., 2:], box[..., 2:]) - low).clamp(min=0)
        inter = overlap[..., 0] * overlap[..., 1]
        union = areas + areas.gather(1, best) - inter
        iou = torch.where(union > 0, inter / union, 0)
        if sigma:
            factor = (-(iou * iou) / sigma).exp()
        else:
            factor = torch.where(iou > iou_thresh, 1 - iou, 1)
        if labels is not None:
            factor = torch.where(labels == labels.gather(1, best), factor, 1)
        current = torch.where(current >= 0, current * factor, -1)
        current = torch.where(current >= floor, current, -1).scatter_(1, best, -1.0)
    return index, new, filled


@_soft_nms_padded.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    sigma: float,
    floor: float,
    iou_thresh: float,
    max_out: int,
    labels: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (boxes.shape[0], max_out)
    return (
        boxes.new_empty(shape, dtype=torch.int64),
        scores.new_empty(shape),
        boxes.new_empty(shape, dtype=torch.bool),
    )
