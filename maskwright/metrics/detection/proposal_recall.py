"""Recall of region proposals: how many objects some proposal overlaps enough (Hosang et al. 2016).

Recall against the IoU that counts as found, against the number of proposals, and average recall:
twice the area under the first curve from IoU 0.5 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...ops.boxes import box_iou

IOUS = tuple((50 + 5 * i) / 100 for i in range(11))  # 0.5 to 1.0
COUNTS = (1, 3, 10, 30, 100, 300, 1000, 2000, 5000, 10000)


@dataclass(frozen=True)
class ProposalRecall:
    """Recall over a data set.

    Attributes:
        counts: proposals an image, rising.
        ious: IoU that an object must be overlapped by, rising.
        recall: (counts, ious) share of the objects, nan without any object.
        average: (counts,) average recall between IoU 0.5 and 1.
        objects: how many objects there are.
    """

    counts: tuple[int, ...]
    ious: tuple[float, ...]
    recall: np.ndarray
    average: np.ndarray
    objects: int


def best_overlaps(gt: np.ndarray, boxes: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Return the largest IoU of each object with the first proposals of its image.

    Args:
        gt: (g, 4) xyxy, the objects.
        boxes: (n, 4) xyxy, proposals by falling merit.
        counts: numbers of proposals.

    Returns:
        (g, counts) float64, 0 without proposals.
    """
    best = np.zeros((len(gt), len(counts)))
    if len(gt) and len(boxes):
        iou = box_iou(torch.from_numpy(gt).double(), torch.from_numpy(boxes).double()).numpy()
        running = np.maximum.accumulate(iou, 1)
        for column, count in enumerate(counts):
            best[:, column] = running[:, min(count, len(boxes)) - 1]
    return best


def proposal_recall(
    gt: Sequence[np.ndarray],
    proposals: Sequence[np.ndarray],
    *,
    counts: Sequence[int] | None = None,
    ious: Sequence[float] = IOUS,
) -> ProposalRecall:
    """Return the recall of proposals over images.

    Args:
        gt: (g, 4) xyxy objects of each image.
        proposals: (n, 4) xyxy proposals of each image by falling merit.
        counts: numbers of proposals, rising; None: 1 to 10,000, up to what there is.
        ious: rising.

    Raises:
        ValueError: if the two have not as many images, or a count is below 1.
    """
    if len(gt) != len(proposals):
        raise ValueError(f"{len(gt)} images with objects, but {len(proposals)} with proposals")
    most = max((len(boxes) for boxes in proposals), default=0)
    if counts is None:
        counts = [count for count in COUNTS if count < most] + [max(most, 1)]
    if min(counts) < 1:
        raise ValueError(f"counts must be at least 1, got {list(counts)}")
    parts = [best_overlaps(g, p, counts) for g, p in zip(gt, proposals, strict=True)]
    best = np.concatenate(parts) if parts else np.zeros((0, len(counts)))
    if not len(best):
        empty = np.full((len(counts), len(ious)), np.nan)
        return ProposalRecall(tuple(counts), tuple(ious), empty, empty[:, 0].copy(), 0)
    recall = (best[:, :, None] >= np.array(ious)).mean(0)
    # The area under recall over IoU is the mean of what an overlap reaches beyond 0.5, exactly.
    average = 2 * (best - 0.5).clip(0).mean(0)
    return ProposalRecall(tuple(counts), tuple(ious), recall, average, len(best))
