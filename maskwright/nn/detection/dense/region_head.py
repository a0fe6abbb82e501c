"""Boxes from anchors in the cells of a map: YOLO v2 (Redmon & Farhadi 2017), as Darknet trains it.

Each cell has A anchors, each of them four numbers of a box, one of its objectness and C of its
classes:

    x = (column + sigmoid tx) / W,  w = exp(tw) pw / W,  score = sigmoid(to) p(class)

with y and h alike, W cells in a row and an anchor of pw x ph cells. An object belongs to the cell
of its centre and to the anchor there whose size overlaps its own best.

The loss is half of a weighted sum of squares, of (sigmoid tx, sigmoid ty, tw, th) and of the
objectness, and the cross-entropy of the classes: what Darknet's updates descend, which is not the
number that it prints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....ops.boxes import box_ioa, box_iou, boxes_cxcywh_to_xyxy, clip_boxes
from ....ops.checks import from_host
from ....ops.soft_nms import SoftNMS, suppress_padded
from ....structures import Instances
from ...parallel import mean_count, num_processes
from ...ragged import gather_slots, least
from ...random import RandomSource

WARM_IMAGES = 12_800  # seen, before which all boxes are drawn to their anchors
WARM_SCALE = 0.01
SMALLEST = 0.001  # share of the image's side below which a box is none
CANDIDATES = 4000  # pairs of box and class that the suppression sees
LARGEST = 30.0  # of tw and th: exp() of more is no size


class RegionHead(nn.Module):
    """Losses and decoding of maps of anchors; it has no weights of its own.

    Args:
        num_classes: C.
        anchors: width and height of each in cells.
        softmax: a box has one class; False: each class has a probability of its own.
        rescore: the objectness of an object's box goes towards its IoU, not towards 1.
        thresh: a box that overlaps an object by more need not be silent.
        bias_match: an object's anchor is told by the sizes of the anchors, not of their boxes.
        most_objects: of an image, the first ones; None: all count.
        object_scale, noobject_scale, class_scale, coord_scale: weights of the terms.

    Attributes:
        seen: images of the training so far, the batch that is being learned from included.
    """

    anchors: Tensor
    seen: Tensor

    def __init__(
        self,
        num_classes: int,
        anchors: Sequence[tuple[float, float]],
        *,
        softmax: bool = True,
        rescore: bool = True,
        thresh: float = 0.6,
        bias_match: bool = True,
        most_objects: int | None = None,
        object_scale: float = 5.0,
        noobject_scale: float = 1.0,
        class_scale: float = 1.0,
        coord_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.softmax, self.rescore, self.bias_match = softmax, rescore, bias_match
        self.thresh, self.most_objects = thresh, most_objects
        self.object_scale, self.noobject_scale = object_scale, noobject_scale
        self.class_scale, self.coord_scale = class_scale, coord_scale
        sizes = torch.tensor(anchors, dtype=torch.float32).view(-1, 2)
        self.register_buffer("anchors", sizes, persistent=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @property
    def channels(self) -> int:
        """Channels of the map that it takes."""
        return len(self.anchors) * (5 + self.num_classes)

    def class_places(self, num_classes: int) -> Tensor:
        """Return the channels of each class of a map for so many: (C, A); see `transfer`."""
        first = torch.arange(len(self.anchors)) * (5 + num_classes) + 5
        places: Tensor = torch.arange(num_classes)[:, None] + first
        return places

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, A, H, W, 5 + C) raw numbers of (B, A * (5 + C), H, W), in float32."""
        anchors, each = len(self.anchors), 5 + self.num_classes
        parts: Tensor = maps.float().unflatten(1, (anchors, each))
        return parts.permute(0, 1, 3, 4, 2)

    def boxes(self, raw: Tensor) -> Tensor:
        """Return (B, N, 4) centre x, centre y, width, height as shares of the canvas.

        N goes over anchor, row and column.

        Args:
            raw: of `forward`.
        """
        height, width = raw.shape[2:4]
        rows = torch.arange(height, device=raw.device)[:, None]
        columns = torch.arange(width, device=raw.device)
        x = (columns + raw[..., 0].sigmoid()) / width
        y = (rows + raw[..., 1].sigmoid()) / height
        sizes = raw[..., 2:4].clamp(max=LARGEST).exp() * self._sizes(raw)[:, None, None]
        return torch.cat([x[..., None], y[..., None], sizes], -1).flatten(1, 3)

    def _sizes(self, raw: Tensor) -> Tensor:
        """Return (A, 2) width and height of the anchors as shares of the canvas."""
        height, width = raw.shape[2:4]
        return torch.stack([self.anchors[:, 0] / width, self.anchors[:, 1] / height], -1)

    def losses(
        self,
        raw: Tensor,
        targets: Instances,
        size: tuple[int, int],
        *,
        generator: RandomSource = None,
    ) -> dict[str, Tensor]:
        """Return `yolo/box`, `yolo/objectness`, `yolo/class` and `yolo/prior`, a mean over images.

        The last draws all boxes to their anchors until `WARM_IMAGES` were seen. Of two objects at
        one anchor of a cell the later one counts; where classes have probabilities of their own,
        the classes of both.

        Args:
            raw: of `forward`.
            targets: ground truth, pixels of the canvas; sides below a thousandth of the canvas
                count as none.
            size: (height, width) of the canvas in pixels.
            generator: not needed; random numbers play no part.
        """
        targets = targets.with_a_slot()
        count_images(self, len(raw))
        goal, usable = usable_objects(targets, size, SMALLEST)
        if self.most_objects is not None:
            usable = usable & (usable.cumsum(1) <= self.most_objects)
        goal = torch.where(usable[..., None], goal, from_host((0.5, 0.5, 1.0, 1.0), goal.device))
        flat = raw.flatten(1, 3)  # (B, N, 5 + C)
        with torch.no_grad():
            found = self.boxes(raw)
            anchor, slot, cell = self._places(raw, found, goal)
            same = (slot[:, :, None] == slot[:, None, :]) & usable[:, None, :]
            later = torch.ones(same.shape[1:], dtype=torch.bool, device=raw.device).triu(1)
            counts = usable & ~(same & later).any(2)
            taken = occupied(slot, counts, flat.shape[1])
            corners = boxes_cxcywh_to_xyxy(found)
            truth = boxes_cxcywh_to_xyxy(goal)
            shown = torch.where(usable[..., None], truth, 0)
            silent = box_iou(corners, shown).amax(2) <= self.thresh
            silent = silent & ~taken & ~in_crowd(corners, targets, size)
            overlap = paired_iou(gather_slots(corners, slot), truth)
            wanted = overlap if self.rescore else torch.ones_like(overlap)
        # Whatever belongs to no object.
        free = 0.5 * self.noobject_scale * flat[..., 4].sigmoid().square()
        drawn = (flat[..., :2].sigmoid() - 0.5).square().sum(-1) + flat[..., 2:4].square().sum(-1)
        warm = (self.seen < WARM_IMAGES) & ~taken
        # The predictions of the objects: (B, K, 5 + C).
        own = gather_slots(flat, slot)
        height, width = raw.shape[2:4]
        scale = from_host((width, height), goal.device)
        offsets = goal[..., :2] * scale - cell
        sizes = (goal[..., 2:] * scale / self.anchors[anchor]).log()
        # Of a box that reaches beyond the canvas the weight would turn, and drive boxes away.
        weight = self.coord_scale * (2 - (goal[..., 2] * goal[..., 3]).clamp(max=1))
        away = (own[..., :2].sigmoid() - offsets).square() + (own[..., 2:4] - sizes).square()
        bound = 0.5 * self.object_scale * (own[..., 4].sigmoid() - wanted).square()
        images = mean_count(torch.ones(len(raw), dtype=torch.bool, device=raw.device))
        terms = {
            "yolo/box": torch.where(counts, 0.5 * weight * away.sum(-1), 0).sum(),
            "yolo/objectness": torch.where(counts, bound, 0).sum()
            + torch.where(silent, free, 0).sum(),
            "yolo/class": torch.where(
                counts, self._class_losses(own[..., 5:], targets.labels, same), 0
            ).sum(),
            "yolo/prior": torch.where(warm, 0.5 * WARM_SCALE * drawn, 0).sum(),
        }
        return {name: value / images for name, value in terms.items()}

    def _places(self, raw: Tensor, found: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return of objects (B, K, 4) the anchor, the place among all boxes, and the cell x, y."""
        height, width = raw.shape[2:4]
        column = (goal[..., 0] * width).long().clamp(0, width - 1)
        row = (goal[..., 1] * height).long().clamp(0, height - 1)
        at_cell = row * width + column
        sizes = self._sizes(raw)[None, None]  # (1, 1, A, 2)
        if not self.bias_match:
            every = torch.arange(len(self.anchors), device=raw.device) * (height * width)
            places = (at_cell[..., None] + every).flatten(1)
            sizes = gather_slots(found[..., 2:], places).unflatten(1, (at_cell.shape[1], -1))
        shared = torch.minimum(sizes, goal[:, :, None, 2:]).prod(-1)
        union = sizes.prod(-1) + goal[:, :, None, 2:].prod(-1) - shared
        anchor = (shared / union).nan_to_num(0.0).argmax(2)
        slot = anchor * (height * width) + at_cell
        return anchor, slot, torch.stack([column, row], -1)

    def _class_losses(self, logits: Tensor, labels: Tensor, same: Tensor) -> Tensor:
        """Return the losses (B, K) of the classes of objects; `same` (B, K, K) shares a place."""
        if self.softmax:
            each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            return self.class_scale * each.view(labels.shape)
        hot = F.one_hot(labels, self.num_classes).to(logits.dtype)
        wanted = torch.matmul(same.to(logits.dtype), hot).clamp(max=1)
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return self.class_scale * each.sum(-1)

    def scores(self, raw: Tensor, score_thresh: float) -> tuple[Tensor, Tensor]:
        """Return (B, N) the objectness and (B, N, C) the scores, 0 where that is not above."""
        flat = raw.flatten(1, 3)
        objectness, logits = flat[..., 4].sigmoid(), flat[..., 5:]
        classes = logits.softmax(-1) if self.softmax else logits.sigmoid()
        scores = objectness[..., None] * classes
        return objectness, torch.where((objectness > score_thresh)[..., None], scores, 0)


def count_images(head: nn.Module, images: int) -> None:
    """Let a head that trains know of so many images more, of all processes together."""
    if not head.training:
        return
    seen = head.seen
    assert isinstance(seen, Tensor)
    more = torch.ones(images, dtype=torch.int64, device=seen.device).sum()
    if num_processes() > 1:
        torch.distributed.all_reduce(more)
    seen.add_(more)


def usable_objects(
    targets: Instances, size: tuple[int, int], smallest: float
) -> tuple[Tensor, Tensor]:
    """Return objects (B, K, 4) as centre and size in shares of the canvas, and which count.

    Args:
        targets: ground truth, pixels of the canvas.
        size: (height, width) of the canvas.
        smallest: side below which an object does not count.
    """
    height, width = size
    scale = from_host((width, height), targets.boxes.device)
    low, high = targets.boxes[..., :2], targets.boxes[..., 2:]
    goal = torch.cat([(low + high) / 2 / scale, (high - low) / scale], -1)
    usable = targets.valid & (goal[..., 2:] >= smallest).all(-1)
    return goal, usable if targets.crowd is None else usable & ~targets.crowd


def in_crowd(corners: Tensor, targets: Instances, size: tuple[int, int]) -> Tensor:
    """Return (B, N) which boxes, xyxy in shares of the canvas, lie by half in a crowd."""
    if targets.crowd is None:
        return torch.zeros(corners.shape[:2], dtype=torch.bool, device=corners.device)
    height, width = size
    crowds = targets.boxes / from_host((width, height) * 2, corners.device)
    crowds = torch.where((targets.valid & targets.crowd)[..., None], crowds, 0)
    return (box_ioa(corners, crowds) >= 0.5).any(2)


def occupied(slot: Tensor, counts: Tensor, places: int) -> Tensor:
    """Return (B, N) bool: the places that objects which count have, of `slot` (B, K)."""
    taken = torch.zeros((len(slot), places + 1), dtype=torch.bool, device=slot.device)
    return taken.scatter(1, torch.where(counts, slot, places), True)[:, :places]


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return (...) the IoU of boxes (..., 4) xyxy one by one; 0 where sides are not above 0."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b))
    union = area_a + area_b - shared
    return torch.where(shared > 0, shared / union, 0)


def pick_best(
    boxes: Tensor,
    scores: Tensor,
    limits: Tensor,
    *,
    score_thresh: float,
    nms_thresh: float,
    max_det: int,
    soft_nms: SoftNMS | None = None,
    outside: bool = False,
) -> Instances:
    """Return the best pairs of box and class after NMS by class, by falling score.

    Args:
        boxes: (B, N, 4) xyxy in pixels; the suppression sees them whole, the result is clipped.
        scores: (B, N, C).
        limits: (B, 2) height and width of the images.
        score_thresh: a score must be above it.
        nms_thresh: IoU of the NMS.
        max_det: slots of the result.
        soft_nms: lower scores by it in place of the NMS.
        outside: boxes of which nothing lies in the image count too, as in Darknet.
    """
    classes = scores.shape[2]
    flat = scores.flatten(1)
    if not torch.compiler.is_compiling() and len(flat):
        # Few are above the threshold: the others need no order.
        most = int((flat > score_thresh).sum(1).amax())
        limit: int = min(max(most, 1), max(CANDIDATES, max_det), flat.shape[1])
    else:
        limit = least(max(CANDIDATES, max_det), flat.shape[1])
    score, at = flat.topk(limit, 1)
    box, label = gather_slots(boxes, at // classes), at % classes
    usable = score > score_thresh
    if not outside:  # in the padding
        shown = clip_boxes(box, limits[:, None])
        usable = usable & (shown[..., 2:] > shown[..., :2]).all(-1)
    index, kept_scores, kept = suppress_padded(
        box, score, usable, nms_thresh, max_det, labels=label, soft=soft_nms
    )
    found = clip_boxes(gather_slots(box, index), limits[:, None])
    return Instances(
        boxes=found * kept[..., None],
        labels=gather_slots(label, index) * kept,
        valid=kept,
        scores=kept_scores,
    )
