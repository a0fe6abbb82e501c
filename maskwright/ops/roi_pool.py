"""RoIPool: quantised max pooling of boxes (Girshick 2015)."""

from __future__ import annotations

import torch
from torch import Tensor


def roi_pool(
    features: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    *,
    stride: int,
    output_size: int | tuple[int, int],
) -> Tensor:
    """Return (R, C, h, w) maxima over the bins of boxes (R, 4) in input pixels."""
    from torchvision.ops import roi_pool as single

    size = (output_size, output_size) if isinstance(output_size, int) else output_size
    rois = torch.cat([batch_index[:, None].to(boxes), boxes], 1).to(features)
    out: Tensor = single(features, rois, size, 1 / stride)
    return out
