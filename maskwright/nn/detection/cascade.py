"""Heads on regions with a cascade of box heads (Cai and Vasconcelos 2018, "Cascade R-CNN").

A detector trained at an IoU of 0.5 gives boxes that are barely better than that, and one trained
at 0.7 on raw proposals has too few of them to learn from. In a cascade each box head starts from
the boxes of the one before it and is trained at a higher IoU. At test the scores of all heads,
each on its own boxes, are averaged; the boxes are those of the last.

As in detectron2 the sampled proposals of the first head go through all of them without being
sampled anew, and masks are learned on the proposals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import OptionError
from ...ops.boxes import clip_boxes, decode_deltas
from ...structures import Instances
from ..ragged import active_slots, put_back, take
from ..random import RandomSource, streams
from .box_head import BoxBranch
from .mask_head import MaskHead
from .matchers import IoUMatcher
from .poolers import Trunk
from .roi_heads import RoIHeads, Sampled

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the deltas of the first head; those of head k are k times so


def cascade_of(
    make: Callable[..., BoxBranch], count: int, loss_weight: float = 1.0
) -> list[BoxBranch]:
    """Return the box heads of a cascade: one box for all classes, ever finer deltas.

    They begin with deltas of next to nothing. Boxes that a random head has moved about overlap no
    object by as much as the heads behind it ask for, and these would have nothing to learn from.

    Args:
        make: builds a box head, given `agnostic`, `weights` and `loss_weight`.
        count: how many.
        loss_weight: factor of the losses of the first; each later one has half of it.
    """
    heads = []
    for number in range(count):
        x, y, width, height = (weight * (number + 1) for weight in WEIGHTS)
        weight = loss_weight / 2**number
        head = make(agnostic=True, weights=(x, y, width, height), loss_weight=weight)
        nn.init.normal_(head.deltas.weight, std=0.001)
        assert head.deltas.bias is not None
        nn.init.zeros_(head.deltas.bias)
        heads.append(head)
    return heads


class CascadeHeads(RoIHeads):
    """Several box heads in a row, and an optional mask head on the boxes of the last.

    Args:
        box_heads: with one box for all classes, the first to run first.
        ious: from which on a box is positive for each of them, rising.
        mask_head: cuts out, or None.
        **options: of `RoIHeads`.

    Raises:
        OptionError: if there are not as many IoUs as heads, or they do not rise.
    """

    def __init__(
        self,
        box_heads: Sequence[BoxBranch],
        ious: Sequence[float],
        mask_head: MaskHead | None = None,
        **options: Any,
    ) -> None:
        if len(ious) != len(box_heads) or sorted(set(ious)) != list(ious):
            raise OptionError(f"ious needs {len(box_heads)} rising numbers, got {tuple(ious)}")
        matchers = [IoUMatcher(iou, iou) for iou in ious]
        super().__init__(box_heads[0], mask_head, matcher=matchers[0], **options)
        self.later = nn.ModuleList(box_heads[1:])
        self.later_matchers = matchers[1:]

    @property
    def last_box_head(self) -> BoxBranch:
        """The box head whose deltas lead to the boxes that are found."""
        last = [self.box_head, *self.later][-1]
        assert isinstance(last, BoxBranch)
        return last

    def judge(
        self, pyramid: Sequence[Tensor], proposals: Instances, sizes: Tensor, trunk: Trunk | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean scores, and the deltas and boxes of the last head; see `RoIHeads.judge`."""
        total, deltas = self._judged(self.box_head, pyramid, proposals, trunk)
        before, boxes = self.box_head, proposals.boxes
        for head in self.later:
            assert isinstance(head, BoxBranch)
            boxes = _moved(before, deltas[:, :, 0], boxes, sizes[:, None])
            regions = replace(proposals, boxes=boxes)
            scores, deltas = self._judged(head, pyramid, regions, trunk)
            total, before = total + scores, head
        return total / (1 + len(self.later)), deltas, boxes

    def box_losses(
        self,
        maps: Sequence[Tensor],
        sampled: Sampled,
        targets: Instances,
        sizes: Tensor,
        generator: RandomSource,
        trunk: Trunk | None,
    ) -> dict[str, Tensor]:
        """Return `roi/class` and `roi/box` of the first head, `roi/class_2` and so on of others."""
        sources = streams(generator, 1 + len(self.later))
        losses, deltas = self._taught(self.box_head, maps, sampled, targets, sources[0], trunk)
        before = self.box_head
        later = zip(self.later, self.later_matchers, sources[1:], strict=True)
        for number, (head, matcher, source) in enumerate(later, 2):
            assert isinstance(head, BoxBranch)
            sampled = self._next(before, deltas, sampled, targets, sizes, matcher)
            terms, deltas = self._taught(head, maps, sampled, targets, source, trunk)
            losses.update({f"{name}_{number}": value for name, value in terms.items()})
            before = head
        return losses

    @torch.no_grad()
    def _next(
        self,
        head: BoxBranch,
        deltas: Tensor,
        sampled: Sampled,
        targets: Instances,
        sizes: Tensor,
        matcher: IoUMatcher,
    ) -> Sampled:
        """Return the boxes of a head, matched anew, for the head behind it."""
        shape = (sampled.valid.shape[0], sampled.valid.shape[1])
        rows = active_slots(sampled.valid)
        moved = _moved(head, deltas[:, 0], take(sampled.boxes, rows), sizes[rows // shape[1]])
        boxes = put_back(moved, rows, shape)
        match = matcher(boxes, targets.boxes, targets.valid, targets.crowd)
        whole = ((boxes[..., 2:] - boxes[..., :2]) >= head.min_side).all(-1)
        valid = sampled.valid & whole & (match.state >= 0)
        return Sampled(boxes, match.slot, valid & (match.state == 1), valid)


def _moved(head: BoxBranch, deltas: Tensor, boxes: Tensor, sizes: Tensor) -> Tensor:
    """Return boxes (..., 4) moved by a head's deltas and clipped to images of `sizes` (..., 2)."""
    found = decode_deltas(deltas.float(), boxes, head.weights, head.clamp)
    return clip_boxes(found, sizes).detach()
