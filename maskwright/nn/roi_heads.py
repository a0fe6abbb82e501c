"""Heads on regions: sampling of proposals, pooling from the pyramid, box and mask branches.

Faster R-CNN (Ren et al. 2015) with the box head alone, Mask R-CNN (He et al. 2017) with a mask
head beside it. In training both branches see the sampled proposals; at test the mask branch sees
the final boxes only (He et al. 2017, section 3.1, inference).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..ops.roi_align import roi_align
from ..structures import Instances
from .box_head import BoxHead, BoxTargets
from .mask_head import MaskHead
from .matchers import IoUMatcher
from .ragged import active_slots, gather_slots, put_back, take
from .samplers import BalancedSampler, RandomSource, Sample


class RoIHeads(nn.Module):
    """Box head, optional mask head, and what feeds them.

    Args:
        box_head: classifies and refines.
        mask_head: cuts out, or None.
        strides: strides of the pyramid levels that regions are pooled from, fine to coarse.
        sampling_ratio: of RoIAlign.
        aligned: of RoIAlign.
        matcher: assigns proposals to ground truth.
        sampler: picks the proposals of the loss.
    """

    def __init__(
        self,
        box_head: BoxHead,
        mask_head: MaskHead | None,
        *,
        strides: Sequence[int],
        sampling_ratio: int = 2,
        aligned: bool = True,
        matcher: IoUMatcher | None = None,
        sampler: BalancedSampler | None = None,
    ) -> None:
        super().__init__()
        self.box_head = box_head
        self.mask_head = mask_head
        self.strides = tuple(strides)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.matcher = matcher or IoUMatcher(0.5, 0.5)
        self.sampler = sampler or BalancedSampler(512, 0.25)

    def pool(
        self, pyramid: Sequence[Tensor], boxes: Tensor, batch_index: Tensor, side: int
    ) -> Tensor:
        """Return region features (R, C, side, side) of boxes (R, 4) in padded-image pixels."""
        # Regions come from P2 to P5; P6 serves the proposals only (Lin et al. 2017, 4.2).
        return roi_align(
            list(pyramid[: len(self.strides)]),
            boxes,
            batch_index,
            strides=self.strides,
            output_size=side,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
        )

    def predict(
        self,
        pyramid: Sequence[Tensor],
        proposals: Instances,
        sizes: Tensor,
        *,
        score_thresh: float,
        nms_thresh: float,
        max_det: int,
    ) -> Instances:
        """Return the detections of each image by falling score.

        Args:
            pyramid: (B, C, H_l, W_l) per level.
            proposals: (B, K) slots.
            sizes: (B, 2) (height, width) of the images before padding.
            score_thresh, nms_thresh, max_det: see `BoxHead.decode`.

        Returns:
            `Instances` with (B, max_det) slots, `mask_crops` if there is a mask head.
        """
        shape = (proposals.valid.shape[0], proposals.valid.shape[1])
        rows = active_slots(proposals.valid)
        feats = self.pool(
            pyramid, take(proposals.boxes, rows), rows // shape[1], self.box_head.pool
        )
        output = self.box_head(feats)
        scores = output.logits.float().softmax(-1)[:, :-1]
        boxes, score, labels, valid = self.box_head.decode(
            put_back(scores, rows, shape),
            put_back(output.deltas.float(), rows, shape),
            proposals.boxes,
            proposals.valid,
            sizes,
            score_thresh=score_thresh,
            nms_thresh=nms_thresh,
            max_det=max_det,
        )
        crops = None
        if self.mask_head is not None:
            rows = active_slots(valid)
            box, label, image = take(boxes, rows), take(labels, rows), rows // valid.shape[1]
            feats = self.pool(pyramid, box, image, self.mask_head.pool)
            masks = self.mask_head.decode(self.mask_head(feats, pyramid, box, image, label))
            crops = put_back(masks.float(), rows, (valid.shape[0], valid.shape[1]))
            crops = crops * valid[..., None, None]
        return Instances(boxes, labels, valid, score, mask_crops=crops)

    @torch.no_grad()
    def sample(
        self,
        proposals: Instances,
        targets: Instances,
        *,
        generator: RandomSource = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Sample]:
        """Pick the proposals of the losses; the ground truth takes part as proposals.

        Returns:
            boxes (B, S, 4), the matched ground-truth slot (B, S), and the sample.
        """
        usable = targets.valid if targets.crowd is None else targets.valid & ~targets.crowd
        boxes = torch.cat([proposals.boxes, targets.boxes], 1)
        valid = torch.cat([proposals.valid, usable], 1)
        match = self.matcher(boxes, targets.boxes, targets.valid, targets.crowd)
        state = torch.where(valid, match.state, -1)
        ids = None
        if proposals.ids is not None:  # by rounding, two proposals may swap their slots
            own = -1 - torch.arange(targets.valid.shape[1], device=valid.device)
            ids = torch.cat([proposals.ids, own.expand_as(targets.valid)], 1)
        sample = self.sampler(state, generator=generator, noise=noise, ids=ids)
        return gather_slots(boxes, sample.slot), gather_slots(match.slot, sample.slot), sample

    def losses(
        self,
        pyramid: Sequence[Tensor],
        proposals: Instances,
        targets: Instances,
        sizes: Tensor,
        *,
        generator: RandomSource = None,
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return `roi/class`, `roi/box` and the terms of the mask head.

        Args:
            pyramid: (B, C, H_l, W_l) per level.
            proposals: (B, K) slots.
            targets: ground truth; with masks if there is a mask head.
            sizes: (B, 2) (height, width) of the images before padding.
            generator: source of the random numbers of the sampler.
            noise: (B, K + targets) in place of them.

        Raises:
            ValueError: if there is a mask head and `targets` has no masks.
        """
        boxes, gt, sample = self.sample(proposals, targets, generator=generator, noise=noise)
        background = self.box_head.num_classes
        labels = torch.where(sample.positive, gather_slots(targets.labels, gt), background)
        rows = active_slots(sample.valid)
        slots = sample.valid.shape[1]
        roi = take(boxes, rows)
        feats = self.pool(pyramid, roi, rows // slots, self.box_head.pool)
        losses = self.box_head.loss(
            self.box_head(feats),
            roi,
            BoxTargets(take(labels, rows), take(gather_slots(targets.boxes, gt), rows)),
            take(sample.valid, rows),
        )
        if self.mask_head is None:
            return losses
        if targets.masks is None:
            raise ValueError(
                "this detector has a mask head, but the targets have no masks; train a "
                "`faster_rcnn_...` model on data with boxes only"
            )
        # Positives stand first, so the mask branch needs only the slots that can hold one.
        most = min(self.sampler.max_positives, slots)
        positive = sample.positive[:, :most]
        goal = self.mask_head.targets(targets.masks, boxes[:, :most], gt[:, :most], positive, sizes)
        rows = active_slots(positive)
        roi, image = take(boxes[:, :most], rows), rows // most
        label = take(labels[:, :most], rows).clamp(max=background - 1)
        output = self.mask_head(
            self.pool(pyramid, roi, image, self.mask_head.pool), pyramid, roi, image, label
        )
        goal = type(goal)(tuple(mask[rows] for mask in goal.masks))
        losses.update(self.mask_head.loss(output, goal, take(positive, rows)))
        return losses
