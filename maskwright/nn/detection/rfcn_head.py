"""Head of R-FCN (Dai et al. 2016): score maps over the whole image, and a vote in each region.

No layer with weights runs on a region. Every bin of a region is pooled from maps of its own
(position-sensitive pooling, eq. 1), and the region's score is the average of its bins (eq. 2);
boxes are regressed the same way, once for all classes (section 2.2). The reduction to 1024
channels has a ReLU behind it, as in the authors' code, and may have a norm: without one the votes
of unscaled features swing too far for Adam.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..dropout import RegionNoise
from ..norm import conv_block
from .box_head import BoxBranch, BoxOutput


class RFCNHead(BoxBranch):
    """A 1x1 reduction and position-sensitive maps for classes and boxes.

    Args:
        channels: channels of the map of the whole image.
        num_classes: real classes.
        width: channels after the reduction.
        norm: norm of the reduction: None, "bn" or "gn".
        **options: of `BoxBranch`; `pool` is the k of the paper.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        width: int = 1024,
        norm: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        bins = self.pool * self.pool
        self.reduce = conv_block(channels, width, 1, norm=norm)
        # The bins of a class lie together; background is the last class.
        self.logits = nn.Conv2d(width, (num_classes + 1) * bins, 1)
        self.deltas = nn.Conv2d(width, 4 * bins, 1)
        self.class_rows = {"logits": (bins, True)}
        # The layers start as torch makes them, for the reason that `BoxHead` gives.

    def maps(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Return the score maps (B, (C + 1 + 4) * pool * pool, H, W), made from the last map."""
        x = self.reduce(pyramid[-1])
        return [torch.cat([self.logits(x), self.deltas(x)], 1)]

    def forward(self, x: Tensor, noise: RegionNoise | None = None) -> BoxOutput:
        """Vote: average the bins of the regions (R, C + 1 + 4, pool, pool)."""
        logits, deltas = x.mean((2, 3)).split([self.num_classes + 1, 4], 1)
        return BoxOutput(logits, deltas[:, None])
