"""Box head: features of a region to class scores and refined boxes (Girshick 2015).

Softmax over the real classes and background, which is last; boxes are regressed per class, or
once for all. `BoxBranch` is loss and decoding, whatever the network; `BoxHead` is the plain one.
Its first fully connected layer stores its columns in (row, column, channel) order, the order in
which RoIAlign leaves its output, so that no copy stands between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...ops.boxes import DELTA_CLAMP, clip_boxes, decode_deltas, encode_deltas
from ...ops.nms import ALONE, Apart, moved_apart
from ...ops.soft_nms import SoftNMS, suppress_padded
from ..dropout import RegionNoise, drop_units
from ..norm import conv_block
from ..parallel import mean_count
from ..ragged import PER_OBJECT, gather_slots, with_area
from .svd import LowRankLinear

# Candidates of the per-class post-processing: the NMS sees the best of all pairs of box and class.
_CANDIDATES = 4096


class BoxOutput(NamedTuple):
    """Raw output of a head: logits (R, C + 1) with background last, deltas (R, C or 1, 4)."""

    logits: Tensor
    deltas: Tensor


class BoxTargets(NamedTuple):
    """Targets of sampled boxes: labels (R,) with C for background, boxes (R, 4) for the others."""

    labels: Tensor
    boxes: Tensor


class BoxBranch(nn.Module):
    """Loss and decoding of classes and boxes; the networks that predict them are subclasses.

    Args:
        num_classes: real classes.
        pool: side of the region features.
        weights: factors of the deltas.
        beta: where the box loss turns from square to linear.
        min_side: smaller predicted boxes are dropped, pixels; 0: those without an area are, but
            once the objects are chosen.
        clamp: bounds of the deltas of width and height, see `ops.decode_deltas`.
        border: what remains of boxes beyond the image, see `ops.clip_boxes`.
        apart: how classes are kept apart in NMS.
        loss_weight: factor of both losses.
        box_weight: factor of the box loss beside it (lambda of Girshick 2015, eq. 1).
    """

    # Layers with rows per class: rows of a class, and whether the background's rows follow.
    class_rows: Mapping[str, tuple[int, bool]]
    logits: nn.Linear | nn.Conv2d
    deltas: nn.Linear | nn.Conv2d

    def __init__(
        self,
        num_classes: int,
        *,
        pool: int = 7,
        weights: tuple[float, float, float, float] = (10, 10, 5, 5),
        beta: float = 1 / 9,
        min_side: float = 1e-2,
        clamp: float | tuple[float, float] = DELTA_CLAMP,
        border: float = 0.0,
        apart: Apart = ALONE,
        loss_weight: float = 1.0,
        box_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pool = pool
        self.weights = weights
        self.beta = beta
        self.min_side = min_side
        self.clamp = clamp
        self.border = border
        self.apart = apart
        self.loss_weight = loss_weight
        self.box_weight = box_weight

    def maps(self, pyramid: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the maps from which regions are pooled: a head may add layers of its own."""
        return pyramid

    def forward(self, x: Tensor, noise: RegionNoise | None = None) -> BoxOutput:
        """Run the head on region features (R, channels, pool, pool).

        Args:
            x: the features.
            noise: random numbers of the losses, for heads with dropout; None: none is dropped.
        """
        raise NotImplementedError

    def scores(self, output: BoxOutput) -> Tensor:
        """Return the scores (R, C) of the real classes, in [0, 1]."""
        return output.logits.float().softmax(-1)[:, :-1]

    def losses_by_box(
        self, output: BoxOutput, rois: Tensor, targets: BoxTargets
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of the class and that of the box, (R,) each, 0 for the box of background.

        Args:
            output: of R boxes.
            rois: (R, 4) the boxes.
            targets: of the boxes.
        """
        classes = F.cross_entropy(output.logits.float(), targets.labels, reduction="none")
        row = targets.labels.clamp(max=output.deltas.shape[1] - 1)
        deltas = output.deltas[torch.arange(len(row), device=row.device), row]
        goal = encode_deltas(targets.boxes, rois, self.weights)
        box = F.smooth_l1_loss(deltas.float(), goal, beta=self.beta, reduction="none").sum(-1)
        # Where instead of a product: the deltas of empty slots may be anything.
        return classes, torch.where(targets.labels < self.num_classes, box, 0) * self.box_weight

    def loss(
        self, output: BoxOutput, rois: Tensor, targets: BoxTargets, valid: Tensor
    ) -> dict[str, Tensor]:
        """Return `roi/class` and `roi/box` (Girshick 2015, eq. 1 to 3).

        Both are divided by the number of sampled boxes (see `parallel.mean_count`), background
        included: the box term of an object weighs the same, however many objects the image has.

        Args:
            output: of R boxes.
            rois: (R, 4) the boxes.
            targets: of the boxes.
            valid: (R,) bool.
        """
        count = mean_count(valid) / self.loss_weight
        classes, boxes = self.losses_by_box(output, rois, targets)
        return {
            "roi/class": torch.where(valid, classes, 0).sum() / count,
            "roi/box": torch.where(valid, boxes, 0).sum() / count,
        }

    def decode(
        self,
        scores: Tensor,
        deltas: Tensor,
        rois: Tensor,
        valid: Tensor,
        sizes: Tensor,
        *,
        score_thresh: float,
        nms_thresh: float,
        max_det: int,
        soft_nms: SoftNMS | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the detections of each image, by falling score.

        Args:
            scores: (B, K, C) probabilities.
            deltas: (B, K, C, 4), or (B, K, 1, 4) for all classes.
            rois: (B, K, 4) xyxy, padded-image pixels.
            valid: (B, K) bool.
            sizes: (B, 2) (height, width) for clipping.
            score_thresh: a score must be above it.
            nms_thresh: IoU of the NMS, per class.
            max_det: slots of the result.
            soft_nms: lower scores by it in place of the NMS.

        Returns:
            boxes (B, max_det, 4); scores, labels, valid and the slot of the proposal (B, max_det).
        """
        images, _, classes = scores.shape
        keys = torch.where((scores > score_thresh) & valid[..., None], scores, -1).flatten(1)
        take = min(max(_CANDIDATES, PER_OBJECT * max_det), keys.shape[1])
        while True:
            top, at = keys.topk(take, 1)
            lowest = top[:, -1]
            if not torch.compiler.is_compiling():
                # Regions at the border may look alike to the bit: equal scores go by position.
                at = at.sort(1)[0]
                top = keys.gather(1, at)
            box_of, label = at // classes, at % classes
            of_class = deltas.shape[2] > 1 or classes == 1
            delta = gather_slots(deltas.reshape(images, -1, 4), at if of_class else box_of)
            boxes = decode_deltas(delta, gather_slots(rois, box_of), self.weights, self.clamp)
            boxes = clip_boxes(boxes, sizes[:, None], self.border)
            usable = (top >= 0) & ((boxes[..., 2:] - boxes[..., :2]) >= self.min_side).all(-1)
            seen = moved_apart(boxes, label, usable, self.apart)
            index, score, kept = suppress_padded(
                seen, top, usable, nms_thresh, max_det, labels=label, soft=soft_nms
            )
            # Exact when all candidates were seen or every slot is filled, by scores that no weaker
            # candidate can reach. Otherwise these still count: start over with all of them. A graph
            # cannot decide that at run time; there the first look is final.
            if take == keys.shape[1] or torch.compiler.is_compiling():
                break
            full = kept[:, -1] & (score[:, -1] >= lowest)
            if bool((full | (lowest < 0)).all()):
                break
            take = keys.shape[1]
        if self.min_side <= 0:
            order, kept = with_area(gather_slots(boxes, index), kept)
            index, score = gather_slots(index, order), gather_slots(score, order) * kept
        return (
            gather_slots(boxes, index) * kept[..., None],
            score,
            gather_slots(label, index) * kept,
            kept,
            gather_slots(box_of, index),
        )


class BoxHead(BoxBranch):
    """Convolutions, fully connected layers, and the two predictors.

    Args:
        channels: channels of the region features.
        num_classes: real classes.
        convs: number of 3x3 convolutions before the fully connected layers.
        fcs: number of fully connected layers; 0 needs `average`.
        width: their size.
        norm: norm of the convolutions: None, "bn" or "gn".
        bins: bins of the region features, where they are not `pool` squared.
        ranks: ranks of the fully connected layers after truncated SVD, the first ones (`nn.svd`);
            (): whole layers.
        dropout: share of the units of each fully connected layer that are dropped in training.
        agnostic: one box for all classes, not one for each.
        average: take the mean over a region before the fully connected layers, as the head of a
            ResNet whose last stage runs on regions (He et al. 2016, appendix A).
        **options: of `BoxBranch`.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        convs: int = 0,
        fcs: int = 2,
        width: int = 1024,
        norm: str | None = None,
        bins: int | None = None,
        ranks: Sequence[int] = (),
        dropout: float = 0.0,
        agnostic: bool = False,
        average: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        boxes = 1 if agnostic else num_classes
        self.class_rows = {"logits": (1, True)} | ({} if agnostic else {"deltas": (4, False)})
        self.dropout = dropout
        self.average = average
        self.convs = nn.ModuleList(conv_block(channels, channels, norm=norm) for _ in range(convs))
        cells = 1 if average else bins or self.pool * self.pool
        sizes = [channels * cells] + [width] * fcs
        if len(ranks) > fcs:
            raise OptionError(f"svd: {len(ranks)} ranks for {fcs} fully connected layers")
        # Linear layers start as torch makes them. Detectron's start of the predictors (standard
        # deviations of 0.01 and 0.001) is made for long schedules of SGD: in a short training with
        # AdamW boxes and classes lag behind.
        self.fcs = nn.ModuleList(
            LowRankLinear(a, b, ranks[i]) if i < len(ranks) else nn.Linear(a, b)
            for i, (a, b) in enumerate(pairwise(sizes))
        )
        self.logits = nn.Linear(sizes[-1], num_classes + 1)
        self.deltas = nn.Linear(sizes[-1], boxes * 4)
        for block in self.convs:
            for layer in block.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, noise: RegionNoise | None = None) -> BoxOutput:
        """Run the head on region features (R, channels, pool, pool), or as many bins."""
        x = self.hidden(x, noise)
        return BoxOutput(self.logits(x), self.deltas(x).unflatten(1, (-1, 4)))

    def hidden(self, x: Tensor, noise: RegionNoise | None = None) -> Tensor:
        """Return what the predictors see (R, width) of region features; see `forward`."""
        for block in self.convs:
            x = block(x)
        # (R, channels) or (R, pool * pool * channels)
        x = x.mean((2, 3)) if self.average else x.permute(0, 2, 3, 1).flatten(1)
        for number, fc in enumerate(self.fcs):
            x = F.relu(fc(x))
            if noise is not None and self.dropout and self.training:
                x = drop_units(x, self.dropout, noise.uniform(number, x.shape[1]))
        return x

    def load_classifier(self, layers: Sequence[tuple[Tensor, Tensor]]) -> int:
        """Start the fully connected layers from those of a classifier (Girshick 2015, 2.2).

        Args:
            layers: weight and bias of each; (out, C, h, w) where the classifier's first layer sees
                a map of h x w, else (out, in) or (out, in, 1, 1).

        Returns:
            How many were taken: the first ones, as long as their sizes fit.
        """
        for number, (fc, (weight, bias)) in enumerate(zip(self.fcs, layers, strict=False)):
            if weight.dim() == 4:
                # Our columns are in the order row, column, channel.
                weight = weight.permute(0, 2, 3, 1).flatten(1)
            if not isinstance(fc, nn.Linear) or weight.shape != fc.weight.shape:
                return number
            with torch.no_grad():
                fc.weight.copy_(weight)
                fc.bias.copy_(bias)
        return min(len(self.fcs), len(layers))
