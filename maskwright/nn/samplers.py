"""Sampling of boxes for training at a fixed number of slots (Girshick 2015, section 2.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Sample:
        """Sample the boxes of each image.

        Args:
            state: (B, N) int8: 1 positive, 0 negative, -1 not to be taken.
            generator: source of the random order.
            noise: (B, N) in [0, 1) in place of random numbers: the largest are taken, so that a
                test can choose.

        Returns:
            `Sample` with S = min(count, N) slots.
        """
        if noise is None:
            noise = _uniform(state, generator)
        slots = min(self.count, state.shape[1])
        positives = min(self.max_positives, state.shape[1])
        keys = torch.where(state == 1, noise, -1)
        top, at = keys.topk(positives, 1)
        chosen = torch.zeros_like(keys, dtype=torch.bool).scatter(1, at, top >= 0)
        # Chosen positives rank above all negatives, what must not be taken below.
        keys = torch.where(chosen, noise + 2, torch.where(state == 0, noise, -1))
        top, index = keys.topk(slots, 1)
        return Sample(index, top >= 2, top >= 0)


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return uniform numbers of the shape of `like`, drawn where the generator lives."""
    if generator is None:
        return torch.rand(like.shape, device=like.device)
    return torch.rand(like.shape, generator=generator, device=generator.device).to(like.device)
