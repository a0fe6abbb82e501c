"""Small boxes of many classes, of which NMS keeps others where coordinates are rounded."""

from __future__ import annotations

import torch
from torch import Tensor


def crowd(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return small boxes that overlap each other by half, scores, and labels from 70 to 79."""
    draw = torch.Generator().manual_seed(seed)
    middle = torch.rand(12, 2, generator=draw) * torch.tensor([1313.0, 780])
    at = torch.randint(0, 12, (count,), generator=draw)
    corner = (middle[at] + torch.randn(count, 2, generator=draw) * 2).clamp(min=0)
    side = 20 * torch.exp(torch.randn(count, 2, generator=draw) * 0.2)
    scores = torch.rand(count, generator=draw)
    return (
        torch.cat([corner, corner + side], 1),
        scores,
        torch.randint(70, 80, (count,), generator=draw),
    )
