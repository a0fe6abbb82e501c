"""Sampling of boxes for training at a fixed number of slots: at random, or the hardest.

At random: Girshick 2015, section 2.3; the hardest: Shrivastava et al. 2016.

The random order comes from a generator, or from `ImageNoise`: numbers that hang on the image alone,
so that the samples are the same however the images are spread over batches and processes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...ops.nms import nms_padded
from ..ragged import gather_slots
from ..random import ImageNoise, RandomSource


class Sample(NamedTuple):
    """The sampled boxes of a batch, positives first.

    Attributes:
        slot: (B, S) int64 into the candidates.
        positive: (B, S) bool.
        valid: (B, S) bool; fewer candidates than slots leave some empty.
    """

    slot: Tensor
    positive: Tensor
    valid: Tensor


class BalancedSampler:
    """A fixed number of random boxes, at most a given share of them positive.

    Args:
        count: boxes per image.
        positive_fraction: largest share of positives, in (0, 1]; negatives fill the rest.
    """

    def __init__(self, count: int, positive_fraction: float) -> None:
        if count < 1 or not 0 < positive_fraction <= 1:
            raise ValueError(
                "BalancedSampler needs count >= 1 and 0 < positive_fraction <= 1, "
                f"got {count} and {positive_fraction}"
            )
        self.count = count
        self.max_positives = max(1, int(count * positive_fraction))

    def __call__(
        self,
        state: Tensor,
        *,
        generator: RandomSource = None,
        noise: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> Sample:
        """Sample the boxes of each image.

        Args:
            state: (B, N) int8: 1 positive, 0 negative, -1 not to be taken.
            generator: source of the random order.
            noise: (B, N) in [0, 1) in place of random numbers: the largest are taken, so that a
                test can choose.
            ids: (B, N) int64, what `ImageNoise` calls the boxes; None: by their slots.

        Returns:
            `Sample` with S = min(count, N) slots.
        """
        if noise is None:
            noise = _uniform(state, generator, ids)
        slots = min(self.count, state.shape[1])
        positives = min(self.max_positives, state.shape[1])
        keys = torch.where(state == 1, noise, -1)
        top, at = keys.topk(positives, 1)
        chosen = torch.zeros_like(keys, dtype=torch.bool).scatter(1, at, top >= 0)
        # Chosen positives rank above all negatives, what must not be taken below.
        keys = torch.where(chosen, noise + 2, torch.where(state == 0, noise, -1))
        top, index = keys.topk(slots, 1)
        return Sample(index, top >= 2, top >= 0)


class HardSampler:
    """The boxes with the largest losses, without those that overlap a harder one: OHEM.

    Neither a share of positives nor a lowest overlap of background is set: the losses decide
    (Shrivastava et al. 2016, section 4). Boxes that overlap have correlated losses, which would
    count twice; hence the NMS between them.

    Args:
        count: boxes per image.
        nms_thresh: IoU above which the easier of two boxes is left out.
    """

    def __init__(self, count: int, nms_thresh: float = 0.7) -> None:
        if count < 1 or not 0 < nms_thresh <= 1:
            raise ValueError(
                f"HardSampler needs count >= 1 and 0 < nms_thresh <= 1, got {count}, {nms_thresh}"
            )
        self.count = count
        self.nms_thresh = nms_thresh
        self.max_positives = count

    def __call__(self, state: Tensor, boxes: Tensor, losses: Tensor) -> Sample:
        """Pick the hardest boxes of each image.

        Args:
            state: (B, N) int8: 1 positive, 0 negative, -1 not to be taken.
            boxes: (B, N, 4) xyxy.
            losses: (B, N), what each box would cost.

        Returns:
            `Sample` with S = min(count, N) slots, positives first, the harder before the easier.
        """
        slots = min(self.count, state.shape[1])
        index, kept = nms_padded(boxes, losses, state >= 0, self.nms_thresh, slots)
        positive = kept & (gather_slots(state, index) == 1)
        order = (positive.to(torch.int8) * 2 + kept).argsort(dim=1, descending=True, stable=True)
        return Sample(*(value.gather(1, order) for value in (index, positive, kept)))


def _uniform(like: Tensor, generator: RandomSource, ids: Tensor | None) -> Tensor:
    """Return uniform numbers of the shape (B, N) of `like`."""
    if isinstance(generator, ImageNoise):
        slots = torch.arange(like.shape[1], device=like.device)
        return generator.uniform(slots if ids is None else ids)
    if generator is None:
        return torch.rand(like.shape, device=like.device)
    return torch.rand(like.shape, generator=generator, device=generator.device).to(like.device)
