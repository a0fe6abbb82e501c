"""A class and one box an image, in two branches on the maps of one network.

Classification as it is, with the background (no object) as one more class, beside a regression of
four numbers: the form of Sermanet et al. 2014 (OverFeat), section 4, on the maps of any network.
The box is the sigmoid of (cx, cy, w, h) relative to the square input, its loss smooth L1 and GIoU
(Rezatofighi et al. 2019), both only where there is an object. Unlike OverFeat, which slides over
the image and merges what it finds, the whole image is looked at once. With `class_specific` each
class has a box of its own, of which only that of the true class learns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...ops.boxes import boxes_cxcywh_to_xyxy, clip_boxes
from ...ops.losses import box_location_losses
from ...structures import Images, Instances, Places
from ..names import register_on_backbones
from .base import HIDDEN, Localizer, LocalizerOptions, PlaceTrunk

BETA = 0.1  # of the side of the input: where the loss of a coordinate turns straight


@dataclass(frozen=True)
class BoxOptions(LocalizerOptions):
    """Options of localizers by box.

    Attributes:
        class_specific: one box for each class instead of one for all.
        box_weight: how much the losses of the box count beside that of the class.
    """

    class_specific: bool = False
    box_weight: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.box_weight <= 1e3:
            raise OptionError(f"box_weight must lie above 0 and up to 1000, got {self.box_weight}")


class BoxHead(nn.Module):
    """Both branches on the last maps.

    Args:
        channels: K of the maps.
        cells: see `PlaceTrunk`.
        num_classes: C, background not counted.
        class_specific: one box for each class.
    """

    def __init__(self, channels: int, cells: int, num_classes: int, class_specific: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_specific = class_specific
        self.classes = nn.Linear(channels, num_classes + 1)
        self.trunk = PlaceTrunk(channels, cells)
        self.box = nn.Linear(HIDDEN, 4 * num_classes if class_specific else 4)
        nn.init.normal_(self.box.weight, std=0.01)
        nn.init.zeros_(self.box.bias)  # half of the image, in its middle

    @property
    def class_rows(self) -> dict[str, tuple[int, bool]]:
        """The layers with rows for each class; see `transfer.class_rows`."""
        rows = {"classes": (1, True)}
        return {**rows, "box": (4, False)} if self.class_specific else rows

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, C + 1), and boxes (B, C, 4) xyxy relative to the input."""
        logits: Tensor = self.classes(maps.mean((2, 3)))
        box = self.box(self.trunk(maps)).float().sigmoid().unflatten(1, (-1, 4))
        boxes = boxes_cxcywh_to_xyxy(box).expand(-1, self.num_classes, -1)
        return logits.float(), boxes


class BoxLocalizer(Localizer):
    """A class and one box for an image.

    Args:
        num_classes: number of classes, background not counted.
        options: see `BoxOptions`.
    """

    task = "localize"

    def __init__(self, num_classes: int, options: BoxOptions) -> None:
        super().__init__(num_classes, options)
        channels = self.backbone.channels[-1]
        self.head = BoxHead(channels, self.cells, num_classes, options.class_specific)
        self.box_weight = options.box_weight

    def forward(self, images: Images) -> Places:
        """Return logits and boxes; see `Places`."""
        logits, boxes = self.head(self.maps(images))
        height, width = images.pixels.shape[-2:]
        scaled = boxes * boxes.new_tensor([width, height, width, height])
        return Places(logits, clip_boxes(scaled, images.sizes[:, None]))

    def losses(
        self, images: Images, targets: Instances, *, generator: object = None
    ) -> dict[str, Tensor]:
        """Return `class`, `box` and `giou`, each the mean over the images; see `Localizer`."""
        logits, boxes = self.head(self.maps(images))
        count = max(len(images), 1)
        first = targets.with_a_slot().first_slot()
        known = ~first.crowd if first.crowd is not None else torch.ones_like(first.valid)
        there = first.valid & known
        label = torch.where(there, first.labels, self.num_classes)
        each = F.cross_entropy(logits, label, reduction="none")
        own = label.clamp(max=self.num_classes - 1)[:, None, None].expand(-1, 1, 4)
        height, width = images.pixels.shape[-2:]
        true = first.boxes / first.boxes.new_tensor([width, height, width, height])
        smooth, giou = box_location_losses(boxes.gather(1, own)[:, 0], true, there, beta=BETA)
        return {
            "class": torch.where(known, each, 0).sum() / count,
            "box": self.box_weight * smooth.sum() / count,
            "giou": self.box_weight * giou.sum() / count,
        }


def locate(num_classes: int, options: BoxOptions) -> BoxLocalizer:
    """Build a localizer by box."""
    return BoxLocalizer(num_classes, options)


register_on_backbones(
    "locate_",
    locate,
    options=BoxOptions,
    task="localize",
    paper="Sermanet et al. 2014",
    tiny={"imgsz": 64},
)
