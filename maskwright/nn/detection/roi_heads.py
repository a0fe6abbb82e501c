"""Heads on regions: sampling of proposals, pooling from the pyramid, and the branches.

Faster R-CNN (Ren et al. 2015) with the box head alone, Mask R-CNN (He et al. 2017) with a mask
head, a keypoint head or both beside it. In training all branches see the sampled proposals, masks
and keypoints only those on objects; at test the latter see the final boxes (He et al. 2017,
section 3.1, inference). Regions come from the levels of a pyramid or from one map, by RoIAlign,
RoIPool or their position-sensitive kin; a last stage of the backbone may run on them first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...ops.soft_nms import SoftNMS
from ...structures import Instances, widened
from ..dropout import RegionNoise
from ..norm import still_norms
from ..ragged import GOOD_SCORE, PER_OBJECT, active_slots, gather_slots, in_parts, put_back, take
from ..random import RandomSource
from .box_head import BoxBranch, BoxOutput, BoxTargets
from .keypoint_head import KeypointHead, KeypointTargets
from .mask_head import MaskHead
from .matchers import IoUMatcher
from .poolers import Pooler, Trunk
from .samplers import BalancedSampler, HardSampler, Sample

# More proposals or objects of an image than this are computed so many regions at a time: all of
# them at once would take gigabytes.
_MANY, _PART = 4096, 2048
_MANY_OBJECTS, _OBJECTS = 1000, 512


class Sampled(NamedTuple):
    """The boxes that the box losses count.

    Attributes:
        boxes: (B, S, 4).
        gt: (B, S) int64, the matched slots of the ground truth.
        positive: (B, S) bool.
        valid: (B, S) bool.
    """

    boxes: Tensor
    gt: Tensor
    positive: Tensor
    valid: Tensor


class RoIHeads(nn.Module):
    """Box head, optional mask and keypoint heads, and what feeds them.

    Args:
        box_head: classifies and refines.
        mask_head: cuts out, or None.
        keypoint_head: finds keypoints, or None.
        pooler: takes the features of regions from the maps.
        trunk_stride: 2 if a stage that halves the size runs on regions before the heads.
        matcher: assigns proposals to ground truth.
        sampler: picks the proposals of the loss.
        part: regions that are computed at once where no gradients are needed, to bound memory;
            None: all.
        mask_reach: sides of the frame in which the mask head cuts an object out, times those of its
            box, in training and at test. Beyond 1 a mask goes on where its box is too small.
    """

    def __init__(
        self,
        box_head: BoxBranch,
        mask_head: MaskHead | None = None,
        keypoint_head: KeypointHead | None = None,
        *,
        pooler: Pooler,
        trunk_stride: int = 1,
        matcher: IoUMatcher | None = None,
        sampler: BalancedSampler | HardSampler | None = None,
        part: int | None = None,
        mask_reach: float = 1.0,
    ) -> None:
        super().__init__()
        self.box_head = box_head
        self.mask_head = mask_head
        self.keypoint_head = keypoint_head
        self.pooler = pooler
        self.trunk_stride = trunk_stride
        self.part = part
        self.mask_reach = mask_reach
        self.matcher = matcher or IoUMatcher(0.5, 0.5)
        self.sampler = sampler or BalancedSampler(512, 0.25)

    def pool(
        self, pyramid: Sequence[Tensor], boxes: Tensor, batch_index: Tensor, side: int
    ) -> Tensor:
        """Return region features (R, C, side, side) of boxes (R, 4) in padded-image pixels."""
        return self.pooler(pyramid, boxes, batch_index, side)

    def regions(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor,
        batch_index: Tensor,
        side: int,
        trunk: Trunk | None,
    ) -> Tensor:
        """Return region features (R, C, side, side) as the heads see them, behind the trunk."""
        feats = self.pool(maps, boxes, batch_index, side * self.trunk_stride)
        return feats if trunk is None else trunk.tail(feats)

    def regions_for_branches(
        self, maps: Sequence[Tensor], boxes: Tensor, batch_index: Tensor, trunk: Trunk | None
    ) -> dict[tuple[int, float], Tensor]:
        """Return what mask and keypoint heads see of boxes, by `pool` and reach of these heads."""
        heads = ((self.mask_head, self.mask_reach), (self.keypoint_head, 1.0))
        looks = sorted({(head.pool, reach) for head, reach in heads if head is not None})
        return {
            (side, reach): self.regions(maps, widened(boxes, reach), batch_index, side, trunk)
            for side, reach in looks
        }

    def predict(
        self,
        pyramid: Sequence[Tensor],
        proposals: Instances,
        sizes: Tensor,
        *,
        score_thresh: float,
        nms_thresh: float,
        max_det: int,
        trunk: Trunk | None = None,
        soft_nms: SoftNMS | None = None,
        longest: int | None = None,
    ) -> Instances:
        """Return the detections of each image by falling score.

        Args:
            pyramid: (B, C, H_l, W_l) per level.
            proposals: (B, K) slots.
            sizes: (B, 2) (height, width) of the images before padding.
            score_thresh, nms_thresh, max_det, soft_nms: see `BoxBranch.decode`.
            trunk: what runs on regions before the heads, such as a backbone's last stage; or None.
            longest: longest side of the padded images; graphs with keypoints need it.

        Returns:
            `Instances` with (B, max_det) slots, `mask_crops` if there is a mask head, `keypoints`
            if there is a keypoint head, `short` if the proposals say which of them are late.
        """
        proposals = proposals.with_a_slot()
        scores, deltas, rois = self.judge(pyramid, proposals, sizes, trunk)
        boxes, score, labels, valid, slot = self.last_box_head.decode(
            scores,
            deltas,
            rois,
            proposals.valid,
            sizes,
            score_thresh=score_thresh,
            nms_thresh=nms_thresh,
            max_det=max_det,
            soft_nms=soft_nms,
        )
        short = None
        if proposals.late is not None:
            good = valid & (score >= GOOD_SCORE)
            few = PER_OBJECT * good.sum(1) > proposals.valid.shape[1]
            short = few & (good & gather_slots(proposals.late, slot)).any(1)
        found = Instances(boxes, labels, valid, score, short=short)
        return self.refine(pyramid, found, trunk=trunk, longest=longest)

    @property
    def last_box_head(self) -> BoxBranch:
        """The box head whose deltas lead to the boxes that are found."""
        return self.box_head

    def judge(
        self, pyramid: Sequence[Tensor], proposals: Instances, sizes: Tensor, trunk: Trunk | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores (B, K, C), deltas (B, K, C or 1, 4), and the boxes (B, K, 4) of these.

        Args:
            pyramid, sizes, trunk: see `predict`.
            proposals: (B, K) slots, at least one.
        """
        scores, deltas = self._judged(self.box_head, pyramid, proposals, trunk)
        return scores, deltas, proposals.boxes

    def _judged(
        self,
        head: BoxBranch,
        pyramid: Sequence[Tensor],
        regions: Instances,
        trunk: Trunk | None,
    ) -> tuple[Tensor, Tensor]:
        """Return what a box head says of regions (B, K): scores and deltas; see `judge`."""
        shape = (regions.valid.shape[0], regions.valid.shape[1])
        rows = active_slots(regions.valid)
        maps = head.maps(pyramid)

        def run(box: Tensor, image: Tensor) -> list[Tensor]:
            output = head(self.regions(maps, box, image, head.pool, trunk))
            return [head.scores(output), output.deltas.float()]

        box, image = take(regions.boxes, rows), rows // shape[1]
        scores, deltas = self._in_parts(run, box, image, many=shape[1] > _MANY)
        return put_back(scores, rows, shape), put_back(deltas, rows, shape)

    def refine(
        self,
        pyramid: Sequence[Tensor],
        found: Instances,
        *,
        trunk: Trunk | None = None,
        longest: int | None = None,
    ) -> Instances:
        """Return detections with the masks and keypoints that the other heads find in their boxes.

        Args:
            pyramid, trunk, longest: see `predict`.
            found: (B, K) slots.
        """
        if self.mask_head is None and self.keypoint_head is None:
            return found
        valid = found.valid
        shape = (valid.shape[0], valid.shape[1])
        rows = active_slots(valid)
        box, label, image = take(found.boxes, rows), take(found.labels, rows), rows // shape[1]
        run = partial(self._look, pyramid, trunk, longest)
        if shape[1] > _MANY_OBJECTS:
            looked = in_parts(run, _OBJECTS, box, image, label)
        else:
            looked = run(box, image, label)
        used = valid[..., None, None]
        seen = [put_back(values, rows, shape).mul_(used) for values in looked]
        crops = None if self.mask_head is None else seen[0]
        points = None if self.keypoint_head is None else seen[-1]
        return replace(found, mask_crops=crops, keypoints=points)

    def _look(
        self,
        pyramid: Sequence[Tensor],
        trunk: Trunk | None,
        longest: int | None,
        box: Tensor,
        image: Tensor,
        label: Tensor,
    ) -> list[Tensor]:
        """Return masks and keypoints, as far as there are heads, of the objects in R boxes."""
        pooled = self.regions_for_branches(pyramid, box, image, trunk)
        looked = []
        if self.mask_head is not None:
            feats, frame = self._mask_view(pooled, box)
            masks = self.mask_head(feats, pyramid, frame, image, label)
            looked.append(self.mask_head.decode(masks).float())
        if self.keypoint_head is not None:
            maps = self.keypoint_head(pooled[self.keypoint_head.pool, 1.0])
            looked.append(self.keypoint_head.decode(maps, box, longest))
        return looked

    def _mask_view(
        self, pooled: Mapping[tuple[int, float], Tensor], boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the features that the mask head sees of boxes (R, 4), and their frames (R, 4)."""
        assert self.mask_head is not None
        return pooled[self.mask_head.pool, self.mask_reach], widened(boxes, self.mask_reach)

    @torch.no_grad()
    def sample(
        self,
        proposals: Instances,
        targets: Instances,
        *,
        generator: RandomSource = None,
        noise: Tensor | None = None,
        hardness: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Sample]:
        """Pick the proposals of the losses; the ground truth takes part as proposals.

        Args:
            proposals: (B, K) slots.
            targets: ground truth.
            generator: source of the random numbers of the sampler.
            noise: (B, K + targets) in place of them.
            hardness: for a sampler of the hardest: from boxes (B, N, 4), their matched
                ground-truth slots and states to their losses (B, N).

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
        if isinstance(self.sampler, HardSampler):
            assert hardness is not None
            sample = self.sampler(state, boxes, hardness(boxes, match.slot, state))
        else:
            sample = self.sampler(state, generator=generator, noise=noise, ids=ids)
        return gather_slots(boxes, sample.slot), gather_slots(match.slot, sample.slot), sample

    def _box_targets(
        self, targets: Instances, gt: Tensor, positive: Tensor, rows: Tensor
    ) -> BoxTargets:
        """Return the targets of the boxes at flat positions `rows` of (B, S) slots."""
        labels = torch.where(positive, gather_slots(targets.labels, gt), self.box_head.num_classes)
        return BoxTargets(take(labels, rows), take(gather_slots(targets.boxes, gt), rows))

    def _hardness(
        self,
        maps: Sequence[Tensor],
        trunk: Trunk | None,
        targets: Instances,
        boxes: Tensor,
        gt: Tensor,
        state: Tensor,
    ) -> Tensor:
        """Return the loss (B, N) of all boxes (B, N, 4); a pass that leaves and drops nothing."""
        rows, count = active_slots(state >= 0), state.shape[1]
        roi = take(boxes, rows)
        goal = self._box_targets(targets, gt, state == 1, rows)
        with still_norms([self.box_head] if trunk is None else [self.box_head, trunk]):
            run = partial(self._raw, maps, trunk)
            output = BoxOutput(*self._in_parts(run, roi, rows // count))
        classes, box = self.box_head.losses_by_box(output, roi, goal)
        return put_back(classes + box, rows, (state.shape[0], count))

    def _in_parts(
        self, run: Callable[..., list[Tensor]], *regions: Tensor, many: bool = False
    ) -> list[Tensor]:
        """Run a head on `part` regions at a time, or on `_PART` if they are many; see `in_parts`.

        Args:
            run: see `in_parts`.
            *regions: see `in_parts`.
            many: there are so many of them.
        """
        part = _PART if many and self.part is None else self.part
        return run(*regions) if part is None else in_parts(run, part, *regions)

    def _raw(
        self, maps: Sequence[Tensor], trunk: Trunk | None, boxes: Tensor, image: Tensor
    ) -> list[Tensor]:
        """Return logits and deltas of boxes (R, 4) on the maps of their images."""
        output = self.box_head(self.regions(maps, boxes, image, self.box_head.pool, trunk))
        return [output.logits, output.deltas]  # a head may return more

    def box_losses(
        self,
        maps: Sequence[Tensor],
        sampled: Sampled,
        targets: Instances,
        sizes: Tensor,
        generator: RandomSource,
        trunk: Trunk | None,
    ) -> dict[str, Tensor]:
        """Return the terms of the box head; see `losses`.

        Args:
            maps: from which the regions of the box head are pooled.
            sampled: the boxes that count.
            targets, sizes, generator, trunk: see `losses`.
        """
        return self._taught(self.box_head, maps, sampled, targets, generator, trunk)[0]

    def _taught(
        self,
        head: BoxBranch,
        maps: Sequence[Tensor],
        sampled: Sampled,
        targets: Instances,
        generator: RandomSource,
        trunk: Trunk | None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses of a box head, and its deltas (R, C or 1, 4) of the valid boxes."""
        rows = active_slots(sampled.valid)
        slots = sampled.valid.shape[1]
        roi = take(sampled.boxes, rows)
        feats = self.regions(maps, roi, rows // slots, head.pool, trunk)
        output = head(feats, RegionNoise(generator, rows // slots, rows % slots))
        goal = self._box_targets(targets, sampled.gt, sampled.positive, rows)
        return head.loss(output, roi, goal, take(sampled.valid, rows)), output.deltas

    def losses(
        self,
        pyramid: Sequence[Tensor],
        proposals: Instances,
        targets: Instances,
        sizes: Tensor,
        *,
        generator: RandomSource = None,
        noise: Tensor | None = None,
        trunk: Trunk | None = None,
    ) -> dict[str, Tensor]:
        """Return `roi/class`, `roi/box` and the terms of the other heads.

        Args:
            pyramid: (B, C, H_l, W_l) per level.
            proposals: (B, K) slots.
            targets: ground truth; with masks if there is a mask head, with keypoints if there is
                a keypoint head.
            sizes: (B, 2) (height, width) of the images before padding.
            generator: source of the random numbers of the sampler and of dropout.
            noise: (B, K + targets) in place of those of the sampler.
            trunk: what runs on regions before the heads, such as a backbone's last stage; or None.

        Raises:
            ValueError: if there is a head and `targets` lacks what it learns.
        """
        targets, proposals = targets.with_a_slot(), proposals.with_a_slot()
        maps = self.box_head.maps(pyramid)
        boxes, gt, sample = self.sample(
            proposals,
            targets,
            generator=generator,
            noise=noise,
            hardness=partial(self._hardness, maps, trunk, targets),
        )
        slots = sample.valid.shape[1]
        sampled = Sampled(boxes, gt, sample.positive, sample.valid)
        losses = self.box_losses(maps, sampled, targets, sizes, generator, trunk)
        if self.mask_head is None and self.keypoint_head is None:
            return losses
        # Positives stand first, so these branches need only the slots that can hold one.
        most = min(self.sampler.max_positives, slots)
        boxes, gt, positive = boxes[:, :most], gt[:, :most], sample.positive[:, :most]
        rows = active_slots(positive)
        roi, image, counts = take(boxes, rows), rows // most, take(positive, rows)
        pooled = self.regions_for_branches(pyramid, roi, image, trunk)
        if self.mask_head is not None:
            if targets.masks is None:
                raise ValueError(
                    "this detector has a mask head, but the targets have no masks; train a "
                    "`faster_rcnn_...` model on data with boxes only"
                )
            goal = self.mask_head.targets(
                targets, widened(boxes, self.mask_reach), gt, positive, sizes, pyramid
            )
            goal = replace(goal, masks=tuple(mask[rows] for mask in goal.masks))
            label = take(gather_slots(targets.labels, gt), rows)
            feats, frame = self._mask_view(pooled, roi)
            output = self.mask_head(feats, pyramid, frame, image, label)
            frames = targets.masks.frames
            has_mask = (frames[..., 2:] > frames[..., :2]).all(-1)  # the others say nothing of it
            known = counts & take(gather_slots(has_mask, gt), rows)
            losses.update(self.mask_head.loss(output, goal, known))
        if self.keypoint_head is not None:
            joints = self.keypoint_head.num_keypoints
            if targets.keypoints is None or targets.keypoints.shape[2] != joints:
                has = 0 if targets.keypoints is None else targets.keypoints.shape[2]
                raise ValueError(
                    f"this detector has a head for {joints} keypoints, but the targets have "
                    f"{has or 'no'} keypoints; num_keypoints= sets their number"
                )
            cells = self.keypoint_head.targets(targets.keypoints, boxes, gt)
            cells = KeypointTargets(cells.cell[rows], cells.shown[rows])
            maps = self.keypoint_head(pooled[self.keypoint_head.pool, 1.0])
            losses.update(self.keypoint_head.loss(maps, cells, counts))
        return losses
