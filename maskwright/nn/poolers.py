"""Poolers: from maps and regions to features of a fixed size, as heads on regions take them.

RoIAlign from a pyramid (He et al. 2017, Mask R-CNN, sec. 3; Lin et al. 2017, eq. 1) and RoIPool
from one map (Girshick 2015, Fast R-CNN, sec. 2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ..ops.roi_align import roi_align
from ..ops.roi_pool import roi_pool


class Pooler(Protocol):
    """What takes region features from maps."""

    def __call__(
        self, maps: Sequence[Tensor], boxes: Tensor, batch_index: Tensor, side: int
    ) -> Tensor:
        """Return region features (R, C, side, side), or as many bins in another shape.

        Args:
            maps: (B, C, H_l, W_l) each.
            boxes: (R, 4) xyxy, padded-image pixels.
            batch_index: (R,) int64, image of each box.
            side: bins along each side.
        """
        ...


class AlignPooler:
    """RoIAlign from the maps at `strides`, each region from one of them by the rule of FPN.

    Args:
        strides: strides of the maps, fine to coarse; maps beyond them (P6) are not pooled from.
        sampling_ratio: samples a bin along each axis; 0: by the size of the region.
        aligned: pixel centres at half-integers.
    """

    def __init__(
        self, strides: Sequence[int], *, sampling_ratio: int = 2, aligned: bool = True
    ) -> None:
        self.strides = tuple(strides)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def __call__(
        self, maps: Sequence[Tensor], boxes: Tensor, batch_index: Tensor, side: int
    ) -> Tensor:
        """Return (R, C, side, side); see `Pooler`."""
        return roi_align(
            list(maps[: len(self.strides)]),
            boxes,
            batch_index,
            strides=self.strides,
            output_size=side,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
        )


class MaxPooler:
    """RoIPool from one map, the first.

    Args:
        stride: its stride in input pixels.
    """

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def __call__(
        self, maps: Sequence[Tensor], boxes: Tensor, batch_index: Tensor, side: int
    ) -> Tensor:
        """Return (R, C, side, side); see `Pooler`."""
        return roi_pool(maps[0], boxes, batch_index, stride=self.stride, output_size=side)
