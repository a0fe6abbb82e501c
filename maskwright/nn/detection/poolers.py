"""Poolers: from maps and regions to features of a fixed size, as heads on regions take them.

RoIAlign from a pyramid (He et al. 2017, Mask R-CNN, sec. 3; Lin et al. 2017, eq. 1); RoIPool,
RoIAlign and spatial pyramid pooling from one map (Girshick 2015; He et al. 2014), where an image
may come at several scales and each region is pooled at the one that suits its size; their
position-sensitive kin (Dai et al. 2016, R-FCN, eq. 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ...errors import OptionError
from ...ops.pooling.ps_roi import ps_roi_align, ps_roi_pool
from ...ops.pooling.roi_align import fpn_levels, roi_align
from ...ops.pooling.roi_pool import roi_pool


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


class Trunk(nn.Module):
    """What runs on pooled regions before the heads: a last stage of a backbone, or all of it."""

    def tail(self, x: Tensor) -> Tensor:
        """Return the features that the heads see of what the pooler returns."""
        raise NotImplementedError


class AlignPooler:
    """RoIAlign from the maps at `strides`, each region from one of them by the rule of FPN.

    Args:
        strides: strides of the maps, fine to coarse; maps beyond them (P6) are not pooled from.
        sampling_ratio: samples a bin along each axis; 0: by the size of the region.
        aligned: pixel centres at half-integers.
        level_rule: whose rule of FPN, see `ops.pooling.roi_align.fpn_levels`.
        cut: pixels at the right and the bottom that are not pooled (Detectron: the last one).
    """

    def __init__(
        self,
        strides: Sequence[int],
        *,
        sampling_ratio: int = 2,
        aligned: bool = True,
        level_rule: str = "torchvision",
        cut: float = 0.0,
    ) -> None:
        self.strides = tuple(strides)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.level_rule = level_rule
        self.cut = cut

    def __call__(
        self, maps: Sequence[Tensor], boxes: Tensor, batch_index: Tensor, side: int
    ) -> Tensor:
        """Return (R, C, side, side); see `Pooler`."""
        ends = torch.cat([boxes[:, :2], boxes[:, 2:] - self.cut], 1) if self.cut else boxes
        return roi_align(
            list(maps[: len(self.strides)]),
            ends,
            batch_index,
            strides=self.strides,
            output_size=side,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
            levels=fpn_levels(boxes, self.strides, self.level_rule),
        )


class MapPooler:
    """Pools from one map of the image, or from the maps of an image at several scales.

    At several scales each region comes from that at which its area is nearest to 224 x 224, the
    size on which the backbone was trained (He et al. 2014, section 4.1; Girshick 2015, 4.1).

    Args:
        stride: stride of the map in input pixels.
        kind: "pool" (RoIPool) or "align" (RoIAlign).
        scales: sizes of the images behind the maps, in any unit; the largest is the network input
            in whose pixels the boxes are.
        levels: bins along each side of a spatial pyramid, such as (1, 2, 3, 6), in place of the
            side that the head asks for: region features are then (R, C, bins of all levels, 1).
    """

    def __init__(
        self,
        stride: int,
        *,
        kind: str = "pool",
        scales: Sequence[float] = (1,),
        levels: Sequence[int] = (),
    ) -> None:
        if kind not in ("pool", "align"):
            raise OptionError(f"pooling is 'pool' (RoIPool) or 'align' (RoIAlign), got {kind!r}")
        self.stride = stride
        self.kind = kind
        self.ratios = tuple(scale / max(scales) for scale in scales)
        self.levels = tuple(levels)

    @property
    def bins(self) -> int | None:
        """Bins of the pyramid; None without one."""
        return sum(level**2 for level in self.levels) or None

    def __call__(
        self, maps: Sequence[Tensor], boxes: Tensor, batch_index: Tensor, side: int
    ) -> Tensor:
        """Return (R, C, side, side), or (R, C, bins, 1) with a pyramid; see `Pooler`.

        Args:
            maps: one of the network input, or one for each scale.
            boxes: see `Pooler`.
            batch_index: see `Pooler`.
            side: see `Pooler`.
        """
        if len(maps) == 1:
            return self._pool(maps[0], boxes, batch_index, side)
        assert len(maps) == len(self.ratios)
        scale = nearest_scale(boxes, self.ratios)
        pooled: Tensor | None = None
        for i, (single, ratio) in enumerate(zip(maps, self.ratios, strict=True)):
            here = scale == i
            if torch.compiler.is_compiling():  # a graph cannot count the regions of a scale
                part = self._pool(single, boxes * ratio, batch_index, side)
                shown = here[:, None, None, None]
                pooled = part if pooled is None else torch.where(shown, part, pooled)
                continue
            rows = here.nonzero()[:, 0]
            part = self._pool(single, boxes[rows] * ratio, batch_index[rows], side)
            if pooled is None:
                pooled = part.new_zeros((len(boxes), *part.shape[1:]))
            pooled = pooled.index_copy(0, rows, part)
        assert pooled is not None
        return pooled

    def _pool(self, single: Tensor, boxes: Tensor, batch_index: Tensor, side: int) -> Tensor:
        def pool(bins: int) -> Tensor:
            if self.kind == "pool":
                return roi_pool(single, boxes, batch_index, stride=self.stride, output_size=bins)
            strides = (self.stride,)
            return roi_align(single, boxes, batch_index, strides=strides, output_size=bins)

        if not self.levels:
            return pool(side)
        return torch.cat([pool(level).flatten(2) for level in self.levels], 2)[..., None]


class CropPooler:
    """Warps regions of the image itself to a square, with context (Girshick et al. 2014, app. A).

    Whatever its shape, a region fills the inner part of the square; the pixels around it, of the
    same width on all sides, come from around the region, stretched alike. Bilinear, without a
    low-pass filter, as in the published code; outside the image there are zeros, the mean of
    standardised pixels.

    Args:
        size: side of the square.
        context: pixels around the inner part on each side.
    """

    def __init__(self, size: int, context: int) -> None:
        if not 0 <= 2 * context < size:
            raise OptionError(f"context must lie between 0 and half of {size}, got {context}")
        self.size = size
        self.context = context

    def __call__(
        self, maps: Sequence[Tensor], boxes: Tensor, batch_index: Tensor, side: int
    ) -> Tensor:
        """Return (R, 3, size, size) of images (B, 3, H, W); `side` is that of later features."""
        scale = self.size / (self.size - 2 * self.context)
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        around = torch.cat([centre - half * scale, centre + half * scale], 1)
        return roi_align(
            maps[0], around, batch_index, strides=(1,), output_size=self.size, sampling_ratio=1
        )


def nearest_scale(boxes: Tensor, ratios: Sequence[float]) -> Tensor:
    """Return which scale (R,) int64 brings the area of each box nearest to 224 x 224.

    Args:
        boxes: (R, 4) xyxy, pixels of the image at ratio 1.
        ratios: sizes of the image at each scale, relative to that.
    """
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    areas = area[:, None] * torch.tensor([r * r for r in ratios], device=boxes.device)
    return (areas - 224**2).abs().argmin(1)


class PartPooler:
    """Position-sensitive pooling from one map, the first: each bin has maps of its own.

    Args:
        stride: its stride in input pixels.
        kind: "pool" (whole pixels, Dai et al. 2016, eq. 1) or "align" (bilinear samples).
        sampling_ratio: samples a bin along each axis, for "align"; 0: by the size of the region.
    """

    def __init__(self, stride: int, *, kind: str = "pool", sampling_ratio: int = 2) -> None:
        if kind not in ("pool", "align"):
            raise OptionError(f"pooling is 'pool' or 'align', got {kind!r}")
        self.stride = stride
        self.kind = kind
        self.sampling_ratio = sampling_ratio

    def __call__(
        self, maps: Sequence[Tensor], boxes: Tensor, batch_index: Tensor, side: int
    ) -> Tensor:
        """Return (R, C / side / side, side, side); see `Pooler`."""
        if self.kind == "pool":
            return ps_roi_pool(maps[0], boxes, batch_index, stride=self.stride, output_size=side)
        return ps_roi_align(
            maps[0],
            boxes,
            batch_index,
            stride=self.stride,
            output_size=side,
            sampling_ratio=self.sampling_ratio,
        )
