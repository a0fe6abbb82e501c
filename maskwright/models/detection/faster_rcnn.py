"""Faster R-CNN (Ren et al. 2015) with a feature pyramid (Lin et al. 2017), and its assembly.

Differences from the paper: a pyramid in place of one map, RoIAlign in place of RoIPool (He et al.
2017), approximate joint training. The same assembly with a mask head is Mask R-CNN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...nn.detection.box_head import BoxHead
from ...nn.detection.cascade import CascadeHeads, cascade_of
from ...nn.detection.keypoint_head import KeypointHead
from ...nn.detection.mask_head import MaskHead
from ...nn.detection.poolers import AlignPooler
from ...nn.detection.roi_heads import RoIHeads
from ...nn.fpn import FPN
from ..conventions import get_conventions
from ..options import check_ranges, check_within
from ..registry import Builder, PublishedWeights, register
from .base import TwoStageDetector
from .two_stage import TwoStageOptions, assemble, box_rules, make_rpn, make_sampler


@dataclass(frozen=True)
class FPNOptions(TwoStageOptions):
    """Options of the two-stage detectors on a pyramid: one anchor size for each of P2 to P6.

    Attributes:
        train_proposals: in training; 0: those at test, or twice as many, by the conventions.
        width: channels of the pyramid and of the convolutions in the heads.
        fpn_norm: norm of the pyramid: None, "bn" or "gn".
        box_convs: 3x3 convolutions of the box head.
        box_fcs: fully connected layers of the box head.
        box_width: their size.
        head_norm: norm of the convolutions in box and mask head: None, "bn" or "gn".
    """

    train_proposals: int = 0
    width: int = 256
    fpn_norm: str | None = None
    box_convs: int = 0
    box_fcs: int = 2
    box_width: int = 1024
    head_norm: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {**_RANGES, "train_proposals": (0, 100_000)})


@dataclass(frozen=True)
class MaskOptions(FPNOptions):
    """Options of the detectors on a pyramid that cut objects out.

    Attributes:
        mask_reach: sides of the frame in which an object is cut out, times those of its box. Beyond
            1 the mask goes on where the box is too small, in cells that are as much wider.
    """

    mask_reach: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_within("mask_reach", self.mask_reach, 1, 3)


_RANGES = {"width": (1, 8192), "box_width": (1, 65536), "box_convs": (0, 64), "box_fcs": (1, 64)}
TINY = {
    "backbone": "resnet18",
    "width": 16,
    "box_width": 32,
    "anchor_sizes": (8, 16, 32, 64, 128),
    "proposals": 50,
    "rois": 32,
    "imgsz": 96,
}
# The small presets: narrow, with group norm (stable in small batches) and fewer proposals at test.
LITE = {"width": 128, "fpn_norm": "gn", "box_width": 512, "rois": 128, "imgsz": 640}
LITE |= {"proposals": 300, "train_proposals": 2000}
# The second version of torchvision (Li et al. 2021): norms everywhere, deeper heads.
V2 = {
    "norm": "bn",
    "fpn_norm": "bn",
    "head_norm": "bn",
    "rpn_convs": 2,
    "box_convs": 4,
    "box_fcs": 1,
}
# The backbones that a family offers by name; any other goes through the option `backbone`.
FAMILY: dict[str, dict[str, Any]] = {
    "resnet18_fpn": {"backbone": "resnet18"},
    "resnet34_fpn": {"backbone": "resnet34"},
    "resnet50_fpn": {"backbone": "resnet50"},
    "resnet50_fpn_v2": {"backbone": "resnet50", **V2},
    "resnet101_fpn": {"backbone": "resnet101"},
    "resnext101_32x4d_fpn": {"backbone": "resnext101_32x4d"},
    "resnext101_32x8d_fpn": {"backbone": "resnext101_32x8d"},
    "resnext101_64x4d_fpn": {"backbone": "resnext101_64x4d"},
    "lite0_fpn": {"backbone": "tf_efficientnet_lite0", **LITE},
    "mobilenet_v2_fpn": {"backbone": "mobilenetv2_100", **LITE},
}


def two_stage_fpn(
    num_classes: int,
    options: FPNOptions,
    mask_head: MaskHead | None = None,
    keypoint_head: KeypointHead | None = None,
    *,
    ious: Sequence[float] = (),
    mask_reach: float = 1.0,
) -> TwoStageDetector:
    """Assemble backbone, pyramid, RPN and heads.

    Args:
        num_classes: real classes.
        options: sizes and conventions.
        mask_head: cuts objects out, or None.
        keypoint_head: finds their keypoints, or None.
        ious: of a cascade of box heads, see `CascadeHeads`; (): a single one.
        mask_reach: see `RoIHeads`.
    """
    rules = get_conventions(options.conventions)
    backbone = rules.backbone(options.backbone, norm=options.norm)
    fpn = FPN(backbone.channels, backbone.strides, options.width, norm=options.fpn_norm)
    most = options.proposals
    kept = options.train_proposals or rules.kept_for_training * most
    make_box_head = partial(
        BoxHead,
        options.width,
        num_classes,
        convs=options.box_convs,
        fcs=options.box_fcs,
        width=options.box_width,
        norm=options.head_norm,
        **box_rules(options),
    )
    pooler = AlignPooler(backbone.strides, **rules.pooling)
    sampler = make_sampler(options.rois, options.ohem)
    parts: Any = {"pooler": pooler, "sampler": sampler, "mask_reach": mask_reach}
    heads: RoIHeads
    if ious:
        boxes = cascade_of(make_box_head, len(ious), options.box_loss_weight)
        heads = CascadeHeads(boxes, ious, mask_head, **parts)
    else:
        box_head = make_box_head(loss_weight=options.box_loss_weight)
        heads = RoIHeads(box_head, mask_head, keypoint_head, **parts)
    return assemble(
        num_classes,
        options,
        backbone=backbone,
        fpn=fpn,
        rpn=make_rpn(
            options,
            options.width,
            options.anchor_sizes,
            fpn.strides,
            pre_nms=(max(2 * most, kept), most),
            post_nms=(kept, most),
        ),
        roi_heads=heads,
    )


def register_fpn_family(
    detector: str,
    builder: Builder,
    *,
    options: type,
    task: str,
    paper: str,
    coco: Mapping[str, PublishedWeights],
    tiny: Mapping[str, Any] | None = None,
    small: Mapping[str, Any] | None = None,
    family: str = "",
) -> None:
    """Register a detector on a pyramid under one name per backbone.

    Args:
        detector: first part of the names.
        builder: see `registry.ModelEntry`.
        options: dataclass of its options.
        task: see `Detector`.
        paper: authors and year.
        coco: published weights by backbone and neck, as in `FAMILY`.
        tiny: options of the smallest instance beside those of `TINY`.
        small: options of the small presets beside those of `LITE`.
        family: see `registry.ModelEntry`.
    """
    for suffix, presets in FAMILY.items():
        if presets.items() >= LITE.items():
            presets = {**presets, **(small or {})}
        register(
            f"{detector}_{suffix}",
            options=options,
            task=task,
            paper=paper,
            tiny={**TINY, **(tiny or {})} if suffix == "resnet50_fpn" else None,
            weights={"coco": coco[suffix]} if suffix in coco else {},
            presets=presets,
            family=family,
        )(builder)


def torchvision_weights(
    name: str, digest: str, options: Mapping[str, Any] | None = None, **aps: float
) -> PublishedWeights:
    """Describe a COCO file of torchvision, whose name ends with the start of its SHA-256.

    Args:
        name: torchvision's name of the model.
        digest: start of the SHA-256.
        options: of the builder, that belong to the weights.
        **aps: published AP by kind: box, mask, keypoints.
    """
    return PublishedWeights(
        url=f"https://download.pytorch.org/models/{name}_coco-{digest}.pth",
        sha256=digest,
        format="torchvision",
        licence="BSD-3-Clause (torchvision); trained on COCO 2017",
        source="torchvision, COCO 2017 train",
        metrics={f"{kind}/AP": value for kind, value in aps.items()},
        options=options or {},
    )


def faster_rcnn(num_classes: int, options: FPNOptions) -> TwoStageDetector:
    """Build Faster R-CNN with a pyramid."""
    return two_stage_fpn(num_classes, options)


register_fpn_family(
    "faster_rcnn",
    faster_rcnn,
    options=FPNOptions,
    task="detect",
    paper="Ren et al. 2015",
    coco={
        "resnet50_fpn": torchvision_weights("fasterrcnn_resnet50_fpn", "258fb6c6", box=37.0),
        "resnet50_fpn_v2": torchvision_weights("fasterrcnn_resnet50_fpn_v2", "dd69338a", box=46.7),
    },
)
