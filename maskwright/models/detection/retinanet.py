"""RetinaNet (Lin et al. 2017, "Focal loss for dense object detection"): a pyramid, nine anchors.

| part | layers |
| --- | --- |
| pyramid | P3 to P5 of C3 to C5, P6 and P7 by strided convolutions, 256 channels |
| anchors | sides 32 to 512 times 1, 2^(1/3), 2^(2/3); height over width 1/2, 1, 2 |
| class tower | four 3x3 convolutions, a 3x3 one to the logits of each anchor and class |
| box tower | four 3x3 convolutions, a 3x3 one to four deltas of each anchor |

An anchor is positive from an IoU of 0.5 with an object on, background below 0.4, and ignored
between. Differences from the paper: the best anchor of each object is positive as well, as in all
implementations; the box loss is L1. With `conventions="torchvision"` sides of anchors are whole
numbers, losses are divided by the positives of each image, and boxes and sizes are theirs; version
2 makes P6 of C5, has group norm in the towers and learns boxes by GIoU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...errors import OptionError
from ...nn.detection.anchors import AnchorGenerator
from ...nn.detection.dense.head import BOX_LOSSES, BoxRule, TowerHead
from ...nn.detection.dense.mining import get_mining
from ...nn.detection.dense.scores import SigmoidScores
from ...nn.fpn import FPN, LastLevels
from ..conventions import get_conventions
from ..options import check_pixels, check_ranges
from ..registry import register
from .faster_rcnn import torchvision_weights
from .one_stage import OneStageDetector

STRIDES = (8, 16, 32)
OCTAVES = 3  # sizes of anchors between one level and the next


@dataclass(frozen=True)
class RetinaNetOptions:
    """Options of RetinaNet.

    Attributes:
        backbone: one of our ResNets or any timm name.
        norm: batch norm of the backbone: "frozen", "affine" or "bn"; None: as fits the backbone.
        width: channels of the pyramid and of the towers.
        fpn_norm: norm of the pyramid: None, "bn" or "gn".
        convs: 3x3 convolutions of each tower.
        head_norm: norm of the towers: None, "bn", "gn" or "gn32" (of 16 or 32 groups).
        p6_of_p5: P6 is made of P5, not of C5.
        anchor_sizes: sides of the smallest anchors of P3 to P7, pixels of the network input.
        anchor_ratios: height over width of the anchors.
        loss: of the classes, "focal" or "ce" (binary cross-entropy).
        alpha: weight of the ones in the focal loss.
        gamma: how much less the focal loss counts what is right already.
        mining: which anchors count: "none" (all), "random", "hard_negatives" (three for each
            positive) or "ohem" (256 of an image).
        box_loss: "l1", "smooth_l1" or "giou".
        box_weight: factor of the box loss.
        candidates: pairs of anchor and class of a level that the suppression sees.
        imgsz: network input: long side, (short, long) or a factor as "1.25x"; None: 800, 1333.
        conventions: whose rules for resizing, anchors and normalisation: "maskwright",
            "torchvision", "torchvision_v1", "detectron2" or another of `CONVENTIONS`. With those of
            detectron2 losses are divided by a running mean of the positive anchors.
        pixel_mean: of red, green and blue, 0 to 255, where it is not that of the conventions.
        pixel_std: the deviation, alike.
    """

    backbone: str = "resnet50"
    norm: str | None = None
    width: int = 256
    fpn_norm: str | None = None
    convs: int = 4
    head_norm: str | None = None
    p6_of_p5: bool = False
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    loss: str = "focal"
    alpha: float = 0.25
    gamma: float = 2.0
    mining: str = "none"
    box_loss: str = "l1"
    box_weight: float = 1.0
    candidates: int = 1000
    imgsz: int | tuple[int, int] | str | None = None
    conventions: str = "maskwright"
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_pixels(self)
        check_ranges(self, {"width": (1, 8192), "convs": (0, 64), "candidates": (1, 100_000)})
        get_mining(self.mining)
        if self.loss not in ("focal", "ce"):
            raise OptionError(f"loss is focal or ce; got {self.loss!r}")
        if self.box_loss not in BOX_LOSSES:
            raise OptionError(f"box_loss is one of {', '.join(BOX_LOSSES)}; got {self.box_loss!r}")
        if not 0 < self.alpha < 1:
            raise OptionError(f"alpha lies between 0 and 1, got {self.alpha!r}")
        if not 0 <= self.gamma < math.inf:
            raise OptionError(f"gamma is at least 0 and finite, got {self.gamma!r}")
        if not 0 < self.box_weight < math.inf:
            raise OptionError(f"box_weight must be above 0 and finite, got {self.box_weight!r}")


def sides(size: float, *, whole: bool) -> tuple[float, ...]:
    """Return the sides of the anchors of a level, whose smallest has this one."""
    found = [size * 2 ** (step / OCTAVES) for step in range(OCTAVES)]
    return tuple(int(side) if whole else side for side in found)


def retinanet(num_classes: int, options: RetinaNetOptions) -> OneStageDetector:
    """Build a RetinaNet."""
    rules = get_conventions(options.conventions)
    backbone = rules.backbone(options.backbone, norm=options.norm, strides=STRIDES)
    last = LastLevels(
        backbone.channels[-1],
        options.width,
        of_pyramid=options.p6_of_p5,
        relu=not options.conventions.startswith("mmdetection"),
    )
    fpn = FPN(backbone.channels, backbone.strides, options.width, norm=options.fpn_norm, last=last)
    theirs = options.conventions.startswith("torchvision")
    anchors = AnchorGenerator(
        [sides(size, whole=theirs) for size in options.anchor_sizes],
        options.anchor_ratios,
        fpn.strides,
        rounded=rules.round_anchors,
        stride_from_maps=rules.stride_from_maps,
    )
    head = TowerHead(
        options.width,
        num_classes,
        anchors,
        convs=options.convs,
        norm=options.head_norm,
        scores=SigmoidScores(
            alpha=options.alpha if options.loss == "focal" else None,
            gamma=options.gamma,
            candidates=options.candidates,
        ),
        mining=get_mining(options.mining),
        box=BoxRule(
            options.box_loss,
            options.box_weight,
            0.11 if options.conventions.startswith("mmdetection_v1") else 0.1,
            clip_last=options.conventions.startswith("detectron"),
            **rules.boxes,
        ),
        by_image=theirs,
        running=rules.running_normaliser,
    )
    return OneStageDetector(
        num_classes,
        backbone=backbone,
        fpn=fpn,
        head=head,
        **rules.pixels(backbone, options.pixel_mean, options.pixel_std),
        resize=rules.resize.to(options.imgsz),
    )


_LITE = {"width": 128, "imgsz": 640, "anchor_sizes": (24, 48, 96, 192, 384)}
_NAMES: dict[str, dict[str, Any]] = {
    "resnet50_fpn": {"backbone": "resnet50", "p6_of_p5": True},
    "resnet50_fpn_v2": {
        "backbone": "resnet50",
        "norm": "bn",
        "head_norm": "gn32",
        "box_loss": "giou",
    },
    "resnet18_fpn": {"backbone": "resnet18"},
    "resnet34_fpn": {"backbone": "resnet34"},
    "resnet101_fpn": {"backbone": "resnet101"},
    "resnext101_32x4d_fpn": {"backbone": "resnext101_32x4d"},
    "resnext101_64x4d_fpn": {"backbone": "resnext101_64x4d"},
    "lite0_fpn": {"backbone": "tf_efficientnet_lite0", **_LITE},
    "mobilenet_v2_fpn": {"backbone": "mobilenetv2_100", **_LITE},
}
_TINY = {
    "backbone": "resnet18",
    "width": 16,
    "convs": 1,
    "anchor_sizes": (8, 16, 32, 64, 96),
    "imgsz": 96,
}
_COCO = {
    "resnet50_fpn": torchvision_weights("retinanet_resnet50_fpn", "eeacb38b", box=36.4),
    "resnet50_fpn_v2": torchvision_weights("retinanet_resnet50_fpn_v2", "5905b1c5", box=41.5),
}
for _ending, _presets in _NAMES.items():
    register(
        f"retinanet_{_ending}",
        options=RetinaNetOptions,
        task="detect",
        paper="Lin et al. 2017",
        tiny=_TINY if _ending == "resnet50_fpn" else None,
        weights={"coco": _COCO[_ending]} if _ending in _COCO else {},
        presets=_presets,
    )(retinanet)
