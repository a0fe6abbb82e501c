"""Dense heads: classes and boxes at every place of a pyramid, without regions.

`DenseHead` holds what such heads share: the losses (assignment, which boxes count, normaliser) and
the way from logits and deltas to detections. A head below it says which layers make these:
`TowerHead` has towers for all levels (Lin et al. 2017), `MultiBoxHead` of `multibox` a pair of
layers for each (Liu et al. 2016). Assignment, choice and scores are parts of their own (`matchers`,
`mining`, `scores`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....errors import OptionError
from ....ops.boxes import (
    DELTA_CLAMP,
    clip_boxes,
    decode_deltas,
    encode_deltas,
    generalized_box_iou,
)
from ....ops.checks import as_float
from ....ops.nms import ALONE, Apart, moved_apart
from ....ops.soft_nms import SoftNMS, suppress_padded
from ....structures import Images, Instances
from ...convolution import Conv2d, of_maps
from ...norm import conv_block
from ...parallel import mean_count
from ...ragged import active_slots, gather_slots, take, with_area
from ...random import RandomSource
from ..anchors import AnchorGenerator, DefaultBoxes
from ..matchers import IoUMatcher, Match
from .mining import Mining
from .scores import Scores

BOX_LOSSES = ("l1", "smooth_l1", "giou")


class DenseOutput(NamedTuple):
    """Raw output of the head.

    Attributes:
        logits: per level (B, N_l, C), with a background C + 1.
        deltas: per level (B, N_l, 4).
        anchors: per level (N_l, 4) xyxy, padded-image pixels.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]


class Matcher(Protocol):
    """Assigns boxes to ground truth, as `IoUMatcher` and `OwningMatcher` do."""

    def __call__(
        self, boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor, gt_crowd: Tensor | None = None
    ) -> Match:
        """Match boxes (N, 4) with (B, K) ground truth."""
        ...


class BoxRule(NamedTuple):
    """How boxes are coded and learned.

    Attributes:
        loss: "l1", "smooth_l1" (of the deltas) or "giou" (1 - GIoU of the boxes).
        weight: factor of the loss.
        beta: where smooth L1 turns straight.
        weights: factors of the deltas dx, dy, dw, dh.
        clip_last: boxes are cut at the border of the image after the suppression, not before it;
            those that lie beyond it are dropped then.
        clamp: bounds of the deltas of width and height, see `ops.decode_deltas`.
        border: what remains of boxes beyond the image, see `ops.clip_boxes`.
        apart: how classes are kept apart in NMS.
    """

    loss: str = "l1"
    weight: float = 1.0
    beta: float = 0.1
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    clip_last: bool = False
    clamp: float | tuple[float, float] = DELTA_CLAMP
    border: float = 0.0
    apart: Apart = ALONE


