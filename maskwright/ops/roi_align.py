"""Multi-level RoIAlign (He et al. 2017, sec. 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def roi_align(
    features: Tensor | Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    *,
    strides: Sequence[int],
    output_size: int | tuple[int, int],
    sampling_ratio: int = 2,
    aligned: bool = True,
    levels: Tensor | None = None,
) -> Tensor:
    """Return (R, C, h, w) features of boxes (R, 4) in input pixels."""
    from torchvision.ops import roi_align as single

    maps = [features] if isinstance(features, Tensor) else list(features)
    size = (output_size, output_size) if isinstance(output_size, int) else output_size
    rois = torch.cat([batch_index[:, None].to(boxes), boxes], 1).to(maps[0])
    if levels is None:
        low, high = min(strides).bit_length() - 1, max(strides).bit_length() - 1
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        k = torch.floor(4 + torch.log2(area.clamp(min=0).sqrt() / 224) + 1e-6).clamp(low, high)
        levels = k.long() - low
    out = maps[0].new_zeros(len(boxes), maps[0].shape[1], *size)
    for i, (fmap, stride) in enumerate(zip(maps, strides, strict=True)):
        at = torch.nonzero(levels == i)[:, 0]
        part = single(fmap, rois[at], size, 1 / stride, sampling_ratio or -1, aligned)
        out = out.index_put((at,), part)
    return out
