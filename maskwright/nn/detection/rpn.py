"""Region proposal network (Ren et al. 2015, section 3.1) on one map or a pyramid.

On a pyramid (Lin et al. 2017, section 4.1) the levels share the network, each with anchors of one
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.boxes import DELTA_CLAMP, clip_boxes, decode_deltas, encode_deltas
from ...ops.nms import ALONE, Apart, moved_apart, nms_padded
from ...structures import Images, Instances
from ..convolution import Conv2d, of_maps
from ..parallel import mean_count
from ..ragged import PER_OBJECT, gather_slots, last_tenth, least
from ..random import RandomSource
from .anchors import AnchorGenerator
from .matchers import IoUMatcher
from .samplers import BalancedSampler

USUAL_OBJECTS = 100  # of an image: what the numbers of proposals in the literature are made for
_CANDIDATES = 5  # boxes that NMS sees, of all levels, per proposal that it leaves


class RPNOutput(NamedTuple):
    """Raw output of the network.

    Attributes:
        logits: per level (B, N_l) objectness.
        deltas: per level (B, N_l, 4).
        anchors: per level (N_l, 4) xyxy, padded-image pixels.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]


class RPN(nn.Module):
    """3x3 convolutions and two 1x1 siblings, shared by all levels; proposals and losses.

    Args:
        channels: channels of the maps.
        anchors: the anchor generator; the network runs on as many maps as it has strides.
        convs: number of 3x3 convolutions.
        width: their channels; None: as the maps.
        matcher: assigns anchors to ground truth.
        sampler: picks the anchors of the loss.
        pre_nms: proposals kept per level before NMS, (training, inference).
        post_nms: proposals kept per image, (training, inference); see `kept`.
        nms_thresh: IoU of the NMS, applied per level.
        min_side: smaller proposals are dropped, pixels.
        clamp: bounds of the deltas of width and height, see `ops.decode_deltas`.
        border: what remains of boxes beyond the image, see `ops.clip_boxes`.
        apart: how levels are kept apart in NMS.
        beta: where the box loss turns from square to linear.
        inside_only: anchors across the border of the image do not train (Ren et al. 2015, 3.3).
        box_weight: factor of the box loss.
    """

    def __init__(
        self,
        channels: int,
        anchors: AnchorGenerator,
        *,
        convs: int = 1,
        width: int | None = None,
        matcher: IoUMatcher | None = None,
        sampler: BalancedSampler | None = None,
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (2000, 1000),
        nms_thresh: float = 0.7,
        min_side: float = 1e-3,
        clamp: float | tuple[float, float] = DELTA_CLAMP,
        border: float = 0.0,
        apart: Apart = ALONE,
        beta: float = 1 / 9,
        inside_only: bool = False,
        box_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.anchors = anchors
        self.matcher = matcher or IoUMatcher(0.7, 0.3, low_quality=True)
        self.sampler = sampler or BalancedSampler(256, 0.5)
        self.pre_nms = pre_nms
        self.post_nms = post_nms
        self.nms_thresh = nms_thresh
        self.min_side = min_side
        self.clamp = clamp
        self.border = border
        self.apart = apart._replace(first=0)  # levels count from 0 everywhere
        self.beta = beta
        self.inside_only = inside_only
        self.box_weight = box_weight
        sizes = [channels] + [width or channels] * convs
        self.convs = nn.ModuleList(Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
        self.logits = nn.Conv2d(sizes[-1], anchors.per_cell, 1)
        self.deltas = nn.Conv2d(sizes[-1], 4 * anchors.per_cell, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, pyramid: Sequence[Tensor]) -> RPNOutput:
        """Run the network on its levels (B, C, H_l, W_l), which come first."""
        logits, deltas, sizes = [], [], []
        maps = list(pyramid[: len(self.anchors.strides)])
        for conv in self.convs:  # in place: large maps cost more memory than arithmetic
            maps = [F.relu_(x) for x in of_maps(conv, maps)]
        for x in maps:
            sizes.append((x.shape[-2], x.shape[-1]))
            # (B, A, H, W) -> (B, H * W * A): the order of the anchors.
            logits.append(self.logits(x).permute(0, 2, 3, 1).flatten(1))
            delta = self.deltas(x).permute(0, 2, 3, 1)  # (B, H, W, A * 4)
            deltas.append(delta.unflatten(3, (self.anchors.per_cell, 4)).flatten(1, 3))
        # The finest level's stride divides the padded image, so it tells the image's size.
        stride = self.anchors.strides[0]
        padded = (sizes[0][0] * stride, sizes[0][1] * stride)
        return RPNOutput(logits, deltas, self.anchors(sizes, padded))

    def kept(self, max_det: int = USUAL_OBJECTS) -> tuple[int, int]:
        """Return how many proposals inference keeps: per level before NMS, and of the image.

        Those of the model up to the usual number of objects. Beyond, 1000 at least, and beyond as
        many objects ten for each: with as many proposals as objects half of a crowd are missed.

        Args:
            max_det: objects that are wanted.
        """
        before, own = self.pre_nms[1], self.post_nms[1]
        usual = max(own, PER_OBJECT * USUAL_OBJECTS)
        after = usual if max_det <= usual else PER_OBJECT * max_det
        if max_det <= USUAL_OBJECTS or after == own:
            return before, own
        return max(before, _CANDIDATES * after // len(self.anchors.strides)), after

    @torch.no_grad()
    def propose(
        self,
        output: RPNOutput,
        images: Images,
        *,
        training: bool = False,
        max_det: int = USUAL_OBJECTS,
    ) -> Instances:
        """Return the proposals: best per level, decoded, clipped, NMS per level.

        Args:
            output: of the network.
            images: B images.
            training: keep as many as training wants.
            max_det: objects that are wanted, at inference; see `kept`.

        Returns:
            `Instances` with boxes in padded-image pixels, scores (objectness in [0, 1]), labels 0
            and ids, which count the anchors through all levels; no gradient flows through them
            (the approximate joint training of Ren et al. 2015, section 3.2). At inference, but
            not in a graph, `late` marks the last tenth of those that either limit let through.
        """
        before, after = (self.pre_nms[0], self.post_nms[0]) if training else self.kept(max_det)
        marks = not training and not torch.compiler.is_compiling()
        boxes, tops, levels, ids, ends = [], [], [], [], []
        first = 0
        for level, (logits, deltas, anchors) in enumerate(zip(*output, strict=True)):
            # In a graph for images of any size, the number of anchors is a symbol.
            count = least(before, logits.shape[1])
            top, at = logits.float().topk(count, 1)
            found = gather_slots(deltas, at).float()
            boxes.append(decode_deltas(found, anchors[at], clamp=self.clamp))
            tops.append(top)
            levels.append(torch.full_like(at, level))
            ids.append(first + at)
            first += logits.shape[1]
            if marks:
                rank = torch.arange(count, device=at.device)
                ends.append((rank >= last_tenth(int(count))) & (logits.shape[1] > count))
        box = clip_boxes(torch.cat(boxes, 1), images.sizes[:, None], self.border)
        # By the logits: a sigmoid makes large ones equal.
        logit, level_of = torch.cat(tops, 1), torch.cat(levels, 1)
        valid = ((box[..., 2:] - box[..., :2]) >= self.min_side).all(-1)
        seen = moved_apart(box, level_of, valid, self.apart)
        index, kept = nms_padded(seen, logit, valid, self.nms_thresh, after, labels=level_of)
        late = None
        if marks:
            rank = torch.arange(after, device=index.device)
            late = torch.cat(ends)[index] | ((rank >= last_tenth(after)) & kept[:, -1:])
        return Instances(
            boxes=gather_slots(box, index) * kept[..., None],
            labels=torch.zeros_like(index),
            valid=kept,
            scores=gather_slots(logit, index).sigmoid() * kept,
            ids=gather_slots(torch.cat(ids, 1), index),
            late=late,
        )

    def losses(
        self,
        output: RPNOutput,
        images: Images,
        targets: Instances,
        *,
        generator: RandomSource = None,
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return `rpn/objectness` and `rpn/box` (Ren et al. 2015, eq. 1).

        Deviation from eq. 1: both terms are divided by the number of sampled anchors (see
        `parallel.mean_count`), as in all current implementations; there, with 256 of them, about
        2400 cells and a lambda of 10, the box term weighs 1.07 times as much.
        """
        targets = targets.with_a_slot()
        logits, deltas = torch.cat(output.logits, 1), torch.cat(output.deltas, 1)
        anchors = torch.cat(output.anchors)
        with torch.no_grad():
            usable = self._inside(anchors, images.sizes) if self.inside_only else None
            match = self.matcher(
                anchors, targets.boxes, targets.valid, targets.crowd, usable_boxes=usable
            )
            sample = self.sampler(match.state, generator=generator, noise=noise)
            matched = gather_slots(targets.boxes, gather_slots(match.slot, sample.slot))
            goal = encode_deltas(matched, anchors[sample.slot])
        count = mean_count(sample.valid)
        objectness = F.binary_cross_entropy_with_logits(
            gather_slots(logits, sample.slot).float(), sample.positive.float(), reduction="none"
        )
        box = F.smooth_l1_loss(
            gather_slots(deltas, sample.slot).float(), goal, beta=self.beta, reduction="none"
        )
        return {
            "rpn/objectness": (objectness * sample.valid).sum() / count,
            "rpn/box": (box.sum(-1) * sample.positive).sum() * (self.box_weight / count),
        }

    @staticmethod
    def _inside(anchors: Tensor, sizes: Tensor) -> Tensor:
        """Return (B, N) whether anchors (N, 4) lie inside images of sizes (B, 2)."""
        limit = sizes.flip(1)[:, None].to(anchors.dtype)  # (B, 1, 2): width, height
        inside: Tensor = (anchors[:, :2] >= 0).all(-1) & (anchors[:, 2:] <= limit).all(-1)
        return inside