class DenseHead(nn.Module):
    """Losses and decoding; the layers are those of the classes below.

    Args:
        num_classes: real classes.
        anchors: the boxes of each level; the head runs on as many levels as it has strides.
        scores: what logits mean.
        matcher: assigns anchors to ground truth.
        mining: which anchors the class loss counts, see `mining`.
        box: how boxes are learned.
        by_image: losses are divided by the positive anchors of each image and averaged over the
            images (torchvision's RetinaNet), not divided by those of the batch.
        running: losses are divided by a running mean of the positive anchors of a batch, of which
            the last one gives a tenth and which begins at 100 (detectron2's RetinaNet). The mean
            is a buffer: a training goes on with it.

    Attributes:
        class_rows: see `models.transfer`. A class's rows lie together: (class, anchor).
    """

    class_rows: Mapping[str, tuple[int, bool]]
    positives: Tensor

    def __init__(
        self,
        num_classes: int,
        anchors: AnchorGenerator | DefaultBoxes,
        *,
        scores: Scores,
        matcher: Matcher,
        mining: Mining,
        box: BoxRule,
        by_image: bool = False,
        running: bool = False,
    ) -> None:
        super().__init__()
        if box.loss not in BOX_LOSSES:
            raise OptionError(f"box_loss is one of {', '.join(BOX_LOSSES)}; got {box.loss!r}")
        self.num_classes = num_classes
        self.anchors = anchors
        self.scores = scores
        self.matcher = matcher
        self.mining = mining
        self.box = box
        self.by_image = by_image
        if running:
            self.register_buffer("positives", torch.tensor(100.0))
        self.running = running

    def predict(self, pyramid: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return of each level the maps of logits (B, C * A, H, W) and of deltas (B, A * 4, H, W).

        Args:
            pyramid: the levels (B, C_l, H_l, W_l) of the head.
        """
        raise NotImplementedError

    @property
    def last_layers(self) -> tuple[list[nn.Conv2d], list[nn.Conv2d]]:
        """The layers that make the logits, and those that make the deltas."""
        raise NotImplementedError

    def forward(self, pyramid: Sequence[Tensor], size: tuple[int, int]) -> DenseOutput:
        """Run the head on its levels (B, C_l, H_l, W_l), which come first.

        Args:
            pyramid: the levels, fine to coarse.
            size: (height, width) of the padded images.
        """
        levels = pyramid[: len(self.anchors.per_level)]
        logits, deltas = [], []
        columns = self.num_classes + self.scores.background
        maps = self.predict(levels)
        for (score, delta), per_cell in zip(maps, self.anchors.per_level, strict=True):
            # (B, C * A, H, W) -> (B, H * W * A, C): the order of the anchors.
            score = score.permute(0, 2, 3, 1).unflatten(3, (columns, per_cell))
            logits.append(score.transpose(3, 4).flatten(1, 3))
            delta = delta.permute(0, 2, 3, 1)  # (B, H, W, A * 4)
            deltas.append(delta.unflatten(3, (per_cell, 4)).flatten(1, 3))
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        return DenseOutput(logits, deltas, self.anchors(sizes, size))

    def losses(
        self,
        output: DenseOutput,
        targets: Instances,
        *,
        generator: RandomSource = None,
    ) -> dict[str, Tensor]:
        """Return `dense/class` and `dense/box`.

        Args:
            output: of the head.
            targets: ground truth of B images, padded-image pixels.
            generator: of what is picked at random.

        Reference: Lin et al. 2017, section 4.1; Liu et al. 2016, eq. 1 to 3.
        """
        targets = targets.with_a_slot()
        logits, deltas = torch.cat(output.logits, 1), torch.cat(output.deltas, 1)
        anchors = torch.cat(output.anchors)
        match = self.matcher(anchors, targets.boxes, targets.valid, targets.crowd)
        positive = match.state == 1
        classes = self.scores.losses(
            logits,
            gather_slots(targets.labels, match.slot),
            positive,
            lambda each: self.mining(each, match.state, generator),
        )
        rows = active_slots(positive)
        goal = take(gather_slots(targets.boxes, match.slot), rows)
        boxes = self._box_losses(as_float(take(deltas, rows)), goal, anchors[rows % len(anchors)])
        boxes = torch.zeros_like(classes).flatten().index_put((rows,), boxes).view_as(classes)
        terms = {
            "dense/class": classes,
            "dense/box": self.box.weight * torch.where(positive, boxes, 0),
        }
        if self.by_image:
            count = positive.sum(1).clamp(min=1)
            return {name: (value.sum(1) / count).mean() for name, value in terms.items()}
        total = mean_count(positive)
        if self.running:
            if torch.is_grad_enabled():
                self.positives.lerp_(total.to(self.positives), 0.1)
            total = self.positives.clone()
        return {name: value.sum() / total for name, value in terms.items()}

    def _box_losses(self, deltas: Tensor, goal: Tensor, anchors: Tensor) -> Tensor:
        """Return the loss (R,) of deltas (R, 4) towards boxes (R, 4)."""
        if self.box.loss == "giou":
            boxes = decode_deltas(deltas, anchors, self.box.weights)
            return 1 - generalized_box_iou(boxes[:, None], goal[:, None])[:, 0, 0]
        beta = self.box.beta if self.box.loss == "smooth_l1" else 0.0
        wanted = encode_deltas(goal, anchors, self.box.weights)
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

        The best pairs of anchor and class (see `scores`), decoded and clipped; NMS by class over
        all levels.

        Args:
            output: of the head.
            images: B images.
            score_thresh: a score must be above it.
            nms_thresh: IoU of the NMS.
            max_det: slots of the result.
            soft_nms: lower scores by it in place of the NMS.
        """
        score, place, label = self.scores.best(output.logits, score_thresh, max_det)
        deltas, anchors = torch.cat(output.deltas, 1), torch.cat(output.anchors)
        found = as_float(gather_slots(deltas, place))
        box = decode_deltas(found, anchors[place], self.box.weights, self.box.clamp)
        if not self.box.clip_last:
            box = clip_boxes(box, images.sizes[:, None], self.box.border)
        valid = score > score_thresh
        seen = moved_apart(box, label, valid, self.box.apart)
        index, kept_scores, kept = suppress_padded(
            seen, score, valid, nms_thresh, max_det, labels=label, soft=soft_nms
        )
        box = gather_slots(box, index)
        if self.box.clip_last:
            box = clip_boxes(box, images.sizes[:, None])
            order, kept = with_area(box, kept)
            box, index = gather_slots(box, order), gather_slots(index, order)
            kept_scores = gather_slots(kept_scores, order) * kept
        return Instances(
            boxes=box * kept[..., None],
            labels=gather_slots(label, index) * kept,
            valid=kept,
            scores=kept_scores,
        )


class TowerHead(DenseHead):
    """Two towers of convolutions, shared by all levels (Lin et al. 2017).

    Args:
        channels: channels of the pyramid and of the towers.
        num_classes: real classes.
        anchors: the anchors of each level.
        convs: 3x3 convolutions of each tower.
        norm: norm behind them: None, "bn" or "gn".
        prior: probability of each class at each anchor before training.
        scores, mining, box, by_image, running: see `DenseHead`.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        anchors: AnchorGenerator,
        *,
        convs: int = 4,
        norm: str | None = None,
        prior: float = 0.01,
        scores: Scores,
        mining: Mining,
        box: BoxRule,
        by_image: bool = False,
        running: bool = False,
    ) -> None:
        super().__init__(
            num_classes,
            anchors,
            scores=scores,
            matcher=IoUMatcher(0.5, 0.4, low_quality=True),
            mining=mining,
            box=box,
            by_image=by_image,
            running=running,
        )
        per_cell = anchors.per_cell
        self.class_rows = {"logits": (per_cell, False)}
        towers = [
            nn.ModuleList(conv_block(channels, channels, norm=norm) for _ in range(convs))
            for _ in range(2)
        ]
        self.class_convs, self.box_convs = towers
        self.logits = Conv2d(channels, num_classes * per_cell, 3, padding=1)
        self.deltas = nn.Conv2d(channels, 4 * per_cell, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        assert self.logits.bias is not None
        nn.init.constant_(self.logits.bias, -math.log((1 - prior) / prior))

    @property
    def last_layers(self) -> tuple[list[nn.Conv2d], list[nn.Conv2d]]:
        """The layers that make logits and deltas; see `DenseHead`."""
        return [self.logits], [self.deltas]

    def predict(self, pyramid: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the maps of logits and deltas; see `DenseHead`."""
        x = y = list(pyramid)
        for conv in self.class_convs:
            x = of_maps(conv, x)
        for conv in self.box_convs:
            y = of_maps(conv, y)
        return list(zip(of_maps(self.logits, x), of_maps(self.deltas, y), strict=True))
