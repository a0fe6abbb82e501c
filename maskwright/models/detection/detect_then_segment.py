"""Boxes first, then the pixels in each: instance segmentation by two networks, step after step.

Before Mask R-CNN objects were found and cut out in separate steps (SDS, Hariharan et al. 2014).
Here Faster R-CNN with a pyramid finds boxes, and a segmenter, any of those that are registered,
tells object from ground in the pixels of each box and a margin around it, scaled to a square. They
share nothing but the image, and train together: the segmenter in boxes of the ground truth, which
are moved as far as those that a detector finds may be off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import OptionError
from ...nn.parallel import mean_count
from ...nn.ragged import active_slots, gather_slots, in_parts, put_back, take
from ...nn.random import RandomSource, image_noise, streams
from ...ops.mask_crops import crop_masks
from ...ops.pooling.roi_align import roi_align
from ...structures import Images, Instances, widened
from ..base import Model
from ..options import check_ranges
from ..registry import build, get_entry
from ..semantic.base import Segmenter
from ..semantic.encoder import Encoder
from .base import PostProcess, TwoStageDetector
from .faster_rcnn import FPNOptions, register_fpn_family, two_stage_fpn

MARGIN = 1.5  # sides of a crop, relative to those of its box: the mask is two thirds of it
MOVED = 0.1  # how far each edge of a box is moved at most in training, relative to its side
AT_ONCE = 2**18  # pixels of the crops that are looked at together in prediction


@dataclass(frozen=True)
class DetectThenSegmentOptions(FPNOptions):
    """Options of a detector with a segmenter behind it.

    Attributes:
        segmenter: name of a model that gives every pixel a class, such as unet_lite0 or
            deeplabv3plus_resnet50.
        side: of a crop at the input of the segmenter, in pixels; a mask has two thirds of it.
        crops: boxes of an image that train the segmenter in a step; objects take turns.
    """

    segmenter: str = "unet_lite0"
    side: int = 96
    crops: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"side": (24, 1536), "crops": (1, 1024)})
        entry = get_entry(self.segmenter)
        if entry.task != "semantic":
            raise OptionError(
                f"segmenter={self.segmenter} is a {entry.kind}: give a model of the task semantic, "
                "such as unet_lite0"
            )


class DetectThenSegment(TwoStageDetector):
    """A detector of boxes, and a segmenter of two classes on what is in them.

    Args:
        detector: finds boxes; its parts become those of the whole.
        segmenter: of two classes, ground and object.
        side: of a crop in pixels.
        crops: see `DetectThenSegmentOptions`.

    Raises:
        OptionError: if crops of this side have no middle of whole pixels, or the segmenter does not
            take them.
    """

    def __init__(
        self, detector: TwoStageDetector, segmenter: Segmenter, *, side: int, crops: int
    ) -> None:
        super().__init__(
            detector.num_classes,
            backbone=detector.backbone,
            fpn=detector.fpn,
            rpn=detector.rpn,
            roi_heads=detector.roi_heads,
            mean=detector.backbone.mean,
            std=detector.backbone.std,
            resize=detector.resize,
            paste_mode=detector.paste_mode,
        )
        unit = math.lcm(6, segmenter.size_divisor)
        if side % unit:
            raise OptionError(
                f"side={side}: expected a multiple of {unit}, of which two thirds are whole pixels "
                "and which this segmenter takes"
            )
        self.task = "segment"
        segmenter.network.named = False
        self.segmenter = segmenter
        self.side, self.crops = side, crops

    @property
    def parts(self) -> tuple[Model, ...]:
        """The detector, and the segmenter if its backbone is one that has weights; see `Model`."""
        alone = isinstance(self.segmenter.backbone, Encoder)
        return (self,) if alone else (self, self.segmenter)

    def freeze(self, stages: int) -> None:
        """Stop the training of the first stages of all backbones that have weights; see `Model`."""
        for part in self.parts:
            part.backbone.freeze(stages)

    def train_only(self, part: str) -> None:
        """Choose what trains; the segmenter is one of the heads. See `TwoStageDetector`."""
        super().train_only(part)
        if not self._trains("heads"):
            self.segmenter.requires_grad_(False)

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        """Return the detections with their masks; see `Detector.forward`."""
        return self.refine(images, super().forward(images, post))

    def refine(self, images: Images, found: Instances) -> Instances:
        """Return boxes from elsewhere with the masks in them; see `Detector.refine`."""
        shape = (found.valid.shape[0], found.valid.shape[1])
        rows = active_slots(found.valid)

        def masks(boxes: Tensor, image: Tensor) -> list[Tensor]:
            crops = self._cut(images, boxes, image)
            edge = self.side // 6
            logits = self._object(self.segmenter.network(crops.pixels), crops)
            return [logits[:, edge : self.side - edge, edge : self.side - edge].sigmoid()]

        together = max(AT_ONCE // self.side**2, 2)
        (made,) = in_parts(masks, together, take(found.boxes, rows), rows // shape[1])
        made = put_back(made, rows, shape).mul_(found.valid[..., None, None])
        return replace(found, mask_crops=made)

    def look(self, pixels: Tensor) -> Instances:
        """Run both networks, each once, on one image, the whole of which is two regions.

        Two, as a region alone would look like an image, which it does not grow with.
        """
        height, width = pixels.shape[-2:]
        size = torch.tensor([[height, width]], device=pixels.device)
        images = Images(pixels, size, size)
        super().forward(images, PostProcess(score_thresh=0.0, max_det=1))
        whole = torch.tensor([[[0.0, 0.0, width, height]] * 2], device=pixels.device)
        valid = torch.ones(1, 2, dtype=torch.bool, device=pixels.device)
        return self.refine(images, Instances(whole, valid.long(), valid))

    def losses(
        self, images: Images, targets: Instances, *, generator: RandomSource = None
    ) -> dict[str, Tensor]:
        """Return the terms of the detector, and those of the segmenter.

        They are `roi/mask`, the mean binary cross-entropy over the pixels of the crops, and
        `roi/auxiliary` for a segmenter with auxiliary heads. See `TwoStageDetector`.
        """
        if targets.masks is None:
            raise ValueError(
                "this detector has a segmenter for masks, but the targets have no masks; train a "
                "`faster_rcnn_...` model on data with boxes only"
            )
        first, second = streams(generator, 2)
        losses = super().losses(images, targets, generator=first)
        if not self._trains("heads"):
            return losses
        targets = targets.with_a_slot()
        boxes, slot, valid = self._drawn(images, targets, second)
        assert targets.masks is not None
        truth = crop_masks(targets.masks, widened(boxes, MARGIN), slot, valid, self.side).flatten(
            0, 1
        )
        goal = (truth >= 0.5).float()
        image = torch.arange(len(images), device=boxes.device)[:, None].expand(valid.shape)
        crops = self._cut(images, boxes.flatten(0, 1), image.flatten())
        terms = []
        for logits, weight in self.segmenter.network.all_logits(crops.pixels):
            made = self._object(logits, crops)
            each = F.binary_cross_entropy_with_logits(made, goal, reduction="none").mean((1, 2))
            terms.append(weight * torch.where(valid.flatten(), each, 0).sum() / mean_count(valid))
        losses["roi/mask"], *others = terms
        if others:
            losses["roi/auxiliary"] = torch.stack(others).sum()
        return losses

    def _drawn(
        self, images: Images, targets: Instances, generator: RandomSource
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the boxes in which the segmenter learns: the objects of an image take turns.

        There are as many for every image, however many objects it has, so that the statistics of
        batch norms do not hang on what else is in the batch. An image without an object with a mask
        gives the whole of itself, which does not count in the loss.

        Returns:
            boxes (B, S, 4), the slot (B, S) of the object of each, and whether it counts (B, S).
        """
        assert targets.masks is not None
        frames, boxes = targets.masks.frames, targets.boxes
        known = targets.valid & (frames[..., 2:] > frames[..., :2]).all(-1)
        if targets.crowd is not None:
            known = known & ~targets.crowd
        count = known.sum(1, keepdim=True)
        first, second = streams(generator, 2)
        noise = image_noise(first, len(images), known.shape[1], boxes.device)
        ranked = (noise + known).argsort(1, descending=True)
        turns = torch.arange(self.crops, device=boxes.device) % count.clamp(min=1)
        slot = ranked.gather(1, turns)
        box = gather_slots(boxes, slot)
        sides = (box[..., 2:] - box[..., :2]).repeat(1, 1, 2)
        noise = image_noise(second, len(images), 4 * self.crops, boxes.device)
        moves = MOVED * (2 * noise.view(box.shape) - 1)
        limit = images.sizes.flip(1).repeat(1, 2)[:, None].to(box)  # x, y, x, y
        box = (box + moves * sides).clamp(min=0).minimum(limit)
        valid = (count > 0).expand(-1, self.crops)
        whole = limit * torch.tensor([0, 0, 1, 1], device=limit.device)
        return torch.where(valid[..., None], box, whole), slot, valid

    def _cut(self, images: Images, boxes: Tensor, image: Tensor) -> Images:
        """Return what the segmenter sees of boxes: standardised pixels, zeros outside the image.

        Args:
            images: B images.
            boxes: (R, 4) xyxy, padded-image pixels, without their margin.
            image: (R,) int64, the image of each.
        """
        # A border of zeros: beside it, pixels fade alike whether or not the image is padded.
        pixels = F.pad(self.segmenter.normalise(images), (1, 1, 1, 1))
        cut = roi_align(
            pixels, widened(boxes, MARGIN) + 1, image, strides=(1,), output_size=self.side
        )
        sizes = torch.full((len(boxes), 2), self.side, device=boxes.device)
        return Images(cut.to(self.dtype), sizes, sizes)

    def _object(self, logits: Tensor, crops: Images) -> Tensor:
        """Return the logits (R, S, S) of the object in R crops of those of two classes."""
        both = self.segmenter.enlarged(logits, crops).float()
        return both[:, 1] - both[:, 0]


def detect_then_segment(num_classes: int, options: DetectThenSegmentOptions) -> DetectThenSegment:
    """Build both networks."""
    detector = two_stage_fpn(num_classes, options)
    segmenter: Any = build(options.segmenter, 2)
    return DetectThenSegment(detector, segmenter, side=options.side, crops=options.crops)


register_fpn_family(
    "detect_then_segment",
    detect_then_segment,
    options=DetectThenSegmentOptions,
    task="segment",
    paper="Hariharan et al. 2014",
    coco={},
    tiny={"segmenter": "unet_test_efficientnet", "crops": 4},
)
