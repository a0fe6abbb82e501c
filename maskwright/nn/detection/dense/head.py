"""Dense head: classes and boxes at every place of a pyramid, without regions (Lin et al. 2017).

Two towers of convolutions, shared by all levels, lead to a score for each class and four deltas of
each anchor. Assignment and picking of anchors are parts of their own (`matchers`, `mining`), as for
the RPN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....errors import OptionError
from ....ops.boxes import clip_boxes, decode_deltas, encode_deltas, generalized_box_iou
from ....ops.focal import one_hot_losses
from ....ops.soft_nms import SoftNMS, suppress_padded
from ....structures import Images, Instances
from ...norm import conv_block
from ...parallel import mean_count
from ...ragged import active_slots, gather_slots, least, take
from ...random import RandomSource
from ..anchors import AnchorGenerator
from ..matchers import IoUMatcher
from .mining import get_mining

BOX_LOSSES = ("l1", "smooth_l1", "giou")
BETA = 0.1  # where smooth L1 turns straight


class DenseOutput(NamedTuple):
    """Raw output of the head.

    Attributes:
        logits: per level (B, N_l, C).
        deltas: per level (B, N_l, 4).
        anchors: per level (N_l, 4) xyxy, padded-image pixels.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]


class DenseHead(nn.Module):
    """Towers, predictors, losses and decoding.

    Args:
        channels: channels of the pyramid and of the towers.
        num_classes: real classes.
        anchors: the anchor generator; the head runs on as many levels as it has strides.
        convs: 3x3 convolutions of each tower.
        norm: norm behind them: None, "bn" or "gn".
        matcher: assigns anchors to ground truth.
        mining: which anchors the class loss counts, see `mining.MININGS`.
        alpha, gamma: of the focal loss; an alpha of None: binary cross-entropy.
        prior: probability of each class at each anchor before training.
        box_loss: "l1", "smooth_l1" (of the deltas) or "giou" (1 - GIoU of the boxes).
        box_weight: factor of the box loss.
        by_image: losses are divided by the positive anchors of each image and averaged over the
            images (torchvision), not divided by those of the batch.
        candidates: pairs of anchor and class of a level that decoding looks at.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        anchors: AnchorGenerator,
        *,
        convs: int = 4,
        norm: str | None = None,
        matcher: IoUMatcher | None = None,
        mining: str = "none",
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        prior: float = 0.01,
        box_loss: str = "l1",
        box_weight: float = 1.0,
        by_image: bool = False,
        candidates: int = 1000,
    ) -> None:
        super().__init__()
        if box_loss not in BOX_LOSSES:
            raise OptionError(f"box_loss is one of {', '.join(BOX_LOSSES)}; got {box_loss!r}")
        self.num_classes = num_classes
        self.anchors = anchors
        self.matcher = matcher or IoUMatcher(0.5, 0.4, low_quality=True)
        self.mining = get_mining(mining)
        self.alpha, self.gamma = alpha, gamma
        self.box_loss, self.box_weight = box_loss, box_weight
        self.by_image = by_image
        self.candidates = candidates
        # A class's rows lie together: (class, anchor).
        self.class_rows = {"logits": (anchors.per_cell, False)}
        towers = [
            nn.ModuleList(conv_block(channels, channels, norm=norm) for _ in range(convs))
            for _ in range(2)
        ]
        self.class_convs, self.box_convs = towers
        self.logits = nn.Conv2d(channels, num_classes * anchors.per_cell, 3, padding=1)
        self.deltas = nn.Conv2d(channels, 4 * anchors.per_cell, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        assert self.logits.bias is not None
        nn.init.constant_(self.logits.bias, -math.log((1 - prior) / prior))

    def forward(self, pyramid: Sequence[Tensor]) -> DenseOutput:
        """Run the head on its levels (B, C, H_l, W_l), which come first."""
        logits, deltas, sizes = [], [], []
        per_cell, classes = self.anchors.per_cell, self.num_classes
        for level in pyramid[: len(self.anchors.strides)]:
            sizes.append((level.shape[-2], level.shape[-1]))
            x = y = level
            for conv in self.class_convs:
                x = conv(x)
            for conv in self.box_convs:
                y = conv(y)
            # (B, C * A, H, W) -> (B, H * W * A, C): the order of the anchors.
            score = self.logits(x).permute(0, 2, 3, 1).unflatten(3, (classes, per_cell))
            logits.append(score.transpose(3, 4).flatten(1, 3))
            delta = self.deltas(y).permute(0, 2, 3, 1)  # (B, H, W, A * 4)
            deltas.append(delta.unflatten(3, (per_cell, 4)).flatten(1, 3))
        # The finest level's stride divides the padded image, so it tells the image's size.
        stride = self.anchors.strides[0]
        padded = (sizes[0][0] * stride, sizes[0][1] * stride)
        return DenseOutput(logits, deltas, self.anchors(sizes, padded))

    def losses(
        self,
        output: DenseOutput,
        targets: Instances,
        *,
        generator: RandomSource = None,
    ) -> dict[str, Tensor]:
        """Return `dense/class` and `dense/box` (Lin et al. 2017, section 4.1).

        Args:
            output: of the head.
            targets: ground truth of B images, padded-image pixels.
            generator: of what is picked at random.
        """
        targets = targets.with_a_slot()
        logits, deltas = torch.cat(output.logits, 1), torch.cat(output.deltas, 1)
        anchors = torch.cat(output.anchors)
        match = self.matcher(anchors, targets.boxes, targets.valid, targets.crowd)
        positive = match.state == 1
        labels = gather_slots(targets.labels, match.slot)
        each = one_hot_losses(logits, labels, positive, alpha=self.alpha, gamma=self.gamma)
        counted = self.mining(each.detach(), match.state, generator)
        rows = active_slots(positive)
        goal = take(gather_slots(targets.boxes, match.slot), rows)
        boxes = self._box_losses(take(deltas, rows).float(), goal, anchors[rows % len(anchors)])
        boxes = torch.zeros_like(each).flatten().index_put((rows,), boxes).view_as(each)
        terms = {
            "dense/class": torch.where(counted, each, 0),
            "dense/box": self.box_weight * torch.where(positive, boxes, 0),
        }
        if self.by_image:
            count = positive.sum(1).clamp(min=1)
            return {name: (value.sum(1) / count).mean() for name, value in terms.items()}
        total = mean_count(positive)
        return {name: value.sum() / total for name, value in terms.items()}

    def _box_losses(self, deltas: Tensor, goal: Tensor, anchors: Tensor) -> Tensor:
        """Return the loss (R,) of deltas (R, 4) towards boxes (R, 4)."""
        if self.box_loss == "giou":
            boxes = decode_deltas(deltas, anchors)
            return 1 - generalized_box_iou(boxes[:, None], goal[:, None])[:, 0, 0]
        beta = BETA if self.box_loss == "smooth_l1" else 0.0
        wanted = encode_deltas(goal, anchors)
        return F.smooth_l1_loss(deltas, wanted, beta=beta, reduction="none").sum(-1)

    def detect(
        self,
        output: DenseOutput,
        images: Images,
        *,
        score_thresh: float,
        nms_thresh: float,
        max_det: int,
        soft_nms: SoftNMS | None = None,
    ) -> Instances:
        """Return the detections of each image by falling score: (B, max_det) slots.

        The best pairs of anchor and class of each level, decoded and clipped; NMS by class over all
        levels.

        Args:
            output: of the head.
            images: B images.
            score_thresh: a score must be above it.
            nms_thresh: IoU of the NMS.
            max_det: slots of the result.
            soft_nms: lower scores by it in place of the NMS.
        """
        boxes, scores, labels = [], [], []
        for logits, deltas, anchors in zip(*output, strict=True):
            score, at = self._best(logits.float(), score_thresh, max(self.candidates, max_det))
            place = at // self.num_classes
            found = decode_deltas(gather_slots(deltas, place).float(), anchors[place])
            boxes.append(found)
            scores.append(score)
            labels.append(at % self.num_classes)
        box = clip_boxes(torch.cat(boxes, 1), images.sizes[:, None])
        score, label = torch.cat(scores, 1), torch.cat(labels, 1)
        index, kept_scores, kept = suppress_padded(
            box, score, score > score_thresh, nms_thresh, max_det, labels=label, soft=soft_nms
        )
        return Instances(
            boxes=gather_slots(box, index) * kept[..., None],
            labels=gather_slots(label, index) * kept,
            valid=kept,
            scores=kept_scores,
        )

    @staticmethod
    def _best(logits: Tensor, score_thresh: float, limit: int) -> tuple[Tensor, Tensor]:
        """Return scores (B, K) and flat places (B, K) of the best of (B, N, C), by falling score.

        Where fewer than `limit` are above the threshold, the others have a score of -1.
        """
        flat = logits.flatten(1)
        if torch.compiler.is_compiling():
            top, at = flat.topk(least(limit, flat.shape[1]), 1)
            return top.sigmoid(), at
        # Few are above the threshold: the others need neither a sigmoid nor an order.
        floor = math.log(score_thresh / (1 - score_thresh)) if 0 < score_thresh < 1 else -math.inf
        found: list[tuple[Tensor, Tensor]] = []
        for row in flat:
            # A step below, as the sigmoid rounds: the score decides.
            at = (row > floor - 1e-3).nonzero()[:, 0]
            top, order = row[at].topk(min(limit, len(at)))
            found.append((top.sigmoid(), at[order]))
        slots = max(1, *(len(at) for _, at in found))  # what picks by index needs one to pick
        scores = flat.new_full((len(flat), slots), -1.0)
        places = torch.zeros_like(scores, dtype=torch.int64)
        for b, (top, at) in enumerate(found):
            scores[b, : len(at)], places[b, : len(at)] = top, at
        return scores, places
