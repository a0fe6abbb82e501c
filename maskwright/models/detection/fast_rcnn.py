"""Fast R-CNN (Girshick 2015): RoIPool on one map, regions from outside, one network, two losses.

As published: 2 images of 64 regions a step, a quarter of them objects (IoU from 0.5), background
that overlaps an object by 0.1 to 0.5, smooth L1 on the deltas of the region's class, one or several
image scales, and truncated SVD of the fully connected layers (`nn.svd`). Differences: the deltas
are scaled by fixed factors instead of the variance in the data; the bias has the learning rate of
the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ...errors import OptionError
from ...nn.backbones.backbone import Backbone
from ...nn.detection.box_head import BoxHead
from ...nn.detection.matchers import IoUMatcher
from ...nn.detection.poolers import MapPooler
from ...nn.detection.roi_heads import RoIHeads
from ...structures import Resize
from ..options import check_dropout, check_ranges
from ..registry import Builder, register
from .regions import ProposalDetector
from .two_stage import make_sampler

AnyDetector = TypeVar("AnyDetector", bound=ProposalDetector)


@dataclass(frozen=True)
class RegionOptions:
    """Options of the detectors whose regions come from outside.

    Attributes:
        backbone: one of our ResNets or any timm name.
        norm: batch norm of the backbone: "frozen", "affine" or "bn"; None: as fits the backbone.
        stride: the map that regions are pooled from, by its stride: 4, 8, 16 or 32.
        box_fcs: fully connected layers of the head.
        box_width: their size.
        dropout: share of their units that are dropped in training; 0.5 where they are those of
            AlexNet or VGG-16.
        source: where regions come from: selective_search, selective_search:quality, edge_boxes,
            edge_boxes:MODEL_FILE, sliding_window, sliding_window:COUNT, or a file of proposals
            (.json, .npz); {split} in its path stands for the split.
        proposals: most regions of an image, in training and at test.
        svd: ranks of the first fully connected layers, as `maskwright compress` sets them after
            training (truncated SVD); (): whole layers.
        rois: sampled regions of an image in training.
        ohem: sample those with the largest losses (Shrivastava et al. 2016), not random ones;
            background may then overlap no object at all.
        imgsz: network input: long side, (short, long) or a factor as "1.25x"; None: 600, 1000.
    """

    backbone: str = "vgg16"
    norm: str | None = None
    stride: int = 16
    box_fcs: int = 2
    box_width: int = 4096
    dropout: float = 0.0
    svd: tuple[int, ...] = ()
    source: str = "selective_search"
    proposals: int = 2000
    rois: int = 64
    ohem: bool = False
    imgsz: int | tuple[int, int] | str | None = None

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES)
        check_dropout(self.dropout)
        object.__setattr__(self, "svd", tuple(self.svd))  # plain data has lists
        if self.stride not in (4, 8, 16, 32):
            raise OptionError(f"stride must be 4, 8, 16 or 32, got {self.stride!r}")

    def resize(self) -> Resize:
        """Return the rule for the network input."""
        return Resize(600, 1000) if self.imgsz is None else Resize.parse(self.imgsz)


@dataclass(frozen=True)
class MapOptions(RegionOptions):
    """Options of those that pool regions from maps of the whole image, at one or several scales.

    Attributes:
        scales: short sides of the images of a pyramid, in place of `imgsz`: each region is pooled
            where it is nearest to 224 x 224; published are 480,576,688,864,1200. (): one scale.
    """

    # Given, the first takes the place of a preset of the second.
    REPLACES: ClassVar[dict[str, str]] = {"scales": "imgsz"}

    scales: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scales", tuple(self.scales))
        if not all(isinstance(side, int) and 16 <= side <= 8192 for side in self.scales):
            raise OptionError(f"scales must be whole numbers from 16 to 8192, got {self.scales}")
        if self.scales and self.imgsz is not None:
            raise OptionError("scales and imgsz both give the size of the input: leave one out")

    def resize(self) -> Resize:
        """Return the rule for the network input: the largest scale, or `imgsz`."""
        if self.scales:
            # As in the published code, the long side may be 2000 where the short one is 1200.
            return Resize(max(self.scales), max(self.scales) * 5 // 3)
        return super().resize()


_RANGES = {
    "box_fcs": (1, 64),
    "box_width": (1, 65536),
    "proposals": (1, 100_000),
    "rois": (1, 100_000),
}


@dataclass(frozen=True)
class FastRCNNOptions(MapOptions):
    """Options of Fast R-CNN.

    Attributes:
        pooling: "pool" (RoIPool, as published) or "align" (RoIAlign).
        pool: bins along each side of a region.
        beta: where the box loss turns from square to linear.
        box_loss_weight: factor of the box loss beside that of the class (lambda).
        background: smallest IoU with an object that background has in training; 0: none.
    """

    pooling: str = "pool"
    pool: int = 7
    beta: float = 1.0
    box_loss_weight: float = 1.0
    background: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"pool": (1, 64)})
        for name in ("beta", "box_loss_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise OptionError(f"{name} must be above 0, got {getattr(self, name)!r}")
        if not 0 <= self.background <= 0.5:
            raise OptionError(f"background must lie between 0 and 0.5, got {self.background!r}")


# The backbones that a detector of the lineage offers by name, with sizes that fit them.
FAMILY: dict[str, dict[str, Any]] = {
    "vgg16": {"backbone": "vgg16", "dropout": 0.5},
    "resnet18": {"backbone": "resnet18", "box_width": 1024},
    "resnet50": {"backbone": "resnet50", "box_width": 1024},
    "lite0": {"backbone": "tf_efficientnet_lite0", "box_width": 512, "imgsz": 640},
}
TINY: dict[str, Any] = {
    "backbone": "test_efficientnet",
    "box_width": 32,
    "proposals": 50,
    "rois": 4,
    "imgsz": 96,
}


def assemble_regions(
    kind: Callable[..., AnyDetector],
    num_classes: int,
    options: RegionOptions,
    *,
    backbone: Backbone,
    roi_heads: RoIHeads,
    **more: Any,
) -> AnyDetector:
    """Put the parts of a detector with regions from outside together.

    Args:
        kind: its class.
        num_classes: real classes.
        options: of the detector.
        backbone: see `ProposalDetector`.
        roi_heads: see `ProposalDetector`.
        **more: what this class takes beside them.
    """
    return kind(
        num_classes,
        backbone=backbone,
        roi_heads=roi_heads,
        proposal_source=options.source,
        max_proposals=options.proposals,
        mean=backbone.mean,
        std=backbone.std,
        resize=options.resize(),
        **more,
    )


def register_family(
    detector: str,
    builder: Builder,
    *,
    options: type,
    paper: str,
    family: Mapping[str, Mapping[str, Any]] = FAMILY,
    tiny: Mapping[str, Any] = TINY,
) -> None:
    """Register a detector under one name per backbone; the first has the tiny instance.

    Args:
        detector: first part of the names.
        builder: see `registry.ModelEntry`.
        options: dataclass of its options.
        paper: authors and year.
        family: options by the last part of the name.
        tiny: options of the smallest instance.
    """
    for number, (suffix, presets) in enumerate(family.items()):
        register(
            f"{detector}_{suffix}",
            options=options,
            task="detect",
            paper=paper,
            tiny=None if number else tiny,
            presets=presets,
        )(builder)


def fast_rcnn(num_classes: int, options: FastRCNNOptions) -> ProposalDetector:
    """Build Fast R-CNN."""
    backbone = Backbone(options.backbone, norm=options.norm, strides=(options.stride,))
    head = BoxHead(
        backbone.channels[0],
        num_classes,
        pool=options.pool,
        fcs=options.box_fcs,
        width=options.box_width,
        dropout=options.dropout,
        beta=options.beta,
        box_weight=options.box_loss_weight,
        ranks=options.svd,
    )
    roi_heads = RoIHeads(
        head,
        pooler=MapPooler(options.stride, kind=options.pooling, scales=options.scales or (1,)),
        matcher=IoUMatcher(0.5, 0.5, floor=0 if options.ohem else options.background),
        sampler=make_sampler(options.rois, options.ohem),
    )
    return assemble_regions(
        ProposalDetector,
        num_classes,
        options,
        backbone=backbone,
        roi_heads=roi_heads,
        scales=options.scales,
    )


register_family("fast_rcnn", fast_rcnn, options=FastRCNNOptions, paper="Girshick 2015")
