"""The first recipe of instance segmentation: find boxes, then tell object from ground inside each.

Two networks that share nothing: any detector of boxes, and any segmenter, which sees the pixels of
each box with a margin around it, scaled to a square, and gives each of them two classes. So worked
the line before Mask R-CNN (SDS, Hariharan et al. 2014; the cascades of Dai et al. 2016 then shared
the features). Both train together here: the segmenter on the boxes of the ground truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import OptionError
from ...nn.parallel import mean_count
from ...nn.ragged import in_parts
from ...nn.random import RandomSource, image_noise, streams
from ...ops.mask_crops import crop_masks
from ...ops.pooling.roi_align import roi_align
from ...structures import Images, Instances
from ..registry import build, get_entry, register
from ..semantic import unet as _unet  # noqa: F401  (registered before they are asked for)
from ..semantic.base import Segmenter
from . import faster_rcnn as _faster_rcnn  # noqa: F401
from .base import Detector, PostProcess

MARGIN = 1.5  # sides of a crop, relative to those of its box
TOGETHER = 32  # crops that are looked at together in prediction


@dataclass(frozen=True)
class DetectThenSegmentOptions:
    """Options of the two networks together.

    Attributes:
        detector: name of a model that finds boxes.
        segmenter: name of a model that gives every pixel a class.
        side: of a crop at the input of the segmenter, in pixels; a mask has two thirds of it.
        crops: objects of an image that train the segmenter in a step, drawn at random.
        imgsz: network input of the detector: long side, (short, long) or a factor as "1.25x"; None:
            its own.
        detector_args: further options of the detector by name.
        segmenter_args: those of the segmenter.
    """

    detector: str = "faster_rcnn_lite0_fpn"
    segmenter: str = "unet_lite0"
    side: int = 96
    crops: int = 16
    imgsz: int | tuple[int, int] | str | None = None
    detector_args: Mapping[str, Any] = field(default_factory=dict)
    segmenter_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, task in (("detector", "detect"), ("segmenter", "semantic")):
            entry = get_entry(getattr(self, name))
            if entry.task != task:
                raise OptionError(f"{name}={entry.name} is a {entry.kind} of the task {entry.task}")
        if type(self.side) is not int or not 24 <= self.side <= 1024 or self.side % 3:
            raise OptionError(f"side is a multiple of 3 from 24 to 1024, got {self.side!r}")
        if type(self.crops) is not int or self.crops < 1:
            raise OptionError(f"crops must be at least 1, got {self.crops!r}")


class DetectThenSegment(Detector):
    """A detector of boxes, and a segmenter of two classes on what is in them.

    Args:
        num_classes: real classes.
        detector: finds boxes; its conventions are those of the whole.
        segmenter: of two classes, ground and object.
        side: of a crop in pixels.
        crops: see `DetectThenSegmentOptions`.
    """

    task = "segment"

    def __init__(
        self, num_classes: int, detector: Detector, segmenter: Segmenter, side: int, crops: int
    ) -> None:
        super().__init__(
            num_classes,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            paste_mode=detector.paste_mode,
            resize=detector.resize,
        )
        if side % segmenter.size_divisor:
            raise OptionError(
                f"side={side} must be a multiple of {segmenter.size_divisor} for this segmenter"
            )
        segmenter.network.named = False
        self.detector, self.segmenter = detector, segmenter
        self.side, self.crops = side, crops
        self.size_divisor, self.buckets = detector.size_divisor, detector.buckets
        self.train_scales = detector.train_scales
        self.proposal_source = detector.proposal_source
        self.max_proposals = detector.max_proposals

    @property
    def parts(self) -> tuple[Detector, Segmenter]:
        """Both: each starts from weights of its own; see `Model`."""
        return self.detector, self.segmenter

    @property
    def backbone(self) -> Any:  # type: ignore[override]
        """That of the detector; the segmenter has one of its own."""
        return self.detector.backbone

    def freeze(self, stages: int) -> None:
        """Stop the training of the first stages of both backbones; see `Model`."""
        for part in self.parts:
            part.freeze(stages)

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        """Return the detections with their masks; see `Detector.forward`."""
        return self.refine(images, self.detector(images, post))

    def refine(self, images: Images, found: Instances) -> Instances:
        """Return boxes from elsewhere with the masks that the segmenter finds in them."""
        batch, slots = found.valid.shape
        boxes = found.boxes.flatten(0, 1)
        image = torch.arange(batch, device=boxes.device).repeat_interleave(slots)
        rows = slice(None)
        if not torch.compiler.is_compiling():  # where sizes may hang on data
            rows = found.valid.flatten().nonzero()[:, 0]

        def masks(box: Tensor, of: Tensor) -> list[Tensor]:
            return [self._inside(self.logits(images, box, of)).sigmoid()]

        side = self.side * 2 // 3
        crops = boxes.new_zeros(batch * slots, side, side)
        crops[rows] = in_parts(masks, TOGETHER, boxes[rows], image[rows])[0]
        return replace(found, mask_crops=crops.view(batch, slots, side, side))

    def logits(self, images: Images, boxes: Tensor, image: Tensor) -> Tensor:
        """Return the logits (R, S, S) of the object in crops around boxes.

        Args:
            images: B images.
            boxes: (R, 4) xyxy, padded-image pixels.
            image: (R,) int64, the image of each.
        """
        pixels = roi_align(images.pixels, around(boxes), image, strides=(1,), output_size=self.side)
        sizes = torch.full((len(boxes), 2), self.side, device=boxes.device)
        both = self.segmenter(Images(pixels, sizes, sizes)).float()
        return both[:, 1] - both[:, 0]

    def _inside(self, crops: Tensor) -> Tensor:
        """Return the part of crops (R, S, S) that is the box."""
        edge = self.side // 6
        return crops[:, edge : self.side - edge, edge : self.side - edge]

    def losses(
        self, images: Images, targets: Instances, *, generator: RandomSource = None
    ) -> dict[str, Tensor]:
        """Return the terms of the detector, and `crop/mask` of the segmenter; see `Detector`."""
        first, second = streams(generator, 2)
        losses = self.detector.losses(images, targets, generator=first)
        if targets.masks is None:
            raise ValueError("the segmenter learns from masks, and the targets have none")
        frames = targets.masks.frames
        known = targets.valid & (frames[..., 2:] > frames[..., :2]).all(-1)
        if targets.crowd is not None:
            known = known & ~targets.crowd
        targets, known = targets.with_a_slot(), F.pad(known, (0, int(known.shape[1] == 0)))
        noise = image_noise(second, len(images), known.shape[1], known.device)
        count = min(self.crops, known.shape[1])
        chosen = (noise + known).topk(count, 1).indices
        valid = known.gather(1, chosen)
        boxes = targets.boxes.gather(1, chosen[..., None].expand(-1, -1, 4))
        image = torch.arange(len(images), device=boxes.device)[:, None].expand(-1, count)
        logits = self.logits(images, boxes.flatten(0, 1), image.flatten())
        assert targets.masks is not None
        truth = crop_masks(targets.masks, around(boxes), chosen, valid, self.side).flatten(0, 1)
        each = F.binary_cross_entropy_with_logits(logits, (truth >= 0.5).float(), reduction="none")
        each = each.mean((1, 2)) * valid.flatten()
        losses["crop/mask"] = each.sum() / mean_count(valid)
        return losses


def around(boxes: Tensor) -> Tensor:
    """Return boxes (..., 4) with the margin around them, about the same centres."""
    low, high = boxes[..., :2], boxes[..., 2:]
    centre, half = (low + high) / 2, (high - low) * (MARGIN / 2)
    return torch.cat([centre - half, centre + half], -1)


@register(
    "detect_then_segment",
    options=DetectThenSegmentOptions,
    task="segment",
    paper="Hariharan et al. 2014",
    tiny={
        "detector": "faster_rcnn_resnet50_fpn",
        "segmenter": "unet",
        "side": 48,
        "crops": 4,
        "detector_args": dict(get_entry("faster_rcnn_resnet50_fpn").tiny or {}),
        "segmenter_args": dict(get_entry("unet").tiny or {}),
    },
)
def detect_then_segment(num_classes: int, options: DetectThenSegmentOptions) -> DetectThenSegment:
    """Build both networks."""
    own = dict(options.detector_args)
    if options.imgsz is not None:
        own["imgsz"] = options.imgsz
    detector = build(options.detector, num_classes, **own)
    segmenter = build(options.segmenter, 2, **options.segmenter_args)
    return DetectThenSegment(num_classes, detector, segmenter, options.side, options.crops)
