"""Matching of boxes to ground truth by IoU (Ren et al. 2015, 3.1.2; Liu et al. 2016, 2.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...ops.overlaps import best_overlaps, owned_boxes


class Match(NamedTuple):
    """Result of a match.

    Attributes:
        slot: (B, N) int64, the ground-truth slot with the highest IoU.
        state: (B, N) int8: 1 positive, 0 negative, -1 ignored.
    """

    slot: Tensor
    state: Tensor


class IoUMatcher:
    """Positive from `high` on, negative below `low`, ignored between.

    Args:
        high: IoU in [0, 1].
        low: IoU in [0, 1], at most `high`.
        low_quality: also the boxes that overlap a ground truth most are positive, however little
            (condition (i) of Ren et al. 2015): every object gets an anchor. They keep the ground
            truth that they overlap most, which may be another one. Deviation from torchvision: a
            ground truth that no box overlaps makes none positive.
        floor: a negative box overlaps some ground truth by at least this IoU, others are ignored
            (Girshick 2015, section 2.3: 0.1, a heuristic for hard examples). Deviation: where an
            image has no ground truth, every box is negative.
        crowd_ioa: a negative box with this share of its area inside a crowd region is ignored.
        least: IoU that an object and its best box must have for `low_quality` (mmdetection).
    """

    def __init__(
        self,
        high: float,
        low: float,
        *,
        low_quality: bool = False,
        least: float = 0.0,
        floor: float = 0.0,
        crowd_ioa: float = 0.5,
    ) -> None:
        if not 0 <= floor <= low <= high <= 1:
            raise ValueError(
                f"IoUMatcher needs 0 <= floor <= low <= high <= 1, got {floor}, {low}, {high}"
            )
        self.high = high
        self.low = low
        self.low_quality = low_quality
        self.least = least
        self.floor = floor
        self.crowd_ioa = crowd_ioa

    def __call__(
        self,
        boxes: Tensor,
        gt_boxes: Tensor,
        gt_valid: Tensor,
        gt_crowd: Tensor | None = None,
        *,
        usable_boxes: Tensor | None = None,
    ) -> Match:
        """Match boxes with the ground truth of their image.

        Args:
            boxes: (N, 4) shared by all images, or (B, N, 4).
            gt_boxes: (B, K, 4).
            gt_valid: (B, K) bool.
            gt_crowd: (B, K) bool, or None.
            usable_boxes: (B, N) bool: the others are ignored, and overlap nothing; None: all.

        Returns:
            `Match`; with no ground truth all boxes are negative.
        """
        found = best_overlaps(boxes, gt_boxes, gt_valid, gt_crowd, usable_boxes, least=self.least)
        positive = found.iou >= self.high
        if self.low_quality:
            positive = positive | found.foremost
        apart = (found.iou >= 0) & (found.iou < self.floor)
        unclear = (found.iou >= self.low) | (found.crowd > self.crowd_ioa) | apart
        state = positive.to(torch.int8) - (~positive & unclear).to(torch.int8)
        if usable_boxes is not None:
            state = torch.where(usable_boxes, state, -1)
        return Match(found.slot, state)


class OwningMatcher:
    """Each object owns a box; every other box from `threshold` on goes to its best object.

    Objects take turns by their best IoU with a box that nobody owns yet, so that each has one of
    its own (Liu et al. 2016, section 2.2, as published code has it).

    Args:
        threshold: IoU in [0, 1]; below it boxes that nobody owns are negative.
        shared: each object takes its best box, taken or not, and the last one has it (torchvision,
            ssd.pytorch). Deviation: an object that no box overlaps takes none.
        crowd_ioa: a negative box with this share of its area inside a crowd region is ignored.
    """

    def __init__(
        self, threshold: float = 0.5, *, shared: bool = False, crowd_ioa: float = 0.5
    ) -> None:
        self.threshold = threshold
        self.shared = shared
        self.crowd_ioa = crowd_ioa

    def __call__(
        self, boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor, gt_crowd: Tensor | None = None
    ) -> Match:
        """Match boxes (N, 4) with the ground truth of each image; see `IoUMatcher`."""
        found = best_overlaps(boxes, gt_boxes, gt_valid, gt_crowd)
        single = gt_valid if gt_crowd is None else gt_valid & ~gt_crowd
        owner = owned_boxes(boxes, gt_boxes, single, shared=self.shared)
        positive = (owner >= 0) | (found.iou >= self.threshold)
        state = positive.to(torch.int8) - (~positive & (found.crowd > self.crowd_ioa)).to(
            torch.int8
        )
        return Match(torch.where(owner >= 0, owner, found.slot), state)
