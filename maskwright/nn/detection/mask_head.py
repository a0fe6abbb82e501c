"""Mask head of Mask R-CNN (He et al. 2017, section 3, fig. 4 right) and what any mask head offers.

One mask per class, each with its own sigmoid: classes do not compete. Loss and prediction use the
mask of one class only, the ground truth's or the predicted one, so only that one is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.mask_crops import crop_masks
from ...structures import Instances
from ..norm import conv_block, init_convs
from ..parallel import mean_count
from ..ragged import in_parts
from ..winograd import REGIONS

_REGIONS = 16  # so many upsampled features stay in the cache


class MaskOutput(NamedTuple):
    """What a mask head returns.

    Attributes:
        logits: maps (R, M, M) or (R, 1, M, M) of the class asked for, coarse to fine; a plain
            head has one.
        semantic: (B, 1, h, w) logits of foreground over the whole image, or None.
    """

    logits: Sequence[Tensor]
    semantic: Tensor | None = None


@dataclass(frozen=True)
class MaskTargets:
    """Targets of a mask head.

    Attributes:
        masks: (R, M, M) in [0, 1] for each size in `MaskOutput.logits`.
        semantic: (B, h, w), 0 or 1, for a head with semantic logits.
    """

    masks: tuple[Tensor, ...]
    semantic: Tensor | None = None


class MaskHead(Protocol):
    """What `RoIHeads` needs of a mask head; a head that needs fine features reads the pyramid."""

    pool: int

    def __call__(
        self,
        roi_feats: Tensor,
        pyramid: Sequence[Tensor],
        boxes: Tensor,
        batch_index: Tensor,
        labels: Tensor,
    ) -> MaskOutput:
        """Run the head on R regions."""
        ...

    def targets(
        self,
        gt: Instances,
        boxes: Tensor,
        gt_index: Tensor,
        valid: Tensor,
        sizes: Tensor,
        pyramid: Sequence[Tensor],
    ) -> MaskTargets:
        """Cut the targets of boxes (B, S, 4) from the ground truth; (B * S, M, M)."""
        ...

    def loss(self, output: MaskOutput, targets: MaskTargets, valid: Tensor) -> dict[str, Tensor]:
        """Return the loss terms of R regions, of which `valid` (R,) count."""
        ...

    def decode(self, output: MaskOutput) -> Tensor:
        """Return mask probabilities (R, M, M)."""
        ...


def own_rows(layer: nn.Conv2d, labels: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the rows of a 1x1 convolution that belong to each region's class.

    Args:
        layer: one output per class, or a single one for all.
        labels: (R,) int64.
        dtype: type of the result.

    Returns:
        Weights (R, C) and biases (R,).
    """
    assert layer.bias is not None
    row = labels if layer.out_channels > 1 else torch.zeros_like(labels)
    return layer.weight.flatten(1)[row].to(dtype), layer.bias[row].to(dtype)


class ConvMaskHead(nn.Module):
    """3x3 convolutions, a 2x2 transposed convolution and a 1x1 predictor per class.

    Args:
        channels: channels of the region features.
        num_classes: real classes.
        pool: side of the region features; masks are twice that.
        convs: number of 3x3 convolutions.
        width: their channels.
        norm: their norm: None, "bn" or "gn".
        binary_targets: threshold the targets at 0.5; otherwise the interpolated values train.
        aligned: see `ops.roi_align`; how targets are cut.
    """

    class_rows: ClassVar = {"logits": (1, False)}

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        pool: int = 14,
        convs: int = 4,
        width: int = 256,
        norm: str | None = None,
        binary_targets: bool = True,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.binary_targets = binary_targets
        self.aligned = aligned
        sizes = [channels] + [width] * convs
        self.convs = nn.ModuleList(
            conv_block(a, b, norm=norm, tiles=REGIONS) for a, b in pairwise(sizes)
        )
        self.upsample = nn.ConvTranspose2d(sizes[-1], width, 2, stride=2)
        self.logits = nn.Conv2d(width, num_classes, 1)
        init_convs(self)

    def forward(
        self,
        roi_feats: Tensor,
        pyramid: Sequence[Tensor],
        boxes: Tensor,
        batch_index: Tensor,
        labels: Tensor,
    ) -> MaskOutput:
        """Return the mask logits of one class per region.

        Args:
            roi_feats: (R, channels, pool, pool).
            pyramid: not used by this head.
            boxes: not used by this head.
            batch_index: not used by this head.
            labels: (R,) int64, the class of each region.

        Returns:
            `MaskOutput` with one map of 2 * pool a side.
        """
        x = roi_feats
        for block in self.convs:
            x = block(x)
        return MaskOutput(tuple(in_parts(self._predict, _REGIONS, x, labels)))

    def _predict(self, x: Tensor, labels: Tensor) -> list[Tensor]:
        """Upsample (R, width, h, w) and return the logits (R, 2 h, 2 w) of the classes `labels`."""
        # The 2x2 transposed convolution with stride 2 as one product: its outputs do not overlap,
        # so a pixel gives four. They stay side by side until only the mask is to be sorted.
        regions, _, high, wide = x.shape
        kernel = self.upsample.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 * width, width)
        offset = self.upsample.bias.repeat(4)  # type: ignore[union-attr]
        x = F.relu(F.linear(x.permute(0, 2, 3, 1), kernel, offset), inplace=True)
        x = x.reshape(regions, high * wide * 4, kernel.shape[0] // 4)
        # The 1x1 convolution of the region's own class: its row of weights times the features.
        weight, bias = own_rows(self.logits, labels, x.dtype)
        logits = torch.bmm(x, weight[:, :, None]).reshape(regions, high, wide, 2, 2)
        logits = logits.transpose(2, 3).reshape(regions, 2 * high, 2 * wide)
        return [logits + bias[:, None, None]]

    def targets(
        self,
        gt: Instances,
        boxes: Tensor,
        gt_index: Tensor,
        valid: Tensor,
        sizes: Tensor,
        pyramid: Sequence[Tensor],
    ) -> MaskTargets:
        """Cut the ground-truth masks by the boxes.

        Args:
            gt: ground truth with masks, (B, K) slots.
            boxes: (B, S, 4) xyxy, padded-image pixels.
            gt_index: (B, S) slot of the ground truth of each box.
            valid: (B, S) bool.
            sizes: (B, 2) (height, width) of the images, beyond which masks go on as at the border.
            pyramid: not used by this head.
        """
        assert gt.masks is not None
        cut = crop_masks(
            gt.masks,
            boxes,
            gt_index,
            valid,
            2 * self.pool,
            aligned=self.aligned,
            image_sizes=sizes,
        )
        cut = cut.flatten(0, 1)
        return MaskTargets(((cut >= 0.5).to(cut.dtype) if self.binary_targets else cut,))

    def loss(self, output: MaskOutput, targets: MaskTargets, valid: Tensor) -> dict[str, Tensor]:
        """Return `roi/mask`: the mean binary cross-entropy over the pixels of the valid regions."""
        (logits,), (goal,) = output.logits, targets.masks
        loss = F.binary_cross_entropy_with_logits(logits.float(), goal, reduction="none")
        mean = loss.mean((1, 2))
        return {"roi/mask": torch.where(valid, mean, 0).sum() / mean_count(valid)}

    def decode(self, output: MaskOutput) -> Tensor:
        """Return mask probabilities (R, M, M)."""
        return output.logits[-1].sigmoid()
