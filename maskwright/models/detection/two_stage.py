"""What the two-stage detectors share, on a pyramid or on one map: options, RPN, assembly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...errors import OptionError
from ...nn.backbones.backbone import Backbone
from ...nn.detection.anchors import AnchorGenerator
from ...nn.detection.matchers import IoUMatcher
from ...nn.detection.roi_heads import RoIHeads
from ...nn.detection.rpn import RPN
from ...nn.detection.samplers import BalancedSampler, HardSampler
from ...nn.fpn import FPN
from ...structures import Resize
from ..conventions import Conventions, get_conventions
from ..options import check_pixels, check_ranges
from .base import TwoStageDetector


@dataclass(frozen=True)
class TwoStageOptions:
    """Options of all two-stage detectors.

    Attributes:
        backbone: one of our ResNets or any timm name.
        norm: batch norm of the backbone: "frozen", "affine" or "bn"; None: as fits the backbone.
        rpn_convs: 3x3 convolutions of the RPN.
        rpn_box_weight: factor of the box loss of the RPN.
        inside_anchors: anchors that cross the border of the image take no part in training.
        box_loss_weight: factor of the losses of the box head.
        rpn_beta: where the box loss of the RPN turns from square to linear; None: as the
            conventions have it.
        box_beta: the same for the box head.
        anchor_sizes: sides of the anchors, pixels of the network input.
        anchor_ratios: height over width of the anchors.
        proposals: of an image at test; for more than 100 objects at least 1,000, see `RPN.kept`.
        rois: sampled proposals of an image in training.
        ohem: sample those with the largest losses (Shrivastava et al. 2016), not random ones.
        imgsz: network input: long side, (short, long) or a factor as "1.25x"; None: 800, 1333.
        conventions: whose rules for resizing, anchors, RoIAlign and pasting: "maskwright",
            "torchvision", "torchvision_v1", "detectron2" or another of `CONVENTIONS`.
        pixel_mean: of red, green and blue, 0 to 255, where it is not that of the conventions.
        pixel_std: the deviation, alike.
    """

    backbone: str = "resnet50"
    norm: str | None = None
    rpn_convs: int = 1
    rpn_box_weight: float = 1.0
    inside_anchors: bool = False
    box_loss_weight: float = 1.0
    rpn_beta: float | None = None
    box_beta: float | None = None
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals: int = 1000
    rois: int = 512
    ohem: bool = False
    imgsz: int | tuple[int, int] | str | None = None
    conventions: str = "maskwright"
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES)
        check_pixels(self)
        for name in ("rpn_box_weight", "box_loss_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise OptionError(f"{name} must be above 0 and finite, got {getattr(self, name)!r}")
        for name in ("rpn_beta", "box_beta"):
            if not 0 <= (getattr(self, name) or 0) < math.inf:
                raise OptionError(
                    f"{name} must be at least 0 and finite, got {getattr(self, name)!r}"
                )


@dataclass(frozen=True)
class SingleMapOptions(TwoStageOptions):
    """Options of the two-stage detectors on one map, with the sizes of Ren et al. 2015.

    All anchor sizes stand at every cell of the map. Of the best 12,000 boxes in training and the
    best 6,000 at test (in proportion, for other numbers; see `make_single_rpn`) NMS leaves the
    proposals.

    Attributes:
        rpn_width: channels of the convolutions of the RPN.
        train_proposals: proposals of an image in training.
    """

    anchor_sizes: tuple[float, ...] = (128, 256, 512)
    proposals: int = 300
    rois: int = 128
    imgsz: int | tuple[int, int] | str | None = (600, 1000)
    rpn_width: int = 512
    train_proposals: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"rpn_width": (1, 8192), "train_proposals": (1, 100_000)})


# Sizes are bounded above as well: they may come from a file, and a billion layers is a fault of it.
_RANGES = {"proposals": (1, 100_000), "rois": (1, 100_000), "rpn_convs": (1, 64)}


def make_rpn(
    options: TwoStageOptions,
    channels: int,
    sizes: tuple[float | tuple[float, ...], ...],
    strides: tuple[int, ...],
    **sampling: Any,
) -> RPN:
    """Build the RPN.

    Args:
        options: of the detector.
        channels: of the maps that it runs on.
        sizes: sides of the anchors of each map.
        strides: strides of the maps.
        **sampling: arguments of `RPN` that say how many proposals are kept, and its width.
    """
    rules = get_conventions(options.conventions)
    return RPN(
        channels,
        AnchorGenerator(
            sizes,
            options.anchor_ratios,
            strides,
            rounded=rules.round_anchors,
            stride_from_maps=rules.stride_from_maps,
        ),
        convs=options.rpn_convs,
        min_side=rules.min_sides[0],
        matcher=IoUMatcher(0.7, 0.3, low_quality=True, least=rules.least_overlap),
        **rules.boxes,
        beta=rules.smooth_l1_beta if options.rpn_beta is None else options.rpn_beta,
        inside_only=options.inside_anchors,
        box_weight=options.rpn_box_weight,
        **sampling,
    )


def make_single_rpn(
    options: SingleMapOptions, channels: int, stride: int, *, before_nms: int | None = None
) -> RPN:
    """Build the RPN of a detector on one map; see `make_rpn`.

    Args:
        options: of the detector.
        channels: of the map.
        stride: of the map.
        before_nms: boxes that NMS sees in training, per proposal that it may leave; None: as the
            conventions have it.
    """
    training, test = get_conventions(options.conventions).before_nms
    return make_rpn(
        options,
        channels,
        (tuple(options.anchor_sizes),),
        (stride,),
        width=options.rpn_width,
        pre_nms=(
            (before_nms or training) * options.train_proposals,
            test * options.proposals,
        ),
        post_nms=(options.train_proposals, options.proposals),
    )


def box_rules(options: TwoStageOptions) -> dict[str, Any]:
    """Return what the conventions say of boxes: arguments of `BoxBranch`."""
    rules = get_conventions(options.conventions)
    beta = rules.smooth_l1_beta if options.box_beta is None else options.box_beta
    return {"beta": beta, "min_side": rules.min_sides[1], **rules.boxes}


def make_sampler(rois: int, ohem: bool) -> BalancedSampler | HardSampler:
    """Build what picks the proposals of the losses: so many at random, or the hardest."""
    return HardSampler(rois) if ohem else BalancedSampler(rois, 0.25)


def make_resize(options: TwoStageOptions) -> Resize:
    """Return how a photo becomes network input."""
    return get_conventions(options.conventions).resize.to(options.imgsz)


def assemble(
    num_classes: int,
    options: TwoStageOptions,
    *,
    backbone: Backbone,
    fpn: FPN | None,
    rpn: RPN,
    roi_heads: RoIHeads,
) -> TwoStageDetector:
    """Put the parts of a detector together; see `TwoStageDetector`."""
    rules: Conventions = get_conventions(options.conventions)
    detector = TwoStageDetector(
        num_classes,
        backbone=backbone,
        fpn=fpn,
        rpn=rpn,
        roi_heads=roi_heads,
        **rules.pixels(backbone, options.pixel_mean, options.pixel_std),
        resize=make_resize(options),
        paste_mode=rules.paste_mode,
    )
    if fpn is None:
        detector.size_divisor = rules.divisor
    return detector
