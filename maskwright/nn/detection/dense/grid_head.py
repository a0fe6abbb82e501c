"""Boxes of a grid of cells: YOLO v1 (Redmon et al. 2016), as Darknet trains it.

Each of S x S cells has C scores of classes and B boxes, each of them one number of its objectness
and four of its place:

    x = (column + x') / S,  w = w'^2,  score = objectness x class score

with y and h alike. Nothing is squeezed into 0 to 1: scores of two negative numbers count. The
numbers come in one row: all classes (S, S, C), all objectness (S, S, B), all boxes (S, S, B, 4).

An object belongs to the cell of its centre, the first of several there; of the boxes of the cell
the one with the highest IoU is responsible. The loss is half of equation 3 with its weights, whose
gradient Darknet's updates follow.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....ops.boxes import boxes_cxcywh_to_xyxy
from ....ops.checks import from_host
from ....structures import Instances
from ...parallel import mean_count
from ...ragged import gather_slots
from ...random import RandomSource, image_noise
from .region_head import count_images, in_crowd, occupied, paired_iou, usable_objects

SMALLEST = 0.005  # share of the image's side below which a box is none
RANDOM_IMAGES = 64_000  # seen, before which `random` picks the responsible box


class GridHead(nn.Module):
    """Losses and decoding of a grid of boxes; it has no weights of its own.

    Args:
        num_classes: C.
        side: S.
        boxes: B.
        softmax: softmax over the classes of a cell.
        sqrt: sizes are square roots.
        rescore: the objectness of the responsible box goes towards its IoU, not towards 1.
        forced: the second box is responsible for small objects, below a tenth of the image, the
            first for all others.
        random: at first any box is responsible.
        object_scale, noobject_scale, class_scale, coord_scale: weights of the terms.

    Attributes:
        seen: images of the training so far, the batch that is being learned from included.
    """

    seen: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        side: int = 7,
        boxes: int = 2,
        softmax: bool = False,
        sqrt: bool = True,
        rescore: bool = True,
        forced: bool = False,
        random: bool = False,
        object_scale: float = 1.0,
        noobject_scale: float = 0.5,
        class_scale: float = 1.0,
        coord_scale: float = 5.0,
    ) -> None:
        super().__init__()
        if forced and boxes < 2:
            raise ValueError("forced=1 needs two boxes a cell, num=2")
        self.num_classes, self.side, self.per_cell = num_classes, side, boxes
        self.softmax, self.sqrt, self.rescore = softmax, sqrt, rescore
        self.forced, self.random = forced, random
        self.object_scale, self.noobject_scale = object_scale, noobject_scale
        self.class_scale, self.coord_scale = class_scale, coord_scale
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @property
    def channels(self) -> int:
        """Numbers of an image that it takes."""
        return self.side**2 * (5 * self.per_cell + self.num_classes)

    def class_places(self, num_classes: int) -> Tensor:
        """Return the numbers of each class in a row for so many: (C, S * S); see `transfer`."""
        cells = torch.arange(self.side**2) * num_classes
        return torch.arange(num_classes)[:, None] + cells

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return classes (B, S * S, C), objectness (B, S * S, n) and boxes (B, S * S, n, 4).

        Args:
            maps: (B, ...) the numbers of each image in their order.
        """
        row, cells, n = maps.float().flatten(1), self.side**2, self.per_cell
        parts = row.split([cells * self.num_classes, cells * n, cells * n * 4], 1)
        classes, objectness, boxes = parts
        return (
            classes.unflatten(1, (cells, self.num_classes)),
            objectness.unflatten(1, (cells, n)),
            boxes.unflatten(1, (cells, n, 4)),
        )

    def boxes(self, raw: Tensor) -> Tensor:
        """Return (B, S * S, n, 4) centre x, centre y, width, height as shares of the canvas."""
        cells = torch.arange(self.side**2, device=raw.device)
        corner = torch.stack([cells % self.side, cells // self.side], -1)[:, None]
        sizes = raw[..., 2:].square() if self.sqrt else raw[..., 2:]
        return torch.cat([(raw[..., :2] + corner) / self.side, sizes], -1)

    def losses(
        self,
        output: tuple[Tensor, Tensor, Tensor],
        targets: Instances,
        size: tuple[int, int],
        *,
        generator: RandomSource = None,
    ) -> dict[str, Tensor]:
        """Return `yolo/box`, `yolo/objectness` and `yolo/class`, a mean over the images.

        Args:
            output: of `forward`.
            targets: ground truth, pixels of the canvas; sides below 0.005 of the canvas count as
                none.
            size: (height, width) of the canvas in pixels.
            generator: of the boxes that `random` picks.
        """
        classes, objectness, raw = output
        targets = targets.with_a_slot()
        count_images(self, len(raw))
        goal, usable = usable_objects(targets, size, SMALLEST)
        goal = torch.where(usable[..., None], goal, from_host((0.5, 0.5, 1.0, 1.0), goal.device))
        with torch.no_grad():
            cell_xy = (goal[..., :2] * self.side).long().clamp(0, self.side - 1)
            cell = cell_xy[..., 1] * self.side + cell_xy[..., 0]  # (B, K)
            same = (cell[:, :, None] == cell[:, None, :]) & usable[:, None, :]
            earlier = torch.ones(same.shape[1:], dtype=torch.bool, device=raw.device).tril(-1)
            counts = usable & ~(same & earlier).any(2)
            found = self.boxes(raw)  # (B, S * S, n, 4)
            at_cell = self._at(found, cell)
            corners, truth = boxes_cxcywh_to_xyxy(at_cell), boxes_cxcywh_to_xyxy(goal)[:, :, None]
            overlaps = paired_iou(corners, truth)  # (B, K, n)
            apart = (at_cell - goal[:, :, None]).square().sum(-1)
            best = self._responsible(overlaps, apart, goal, cell, generator)
            overlap = overlaps.gather(2, best[..., None])[..., 0]
            wanted = overlap if self.rescore else torch.ones_like(overlap)
            taken = occupied(cell * self.per_cell + best, counts, raw.shape[1] * self.per_cell)
            every = boxes_cxcywh_to_xyxy(found.flatten(1, 2))
            silent = ~taken & ~in_crowd(every, targets, size)
        offsets = goal[..., :2] * self.side - cell_xy
        sizes = goal[..., 2:].sqrt() if self.sqrt else goal[..., 2:]
        own = self._at(raw, cell).gather(2, best[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
        away = (own - torch.cat([offsets, sizes], -1)).square().sum(-1)
        sure = gather_slots(objectness, cell).gather(2, best[..., None])[..., 0]
        free = torch.where(silent, objectness.flatten(1).square(), 0)
        of_class = self._class_losses(gather_slots(classes, cell), targets.labels)
        images = mean_count(torch.ones(len(raw), dtype=torch.bool, device=raw.device))
        terms = {
            "yolo/box": self.coord_scale * torch.where(counts, away, 0).sum(),
            "yolo/objectness": self.object_scale
            * torch.where(counts, (sure - wanted).square(), 0).sum()
            + self.noobject_scale * free.sum(),
            "yolo/class": self.class_scale * torch.where(counts, of_class, 0).sum(),
        }
        return {name: 0.5 * value / images for name, value in terms.items()}

    @staticmethod
    def _at(values: Tensor, cell: Tensor) -> Tensor:
        """Return (B, K, n, 4) of cells (B, K) out of (B, S * S, n, 4)."""
        taken: Tensor = gather_slots(values.flatten(2), cell).unflatten(2, values.shape[2:])
        return taken

    def _responsible(
        self, overlaps: Tensor, apart: Tensor, goal: Tensor, cell: Tensor, generator: RandomSource
    ) -> Tensor:
        """Return (B, K) which box of its cell each object has.

        The one of the highest IoU, or, where none overlaps it, the nearest by its four numbers.
        """
        best = torch.where((overlaps > 0).any(2), overlaps.argmax(2), apart.argmin(2))
        if self.forced:
            best = (goal[..., 2] * goal[..., 3] < 0.1).long()
        if self.random:
            noise = image_noise(generator, len(cell), self.side**2, cell.device)
            any_box = (noise.gather(1, cell) * self.per_cell).long()
            best = torch.where(self.seen < RANDOM_IMAGES, any_box, best)
        return best

    def _class_losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return twice the losses (B, K) of the classes of objects (B, K, C)."""
        if self.softmax:
            each = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none")
            return 2 * each.view(labels.shape)
        hot = F.one_hot(labels, self.num_classes).to(scores.dtype)
        return (scores - hot).square().sum(-1)

    def scores(
        self, output: tuple[Tensor, Tensor, Tensor], score_thresh: float
    ) -> tuple[Tensor, Tensor]:
        """Return (B, N) the objectness and (B, N, C) the scores of all boxes; no threshold here."""
        classes, objectness, _ = output
        shown = classes.softmax(-1) if self.softmax else classes
        scores = objectness[..., None] * shown[:, :, None]
        return objectness.flatten(1), scores.flatten(1, 2)
