"""Keypoint head of Mask R-CNN (He et al. 2017, section 5): one map per keypoint, one hot cell each.

A keypoint is a softmax over the cells of its map, so its position is a choice among all of them;
keypoints do not compete, and classes share their maps. As in detectron2, a cell's centre stands
for it, and maps are enlarged to the size of the box to find a position between cells. Unlike
there, regions without a visible keypoint stay in the batch and count nothing.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.keypoints import locate_keypoints
from ..norm import conv_block, init_convs
from ..parallel import mean_count
from ..ragged import gather_slots


class KeypointTargets(NamedTuple):
    """Targets of R regions: cell (R, J) int64 in row-major order, shown (R, J) bool: it counts."""

    cell: Tensor
    shown: Tensor


class KeypointHead(nn.Module):
    """3x3 convolutions, a 4x4 transposed convolution per keypoint, and a bilinear enlargement.

    Args:
        channels: channels of the region features.
        num_keypoints: keypoints J.
        pool: side of the region features; maps are four times that.
        convs: number of 3x3 convolutions.
        width: their channels.
        norm: their norm: None, "bn" or "gn".
        scores: what stands beside a position: "probability", the softmax of the highest cell;
            "enlarged", that of the highest point of the enlarged map among the cells (detectron2),
            which may pass 1, as bicubic interpolation rises above its samples; or "logit", the raw
            value of that point (torchvision).
    """

    # Layers with rows per keypoint: the axis of them in each tensor.
    keypoint_axes: ClassVar = {"logits.weight": 1, "logits.bias": 0}

    def __init__(
        self,
        channels: int,
        num_keypoints: int,
        *,
        pool: int = 14,
        convs: int = 8,
        width: int = 512,
        norm: str | None = None,
        scores: str = "probability",
    ) -> None:
        super().__init__()
        if scores not in ("probability", "enlarged", "logit"):
            raise ValueError(f"scores is 'probability', 'enlarged' or 'logit', got {scores!r}")
        self.num_keypoints = num_keypoints
        self.pool = pool
        self.side = 4 * pool
        self.scores = scores
        sizes = [channels] + [width] * convs
        self.convs = nn.ModuleList(conv_block(a, b, norm=norm) for a, b in pairwise(sizes))
        self.logits = nn.ConvTranspose2d(sizes[-1], num_keypoints, 4, stride=2, padding=1)
        init_convs(self)

    def forward(self, roi_feats: Tensor) -> Tensor:
        """Return the logits (R, J, 4 * pool, 4 * pool) of region features (R, C, pool, pool)."""
        x = roi_feats
        for block in self.convs:
            x = block(x)
        x = self.logits(x)
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)

    def targets(self, points: Tensor, boxes: Tensor, gt_index: Tensor) -> KeypointTargets:
        """Return the cells in which the keypoints of the ground truth lie.

        Args:
            points: (B, K, J, 3) x, y in padded-image pixels, and visibility.
            boxes: (B, S, 4) xyxy, padded-image pixels.
            gt_index: (B, S) slot of the ground truth of each box.

        Returns:
            `KeypointTargets` of B * S regions; a keypoint counts if it is labelled, occluded or
            not, and lies in the box.
        """
        own = gather_slots(points.flatten(2), gt_index).unflatten(2, points.shape[2:])
        own, boxes = own.flatten(0, 1), boxes.flatten(0, 1)[:, None]  # (R, J, 3), (R, 1, 4)
        xy, low, high = own[..., :2], boxes[..., :2], boxes[..., 2:]
        scale = self.side / (high - low).clamp(min=1e-6)
        cell = ((xy - low) * scale).floor().long()
        # The far border belongs to the last cell.
        cell = torch.where(xy == high, self.side - 1, cell)
        inside = ((cell >= 0) & (cell < self.side)).all(-1)
        shown = (own[..., 2] > 0) & inside
        return KeypointTargets(
            torch.where(shown, cell[..., 1] * self.side + cell[..., 0], 0), shown
        )

    def loss(self, logits: Tensor, targets: KeypointTargets, valid: Tensor) -> dict[str, Tensor]:
        """Return `roi/keypoints`: the mean cross-entropy over the keypoints that count.

        They are counted over all processes (see `parallel.mean_count`).

        Args:
            logits: (R, J, M, M).
            targets: of the same regions.
            valid: (R,) bool: regions that count.
        """
        shown = targets.shown & valid[:, None]
        log_probs = logits.float().flatten(2).log_softmax(-1)
        loss = -log_probs.gather(2, targets.cell[..., None])[..., 0]
        return {"roi/keypoints": torch.where(shown, loss, 0).sum() / mean_count(shown)}

    def decode(self, logits: Tensor, boxes: Tensor, longest: int | None = None) -> Tensor:
        """Return the keypoints (R, J, 3) of boxes (R, 4): x, y in the frame of the boxes, score.

        Args:
            logits: (R, J, M, M).
            boxes: (R, 4) xyxy.
            longest: see `ops.locate_keypoints`.
        """
        logits = logits.float()
        points = locate_keypoints(logits, boxes, longest=longest)
        if self.scores == "logit":
            return points
        cells = logits.flatten(2)
        highest = points[..., 2] if self.scores == "enlarged" else cells.amax(-1)
        score = (highest - cells.logsumexp(-1)).exp()
        return torch.cat([points[..., :2], score[..., None]], -1)
